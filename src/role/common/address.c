/* address - see address.h. */
#include "role/common/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define ORIGIN_MAX 300

/* Digits alone, 0 to 65535. */
static bool parse_port(const char *text, size_t len, uint16_t *ret_port)
{
    unsigned value = 0;

    if (len == 0 || len > 5)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        value = value * 10 + (unsigned)(text[i] - '0');
    }
    if (value > 65535)
        return false;
    *ret_port = (uint16_t)value;
    return true;
}

enum tr_rc address_parse(const char *text, struct sockaddr_storage *ret_address, struct tr_err *err)
{
    const char *colon = strrchr(text, ':');
    struct sockaddr_storage address = {0};
    struct sockaddr_in *v4 = (struct sockaddr_in *)&address;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&address;
    char host[INET6_ADDRSTRLEN + 2];
    uint16_t port;
    size_t len;

    if (colon == NULL || !parse_port(colon + 1, strlen(colon + 1), &port))
        return tr_fail(err, TR_INVALID, "'%.80s' has no port: write address:port, as in 127.0.0.1:8080", text);
    len = (size_t)(colon - text);
    if (len >= 2 && text[0] == '[' && text[len - 1] == ']') {
        text++;
        len -= 2;
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(port);
    } else {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
    }
    if (len >= sizeof host)
        return tr_fail(err, TR_INVALID, "'%.80s' is too long for an address", text);
    memcpy(host, text, len);
    host[len] = '\0';
    if (address.ss_family == AF_INET && strcmp(host, "localhost") == 0)
        v4->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    else if (address.ss_family == AF_INET ? inet_pton(AF_INET, host, &v4->sin_addr) != 1
                                          : inet_pton(AF_INET6, host, &v6->sin6_addr) != 1)
        return tr_fail(err, TR_INVALID, "'%.80s' is no address: write 127.0.0.1:8080, 0.0.0.0:8080 or [::1]:8080",
                       host);
    *ret_address = address;
    return TR_OK;
}

uint16_t address_port(const struct sockaddr_storage *address)
{
    return ntohs(address->ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)address)->sin6_port
                                                : ((const struct sockaddr_in *)address)->sin_port);
}

static void format_host(const struct sockaddr_storage *address, char ret_text[INET6_ADDRSTRLEN + 2])
{
    char host[INET6_ADDRSTRLEN] = "";

    if (address->ss_family == AF_INET6) {
        inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)address)->sin6_addr, host, sizeof host);
        snprintf(ret_text, INET6_ADDRSTRLEN + 2, "[%s]", host);
    } else {
        inet_ntop(AF_INET, &((const struct sockaddr_in *)address)->sin_addr, host, sizeof host);
        snprintf(ret_text, INET6_ADDRSTRLEN + 2, "%s", host);
    }
}

void address_format(const struct sockaddr_storage *address, char ret_text[ADDRESS_TEXT])
{
    char host[INET6_ADDRSTRLEN + 2];

    format_host(address, host);
    snprintf(ret_text, ADDRESS_TEXT, "%s:%u", host, (unsigned)address_port(address));
}

void address_bytes(const struct sockaddr_storage *address, uint8_t ret_bytes[16])
{
    if (address->ss_family == AF_INET6) {
        memcpy(ret_bytes, &((const struct sockaddr_in6 *)address)->sin6_addr, 16);
    } else {
        memset(ret_bytes, 0, 10);
        ret_bytes[10] = ret_bytes[11] = 0xff;
        memcpy(ret_bytes + 12, &((const struct sockaddr_in *)address)->sin_addr, 4);
    }
}

void origins_release(struct origins *origins)
{
    for (size_t i = 0; i < origins->n; i++)
        free(origins->list[i]);
    free(origins->list);
    *origins = (struct origins){0};
}

/* scheme://host[:port], in lower case, without a port that the scheme implies.  False: it isn't one. */
static bool normalise(const char *text, size_t len, char out[ORIGIN_MAX])
{
    size_t scheme, host;
    const char *colon;
    uint16_t port;

    if (len == 0 || len >= ORIGIN_MAX)
        return false;
    for (size_t i = 0; i < len; i++) {
        const char c = text[i];

        if (c <= ' ' || c >= 0x7f || c == '"' || c == '\\' || c == ',' || c == '@')
            return false;
        out[i] = c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
    }
    out[len] = '\0';
    scheme = strncmp(out, "http://", 7) == 0 ? 7 : strncmp(out, "https://", 8) == 0 ? 8 : 0;
    if (scheme == 0)
        return false;
    host = strlen(out + scheme);
    if (host == 0 || strpbrk(out + scheme, "/?#") != NULL)
        return false;
    colon = strrchr(out + scheme, ':');
    if (out[scheme] != '[' && colon != strchr(out + scheme, ':'))
        return false; /* IPv6 stands in brackets */
    if (colon != NULL && strchr(colon, ']') == NULL) {
        if (colon == out + scheme || !parse_port(colon + 1, strlen(colon + 1), &port))
            return false;
        if (port == (scheme == 7 ? 80 : 443))
            out[colon - out] = '\0';
    }
    return true;
}

static enum tr_rc add(struct origins *o, const char *text, size_t len, struct tr_err *err)
{
    char origin[ORIGIN_MAX], **list;

    if (len > 0 && text[len - 1] == '/')
        len--; /* as people write it */
    if (!normalise(text, len, origin))
        return tr_fail(err, TR_INVALID, "'%.*s' is no origin: write https://host or http://host:port",
                       (int)(len < 100 ? len : 100), text);
    list = realloc(o->list, (o->n + 1) * sizeof *list);
    if (list == NULL)
        return tr_fail(err, TR_NOMEM, "origins");
    o->list = list;
    list[o->n] = strdup(origin);
    if (list[o->n] == NULL)
        return tr_fail(err, TR_NOMEM, "origins");
    o->n++;
    return TR_OK;
}

enum tr_rc origins_parse(const char *text, uint16_t port, const struct sockaddr_storage *address,
                         struct origins *ret_origins, struct tr_err *err)
{
    static const char *const own[] = {"127.0.0.1", "localhost", "[::1]"};
    struct origins o = {0};
    enum tr_rc rc = TR_OK;
    char origin[ORIGIN_MAX], host[INET6_ADDRSTRLEN + 2];
    const char *p = text;

    while (rc == TR_OK && *p != '\0') {
        size_t len, skip = strspn(p, " \t,");

        p += skip;
        len = strcspn(p, ",");
        skip = len;
        while (len > 0 && (p[len - 1] == ' ' || p[len - 1] == '\t'))
            len--;
        if (len > 0)
            rc = add(&o, p, len, err);
        p += skip;
    }
    for (size_t i = 0; rc == TR_OK && text[0] == '\0' && i < sizeof own / sizeof own[0]; i++) {
        snprintf(origin, sizeof origin, "http://%s:%u", own[i], (unsigned)port);
        rc = add(&o, origin, strlen(origin), err);
    }
    if (rc == TR_OK && text[0] == '\0' && address != NULL) {
        format_host(address, host);
        snprintf(origin, sizeof origin, "http://%s:%u", host, (unsigned)port);
        rc = add(&o, origin, strlen(origin), err);
    }
    if (rc == TR_OK)
        *ret_origins = o;
    else
        origins_release(&o);
    return rc;
}

bool origins_allow(const struct origins *origins, const char *origin, size_t len)
{
    char wanted[ORIGIN_MAX];

    if (!normalise(origin, len, wanted))
        return false;
    for (size_t i = 0; i < origins->n; i++)
        if (strcmp(origins->list[i], wanted) == 0)
            return true;
    return false;
}
