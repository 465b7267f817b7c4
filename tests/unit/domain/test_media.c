/* Tests of domain/media: pieces that open at their place alone, sizes around their borders; what a file is. */
#include "domain/media.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define C MEDIA_CHUNK

static struct seal_key key, other_key;
static struct uuid owner, other_owner, id, other_id;

static int setup(void **state)
{
    (void)state;
    if (seal_init(NULL) != TR_OK)
        return -1;
    seal_key_new(1, &key);
    seal_key_new(1, &other_key);
    other_key.id = key.id;
    memset(&owner, 1, sizeof owner);
    memset(&other_owner, 2, sizeof owner);
    memset(&id, 3, sizeof id);
    memset(&other_id, 4, sizeof id);
    return 0;
}

/* ---- sealed ---- */

static uint8_t byte_at(uint64_t at)
{
    return (uint8_t)(at * 31 >> 3);
}

/* A whole object of so many bytes. */
static struct buf seal_all(const struct uuid *the_owner, const struct uuid *the_id, uint64_t bytes)
{
    const struct media_head head = {.type = MEDIA_WEBM, .bytes = bytes, .created_ms = 1700000000000};
    uint8_t *plain = malloc(C);
    struct buf out = {0};

    assert_non_null(plain);
    assert_int_equal(media_seal_head(&key, the_owner, the_id, &head, &out), TR_OK);
    assert_int_equal(out.len, MEDIA_HEAD);
    for (uint64_t chunk = 0; chunk < media_chunks(bytes); chunk++) {
        const size_t len = media_chunk_len(bytes, chunk);

        assert_int_equal(out.len, media_chunk_at(chunk));
        for (size_t i = 0; i < len; i++)
            plain[i] = byte_at(chunk * C + i);
        assert_int_equal(media_seal_chunk(&key, the_owner, the_id, bytes, chunk, plain, len, &out), TR_OK);
    }
    assert_int_equal(out.len, media_sealed_size(bytes));
    free(plain);
    return out;
}

static enum tr_rc open_chunk(const struct buf *b, uint64_t bytes, uint64_t at_chunk, uint64_t as_chunk, size_t len)
{
    struct buf plain = {0};
    const enum tr_rc rc =
        media_open_chunk(&key, &owner, &id, bytes, as_chunk, b->data + media_chunk_at(at_chunk), len, &plain, NULL);

    if (rc != TR_OK)
        assert_int_equal(plain.len, 0);
    for (size_t i = 0; i < plain.len; i++)
        assert_int_equal(plain.data[i], byte_at(as_chunk * C + i));
    buf_release(&plain);
    return rc;
}

static void sizes(void **state)
{
    static const uint64_t rows[] = {1, 2, C - 1, C, C + 1, 2 * C - 1, 2 * C, 2 * C + 1, 5 * C, 5 * C + 77};

    (void)state;
    assert_int_equal(media_chunks(0), 0);
    assert_int_equal(media_chunk_len(0, 0), 0);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct buf b = seal_all(&owner, &id, rows[i]);
        struct media_head head;
        uint64_t sum = 0;

        assert_int_equal(media_open_head(&key, &owner, &id, b.data, b.len, b.len, &head, NULL), TR_OK);
        assert_true(head.type == MEDIA_WEBM && head.bytes == rows[i] && head.created_ms == 1700000000000);
        for (uint64_t c = 0; c < media_chunks(rows[i]); c++) {
            const size_t len = media_chunk_len(rows[i], c);

            sum += len;
            assert_int_equal(open_chunk(&b, rows[i], c, c, len + SEAL_OVERHEAD), TR_OK);
        }
        assert_int_equal(sum, rows[i]);
        assert_int_equal(media_chunk_len(rows[i], media_chunks(rows[i])), 0);
        /* the store has more or less of it */
        for (int d = -1; d <= 1; d += 2)
            assert_int_equal(media_open_head(&key, &owner, &id, b.data, b.len, b.len + (uint64_t)d, &head, NULL),
                             TR_INVALID);
        buf_release(&b);
    }
    assert_int_equal(media_chunks(MEDIA_SIZE_MAX), MEDIA_SIZE_MAX / C);
}

