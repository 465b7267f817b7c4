/*
 * avatar - avatar_type() of card.h: what an avatar is, by its first bytes.  An SVG is a program of sorts, so it is read
 * tag by tag, and anything that could run, load or hide something makes it none; what we can't read, too:
 *
 *   no <!DOCTYPE, <!ENTITY, CDATA; no <?…?> but the declaration at the top, of UTF-8; no elements of scripts or of HTML
 *   attributes: none that begins with "on"; href and src only to "#…" or to a raster image in the data: URL itself; no
 *   url(…) but url(#…); no character references but the five of XML; no xml:base
 *   style elements and attributes: besides, no @, no backslash, no "//", no image(…) of any kind
 */
#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "domain/card.h"
#include "domain/text.h"

#define NAME_MAX_BYTES 64

struct scan {
    const char *p, *end;
};

static bool starts(const struct scan *s, const char *what)
{
    size_t len = strlen(what);

    return (size_t)(s->end - s->p) >= len && strncasecmp(s->p, what, len) == 0;
}

static bool contains(const char *text, size_t len, const char *what)
{
    size_t n = strlen(what);

    for (size_t i = 0; i + n <= len; i++)
        if (strncasecmp(text + i, what, n) == 0)
            return true;
    return false;
}

static void skip_white(struct scan *s)
{
    while (s->p < s->end && strchr(" \t\r\n", *s->p) != NULL)
        s->p++;
}

/* Behind the next `what`; false: there is none. */
static bool skip_past(struct scan *s, const char *what)
{
    size_t len = strlen(what);
    const char *hit = memmem(s->p, (size_t)(s->end - s->p), what, len);

    if (hit != NULL)
        s->p = hit + len;
    return hit != NULL;
}

/* Every url( must go to a fragment of the same file. */
static bool urls_inside(const char *text, size_t len)
{
    for (size_t i = 0; i + 4 <= len; i++) {
        size_t at = i + 4;

        if (strncasecmp(text + i, "url(", 4) != 0)
            continue;
        while (at < len && strchr(" \t\r\n'\"", text[at]) != NULL && text[at] != '\0')
            at++;
        if (at < len && text[at] == '&' && len - at >= 6 && memcmp(text + at, "&quot;", 6) == 0)
            at += 6;
        if (at >= len || text[at] != '#')
            return false;
    }
    return true;
}

static bool style_harmless(const char *text, size_t len)
{
    static const char *const banned[] = {"@",    "\\",         "//",          "image(",  "image-set",
                                         "src(", "expression", "javascript:", "behavior"};

    for (size_t i = 0; i < sizeof banned / sizeof banned[0]; i++)
        if (contains(text, len, banned[i]))
            return false;
    return urls_inside(text, len) && memchr(text, '<', len) == NULL;
}

static bool references_harmless(const char *text, size_t len)
{
    static const char *const known[] = {"&amp;", "&lt;", "&gt;", "&quot;", "&apos;"};

    for (size_t i = 0; i < len; i++) {
        bool fits = false;

        if (text[i] != '&')
            continue;
        for (size_t k = 0; k < sizeof known / sizeof known[0]; k++) {
            size_t n = strlen(known[k]);

            fits = fits || (len - i >= n && memcmp(text + i, known[k], n) == 0);
        }
        if (!fits)
            return false;
    }
    return true;
}

static bool link_harmless(const char *text, size_t len)
{
    static const char *const raster[] = {"data:image/png;", "data:image/jpeg;", "data:image/jpg;", "data:image/gif;",
                                         "data:image/webp;"};

    if (len > 0 && text[0] == '#')
        return true;
    for (size_t i = 0; i < sizeof raster / sizeof raster[0]; i++)
        if (len > strlen(raster[i]) && strncasecmp(text, raster[i], strlen(raster[i])) == 0)
            return true;
    return false;
}

/* The name without its prefix, in small letters; false: none, or too long. */
static bool take_name(struct scan *s, char ret[NAME_MAX_BYTES], char ret_whole[NAME_MAX_BYTES])
{
    size_t n = 0;
    const char *colon;

    while (s->p < s->end && (isalnum((unsigned char)*s->p) || (*s->p != '\0' && strchr("_:.-", *s->p) != NULL))) {
        if (n + 1 >= NAME_MAX_BYTES)
            return false;
        ret_whole[n++] = (char)tolower((unsigned char)*s->p++);
    }
    ret_whole[n] = '\0';
    colon = strrchr(ret_whole, ':');
    strncpy(ret, colon != NULL ? colon + 1 : ret_whole, NAME_MAX_BYTES - 1);
    ret[NAME_MAX_BYTES - 1] = '\0';
    return ret[0] != '\0';
}

static bool attribute_harmless(const char *name, const char *whole, const char *value, size_t len)
{
    if (memchr(value, '<', len) != NULL || !references_harmless(value, len) || !urls_inside(value, len) ||
        contains(value, len, "javascript:") || contains(value, len, "vbscript:"))
        return false;
    if (strncmp(name, "on", 2) == 0 || strcmp(whole, "xml:base") == 0)
        return false;
    if (strcmp(name, "href") == 0 || strcmp(name, "src") == 0)
        return link_harmless(value, len);
    if (strcmp(name, "style") == 0)
        return style_harmless(value, len);
    if (strcmp(name, "attributename") == 0) /* what an animation sets */
        return !contains(value, len, "href") && !contains(value, len, "src") && strncasecmp(value, "on", 2) != 0;
    return true;
}

