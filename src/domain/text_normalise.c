/*
 * text_normalise - what preprocess makes of a user's words before anybody else sees them:
 *
 *   NFC
 *   line ends     CR LF, CR, NEL, VT, FF, U+2028, U+2029 -> LF; white space before a line's end goes; more than two
 *                 empty lines become two; white space at both ends goes
 *   dropped       controls but LF and TAB, noncharacters, soft hyphen, zero-width and bidirectional controls, fillers,
 *                 interlinear marks, tags: whatever is not seen but is read by a model, or reorders what is seen
 *   kept          U+200D ZWJ    between emoji; after a letter of a script that needs it
 *                 U+200C ZWNJ   after a letter of a script that needs it
 *                 FE00…FE0F     one, after an emoji, a Han or Mongolian or Myanmar letter; FE0E, FE0F in a keycap
 *                 E0100…E01EF   one, after a Han letter
 *                 180B…180F     one, after a Mongolian letter
 *                 tags          whole, as a flag of a region: black flag, letters and digits, end
 *
 * The rules look at what was kept before and at what comes next only where that is sure to be kept, and are applied until
 * nothing changes any more: so the whole is idempotent.
 */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "domain/text_internal.h"

#define ZWNJ 0x200c
#define ZWJ 0x200d
#define BLACK_FLAG 0x1f3f4
#define TAG_END 0xe007f
#define TAGS_MAX 8

struct range {
    int32_t first, last;
};

static bool in_ranges(int32_t c, const struct range *ranges, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (c >= ranges[i].first && c <= ranges[i].last)
            return true;
    return false;
}
#define IN(c, ranges) in_ranges(c, ranges, sizeof(ranges) / sizeof((ranges)[0]))

/* Default-ignorable and format characters without a rule that keeps them, and controls. */
static bool never_kept(int32_t c)
{
    static const struct range ranges[] = {
        {0x00, 0x08},       {0x0e, 0x1f},       {0x7f, 0x84},       {0x86, 0x9f},     {0xad, 0xad},
        {0x34f, 0x34f},     {0x61c, 0x61c},     {0x115f, 0x1160},   {0x17b4, 0x17b5}, {0x180e, 0x180e},
        {0x200b, 0x200b},   {0x200e, 0x200f},   {0x202a, 0x202e},   {0x2060, 0x206f}, {0x3164, 0x3164},
        {0xfdd0, 0xfdef},   {0xfeff, 0xfeff},   {0xffa0, 0xffa0},   {0xfff0, 0xfffb}, {0x1bca0, 0x1bca3},
        {0x1d173, 0x1d17a}, {0xe0000, 0xe00ff}, {0xe01f0, 0xe0fff},
    };

    return (c >= 0x7f || c < 0x20) && (IN(c, ranges) || (c & 0xfffe) == 0xfffe);
}

/* Scripts whose letters join or stack, so that a joiner is spelling. */
static bool joining_script(int32_t c)
{
    static const struct range ranges[] = {
        {0x600, 0x7ff},     {0x840, 0x8ff},     {0x900, 0xdff},     {0x1000, 0x109f}, {0x1780, 0x17ff},
        {0x1800, 0x18af},   {0x1a20, 0x1aaf},   {0x1b00, 0x1c4f},   {0xa800, 0xa8ff}, {0xa980, 0xa9ff},
        {0xaa60, 0xaa7f},   {0xabc0, 0xabff},   {0xfb50, 0xfdcf},   {0xfe70, 0xfefc}, {0x10a00, 0x10aff},
        {0x10f00, 0x10fff}, {0x11000, 0x11fff}, {0x1e900, 0x1e95f},
    };

    return IN(c, ranges);
}

static bool han(int32_t c)
{
    static const struct range ranges[] = {
        {0x3005, 0x3007}, {0x3400, 0x4dbf}, {0x4e00, 0x9fff}, {0xf900, 0xfaff}, {0x20000, 0x3ffff}};

    return IN(c, ranges);
}

static bool emoji(int32_t c)
{
    return utf8proc_get_property(c)->boundclass == UTF8PROC_BOUNDCLASS_EXTENDED_PICTOGRAPHIC;
}

static bool category_in(int32_t c, int first, int last)
{
    int category = utf8proc_category(c);

    return category >= first && category <= last;
}

static bool mark(int32_t c)
{
    return category_in(c, UTF8PROC_CATEGORY_MN, UTF8PROC_CATEGORY_ME);
}

static bool variation_selector(int32_t c)
{
    return (c >= 0xfe00 && c <= 0xfe0f) || (c >= 0xe0100 && c <= 0xe01ef) || (c >= 0x180b && c <= 0x180f);
}

struct filter {
    int32_t *out; /* what is kept */
    size_t n;
    const int32_t *in;
    size_t in_n, at;
    bool changed;
};

static int32_t last_kept(const struct filter *f)
{
    return f->n > 0 ? f->out[f->n - 1] : 0;
}

static int32_t next_raw(const struct filter *f)
{
    return f->at + 1 < f->in_n ? f->in[f->at + 1] : 0;
}