static void heads(void **state)
{
    struct buf b = seal_all(&owner, &id, 100);
    struct media_head head = {.bytes = 55};
    struct buf none = {0};

    (void)state;
    assert_int_equal(media_open_head(&key, &other_owner, &id, b.data, b.len, b.len, &head, NULL), TR_INVALID);
    assert_int_equal(media_open_head(&key, &owner, &other_id, b.data, b.len, b.len, &head, NULL), TR_INVALID);
    assert_int_equal(media_open_head(&other_key, &owner, &id, b.data, b.len, b.len, &head, NULL), TR_INVALID);
    for (size_t n = 0; n < MEDIA_HEAD; n++)
        assert_int_equal(media_open_head(&key, &owner, &id, b.data, n, b.len, &head, NULL), TR_INVALID);
    for (size_t i = 0; i < MEDIA_HEAD; i++) {
        b.data[i] ^= 1;
        assert_int_equal(media_open_head(&key, &owner, &id, b.data, b.len, b.len, &head, NULL), TR_INVALID);
        b.data[i] ^= 1;
    }
    assert_int_equal(head.bytes, 55); /* untouched */
    assert_int_equal(media_open_head(&key, &owner, &id, b.data, b.len, b.len, &head, NULL), TR_OK);
    /* a chunk is no head, and a head no chunk */
    assert_int_equal(media_open_chunk(&key, &owner, &id, 24, 0, b.data + 4, MEDIA_HEAD - 4, &none, NULL), TR_INVALID);
    assert_int_equal(none.len, 0);
    buf_release(&none);
    buf_release(&b);
}

static void chunks(void **state)
{
    const uint64_t bytes = 3 * C;
    const size_t whole = MEDIA_CHUNK_SEALED;
    struct buf b = seal_all(&owner, &id, bytes), foreign = seal_all(&owner, &other_id, bytes),
               stranger = seal_all(&other_owner, &id, bytes), cut = seal_all(&owner, &id, 2 * C);

    (void)state;
    for (uint64_t at = 0; at < 3; at++)
        for (uint64_t as = 0; as < 4; as++)
            assert_int_equal(open_chunk(&b, bytes, at, as, whole), at == as ? TR_OK : TR_INVALID); /* reordered */
    for (uint64_t at = 0; at < 3; at++) {
        assert_int_equal(open_chunk(&foreign, bytes, at, at, whole), TR_INVALID);
        assert_int_equal(open_chunk(&stranger, bytes, at, at, whole), TR_INVALID);
        assert_int_equal(open_chunk(&b, bytes, at, at, whole - 1), TR_INVALID);
        assert_int_equal(open_chunk(&b, bytes, at, at, 0), TR_INVALID);
    }
    /* the last one's place is bound: a file is neither cut at a border nor lengthened */
    assert_int_equal(open_chunk(&b, 2 * C, 1, 1, whole), TR_INVALID);
    assert_int_equal(open_chunk(&cut, 2 * C, 1, 1, whole), TR_OK);
    assert_int_equal(open_chunk(&cut, bytes, 1, 1, whole), TR_INVALID);
    for (size_t i = 0; i < whole; i += i < 64 ? 1 : 4099) {
        b.data[media_chunk_at(1) + i] ^= 0x80;
        assert_int_equal(open_chunk(&b, bytes, 1, 1, whole), TR_INVALID);
        b.data[media_chunk_at(1) + i] ^= 0x80;
    }
    assert_int_equal(open_chunk(&b, bytes, 1, 1, whole), TR_OK);
    buf_release(&b);
    buf_release(&foreign);
    buf_release(&stranger);
    buf_release(&cut);
}

/* A type of a newer version's is a file without a name for its type. */
static void later_type(void **state)
{
    const struct media_head head = {.type = (enum media_type)200, .bytes = 5, .created_ms = 1};
    struct media_head got;
    struct buf b = {0};

    (void)state;
    assert_int_equal(media_seal_head(&key, &owner, &id, &head, &b), TR_OK);
    assert_int_equal(media_open_head(&key, &owner, &id, b.data, b.len, media_sealed_size(5), &got, NULL), TR_OK);
    assert_int_equal(got.type, MEDIA_NONE);
    assert_string_equal(media_type_name((enum media_type)200), "application/octet-stream");
    assert_string_equal(media_extension((enum media_type)200), "bin");
    assert_int_equal(media_kind((enum media_type)200), MEDIA_OTHER);
    b.data[3] = 2;
    assert_int_equal(media_open_head(&key, &owner, &id, b.data, b.len, media_sealed_size(5), &got, NULL), TR_INVALID);
    buf_release(&b);
}

/* ---- what it is ---- */

#define ROW(name, bytes, want)                                                                                         \
    {                                                                                                                  \
        name, bytes, sizeof(bytes) - 1, want                                                                           \
    }
#define FTYP                                                                                                           \
    "\0\0\0\x20"                                                                                                       \
    "ftyp"
#define EBML "\x1a\x45\xdf\xa3\x9f\x42\x86\x81\1"
#define WEBM EBML "\x42\x82\x84webm"

