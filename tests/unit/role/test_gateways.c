/*
 * gateways - several gateways and a real notifier between them and the broker: a chat that is open on both, a registry
 * that loses its records, a gateway that dies (contract 8, 11.5).  Over the real embedded adapters.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/log.h"
#include "role/chat/desk_impl.h"
#include "role/notifier/notifier.h"
#include "tests/unit/role/front.h"

#define TTL_MS 900
#define GATEWAY_ONE "gateway.test1"
#define GATEWAY_TWO "gateway.test2"

static struct notifier *notifier;
static struct uuid first_turn; /* the newest that was accepted */

/* --- spies: a connection record that is late, a registry that is down, what is read meanwhile --- */

static const struct registry_ops *registry_inner;
static const struct history_ops *history_inner;
static bool registry_down;
static size_t refreshes_failed;
static uint64_t put_delay_ms;
static size_t puts_late, puts_waited; /* asked for and not answered yet; all */
static size_t reads, reads_early;

struct late {
    registry_done *done;
    void *ctx;
    struct loop_timer *timer;
    enum tr_rc rc;
};

static void on_late(void *ctx)
{
    struct late *l = ctx;

    timer_stop(l->timer);
    puts_late--;
    l->done(l->ctx, l->rc, NULL);
    free(l);
}

static void on_put(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    struct late *l = ctx;

    (void)err;
    l->rc = rc;
    assert_int_equal(timer_start(fx.loop, put_delay_ms, 0, on_late, l, &l->timer), TR_OK);
}

static enum tr_rc spy_conn_put(struct registry *r, const struct uuid *chat, const char *gateway, uint64_t ttl_ms,
                               registry_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    struct late *l;

    if (registry_down)
        return tr_fail(err, TR_TRANSIENT, "down");
    puts_waited++;
    if (put_delay_ms == 0)
        return registry_inner->conn_put(r, chat, gateway, ttl_ms, done, ctx, ret_op, err);
    l = calloc(1, sizeof *l);
    assert_non_null(l);
    l->done = done;
    l->ctx = ctx;
    puts_late++;
    return registry_inner->conn_put(r, chat, gateway, ttl_ms, on_put, l, ret_op, err);
}

static enum tr_rc spy_conn_renew(struct registry *r, const struct uuid *chat, const char *gateway, uint64_t ttl_ms,
                                 registry_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    if (registry_down)
        return tr_fail(err, TR_TRANSIENT, "down");
    return registry_inner->conn_renew(r, chat, gateway, ttl_ms, done, ctx, ret_op, err);
}

static enum tr_rc spy_gateway_refresh(struct registry *r, const char *gateway, uint64_t ttl_ms, registry_done *done,
                                      void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    if (registry_down) {
        refreshes_failed++;
        return tr_fail(err, TR_TRANSIENT, "down");
    }
    return registry_inner->gateway_refresh(r, gateway, ttl_ms, done, ctx, ret_op, err);
}

static enum tr_rc spy_turns(struct history *h, const struct uuid *chat, const struct history_range *range,
                            history_rows_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    reads++;
    reads_early += puts_late > 0;
    return history_inner->turns(h, chat, range, done, ctx, ret_op, err);
}

static enum tr_rc spy_changed(struct history *h, const struct uuid *chat, uint64_t since, uint32_t limit,
                              history_rows_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    reads++;
    reads_early += puts_late > 0;
    return history_inner->changed(h, chat, since, limit, done, ctx, ret_op, err);
}

static void spy(void)
{
    static struct registry_ops registry_ops;
    static struct history_ops history_ops;

    registry_inner = fx.env.registry->ops;
    registry_ops = *registry_inner;
    registry_ops.conn_put = spy_conn_put;
    registry_ops.conn_renew = spy_conn_renew;
    registry_ops.gateway_refresh = spy_gateway_refresh;
    fx.env.registry->ops = &registry_ops;
    history_inner = fx.env.history->ops;
    history_ops = *history_inner;
    history_ops.turns = spy_turns;
    history_ops.changed = spy_changed;
    fx.env.history->ops = &history_ops;
    registry_down = false;
    put_delay_ms = 0;
    reads = reads_early = puts_late = puts_waited = 0;
}

/* --- two gateways and a notifier --- */

static void on_started(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    wait_called(ctx, rc, err);
}

