/*
 * url - the URLs of the configuration, taken apart: scheme://user:password@host1:port,host2:port/path?key=value&…
 * (RFC 3986's shape, with several hosts as PostgreSQL and Cassandra clients write them); %XX is decoded in user, password, path
 * and query.
 */
#ifndef BASE_URL_H
#define BASE_URL_H

#include "base/result.h"

#define URL_HOSTS_MAX 16
#define URL_QUERY_MAX 16

struct url {
    char scheme[24];
    char *user, *password; /* NULL: none */
    struct {
        char *name; /* without the brackets of an IPv6 address */
        uint16_t port;
    } host[URL_HOSTS_MAX];
    size_t hosts;
    char *path; /* without its first slash; "" without one */
    struct {
        char *key, *value;
    } query[URL_QUERY_MAX];
    size_t query_n;
};

/*
 * Take `text` apart; where a host has no port it gets default_port.  TR_INVALID says what is wrong and shows no password.
 * *ret_url is untouched on failure; url_release() it.
 */
enum tr_rc url_parse(const char *text, uint16_t default_port, struct url *ret_url, struct tr_err *err) TR_MUST_CHECK;
void url_release(struct url *url); /* wipes the password; a zeroed one is fine */

/* A copy for people: the password is shown as ***; cut where `size` ends. */
void url_shown(const char *text, char *out, size_t size);

/* The value of ?key=…, or NULL. */
const char *url_query(const struct url *url, const char *key);
/* The same as a whole number in min … max; absent: `fallback`.  TR_INVALID names the key. */
enum tr_rc url_query_u64(const struct url *url, const char *key, uint64_t fallback, uint64_t min, uint64_t max,
                         uint64_t *ret_value, struct tr_err *err) TR_MUST_CHECK;

#endif