static const struct sniff_row {
    const char *name, *bytes;
    size_t len;
    enum media_type want;
} sniff_rows[] = {
    ROW("png", "\x89PNG\r\n\x1a\n\0\0\0\rIHDR", MEDIA_PNG),
    ROW("png, its line ends changed", "\x89PNG\n\n\x1a\n\0\0\0\rIHDR", MEDIA_NONE),
    ROW("png without IHDR first", "\x89PNG\r\n\x1a\n\0\0\0\rtEXt", MEDIA_NONE),
    ROW("png, cut", "\x89PNG\r\n\x1a\n\0\0\0\rIHD", MEDIA_NONE),
    ROW("jpeg, JFIF", "\xff\xd8\xff\xe0\0\x10JFIF", MEDIA_JPEG),
    ROW("jpeg, Exif",
        "\xff\xd8\xff\xe1\0\x10"
        "Exif",
        MEDIA_JPEG),
    ROW("jpeg without a marker", "\xff\xd8\x00\xe0", MEDIA_NONE),
    ROW("gif 87", "GIF87a\1\0", MEDIA_GIF),
    ROW("gif 89", "GIF89a\1\0", MEDIA_GIF),
    ROW("gif 88", "GIF88a\1\0", MEDIA_NONE),
    ROW("gif, cut", "GIF89", MEDIA_NONE),
    ROW("webp", "RIFF\x24\0\0\0WEBPVP8 ", MEDIA_WEBP),
    ROW("webp, lossless", "RIFF\x24\0\0\0WEBPVP8L", MEDIA_WEBP),
    ROW("webp, extended", "RIFF\x24\0\0\0WEBPVP8X", MEDIA_WEBP),
    ROW("webp of no codec", "RIFF\x24\0\0\0WEBPABCD", MEDIA_NONE),
    ROW("wav", "RIFF\x24\0\0\0WAVEfmt ", MEDIA_WAV),
    ROW("avi", "RIFF\x24\0\0\0AVI LIST", MEDIA_NONE),
    ROW("riff, cut", "RIFF\x24\0\0\0WAV", MEDIA_NONE),
    ROW("rifx", "RIFX\0\0\0\x24WAVEfmt ", MEDIA_NONE),
    ROW("mp3 with a tag", "ID3\3\0\0\0\0\x0f\x76", MEDIA_MP3),
    ROW("mp3 with a tag of version 5", "ID3\5\0\0\0\0\0\0", MEDIA_NONE),
    ROW("mp3, the tag's size is none", "ID3\3\0\0\x80\0\0\0", MEDIA_NONE),
    ROW("mp3, the tag cut", "ID3\3\0\0\0\0\0", MEDIA_NONE),
    ROW("mp3 frame, MPEG 1", "\xff\xfb\x90\x64", MEDIA_MP3),
    ROW("mp3 frame, MPEG 2", "\xff\xf3\x40\xc0", MEDIA_MP3),
    ROW("mp3 frame, MPEG 2.5", "\xff\xe3\x40\xc0", MEDIA_MP3),
    ROW("mpeg, layer I", "\xff\xff\x90\x64", MEDIA_NONE),
    ROW("mpeg, layer II", "\xff\xfd\x90\x64", MEDIA_NONE),
    ROW("aac, ADTS", "\xff\xf1\x50\x80", MEDIA_NONE),
    ROW("mp3 frame, reserved version", "\xff\xeb\x90\x64", MEDIA_NONE),
    ROW("mp3 frame, no such bit rate", "\xff\xfb\xf0\x64", MEDIA_NONE),
    ROW("mp3 frame, no such sample rate", "\xff\xfb\x9c\x64", MEDIA_NONE),
    ROW("UTF-16 text", "\xff\xfe<\0h\0t\0m\0l\0", MEDIA_NONE),
    ROW("ogg, Opus", "OggS\0\2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\x13OpusHead", MEDIA_OGG),
    ROW("ogg, Theora", "OggS\0\2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\x2a\x80theora", MEDIA_OGV),
    ROW("ogg, cut", "Ogg", MEDIA_NONE),
    ROW("flac", "fLaC\0\0\0\x22", MEDIA_FLAC),
    ROW("flac, another case", "FLAC\0\0\0\x22", MEDIA_NONE),
    ROW("m4a", FTYP "M4A \0\0\0\0", MEDIA_M4A),
    ROW("m4b", FTYP "M4B \0\0\0\0", MEDIA_M4A),
    ROW("mp4", FTYP "isom\0\0\2\0", MEDIA_MP4),
    ROW("mp4, sound alone", FTYP "mp42\0\0\2\0....mdia....soun....mdat", MEDIA_M4A),
    ROW("mp4, sound and pictures", FTYP "mp42\0\0\2\0....mdia....soun....vide....mdat", MEDIA_MP4),
    ROW("quicktime", FTYP "qt  \0\0\2\0", MEDIA_NONE),
    ROW("heic", FTYP "heic\0\0\0\0", MEDIA_NONE),
    ROW("avif", FTYP "avif\0\0\0\0", MEDIA_NONE),
    ROW("text before ftyp", "<!--ftypM4A --><script>", MEDIA_NONE),
    ROW("ftyp, cut", FTYP "M4A", MEDIA_NONE),
    ROW("webm", WEBM "\x86\x85V_VP9", MEDIA_WEBM),
    ROW("webm, AV1",
        WEBM "\x86\x85V_AV1\x86\x86"
             "A_OPUS",
        MEDIA_WEBM),
    ROW("webm, sound alone",
        WEBM "\x86\x86"
             "A_OPUS",
        MEDIA_WEBM_AUDIO),
    ROW("matroska", EBML "\x42\x82\x88matroska", MEDIA_NONE),
    ROW("ebml alone", EBML, MEDIA_NONE),
    ROW("html", "<!doctype html><script>alert(1)</script>", MEDIA_NONE),
    ROW("html behind spaces", " \n<html><body>", MEDIA_NONE),
    ROW("svg", "<svg xmlns='http://www.w3.org/2000/svg'/>", MEDIA_NONE),
    ROW("svg behind xml", "<?xml version=\"1.0\"?><svg/>", MEDIA_NONE),
    ROW("svg behind a mark", "\xef\xbb\xbf<svg/>", MEDIA_NONE),
    ROW("pdf", "%PDF-1.7", MEDIA_NONE),
    ROW("zip", "PK\3\4\0\0", MEDIA_NONE),
    ROW("zip, a picture behind it", "PK\3\4\x89PNG\r\n\x1a\n\0\0\0\rIHDR", MEDIA_NONE),
    ROW("elf",
        "\x7f"
        "ELF\2\1\1\0",
        MEDIA_NONE),
    ROW("script", "#!/bin/sh\n", MEDIA_NONE),
    ROW("bmp", "BM\x36\0\0\0", MEDIA_NONE),
    ROW("tiff", "II*\0\x08\0\0\0", MEDIA_NONE),
    ROW("ico", "\0\0\1\0\1\0", MEDIA_NONE),
    ROW("swf", "CWS\x0a\0\0\0\0", MEDIA_NONE),
    /* both at once: told as the picture that it begins as, and so served: never as the page that it goes on as */
    ROW("gif and script", "GIF89a/*<script>*/=alert(1);", MEDIA_GIF),
    ROW("png and html", "\x89PNG\r\n\x1a\n\0\0\0\rIHDR<html><script>", MEDIA_PNG),
    ROW("jpeg and zip", "\xff\xd8\xff\xe0PK\3\4", MEDIA_JPEG),
    ROW("html and gif", "<html>GIF89a", MEDIA_NONE),
    ROW("nothing", "", MEDIA_NONE),
    ROW("three bytes", "\xff\xd8\xff", MEDIA_NONE),
};