static int setup_two(void **state)
{
    struct role_env env;
    struct wait w = {0};
    size_t started = 0;

    setenv("TROUPE_WORKER_TTL_MS", "900", 1);
    setup(state);
    unsetenv("TROUPE_WORKER_TTL_MS");
    spy();
    env = fx.env;
    env.instance = "test2";
    assert_int_equal(desk_start(&env, &events, on_desk_started, &started, &second, NULL), TR_OK);
    support_count(fx.loop, &started, 1);
    w.loop = fx.loop;
    assert_int_equal(wait_end(&w, notifier_start(&fx.env, on_started, &w, &notifier, &w.err)), TR_OK);
    return 0;
}

static int teardown_two(void **state)
{
    notifier_free(notifier);
    notifier = NULL;
    return teardown(state);
}

static void open_at(struct desk *at, struct view *w, const struct uuid *after, struct answer *ret_answer)
{
    struct desk *const kept = desk;

    view_init(w);
    w->second = at == second;
    desk = at;
    *ret_answer = open_chat(w, after);
    desk = kept;
}

struct holders {
    struct wait w;
    size_t n;
};

static void on_holders(void *ctx, enum tr_rc rc, const char *const *names, size_t n, const struct tr_err *err)
{
    struct holders *h = ctx;

    (void)names;
    h->n = rc == TR_OK ? n : 0;
    wait_called(&h->w, rc == TR_NOT_FOUND ? TR_OK : rc, err);
}

/* How many gateways are said to hold the chat's connections. */
static size_t holders(void)
{
    struct holders h = {.w = {.loop = fx.loop}};
    struct registry *r = fx.env.registry;

    assert_int_equal(wait_end(&h.w, r->ops->conns(r, &fx.chat, on_holders, &h, &h.w.op, &h.w.err)), TR_OK);
    return h.n;
}

/* Long before the half minute in which all are put once. */
static void both_hold_it(void)
{
    const uint64_t began = loop_now_ms(fx.loop);

    while (holders() < 2)
        assert_true(loop_now_ms(fx.loop) - began < 8000);
}

static bool has_text(void *ctx)
{
    return ((struct view *)ctx)->log[0] != '\0';
}

static void told(struct view *w, const char *want)
{
    assert_true(support_until(fx.loop, has_text, w, SUPPORT_LIMIT_MS));
    expect_log(w, want);
}

/* Both have the chat open; a turn was sent from the first and everybody knows of it. */
static void open_both(struct view *w, struct view *other)
{
    struct answer a;

    open_at(desk, w, NULL, &a);
    expect_log(w, "opened ");
    open_at(second, other, NULL, &a);
    expect_log(other, "opened ");
    a = send_text(w, "one", "x");
    assert_string_equal(a.code, "");
    first_turn = a.id;
    told(w, "accepted2 ");
    told(other, "turn2:x ");
}

/* Inference stored a reply and tells it. */
static void reply(const struct uuid *turn, const char *text)
{
    struct seal_bind bind = {
        .kind = SEAL_QUEUE, .chat = fx.chat, .turn = *turn, .part = PART_FIRST_VARIANT, .role = SPEAKER_CHARACTER};
    struct envelope env = {.kind = ENVELOPE_REPLY,
                           .chat = fx.chat,
                           .turn = *turn,
                           .finish = FINISH_STOP,
                           .attempt = 7,
                           .created_ms = wall_ms()};
    struct buf sealed = {0};

    if (!uuid_eq(turn, &turn_names[0])) /* the greeting has one */
        store_reply(turn, 0, text, FINISH_STOP);
    env.change = fx.appended;
    assert_int_equal(seal_data(&fx.key, &bind, text, strlen(text), &sealed), TR_OK);
    env.predecessor = turn_names[0];
    env.sealed = (struct slice){sealed.data, sealed.len};
    publish(&fx, topic_notify(&fx.chat), &env, false);
    buf_release(&sealed);
}

static void forget_gateway(const char *gateway)
{
    struct registry *r = fx.env.registry;
    struct wait w = {.loop = fx.loop};

    assert_int_equal(wait_end(&w, r->ops->conn_remove(r, &fx.chat, gateway, wait_done, &w, &w.op, &w.err)), TR_OK);
    w = (struct wait){.loop = fx.loop};
    assert_int_equal(wait_end(&w, r->ops->gateway_remove(r, gateway, wait_done, &w, &w.op, &w.err)), TR_OK);
}

/* --- the tests --- */

static void both_are_told(void **state)
{
    static struct view w, other;

    (void)state;
    open_both(&w, &other);
    assert_int_equal(holders(), 2);
    reply(&first_turn, "r");
    told(&w, "reply2.0:r ");
    told(&other, "reply2.0:r ");
}

