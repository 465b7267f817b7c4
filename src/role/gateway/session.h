/* session - who a request comes from: tokens (contract 11.16) in a cookie or an Authorization header. */
#ifndef GATEWAY_SESSION_H
#define GATEWAY_SESSION_H

#include "domain/seal.h"
#include "role/common/http_parse.h"

#define SESSION_COOKIE "troupe_session"
#define SESSION_SECONDS (365ull * 24 * 3600)

/* The user of a request's valid token (Authorization: Bearer first, then the cookie); false: it has none. */
bool session_user(const struct seal_master *master, const struct http_request *req, uint64_t now_ms,
                  struct uuid *ret_user);

/* A header line (with its CRLF) that sets the cookie. */
void session_cookie(struct buf *out, const char *token);

#endif
