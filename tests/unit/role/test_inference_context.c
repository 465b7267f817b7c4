/* inference - what a reply is written from: the kept context, the history, the notes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/log.h"
#include "domain/message.h"
#include "tests/unit/role/inference_house.h"

static void edit_text(struct house *h, const struct envelope *work, const char *text)
{
    struct turn_row edit = {.chat = h->f.chat,
                            .turn = work->turn,
                            .part = PART_USER,
                            .rev = 1,
                            .speaker = SPEAKER_USER,
                            .user = h->f.user,
                            .created_ms = wall_ms(),
                            .predecessor = work->predecessor,
                            .index = work->index,
                            .character = "ada"};
    struct buf sealed = {0};

    seal_row(&h->f, &edit, text, &sealed);
    append(&h->f, &edit);
    buf_release(&sealed);
}

static void test_context(void **state)
{
    struct house h;
    struct envelope one, two, three, four;

    (void)state;
    house_open(&h, "", NULL);
    say(&h, "one", &one);
    reads_turn = reads_turns = reads_changed = 0;
    say(&h, "two", &two);
    assert_int_equal(reads_changed, 1); /* warm: one read */
    assert_int_equal(reads_turn + reads_turns, 0);
    assert_string_equal(prompts, "< Hello.\n> one\n< Ada heard: one\n> two\n");

    edit_text(&h, &one, "uno");
    say(&h, "three", &three);
    assert_string_equal(prompts, "< Hello.\n> uno\n< Ada heard: one\n> two\n< Ada heard: two\n> three\n");

    append_event(&h.f, &two.turn, TURN_EVENT_DELETE, 0, 0);
    say(&h, "four", &four);
    assert_string_equal(prompts, "< Hello.\n> uno\n< Ada heard: one\n> three\n< Ada heard: three\n> four\n");

    /* an older turn again: the context up to it */
    append_event(&h.f, &three.turn, TURN_EVENT_REGENERATE, 1, 0);
    three.variant = 1;
    publish(&h.f, WORKER_QUEUE, &three, false);
    await_seen(&h.f, ENVELOPE_REPLY, &three.turn, 2);
    assert_string_equal(prompts, "< Hello.\n> uno\n< Ada heard: one\n> three\n");
    assert_int_equal(read_turn(&h.f, &three.turn).variants, 2);
    house_close(&h);
}

/* An edit that falls between the reading of the context and its keeping is not missed by the next turn. */
static void test_edit_while_generating(void **state)
{
    struct house h;
    struct envelope one, two, three;

    (void)state;
    house_open(&h, "?delay_ms=80", NULL);
    say(&h, "one", &one);
    accept(&h.f, "two", &two);
    publish(&h.f, WORKER_QUEUE, &two, false);
    support_for(h.f.loop, 30);
    assert_int_equal(generated, 2);
    edit_text(&h, &one, "uno");
    await_seen(&h.f, ENVELOPE_REPLY, &two.turn, 1);
    assert_string_equal(prompts, "< Hello.\n> one\n< Ada heard: one\n> two\n");
    say(&h, "three", &three);
    assert_string_equal(prompts, "< Hello.\n> uno\n< Ada heard: one\n> two\n< Ada heard: two\n> three\n");
    house_close(&h);
}

/* A message with media as it rests; no byte of it is 0, as the fixture takes texts. */
static const char *with_media(const char *text, enum media_type first, enum media_type second)
{
    static char bytes[256];
    struct message_media list[2] = {{.type = (uint8_t)first}, {.type = (uint8_t)second}};
    struct message m = {.text = text, .len = strlen(text), .media = list, .media_n = second != MEDIA_NONE ? 2 : 1};
    struct buf out = {0};

    memset(m.ref, 0x22, sizeof m.ref);
    memset(&list[0].id, 0x11, sizeof list[0].id);
    memset(&list[1].id, 0x12, sizeof list[1].id);
    assert_int_equal(message_encode(&m, &out), TR_OK);
    assert_int_equal(strlen(buf_str(&out)), out.len);
    snprintf(bytes, sizeof bytes, "%s", buf_str(&out));
    buf_release(&out);
    return bytes;
}