static void sniffs(void **state)
{
    bool seen[MEDIA_TYPE_COUNT] = {false};

    (void)state;
    for (size_t i = 0; i < sizeof sniff_rows / sizeof sniff_rows[0]; i++) {
        const struct sniff_row *const r = &sniff_rows[i];
        uint8_t *exact = malloc(r->len > 0 ? r->len : 1); /* so that a read past the end is caught */
        enum media_type got;

        assert_non_null(exact);
        memcpy(exact, r->bytes, r->len);
        got = media_sniff(exact, r->len);
        free(exact);
        if (got != r->want)
            fail_msg("%s: %s, not %s", r->name, media_type_name(got), media_type_name(r->want));
        seen[got] = true;
    }
    for (size_t t = 0; t < MEDIA_TYPE_COUNT; t++) {
        assert_true(seen[t]);
        assert_true(strlen(media_type_name((enum media_type)t)) > 0 && strlen(media_extension((enum media_type)t)) > 0);
    }
    assert_int_equal(media_sniff(NULL, 0), MEDIA_NONE);
}

/* What stands far behind tells nothing. */
static void sniffs_the_beginning(void **state)
{
    uint8_t far[MEDIA_SNIFF + 64] = "OggS\0\2";

    (void)state;
    memcpy(far + MEDIA_SNIFF, "\x80theora", 7);
    assert_int_equal(media_sniff(far, sizeof far), MEDIA_OGG);
    memcpy(far + MEDIA_SNIFF - 7, "\x80theora", 7);
    assert_int_equal(media_sniff(far, sizeof far), MEDIA_OGV);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes),      cmocka_unit_test(heads),  cmocka_unit_test(chunks),
        cmocka_unit_test(later_type), cmocka_unit_test(sniffs), cmocka_unit_test(sniffs_the_beginning),
    };

    return cmocka_run_group_tests(tests, setup, NULL);
}