/*
 * The registry has lost everything, and only the first gateway has put the chat's record again when a reply comes: it
 * goes to that one alone.  The other notices at its next refresh, puts its record and reads what it missed.
 */
static void half_of_the_records(void **state)
{
    static struct view w, other;
    struct registry *r = fx.env.registry;
    struct wait put = {.loop = fx.loop};
    uint64_t began;

    (void)state;
    open_both(&w, &other);
    forget_gateway(GATEWAY_ONE);
    forget_gateway(GATEWAY_TWO);
    assert_int_equal(
        wait_end(&put, registry_inner->conn_put(r, &fx.chat, GATEWAY_ONE, 60000, wait_done, &put, &put.op, &put.err)),
        TR_OK);
    began = loop_now_ms(fx.loop);
    reply(&first_turn, "r");
    told(&w, "reply2.0:r ");
    told(&other, "reply2.0:r ");
    print_message("TTL %d ms: the other gateway's viewer had the reply %u ms after the loss\n", TTL_MS,
                  (unsigned)(loop_now_ms(fx.loop) - began));
    both_hold_it();
}

/* No record of anything: the reply waits at the notifier until a gateway is known again. */
static void all_records(void **state)
{
    static struct view w, other;
    uint64_t began;

    (void)state;
    open_both(&w, &other);
    began = loop_now_ms(fx.loop);
    forget_gateway(GATEWAY_ONE);
    forget_gateway(GATEWAY_TWO);
    reply(&first_turn, "r");
    told(&w, "reply2.0:r ");
    told(&other, "reply2.0:r ");
    while (queue_length_of(&fx, topic_notify(&fx.chat)) > 0) /* out of the history they may have had it earlier */
        assert_true(loop_now_ms(fx.loop) - began < SUPPORT_LIMIT_MS);
    both_hold_it();
}

/* A record that is slow to arrive: the history is read after it, or what comes in between would be missed. */
static void read_after_the_record(void **state)
{
    static struct view w;
    struct answer a;

    (void)state;
    open_at(desk, &w, NULL, &a);
    put_delay_ms = 150;
    reads = reads_early = puts_waited = 0;
    forget_gateway(GATEWAY_ONE);
    support_count(fx.loop, &reads, 1);
    assert_true(puts_waited > 0);
    assert_int_equal(reads_early, 0);
    put_delay_ms = 0;
    while (puts_late > 0)
        support_for(fx.loop, 10);
}

/* The registry was away and kept what it had: whatever could not be put meanwhile is put, and read. */
static void the_registry_was_away(void **state)
{
    static struct view w, other;
    struct answer a;

    (void)state;
    registry_down =
        true; /* the chat is opened while no record can be put; shorter than the gateways' own records last */
    open_at(desk, &w, NULL, &a);
    open_at(second, &other, NULL, &a);
    assert_int_equal(holders(), 0);
    refreshes_failed = 0;
    support_count(fx.loop, &refreshes_failed, 2); /* one of each: the next is before the gateways' own records end */
    registry_down = false;
    both_hold_it();
}

static void record(const char *gateway, bool put)
{
    struct registry *r = fx.env.registry;
    struct wait w = {.loop = fx.loop};

    assert_int_equal(wait_end(&w, put ? r->ops->conn_put(r, &fx.chat, gateway, 60000, wait_done, &w, &w.op, &w.err)
                                      : r->ops->conn_remove(r, &fx.chat, gateway, wait_done, &w, &w.op, &w.err)),
                     TR_OK);
}

/*
 * The registry came back with what it had a moment ago: the chat's record lacks one gateway, and all gateways' own records are
 * there.  What is sent then goes to the other one alone, until the record is renewed: it was gone, so the chat is read.
 */
static void a_record_that_lacks_one(void **state)
{
    static struct view w, other;

    (void)state;
    open_both(&w, &other);
    record(GATEWAY_TWO, false);
    reply(&first_turn, "r");
    told(&w, "reply2.0:r ");
    expect_log(&other, "");
    desk_conn_renew(second, desk_chat_find(second, &fx.chat)); /* its turn in the half minute has come */
    told(&other, "reply2.0:r ");
    assert_int_equal(holders(), 2);
    reads = 0;
    desk_conn_renew(second, desk_chat_find(second, &fx.chat)); /* it was there: nothing is read */
    support_for(fx.loop, 50);
    assert_int_equal(reads, 0);
}

