/* session - see session.h. */
#include "role/gateway/session.h"

#include <string.h>
#include <strings.h>

static bool check(const struct seal_master *master, struct slice token, uint64_t now_ms, struct uuid *ret_user)
{
    uint64_t expires_ms;

    return token.len > 0 && token.len < SEAL_TOKEN_MAX &&
           seal_token_check(master, (const char *)token.data, token.len, now_ms, ret_user, &expires_ms) == TR_OK;
}

bool session_user(const struct seal_master *master, const struct http_request *req, uint64_t now_ms,
                  struct uuid *ret_user)
{
    struct slice token = req->header[HTTP_AUTHORIZATION];
    size_t at = 0;

    if (token.len > 7 && strncasecmp((const char *)token.data, "Bearer ", 7) == 0) {
        token.data += 7;
        token.len -= 7;
        while (token.len > 0 && token.data[0] == ' ') {
            token.data++;
            token.len--;
        }
        if (check(master, token, now_ms, ret_user))
            return true;
    }
    while (http_cookie(req->header[HTTP_COOKIE], SESSION_COOKIE, &at, &token))
        if (check(master, token, now_ms, ret_user))
            return true;
    return false;
}

void session_cookie(struct buf *out, const char *token)
{
    buf_printf(out, "Set-Cookie: " SESSION_COOKIE "=%s; Max-Age=%llu; Path=/; HttpOnly; SameSite=Strict\r\n", token,
               SESSION_SECONDS);
}
