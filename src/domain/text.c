/*
 * text - UTF-8, NFC, and the language.  The rules of text_normalise() are in text_normalise.c, those of text_personal()
 * in personal.c.
 */
#include "domain/text.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "domain/language_cld2.h"
#include "domain/text_internal.h"

/* Where the first invalid byte is, or len. */
static size_t valid_prefix(const char *s, size_t len)
{
    const uint8_t *p = (const uint8_t *)s;
    size_t i = 0;

    while (i < len) {
        utf8proc_int32_t cp;
        utf8proc_ssize_t n;

        if (p[i] < 0x80) {
            i++;
            continue;
        }
        n = utf8proc_iterate(p + i, (utf8proc_ssize_t)(len - i < 4 ? len - i : 4), &cp);
        if (n <= 0)
            return i;
        i += (size_t)n;
    }
    return len;
}

bool text_utf8_valid(const void *s, size_t len)
{
    return valid_prefix(s, len) == len;
}

size_t text_length(const char *s, size_t len)
{
    size_t n = 0;

    for (size_t i = 0; i < len; i++)
        n += ((uint8_t)s[i] & 0xc0) != 0x80;
    return n;
}

size_t text_utf8_prefix(const char *s, size_t len)
{
    for (size_t back = 1; back <= 4 && back <= len; back++) {
        uint8_t c = (uint8_t)s[len - back];
        size_t whole;

        if ((c & 0xc0) == 0x80)
            continue;
        whole = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc0 ? 2 : 1;
        return whole > back ? len - back : len;
    }
    return len;
}

/*
 * NFC by utf8proc's tables.  The canonical order of marks is settled here with a counting sort: utf8proc's own is
 * quadratic in the length of a run of marks, and a message may be one run.
 */

/* Nothing of these ranges composes, decomposes or moves, whatever stands beside it. */
static bool plain_in_nfc(utf8proc_int32_t c)
{
    return c < 0x300 || (c >= 0x400 && c <= 0x482) || (c >= 0x3000 && c <= 0x3098) || (c >= 0x309b && c <= 0x30ff) ||
           (c >= 0x4e00 && c <= 0x9fff) || (c >= 0xac00 && c <= 0xd7a3);
}

static int class_of(utf8proc_int32_t c)
{
    return (int)utf8proc_get_property(c)->combining_class;
}

/* Order marks[0..n) by their class, equal ones as they stand; `spare` has room for n. */
static void order_marks(utf8proc_int32_t *marks, size_t n, utf8proc_int32_t *spare)
{
    size_t starts[257] = {0};

    if (n <= 16) { /* insertion sort */
        for (size_t i = 1; i < n; i++) {
            utf8proc_int32_t c = marks[i];
            size_t at = i;

            for (; at > 0 && class_of(marks[at - 1]) > class_of(c); at--)
                marks[at] = marks[at - 1];
            marks[at] = c;
        }
        return;
    }
    for (size_t i = 0; i < n; i++)
        starts[class_of(marks[i]) + 1]++;
    for (size_t i = 1; i < 257; i++)
        starts[i] += starts[i - 1];
    for (size_t i = 0; i < n; i++)
        spare[starts[class_of(marks[i])]++] = marks[i];
    memcpy(marks, spare, n * sizeof marks[0]);
}

/* Put s[0..len), valid, into ret as code points; false: some of them may need composing. */
static bool take_code_points(const uint8_t *s, size_t len, struct code_points *ret)
{
    bool plain = true;

    for (size_t i = 0; i < len;) {
        utf8proc_int32_t c = s[i];
        size_t n = 1;

        if (c >= 0x80) {
            n = (size_t)utf8proc_iterate(s + i, (utf8proc_ssize_t)(len - i < 4 ? len - i : 4), &c);
            plain = plain && plain_in_nfc(c);
        }
        i += n;
        ret->c[ret->n++] = c;
    }
    return plain;
}

enum tr_rc text_nfc(struct code_points *cps)
{
    size_t cap = cps->n * 4, n = 0, run = 0; /* the longest canonical decomposition has 4 */
    utf8proc_int32_t *to;
    utf8proc_ssize_t composed;

    if (cps->n == 0)
        return TR_OK;
    to = malloc((cap + cps->n * 4) * sizeof to[0]); /* the second half is spare for the sorting */
    if (to == NULL)
        return TR_NOMEM;
    for (size_t i = 0; i < cps->n; i++) {
        int last = 0;
        utf8proc_ssize_t got = utf8proc_decompose_char(cps->c[i], to + n, (utf8proc_ssize_t)(cap - n),
                                                       UTF8PROC_STABLE | UTF8PROC_DECOMPOSE, &last);

        if (got < 0 || (size_t)got > cap - n) { /* can't be: valid code points, room for the longest */
            free(to);
            return TR_INVALID;
        }
        n += (size_t)got;
    }
    for (size_t i = 0; i <= n; i++) {
        if (i < n && class_of(to[i]) != 0)
            continue;
        if (i > run + 1)
            order_marks(to + run, i - run, to + cap);
        run = i + 1;
    }
    composed = utf8proc_normalize_utf32(to, (utf8proc_ssize_t)n, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    if (composed < 0) {
        free(to);
        return TR_INVALID;
    }
    free(cps->c);
    cps->c = to;
    cps->n = (size_t)composed;
    return TR_OK;
}

enum tr_rc text_code_points(const char *s, size_t len, struct code_points *ret, struct tr_err *err)
{
    struct code_points cps = {NULL, 0};
    size_t valid = valid_prefix(s, len);
    enum tr_rc rc = TR_OK;

    if (valid != len)
        return tr_fail(err, TR_INVALID, "not valid UTF-8 at byte %zu", valid);
    cps.c = malloc((text_length(s, len) + 1) * sizeof cps.c[0]);
    if (cps.c == NULL)
        return tr_fail(err, TR_NOMEM, "text");
    if (!take_code_points((const uint8_t *)s, len, &cps))
        rc = text_nfc(&cps);
    if (rc != TR_OK) {
        free(cps.c);
        return tr_fail(err, rc, "text: NFC");
    }
    *ret = cps;
    return TR_OK;
}

enum tr_rc text_nfc_length(const char *s, size_t len, size_t *ret_code_points, struct tr_err *err)
{
    struct code_points cps;
    enum tr_rc rc = text_code_points(s, len, &cps, err);

    if (rc == TR_OK) {
        *ret_code_points = cps.n;
        free(cps.c);
    }
    return rc;
}

#define LANGUAGE_BYTES 2048 /* more of a text tells no more */
#define LANGUAGE_PAD 32     /* CLD2 reads a few bytes past the end */

void text_language(const char *s, size_t len, char ret_code[8])
{
    char text[LANGUAGE_BYTES + LANGUAGE_PAD];
    const char *code;

    ret_code[0] = '\0';
    len = text_utf8_prefix(s, len < LANGUAGE_BYTES ? len : LANGUAGE_BYTES);
    if (len == 0)
        return;
    memcpy(text, s, len);
    memset(text + len, 0, LANGUAGE_PAD);
    code = language_cld2(text, (int)len);
    if (code == NULL || strlen(code) > 7 || strncmp(code, "xx", 2) == 0 || strcmp(code, "un") == 0)
        return;
    if (strcmp(code, "iw") == 0) /* CLD2 has the old codes of two languages */
        code = "he";
    else if (strcmp(code, "jw") == 0)
        code = "jv";
    memcpy(ret_code, code, strlen(code) + 1);
}
