/* url - see url.h. */
#include "base/url.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* A decoded copy, or NULL: no memory, or (errno 0) a broken %XX or %00. */
static char *decode(const char *text, size_t len)
{
    char *out = malloc(len + 1);
    size_t n = 0;

    if (out == NULL)
        return NULL;
    for (size_t i = 0; i < len; i++) {
        if (text[i] != '%') {
            out[n++] = text[i];
            continue;
        }
        if (i + 2 >= len || hex(text[i + 1]) < 0 || hex(text[i + 2]) < 0 ||
            (hex(text[i + 1]) == 0 && hex(text[i + 2]) == 0)) {
            free(out);
            errno = 0;
            return NULL;
        }
        out[n++] = (char)(hex(text[i + 1]) << 4 | hex(text[i + 2]));
        i += 2;
    }
    out[n] = '\0';
    return out;
}

static enum tr_rc take(const char *text, size_t len, const char *what, char **ret_copy, struct tr_err *err)
{
    errno = ENOMEM;
    *ret_copy = decode(text, len);
    if (*ret_copy != NULL)
        return TR_OK;
    return errno == 0 ? tr_fail(err, TR_INVALID, "a broken %%XX in the %s", what) : tr_fail(err, TR_NOMEM, "URL");
}

/* host, host:port or [address]:port */
static enum tr_rc take_host(struct url *u, const char *text, size_t len, uint16_t default_port, struct tr_err *err)
{
    const char *const end = text + len, *name = text, *name_end, *colon;
    unsigned long port = default_port;

    if (u->hosts == URL_HOSTS_MAX)
        return tr_fail(err, TR_INVALID, "more than %d hosts", URL_HOSTS_MAX);
    if (len > 0 && *text == '[') {
        name = text + 1;
        name_end = memchr(name, ']', len - 1);
        if (name_end == NULL)
            return tr_fail(err, TR_INVALID, "host: '[' without ']'");
        colon = name_end + 1 < end ? name_end + 1 : NULL;
    } else {
        colon = memchr(text, ':', len);
        name_end = colon != NULL ? colon : end;
    }
    if (name_end == name)
        return tr_fail(err, TR_INVALID, "a host is missing");
    if (colon != NULL) {
        char digits[8] = "", *stop;

        if (*colon == ':' && end - colon - 1 < (ptrdiff_t)sizeof digits)
            memcpy(digits, colon + 1, (size_t)(end - colon - 1));
        port = strtoul(digits, &stop, 10);
        if (digits[0] < '0' || digits[0] > '9' || *stop != '\0' || port == 0 || port > 65535)
            return tr_fail(err, TR_INVALID, "host: the port is not a number from 1 to 65535");
    }
    u->host[u->hosts].name = strndup(name, (size_t)(name_end - name));
    if (u->host[u->hosts].name == NULL)
        return tr_fail(err, TR_NOMEM, "URL");
    u->host[u->hosts++].port = (uint16_t)port;
    return TR_OK;
}

static enum tr_rc take_authority(struct url *u, const char *text, size_t len, uint16_t default_port, struct tr_err *err)
{
    const char *const at = memrchr(text, '@', len), *end = text + len;
    enum tr_rc rc = TR_OK;

    if (at != NULL) {
        const char *const colon = memchr(text, ':', (size_t)(at - text));

        rc = take(text, (size_t)((colon != NULL ? colon : at) - text), "user", &u->user, err);
        if (rc == TR_OK && colon != NULL)
            rc = take(colon + 1, (size_t)(at - colon - 1), "password", &u->password, err);
        text = at + 1;
    }
    while (rc == TR_OK && text < end) {
        const char *comma = memchr(text, ',', (size_t)(end - text));

        if (comma == NULL)
            comma = end;
        rc = take_host(u, text, (size_t)(comma - text), default_port, err);
        text = comma + 1;
    }
    return rc;
}

static enum tr_rc take_query(struct url *u, const char *text, struct tr_err *err)
{
    enum tr_rc rc = TR_OK;

    while (rc == TR_OK && *text != '\0') {
        const size_t len = strcspn(text, "&");
        const char *const eq = memchr(text, '=', len);
        const size_t key_len = eq != NULL ? (size_t)(eq - text) : len;

        if (u->query_n == URL_QUERY_MAX)
            return tr_fail(err, TR_INVALID, "more than %d keys behind '?'", URL_QUERY_MAX);
        rc = take(text, key_len, "query", &u->query[u->query_n].key, err);
        if (rc == TR_OK)
            rc = take(eq != NULL ? eq + 1 : "", eq != NULL ? len - key_len - 1 : 0, "query",
                      &u->query[u->query_n].value, err);
        u->query_n++; /* half a pair is released too */
        text += len;
        text += *text == '&';
    }
    return rc;
}

enum tr_rc url_parse(const char *text, uint16_t default_port, struct url *ret_url, struct tr_err *err)
{
    const char *const colon = strstr(text, "://");
    struct url u = {0};
    size_t len;
    enum tr_rc rc;

    if (colon == NULL || colon == text || (size_t)(colon - text) >= sizeof u.scheme)
        return tr_fail(err, TR_INVALID, "not scheme://host");
    memcpy(u.scheme, text, (size_t)(colon - text));
    text = colon + 3;
    len = strcspn(text, "/?");
    rc = take_authority(&u, text, len, default_port, err);
    text += len;
    if (rc == TR_OK) {
        if (*text == '/')
            text++;
        len = strcspn(text, "?");
        rc = take(text, len, "path", &u.path, err);
        text += len;
    }
    if (rc == TR_OK && *text == '?')
        rc = take_query(&u, text + 1, err);
    if (rc == TR_OK)
        *ret_url = u;
    else
        url_release(&u);
    return rc;
}

void url_release(struct url *u)
{
    if (u->password != NULL)
        explicit_bzero(u->password, strlen(u->password));
    free(u->user);
    free(u->password);
    for (size_t i = 0; i < u->hosts; i++)
        free(u->host[i].name);
    free(u->path);
    for (size_t i = 0; i < u->query_n; i++) {
        free(u->query[i].key);
        free(u->query[i].value);
    }
    *u = (struct url){0};
}

void url_shown(const char *text, char *out, size_t size)
{
    const char *const start = strstr(text, "://");
    const char *const authority = start != NULL ? start + 3 : text;
    const size_t len = strcspn(authority, "/?");
    const char *const at = start != NULL ? memrchr(authority, '@', len) : NULL;
    const char *const colon = at != NULL ? memchr(authority, ':', (size_t)(at - authority)) : NULL;

    if (colon != NULL)
        snprintf(out, size, "%.*s:***%s", (int)(colon - text), text, at);
    else
        snprintf(out, size, "%s", text);
}

const char *url_query(const struct url *u, const char *key)
{
    for (size_t i = 0; i < u->query_n; i++)
        if (strcmp(u->query[i].key, key) == 0)
            return u->query[i].value;
    return NULL;
}

enum tr_rc url_query_u64(const struct url *u, const char *key, uint64_t fallback, uint64_t min, uint64_t max,
                         uint64_t *ret_value, struct tr_err *err)
{
    const char *const text = url_query(u, key);
    unsigned long long value;
    char *end;

    if (text == NULL) {
        *ret_value = fallback;
        return TR_OK;
    }
    errno = 0;
    value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || errno != 0 || value < min || value > max)
        return tr_fail(err, TR_INVALID, "?%.40s=%.40s is not a whole number from %llu to %llu", key, text,
                       (unsigned long long)min, (unsigned long long)max);
    *ret_value = value;
    return TR_OK;
}