/* The same at once where the registry's connection is a new one. */
static void a_new_connection_to_the_registry(void **state)
{
    static struct view w, other;

    (void)state;
    open_both(&w, &other);
    record(GATEWAY_TWO, false);
    reply(&first_turn, "r");
    told(&w, "reply2.0:r ");
    registry_gap_tell(fx.env.registry);
    told(&other, "reply2.0:r ");
    both_hold_it();
    expect_log(&w, "");
}

/* The record names a gateway that is dead, and it alone. */
static void a_record_of_the_dead(void **state)
{
    static struct view w;
    struct answer a;

    (void)state;
    open_at(desk, &w, NULL, &a);
    a = send_text(&w, "one", "x");
    expect_log(&w, "opened accepted2 ");
    record("gateway.dead", true);
    record(GATEWAY_ONE, false);
    reply(&a.id, "r");
    told(&w, "reply2.0:r ");
}

static size_t events_told;

/* How many publishes to [notify] there were: a spy in front of the broker. */
static const struct queue_ops *queue_inner;

static enum tr_rc spy_publish(struct queue *q, const struct queue_message *msg, queue_done *done, void *ctx,
                              struct tr_op **ret_op, struct tr_err *err)
{
    events_told += strcmp(msg->queue, topic_notify(&fx.chat)) == 0;
    return queue_inner->publish(q, msg, done, ctx, ret_op, err);
}

/*
 * The record names a living gateway that has not the chat open (any more), and it alone: that one does not swallow the event, but
 * has it sent to all, once; and it is in the record no longer.
 */
static void a_record_of_another(void **state)
{
    static struct queue_ops ops;
    static struct view w;
    struct answer a;

    (void)state;
    open_at(desk, &w, NULL, &a);
    a = send_text(&w, "one", "x");
    expect_log(&w, "opened accepted2 ");
    record(GATEWAY_TWO, true);
    record(GATEWAY_ONE, false);
    queue_inner = fx.env.queue->ops;
    ops = *queue_inner;
    ops.publish = spy_publish;
    fx.env.queue->ops = &ops;
    events_told = 0;
    reply(&a.id, "r");
    told(&w, "reply2.0:r ");
    assert_int_equal(events_told, 2); /* the reply, and the same for all */
    assert_int_equal(holders(), 0);
    desk_viewer_release(desk, &w.v);
    views_n = 0;
    events_told = 0;
    reply(&turn_names[0], "nobody has it open"); /* a closed chat has no record: all get it, and nobody sends it on */
    support_for(fx.loop, 300);
    assert_int_equal(events_told, 1);
    fx.env.queue->ops = queue_inner;
}

/* A gateway dies with a reply under way: its client goes on at the other, with the turn it had last. */
static void a_gateway_dies(void **state)
{
    static struct view w, other, again;
    struct answer a;

    (void)state;
    open_at(second, &other, NULL, &a);
    desk_viewer_release(second, &other.v); /* the sockets are gone with it */
    views_n = 0;
    open_at(desk, &w, NULL, &a);
    a = send_text(&w, "one", "x");
    desk_viewer_release(desk, &w.v);
    views_n = 0;
    desk_free(desk); /* "dies": from here on its queue is not there */
    desk = second;
    second = NULL;
    reply(&a.id, "r");
    support_for(fx.loop, 300);
    open_at(desk, &again, &turn_names[0], &a);
    assert_int_equal(a.turns, 1);
    assert_int_equal(a.variants, 1);
    assert_string_equal(a.text, "r");
    expect_log(&again, "opened ");
    a = send_text(&again, "two", "y");
    assert_string_equal(a.code, "");
    expect_log(&again, "accepted3 ");
    turn_names[0] = turn_names[1]; /* the predecessor of what is told now */
    reply(&a.id, "s");
    told(&again, "reply3.0:s ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(both_are_told, setup_two, teardown_two),
        cmocka_unit_test_setup_teardown(half_of_the_records, setup_two, teardown_two),
        cmocka_unit_test_setup_teardown(all_records, setup_two, teardown_two),
        cmocka_unit_test_setup_teardown(read_after_the_record, setup_two, teardown_two),
        cmocka_unit_test_setup_teardown(the_registry_was_away, setup_two, teardown_two),
        cmocka_unit_test_setup_teardown(a_record_that_lacks_one, setup_two, teardown_two),
        cmocka_unit_test_setup_teardown(a_new_connection_to_the_registry, setup_two, teardown_two),
        cmocka_unit_test_setup_teardown(a_record_of_the_dead, setup_two, teardown_two),
        cmocka_unit_test_setup_teardown(a_record_of_another, setup_two, teardown_two),
        cmocka_unit_test_setup_teardown(a_gateway_dies, setup_two, teardown_two),
    };

    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