/* The attributes up to and with '>'; *ret_empty: the tag closed itself. */
static bool take_attributes(struct scan *s, bool *ret_empty)
{
    char name[NAME_MAX_BYTES], whole[NAME_MAX_BYTES];

    for (;;) {
        const char *value;
        char quote;

        skip_white(s);
        *ret_empty = starts(s, "/>");
        if (*ret_empty || starts(s, ">")) {
            s->p += *ret_empty ? 2 : 1;
            return true;
        }
        if (!take_name(s, name, whole))
            return false;
        skip_white(s);
        if (!starts(s, "="))
            return false;
        s->p++;
        skip_white(s);
        if (!starts(s, "\"") && !starts(s, "'"))
            return false;
        quote = *s->p++;
        value = s->p;
        s->p = memchr(value, quote, (size_t)(s->end - value));
        if (s->p == NULL || !attribute_harmless(name, whole, value, (size_t)(s->p - value)))
            return false;
        s->p++;
    }
}

static bool element_banned(const char *name)
{
    static const char *const banned[] = {"script", "foreignobject", "iframe",  "embed",    "object",   "audio",
                                         "video",  "canvas",        "handler", "listener", "html",     "body",
                                         "link",   "meta",          "base",    "form",     "input",    "img",
                                         "frame",  "frameset",      "math",    "template", "noscript", "include"};

    for (size_t i = 0; i < sizeof banned / sizeof banned[0]; i++)
        if (strcmp(name, banned[i]) == 0)
            return true;
    return false;
}

static bool skip_comment(struct scan *s)
{
    const char *text = s->p + 4;

    s->p = text;
    if (!skip_past(s, "--") || s->p >= s->end || *s->p != '>' || *text == '>' || *text == '-')
        return false;
    s->p++;
    return true;
}

/* One tag, s->p at its '<'. */
static bool take_tag(struct scan *s)
{
    char name[NAME_MAX_BYTES], whole[NAME_MAX_BYTES];
    const char *content;
    bool empty = false;

    if (starts(s, "<!--"))
        return skip_comment(s);
    if (starts(s, "</")) {
        s->p += 2;
        if (!take_name(s, name, whole))
            return false;
        skip_white(s);
        if (!starts(s, ">"))
            return false;
        s->p++;
        return true;
    }
    s->p++; /* <! and <? have no name */
    if (!take_name(s, name, whole) || element_banned(name) || !take_attributes(s, &empty))
        return false;
    if (strcmp(name, "style") != 0 || empty)
        return true;
    content = s->p;
    s->p = memmem(content, (size_t)(s->end - content), "</", 2);
    return s->p != NULL && memchr(content, '&', (size_t)(s->p - content)) == NULL &&
           style_harmless(content, (size_t)(s->p - content));
}

/* What stands before the root; false: more than a declaration, comments and white space. */
static bool take_prologue(struct scan *s)
{
    if (starts(s, "\xef\xbb\xbf"))
        s->p += 3;
    if (starts(s, "<?xml ")) {
        const char *head = s->p;

        if (!skip_past(s, "?>") || memchr(head + 1, '<', (size_t)(s->p - head - 1)) != NULL)
            return false;
        if (contains(head, (size_t)(s->p - head), "encoding") && !contains(head, (size_t)(s->p - head), "\"utf-8\"") &&
            !contains(head, (size_t)(s->p - head), "'utf-8'"))
            return false;
    }
    for (;;) {
        skip_white(s);
        if (!starts(s, "<!--"))
            return true;
        if (!skip_comment(s))
            return false;
    }
}

static bool svg_harmless(const char *data, size_t len)
{
    struct scan s = {data, data + len};

    if (memchr(data, '\0', len) != NULL || !text_utf8_valid(data, len) || !take_prologue(&s))
        return false;
    if (!starts(&s, "<svg") || s.end - s.p < 5 || strchr(" \t\r\n>/", s.p[4]) == NULL)
        return false;
    while (s.p < s.end) {
        const char *tag = memchr(s.p, '<', (size_t)(s.end - s.p));
        const char *text_end = tag != NULL ? tag : s.end;

        if (!references_harmless(s.p, (size_t)(text_end - s.p)))
            return false;
        s.p = text_end;
        if (tag != NULL && !take_tag(&s))
            return false;
    }
    return true;
}

const char *avatar_type(const void *data, size_t len)
{
    if (len >= 8 && memcmp(data, "\x89PNG\r\n\x1a\n", 8) == 0)
        return "image/png";
    if (len >= 3 && memcmp(data, "\xff\xd8\xff", 3) == 0)
        return "image/jpeg";
    if (len >= 12 && memcmp(data, "RIFF", 4) == 0 && memcmp((const char *)data + 8, "WEBP", 4) == 0)
        return "image/webp";
    return len > 0 && svg_harmless(data, len) ? "image/svg+xml" : NULL;
}
