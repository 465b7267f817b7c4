/* Tests of domain/message: with media and without, old rows, what is cut; how a prompt tells it. */
#include "domain/message.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct message_media media_of(uint8_t n, enum media_type type)
{
    struct message_media m = {.type = (uint8_t)type};

    memset(&m.id, n, sizeof m.id);
    return m;
}

/* Rows of before there were media are their bare text, and stay so. */
static void old_rows(void **state)
{
    static const char *const texts[] = {"", "hello", "\xc3\xa4\xf0\x9f\x90\xb1", "\x01\x02", "  "};

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        const size_t len = strlen(texts[i]);
        struct message m = {0};
        struct buf out = {0};

        assert_int_equal(message_decode(texts[i], len, &m, NULL), TR_OK);
        assert_int_equal(m.media_n, 0);
        assert_non_null(m.text);
        assert_int_equal(m.len, len);
        assert_memory_equal(m.text, texts[i], len);
        assert_int_equal(message_encode(&m, &out), TR_OK);
        assert_int_equal(out.len, len);
        if (len > 0)
            assert_memory_equal(out.data, texts[i], len);
        buf_release(&out);
    }
}

static void with_media(void **state)
{
    struct message_media list[MESSAGE_MEDIA_MAX];
    struct message m = {.text = "look", .len = 4, .media = list}, got = {0};
    struct buf out = {0};

    (void)state;
    memset(m.ref, 7, sizeof m.ref);
    for (size_t i = 0; i < MESSAGE_MEDIA_MAX; i++)
        list[i] = media_of((uint8_t)i, (enum media_type)(i + 1));
    for (m.media_n = 1; m.media_n <= MESSAGE_MEDIA_MAX; m.media_n++) {
        m.len = m.media_n == 2 ? 0 : 4;
        buf_clear(&out);
        assert_int_equal(message_encode(&m, &out), TR_OK);
        assert_int_equal(out.data[0], 0xff);
        assert_int_equal(message_decode(out.data, out.len, &got, NULL), TR_OK);
        assert_int_equal(got.media_n, m.media_n);
        assert_memory_equal(got.media, list, m.media_n * sizeof *list);
        assert_memory_equal(got.ref, m.ref, sizeof m.ref);
        assert_int_equal(got.len, m.len);
        assert_memory_equal(got.text, "look", got.len);
        for (size_t n = 1; n < out.len - got.len; n++) { /* cut within the head */
            struct message untouched = {.media_n = 99};

            assert_int_equal(message_decode(out.data, n, &untouched, NULL), TR_INVALID);
            assert_int_equal(untouched.media_n, 99);
        }
    }
    out.data[1] = 2; /* a newer version */
    assert_int_equal(message_decode(out.data, out.len, &got, NULL), TR_INVALID);
    out.data[1] = 1;
    out.data[18] = 0;
    assert_int_equal(message_decode(out.data, out.len, &got, NULL), TR_INVALID);
    out.data[18] = MESSAGE_MEDIA_MAX + 1;
    assert_int_equal(message_decode(out.data, out.len, &got, NULL), TR_INVALID);
    buf_release(&out);
}

static void told(void **state)
{
    static const struct {
        enum media_type types[MESSAGE_MEDIA_MAX];
        const char *text, *want;
    } rows[] = {
        {{MEDIA_NONE}, "hello", "hello"},
        {{MEDIA_NONE}, "", ""},
        {{MEDIA_PNG}, "", "[The user attached an image.]"},
        {{MEDIA_PNG}, "look", "[The user attached an image.]\nlook"},
        {{MEDIA_PNG, MEDIA_JPEG}, "", "[The user attached 2 images.]"},
        {{MEDIA_MP4, MEDIA_GIF}, "", "[The user attached an image and a video.]"},
        {{MEDIA_MP3, MEDIA_WEBP, MEDIA_OGG}, "x", "[The user attached an image and 2 audio files.]\nx"},
        {{MEDIA_WEBM, MEDIA_MP3, MEDIA_PNG}, "", "[The user attached an image, an audio file and a video.]"},
        {{(enum media_type)200}, "", "[The user attached a file.]"},
        {{(enum media_type)200, (enum media_type)201, MEDIA_OGV}, "", "[The user attached a video and 2 files.]"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct message_media list[MESSAGE_MEDIA_MAX];
        struct buf out = {0};
        size_t n = 0;

        for (; n < MESSAGE_MEDIA_MAX && rows[i].types[n] != MEDIA_NONE; n++)
            list[n] = media_of((uint8_t)n, rows[i].types[n]);
        message_tell(list, n, rows[i].text, strlen(rows[i].text), &out);
        assert_string_equal(buf_str(&out), rows[i].want);
        buf_release(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(old_rows),
        cmocka_unit_test(with_media),
        cmocka_unit_test(told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
