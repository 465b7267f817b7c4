/*
 * fixture - the real embedded adapters in a fresh folder, a chat in the history, and what the tests of the roles do
 * with them: accept a message, publish and watch queues, read a turn.  Include after <cmocka.h> and what that needs.
 */
#ifndef TESTS_UNIT_ROLE_FIXTURE_H
#define TESTS_UNIT_ROLE_FIXTURE_H

#include "adapter/memory/registry.h"
#include "adapter/sqlite/catalogue.h"
#include "adapter/sqlite/history.h"
#include "adapter/sqlite/queue.h"
#include "adapter/stub/engine.h"
#include "domain/notes.h"
#include "role/common/keyring.h"
#include "role/common/role.h"
#include "tests/contract/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEEN_MAX 512
#define FIXTURE __attribute__((unused)) /* not every test uses all of it */

/* A message that came out of a watched queue. */
struct seen {
    struct envelope env; /* sealed: owned */
    char *queue;
};

struct fixture {
    struct loop *loop;
    struct role_env env;
    struct config *config;
    struct seal_master *master;
    struct seal_key key;
    struct uuid user, chat, head;
    uint64_t index;
    struct seen seen[SEEN_MAX];
    size_t seen_n;
    bool hold; /* watched messages are left unsettled */
    struct queue_consumer *watches[16];
    size_t watches_n;
    struct history_accepted accepted;
    uint64_t appended; /* the change of the row that append() wrote last */
};

FIXTURE static struct uuid fresh_uuid(void)
{
    uint8_t random[10];

    seal_random(random, sizeof random);
    return uuid_v7(wall_ms(), random);
}

static const char *const card_json =
    "{\"spec\":\"chara_card_v2\",\"spec_version\":\"2.0\",\"data\":{\"name\":\"Ada\",\"description\":\"A poet.\","
    "\"personality\":\"\",\"scenario\":\"\",\"first_mes\":\"Hello.\",\"mes_example\":\"\"}}";

struct wait_key {
    struct wait w;
};

FIXTURE static void on_key_put(void *ctx, enum tr_rc rc, bool mine, struct slice wrapped, const struct tr_err *err)
{
    struct wait_key *k = ctx;

    (void)mine, (void)wrapped;
    wait_called(&k->w, rc, err);
}

FIXTURE static void on_chat_made(void *ctx, enum tr_rc rc, const struct history_chat *chat, bool mine,
                                 const struct tr_err *err)
{
    struct wait_key *k = ctx;

    (void)chat, (void)mine;
    wait_called(&k->w, rc, err);
}

/* Text sealed for the history. */
FIXTURE static void seal_row(struct fixture *f, struct turn_row *row, const char *text, struct buf *out)
{
    const struct seal_bind bind = {.kind = SEAL_HISTORY,
                                   .chat = row->chat,
                                   .turn = row->turn,
                                   .part = row->part,
                                   .rev = row->rev,
                                   .role = (uint8_t)row->speaker};

    assert_int_equal(seal_data(&f->key, &bind, text, strlen(text), out), TR_OK);
    row->sealed = out->data;
    row->sealed_len = out->len;
}

/* keyless: its data key is made and nowhere to be found. */
FIXTURE static void make_chat_of(struct fixture *f, bool keyless)
{
    struct wait_key k = {.w = {.loop = f->loop}};
    struct history *h = f->env.history;
    struct history_chat chat = {.created_ms = wall_ms(), .updated_ms = wall_ms()};
    struct turn_row greeting = {.part = PART_FIRST_VARIANT,
                                .speaker = SPEAKER_CHARACTER,
                                .created_ms = wall_ms(),
                                .finish = FINISH_STOP,
                                .character = "ada",
                                .attempt = 1};
    struct buf wrapped = {0}, sealed = {0};
    char id[UUID_TEXT];

    f->user = fresh_uuid();
    f->chat = fresh_uuid();
    f->head = fresh_uuid();
    f->index = 0;
    uuid_format(&f->chat, id);
    seal_key_new(wall_ms(), &f->key);
    assert_int_equal(seal_wrap(f->master, &f->key, SEAL_OWNER_CHAT, id, &wrapped), TR_OK);
    if (!keyless)
        assert_int_equal(
            wait_end(&k.w, h->ops->key_put(h, SEAL_OWNER_CHAT, id, (struct slice){wrapped.data, wrapped.len},
                                           on_key_put, &k, &k.w.op, &k.w.err)),
            TR_OK);
    chat.chat = greeting.chat = f->chat;
    chat.user = greeting.user = f->user;
    strcpy(chat.character, "ada");
    chat.head = greeting.turn = f->head;
    seal_row(f, &greeting, "Hello.", &sealed);
    k = (struct wait_key){.w = {.loop = f->loop}};
    assert_int_equal(
        wait_end(&k.w, h->ops->chat_create(h, &chat, NULL, &greeting, 1, on_chat_made, &k, &k.w.op, &k.w.err)), TR_OK);
    buf_release(&wrapped);
    buf_release(&sealed);
}