static bool keep_joiner(const struct filter *f, int32_t c)
{
    int32_t last = last_kept(f);
    size_t base = f->n;

    if (c == ZWJ && emoji(next_raw(f)) && (emoji(last) || (last >= 0x1f3fb && last <= 0x1f3ff) || last == 0xfe0f))
        return true;
    if (last == ZWJ || last == ZWNJ)
        return false;
    while (base > 0 && mark(f->out[base - 1]))
        base--;
    return base > 0 && joining_script(f->out[base - 1]) &&
           category_in(f->out[base - 1], UTF8PROC_CATEGORY_LU, UTF8PROC_CATEGORY_LO);
}

static bool keep_variation(const struct filter *f, int32_t c)
{
    int32_t last = last_kept(f);

    if (c >= 0xe0100)
        return han(last);
    if (c < 0xfe00)
        return last >= 0x1820 && last <= 0x18aa;
    if (c >= 0xfe0e && ((last >= '0' && last <= '9') || last == '#' || last == '*'))
        return next_raw(f) == 0x20e3;
    return emoji(last) || han(last) || (last >= 0x1000 && last <= 0x109f) || (last >= 0xa840 && last <= 0xa877);
}

/* How many tags from here on make the flag of a region; 0: they don't. */
static size_t flag_tags(const struct filter *f)
{
    size_t n = 0;

    if (last_kept(f) != BLACK_FLAG)
        return 0;
    while (f->at + n < f->in_n && n < TAGS_MAX) {
        int32_t c = f->in[f->at + n++];

        if (c == TAG_END)
            return n > 2 ? n : 0;
        if (!((c >= 0xe0030 && c <= 0xe0039) || (c >= 0xe0061 && c <= 0xe007a)))
            return 0;
    }
    return 0;
}

static bool white(int32_t c)
{
    return c == ' ' || c == '\t' || (c >= 0x80 && utf8proc_category(c) == UTF8PROC_CATEGORY_ZS);
}

static void line_end(struct filter *f)
{
    while (f->n > 0 && white(f->out[f->n - 1])) {
        f->n--;
        f->changed = true;
    }
    if (f->n == 0 || (f->n >= 3 && f->out[f->n - 1] == '\n' && f->out[f->n - 2] == '\n' && f->out[f->n - 3] == '\n')) {
        f->changed = true;
        return;
    }
    f->out[f->n++] = '\n';
}

static bool line_break(struct filter *f, int32_t c)
{
    if (c == '\r' && next_raw(f) == '\n') {
        f->changed = true;
        f->at++;
    } else if (c == '\r' || c == 0x85 || c == 0x0b || c == 0x0c || c == 0x2028 || c == 0x2029) {
        f->changed = true;
    } else if (c != '\n') {
        return false;
    }
    line_end(f);
    return true;
}

static void filter_run(struct filter *f)
{
    for (f->at = 0; f->at < f->in_n; f->at++) {
        int32_t c = f->in[f->at];
        size_t tags;
        bool keep = true;

        if (c < 0x20 || c >= 0x7f) {
            if (line_break(f, c))
                continue;
            tags = c >= 0xe0020 && c <= TAG_END ? flag_tags(f) : 0;
            if (tags > 0) {
                memmove(f->out + f->n, f->in + f->at, tags * sizeof c);
                f->n += tags;
                f->at += tags - 1;
                continue;
            }
            if (c == ZWJ || c == ZWNJ)
                keep = keep_joiner(f, c);
            else if (variation_selector(c))
                keep = c != 0x180e && keep_variation(f, c);
            else
                keep = !never_kept(c);
        }
        if (keep && (f->n > 0 || !white(c)))
            f->out[f->n++] = c;
        else
            f->changed = true;
    }
    while (f->n > 0 && (white(f->out[f->n - 1]) || f->out[f->n - 1] == '\n')) {
        f->n--;
        f->changed = true;
    }
}

static enum tr_rc encode(const struct code_points *cps, struct buf *out)
{
    uint8_t *to = buf_reserve(out, cps->n * 4 + 1);
    size_t n = 0;

    if (to == NULL)
        return TR_NOMEM;
    for (size_t i = 0; i < cps->n; i++) {
        if (cps->c[i] < 0x80)
            to[n++] = (uint8_t)cps->c[i];
        else
            n += (size_t)utf8proc_encode_char(cps->c[i], to + n);
    }
    out->len += n;
    return TR_OK;
}

enum tr_rc text_normalise(const char *s, size_t len, struct buf *out, struct tr_err *err)
{
    struct code_points cps = {NULL, 0};
    enum tr_rc rc = text_code_points(s, len, &cps, err);

    if (rc != TR_OK)
        return rc;
    for (;;) { /* each further round has something to drop, and NFC makes nothing that is to be dropped */
        struct filter f = {.out = cps.c, .in = cps.c, .in_n = cps.n};

        filter_run(&f); /* in place: what is kept is never ahead of what is read */
        if (!f.changed)
            break;
        cps.n = f.n;
        rc = text_nfc(&cps);
        if (rc != TR_OK)
            goto out;
    }
    rc = encode(&cps, out);
out:
    free(cps.c);
    return rc == TR_OK ? TR_OK : tr_fail(err, rc, "text: normalise");
}