/* That there are media is told in the turn itself, in the ones after it, after an edit, and when it is written again. */
static void test_media_told(void **state)
{
    struct house h;
    struct envelope one, two, three;

    (void)state;
    house_open(&h, "", NULL);
    say(&h, with_media("look", MEDIA_PNG, MEDIA_MP3), &one);
    assert_string_equal(prompts, "< Hello.\n> [The user attached an image and an audio file.]\nlook\n");
    say(&h, with_media("", MEDIA_MP4, MEDIA_NONE), &two);
    assert_non_null(strstr(prompts,
                           "> [The user attached an image and an audio file.]\nlook\n< Ada heard: look\n> [The "
                           "user attached a video.]\n"));
    edit_text(&h, &one, with_media("see", MEDIA_PNG, MEDIA_MP3));
    say(&h, "three", &three);
    assert_string_equal(prompts,
                        "< Hello.\n> [The user attached an image and an audio file.]\nsee\n< Ada heard: look\n"
                        "> [The user attached a video.]\n< Ada heard: [The user attached a video.]\n> three\n");
    append_event(&h.f, &one.turn, TURN_EVENT_REGENERATE, 1, 0);
    one.variant = 1;
    publish(&h.f, WORKER_QUEUE, &one, false);
    await_seen(&h.f, ENVELOPE_REPLY, &one.turn, 2);
    assert_string_equal(prompts, "< Hello.\n> [The user attached an image and an audio file.]\nsee\n");
    house_close(&h);
    assert_null(strstr(prompts, "\x11"));
}

struct wait_context {
    struct wait w;
    size_t len;
};

static void on_kept(void *ctx, enum tr_rc rc, const struct registry_context *context, const struct tr_err *err)
{
    struct wait_context *c = ctx;

    c->len = rc == TR_OK ? context->sealed.len : 0;
    wait_called(&c->w, rc, err);
}

static size_t kept_bytes(struct house *h)
{
    struct wait_context c = {.w = {.loop = h->f.loop}};
    struct registry *r = h->f.env.registry;

    assert_int_equal(wait_end(&c.w, r->ops->context_get(r, &h->f.chat, on_kept, &c, &c.w.op, &c.w.err)), TR_OK);
    return c.len;
}

static void drop_context(struct house *h)
{
    struct wait w = {.loop = h->f.loop};
    struct registry *r = h->f.env.registry;
    enum tr_rc rc = wait_end(&w, r->ops->context_drop(r, &h->f.chat, wait_done, &w, &w.op, &w.err));

    assert_true(rc == TR_OK || rc == TR_NOT_FOUND);
}

/* A long chat says the same to the engine with the kept context and without. */
static void test_context_bounds(void **state)
{
    struct house h;
    struct envelope work;
    char kept[sizeof prompts];

    (void)state;
    house_open(&h, "", NULL);
    for (int i = 0; i < 60; i++) {
        char text[16];

        snprintf(text, sizeof text, "m%d", i);
        reads_turns = 0;
        say(&h, text, &work);
        if (i > 0)
            assert_int_equal(reads_turns, 0);
    }
    strcpy(kept, prompts);
    assert_true(kept_bytes(&h) < 22 * 64); /* at most 40 messages, a turn in it is under 64 bytes */
    drop_context(&h);
    work.variant = 1;
    append_event(&h.f, &work.turn, TURN_EVENT_REGENERATE, 1, 0);
    publish(&h.f, WORKER_QUEUE, &work, false);
    await_seen(&h.f, ENVELOPE_REPLY, &work.turn, 2);
    assert_int_equal(reads_turns, 1);
    assert_string_equal(prompts, kept);
    assert_null(strstr(prompts, "> m30\n"));
    house_close(&h);
}

static void test_notes(void **state)
{
    struct house h;
    struct envelope work;
    struct notes notes = {.language = "en"};
    struct seal_bind bind = {.kind = SEAL_QUEUE, .part = PART_USER, .role = SPEAKER_USER};
    struct buf encoded = {0}, sealed = {0};

    (void)state;
    house_open(&h, "", NULL);
    accept(&h.f, "raw", &work);
    notes.raw = (struct slice){(const uint8_t *)"raw", 3};
    notes.normalised = (struct slice){(const uint8_t *)"clean", 5};
    assert_int_equal(notes_encode(&notes, &encoded), TR_OK);
    bind.chat = work.chat;
    bind.turn = work.turn;
    assert_int_equal(seal_data(&h.f.key, &bind, encoded.data, encoded.len, &sealed), TR_OK);
    work.sealed = (struct slice){sealed.data, sealed.len};
    publish(&h.f, WORKER_QUEUE, &work, false);
    reply_is(&h.f, &work.turn, "Ada heard: raw", FINISH_STOP);
    assert_string_equal(prompts, "< Hello.\n> clean\n");
    assert_int_equal(read_turn(&h.f, &work.turn).notes, 1);
    buf_release(&encoded);
    buf_release(&sealed);
    house_close(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_context),    cmocka_unit_test(test_edit_while_generating),
        cmocka_unit_test(test_media_told), cmocka_unit_test(test_context_bounds),
        cmocka_unit_test(test_notes),
    };

    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