FIXTURE static void declare(struct fixture *f, const char *name, enum queue_kind kind)
{
    struct wait w = {.loop = f->loop};
    struct queue *q = f->env.queue;
    const struct queue_spec spec = {.name = name, .kind = kind};

    assert_int_equal(wait_end(&w, q->ops->declare(q, &spec, wait_done, &w, &w.op, &w.err)), TR_OK);
}

FIXTURE static void declare_notify(struct fixture *f)
{
    struct queue *q = f->env.queue;

    for (unsigned i = 0; i < NOTIFY_PARTITIONS; i++) {
        struct wait w = {.loop = f->loop};
        const struct queue_spec spec = {.name = topic_notify_number(i), .kind = QUEUE_DURABLE, .single_active = true};

        assert_int_equal(wait_end(&w, q->ops->declare(q, &spec, wait_done, &w, &w.op, &w.err)), TR_OK);
    }
}

FIXTURE static void setup_env(struct fixture *f)
{
    static int counter;
    char name[64];
    char *path;
    struct buf text = {0};
    struct wait w;
    struct catalogue_character ch = {.id = "ada", .name = "Ada", .tagline = "", .avatar_type = "", .updated_ms = 1};

    memset(f, 0, sizeof *f);
    assert_int_equal(seal_init(NULL), TR_OK);
    assert_int_equal(loop_new(&f->loop, NULL), TR_OK);
    assert_int_equal(config_load("/nonexistent/.env", &f->config, NULL), TR_OK);
    counter++;
    snprintf(name, sizeof name, "queue%d.db", counter);
    path = support_path(name);
    assert_int_equal(sqlite_queue_open(f->loop, path, &f->env.queue, NULL), TR_OK);
    free(path);
    snprintf(name, sizeof name, "history%d.db", counter);
    path = support_path(name);
    assert_int_equal(sqlite_history_open(f->loop, path, &f->env.history, NULL), TR_OK);
    free(path);
    snprintf(name, sizeof name, "catalogue%d.db", counter);
    path = support_path(name);
    assert_int_equal(sqlite_catalogue_open(f->loop, path, &f->env.catalogue, NULL), TR_OK);
    free(path);
    assert_int_equal(memory_registry_open(f->loop, &f->env.registry, NULL), TR_OK);
    assert_int_equal(seal_master_generate(&text), TR_OK);
    assert_int_equal(seal_master_parse((const char *)text.data, text.len, &f->master, NULL), TR_OK);
    buf_wipe(&text);
    assert_int_equal(keyring_new(f->loop, f->env.history, f->master, &f->env.keyring, NULL), TR_OK);
    f->env.loop = f->loop;
    f->env.master = f->master;
    f->env.config = f->config;
    f->env.instance = "test1";
    ch.card = (struct slice){(const uint8_t *)card_json, strlen(card_json)};
    w = (struct wait){.loop = f->loop};
    assert_int_equal(
        wait_end(&w, f->env.catalogue->ops->character_put(f->env.catalogue, &ch, true, wait_done, &w, &w.op, &w.err)),
        TR_OK);
    declare(f, TOPIC_INCOMING, QUEUE_DURABLE);
    declare_notify(f);
    make_chat_of(f, false);
}

