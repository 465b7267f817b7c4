/* xml - the little of XML that S3's answers are made of: elements by name, text, entities.  Pure; nothing is trusted. */
#include "adapter/s3/impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Where the next `<tag` that ends there begins, at or behind `from`; doc.len: nowhere. */
static size_t find_tag(struct slice doc, const char *open, size_t from)
{
    const size_t n = strlen(open);

    while (from < doc.len) {
        const uint8_t *p = memmem(doc.data + from, doc.len - from, open, n);
        size_t at;

        if (p == NULL)
            break;
        at = (size_t)(p - doc.data);
        if (at + n < doc.len && strchr(" \t\r\n/>", doc.data[at + n]) != NULL && doc.data[at + n] != '\0')
            return at;
        from = at + n;
    }
    return doc.len;
}

bool s3_xml_next(struct slice doc, const char *tag, size_t *at, struct slice *ret_text)
{
    char open[64], close[64];
    const uint8_t *end, *stop;
    size_t from;

    if (doc.data == NULL || *at >= doc.len)
        return false;
    snprintf(open, sizeof open, "<%s", tag);
    snprintf(close, sizeof close, "</%s>", tag);
    from = find_tag(doc, open, *at);
    end = from < doc.len ? memchr(doc.data + from, '>', doc.len - from) : NULL;
    if (end == NULL)
        return false;
    if (end[-1] == '/') { /* <tag/> */
        *ret_text = (struct slice){end, 0};
        *at = (size_t)(end - doc.data) + 1;
        return true;
    }
    end++;
    stop = memmem(end, doc.len - (size_t)(end - doc.data), close, strlen(close));
    if (stop == NULL)
        return false;
    *ret_text = (struct slice){end, (size_t)(stop - end)};
    *at = (size_t)(stop - doc.data) + strlen(close);
    return true;
}

/* One entity at s ("&amp;"), as one byte; how long it is, 0: none that we know. */
static size_t entity(struct slice s, char *ret)
{
    static const struct {
        const char *text;
        char c;
    } known[] = {{"&amp;", '&'}, {"&lt;", '<'},   {"&gt;", '>'},   {"&quot;", '"'},  {"&apos;", '\''},
                 {"&#34;", '"'}, {"&#39;", '\''}, {"&#x22;", '"'}, {"&#x27;", '\''}, {"&#38;", '&'}};

    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        const size_t n = strlen(known[i].text);

        if (s.len >= n && memcmp(s.data, known[i].text, n) == 0) {
            *ret = known[i].c;
            return n;
        }
    }
    return 0;
}

bool s3_xml_text(struct slice doc, const char *tag, char *out, size_t size)
{
    struct slice text;
    size_t at = 0, n = 0;

    if (!s3_xml_next(doc, tag, &at, &text))
        return false;
    for (size_t i = 0; i < text.len;) {
        const struct slice rest = {text.data + i, text.len - i};
        char c = (char)text.data[i];
        size_t len = 1;

        if (c == '&')
            len = entity(rest, &c);
        if (len == 0 || c == '\0' || n + 1 >= size)
            return false;
        out[n++] = c;
        i += len;
    }
    out[n] = '\0';
    return true;
}

uint64_t s3_xml_time(const char *text)
{
    struct tm tm = {0};
    const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
    time_t t;

    if (rest == NULL || (*rest != '.' && *rest != 'Z'))
        return 0;
    t = timegm(&tm);
    return t > 0 ? (uint64_t)t * 1000 : 0;
}