FIXTURE static void teardown_env(struct fixture *f)
{
    struct queue *q = f->env.queue;

    for (size_t i = 0; i < f->watches_n; i++)
        q->ops->consumer_stop(q, f->watches[i]);
    for (size_t i = 0; i < f->seen_n; i++) {
        uint8_t *sealed;

        memcpy(&sealed, &f->seen[i].env.sealed.data, sizeof sealed);
        free(sealed);
        free(f->seen[i].queue);
    }
    support_for(f->loop, 20);
    q->ops->close(q);
    f->env.registry->ops->close(f->env.registry);
    f->env.catalogue->ops->close(f->env.catalogue);
    keyring_free(f->env.keyring);
    f->env.history->ops->close(f->env.history);
    loop_drain(f->loop);
    seal_master_free(f->master);
    config_free(f->config);
    loop_free(f->loop);
}

FIXTURE static void on_seen(void *ctx, const struct queue_incoming *msg)
{
    struct fixture *f = ctx;
    struct seen *s = &f->seen[f->seen_n];
    uint8_t *copy;

    assert_true(f->seen_n < SEEN_MAX);
    assert_int_equal(envelope_decode(msg->body.data, msg->body.len, &s->env, NULL), TR_OK);
    copy = malloc(s->env.sealed.len + 1);
    assert_non_null(copy);
    if (s->env.sealed.len > 0)
        memcpy(copy, s->env.sealed.data, s->env.sealed.len);
    s->env.sealed.data = copy;
    s->queue = strdup(msg->queue);
    f->seen_n++;
    if (msg->delivery != NULL && !f->hold)
        f->env.queue->ops->ack(f->env.queue, msg->delivery);
}

FIXTURE static void watch(struct fixture *f, const char *queue)
{
    assert_int_equal(
        f->env.queue->ops->consume(f->env.queue, queue, 0, on_seen, NULL, f, &f->watches[f->watches_n++], NULL), TR_OK);
}

FIXTURE static void publish(struct fixture *f, const char *queue, const struct envelope *env, bool transient)
{
    struct wait w = {.loop = f->loop};
    struct buf body = {0};
    struct queue_message msg = {.queue = queue, .transient = transient};

    assert_int_equal(envelope_encode(env, &body), TR_OK);
    msg.body = (struct slice){body.data, body.len};
    assert_int_equal(wait_end(&w, f->env.queue->ops->publish(f->env.queue, &msg, wait_done, &w, &w.op, &w.err)), TR_OK);
    buf_release(&body);
}

FIXTURE static void publish_bytes(struct fixture *f, const char *queue, const char *bytes)
{
    struct wait w = {.loop = f->loop};
    const struct queue_message msg = {.queue = queue, .body = {(const uint8_t *)bytes, strlen(bytes)}};

    assert_int_equal(wait_end(&w, f->env.queue->ops->publish(f->env.queue, &msg, wait_done, &w, &w.op, &w.err)), TR_OK);
}

FIXTURE static void on_fixture_accepted(void *ctx, enum tr_rc rc, const struct history_accepted *res,
                                        const struct tr_err *err)
{
    struct wait_key *k = ctx;

    (void)res;
    wait_called(&k->w, rc, err);
}

/* Accept a message: in the history, the call to work in *ret_work (without sealed text). */
FIXTURE static void accept(struct fixture *f, const char *text, struct envelope *ret_work)
{
    static unsigned counter;
    struct wait_key k = {.w = {.loop = f->loop}};
    struct history *h = f->env.history;
    struct history_accept a = {.head = f->head};
    struct turn_row *row = &a.row;
    struct buf sealed = {0};
    uint8_t random[10];

    seal_random(random, sizeof random);
    counter++;
    memcpy(a.client_hash, &counter, sizeof counter);
    *row = (struct turn_row){.chat = f->chat,
                             .speaker = SPEAKER_USER,
                             .user = f->user,
                             .created_ms = wall_ms(),
                             .predecessor = f->head,
                             .index = f->index + 1,
                             .character = "ada"};
    row->turn = uuid_v7_after(&f->head, wall_ms(), random);
    seal_row(f, row, text, &sealed);
    assert_int_equal(wait_end(&k.w, h->ops->accept(h, &a, on_fixture_accepted, &k, &k.w.op, &k.w.err)), TR_OK);
    *ret_work = (struct envelope){.kind = ENVELOPE_WORK,
                                  .chat = f->chat,
                                  .turn = row->turn,
                                  .predecessor = f->head,
                                  .user = f->user,
                                  .index = row->index,
                                  .created_ms = row->created_ms,
                                  .character = "ada",
                                  .trace = "0123456789abcdef"};
    f->head = row->turn;
    f->index = row->index;
    buf_release(&sealed);
}

struct wait_append {
    struct wait w;
    bool mine;
    uint64_t change;
};

FIXTURE static void on_fixture_appended(void *ctx, enum tr_rc rc, bool mine, uint64_t change,
                                        const struct turn_row *standing, const struct tr_err *err)
{
    struct wait_append *a = ctx;

    (void)standing;
    a->mine = mine;
    a->change = change;
    wait_called(&a->w, rc, err);
}

FIXTURE static void append(struct fixture *f, const struct turn_row *row)
{
    struct wait_append a = {.w = {.loop = f->loop}};
    struct history *h = f->env.history;

    assert_int_equal(wait_end(&a.w, h->ops->append(h, row, 1, on_fixture_appended, &a, &a.w.op, &a.w.err)), TR_OK);
    assert_true(a.mine);
    f->appended = a.change;
}

FIXTURE static void append_event(struct fixture *f, const struct uuid *turn, enum turn_event event, int32_t variant,
                                 int32_t rev)
{
    const struct turn_row row = {.chat = f->chat,
                                 .turn = *turn,
                                 .part = PART_STATE,
                                 .rev = rev,
                                 .speaker = SPEAKER_USER,
                                 .user = f->user,
                                 .created_ms = wall_ms(),
                                 .event = event,
                                 .variant = variant,
                                 .character = "ada"};

    append(f, &row);
}

/* A turn, as far as the tests look at it. */
struct turn_seen {
    struct wait w;
    struct fixture *f;
    int variants, notes;
    bool deleted;
    enum finish finish; /* of variant 0 */
    char code[24];
    char text[512]; /* of variant 0 */
};

FIXTURE static void on_turn_seen(void *ctx, enum tr_rc rc, const struct turn_row *rows, size_t n, bool more,
                                 const struct tr_err *err)
{
    struct turn_seen *s = ctx;
    struct turn_view view;

    (void)more;
    if (rc == TR_OK) {
        turn_fold(rows, n, &view);
        s->variants = view.variants;
        s->deleted = view.deleted;
        s->notes = view.notes != NULL;
        if (view.variants > 0 && view.variant[0]->sealed_len > 0) {
            const struct turn_row *row = view.variant[0];
            const struct seal_bind bind = {.kind = SEAL_HISTORY,
                                           .chat = row->chat,
                                           .turn = row->turn,
                                           .part = row->part,
                                           .role = SPEAKER_CHARACTER};
            struct buf plain = {0};

            assert_int_equal(seal_open(&s->f->key, &bind, row->sealed, row->sealed_len, &plain, NULL), TR_OK);
            snprintf(s->text, sizeof s->text, "%s", buf_str(&plain));
            s->finish = row->finish;
            memcpy(s->code, row->code, sizeof s->code);
            buf_release(&plain);
        }
    }
    wait_called(&s->w, rc, err);
}

FIXTURE static struct turn_seen read_turn(struct fixture *f, const struct uuid *turn)
{
    struct turn_seen s = {.w = {.loop = f->loop}, .f = f};
    struct history *h = f->env.history;

    assert_int_equal(wait_end(&s.w, h->ops->turn_get(h, &f->chat, turn, on_turn_seen, &s, &s.w.op, &s.w.err)), TR_OK);
    return s;
}

/* The n-th (from 0) seen message of a kind about a turn (nil: any); NULL: there is none. */
FIXTURE static const struct seen *find_seen(const struct fixture *f, enum envelope_kind kind, const struct uuid *turn,
                                            size_t nth)
{
    for (size_t i = 0; i < f->seen_n; i++)
        if (f->seen[i].env.kind == kind && (turn == NULL || uuid_eq(&f->seen[i].env.turn, turn)) && nth-- == 0)
            return &f->seen[i];
    return NULL;
}

FIXTURE static size_t count_seen(const struct fixture *f, enum envelope_kind kind, const struct uuid *turn)
{
    size_t n = 0;

    while (find_seen(f, kind, turn, n) != NULL)
        n++;
    return n;
}

struct expected {
    struct fixture *f;
    enum envelope_kind kind;
    const struct uuid *turn;
    size_t n;
};

FIXTURE static bool is_seen(void *ctx)
{
    const struct expected *e = ctx;

    return count_seen(e->f, e->kind, e->turn) >= e->n;
}

/* Run until the n-th message of the kind has come. */
FIXTURE static const struct seen *await_seen(struct fixture *f, enum envelope_kind kind, const struct uuid *turn,
                                             size_t n)
{
    struct expected e = {f, kind, turn, n};

    assert_true(support_until(f->loop, is_seen, &e, SUPPORT_LIMIT_MS));
    return find_seen(f, kind, turn, n - 1);
}

/* What a sealed message says; static storage. */
FIXTURE static const char *open_seen(struct fixture *f, const struct seen *s, enum seal_kind kind)
{
    static char text[1024];
    const bool work = s->env.kind == ENVELOPE_WORK;
    const struct seal_bind bind = {.kind = kind,
                                   .chat = s->env.chat,
                                   .turn = s->env.turn,
                                   .part = work ? PART_USER : s->env.variant + PART_FIRST_VARIANT,
                                   .rev = work ? s->env.rev : 0,
                                   .role = work ? SPEAKER_USER : SPEAKER_CHARACTER};
    struct buf plain = {0};

    assert_int_equal(seal_open(&f->key, &bind, s->env.sealed.data, s->env.sealed.len, &plain, NULL), TR_OK);
    snprintf(text, sizeof text, "%s", buf_str(&plain));
    buf_release(&plain);
    return text;
}

struct wait_length {
    struct wait w;
    uint64_t length;
};

FIXTURE static void on_length(void *ctx, enum tr_rc rc, uint64_t length, const struct tr_err *err)
{
    struct wait_length *l = ctx;

    l->length = length;
    wait_called(&l->w, rc, err);
}

FIXTURE static uint64_t queue_length_of(struct fixture *f, const char *name)
{
    struct wait_length l = {.w = {.loop = f->loop}};
    struct queue *q = f->env.queue;

    assert_int_equal(wait_end(&l.w, q->ops->length(q, name, on_length, &l, &l.w.op, &l.w.err)), TR_OK);
    return l.length;
}

/* How often each way of settling was used: a spy around the broker. */
static const struct queue_ops *settle_inner;
static size_t settle_acks, settle_retries, settle_dead;
static bool settle_counted;

FIXTURE static void spy_ack(struct queue *q, struct queue_delivery *d)
{
    settle_acks++;
    settle_inner->ack(q, d);
}

FIXTURE static void spy_retry(struct queue *q, struct queue_delivery *d, bool counted, uint64_t delay_ms,
                              const char *cause)
{
    settle_retries++;
    settle_counted = counted;
    settle_inner->retry(q, d, counted, delay_ms > 20 ? 20 : delay_ms, cause); /* tests do not wait for the pauses */
}

FIXTURE static void spy_dead_letter(struct queue *q, struct queue_delivery *d, const char *cause)
{
    settle_dead++;
    settle_inner->dead_letter(q, d, cause);
}

FIXTURE static void spy_on_queue(struct fixture *f)
{
    static struct queue_ops ops;

    settle_inner = f->env.queue->ops;
    ops = *settle_inner;
    ops.ack = spy_ack;
    ops.retry = spy_retry;
    ops.dead_letter = spy_dead_letter;
    f->env.queue->ops = &ops;
    settle_acks = settle_retries = settle_dead = 0;
}

#endif
