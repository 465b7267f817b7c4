/* resolve - see resolve.h. */
#include "base/resolve.h"

#include <stdlib.h>
#include <uv.h>

struct resolve {
    uv_getaddrinfo_t req; /* first */
    resolve_done *done;   /* NULL: nobody waits any more */
    void *ctx;
};

static void on_resolved(uv_getaddrinfo_t *req, int status, struct addrinfo *found)
{
    struct resolve *const r = (struct resolve *)req;
    char address[64] = "";

    if (status == 0 && found->ai_family == AF_INET)
        uv_ip4_name((const struct sockaddr_in *)found->ai_addr, address, sizeof address);
    else if (status == 0 && found->ai_family == AF_INET6)
        uv_ip6_name((const struct sockaddr_in6 *)found->ai_addr, address, sizeof address);
    uv_freeaddrinfo(found);
    if (r->done != NULL)
        r->done(r->ctx, address[0] != '\0' ? address : NULL, status != 0 ? uv_strerror(status) : "no address");
    free(r);
}

enum tr_rc resolve_start(struct loop *loop, const char *host, resolve_done *done, void *ctx,
                         struct resolve **ret_resolve, struct tr_err *err)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct resolve *const r = calloc(1, sizeof *r);

    if (r == NULL)
        return tr_fail(err, TR_NOMEM, "resolving a name");
    r->done = done;
    r->ctx = ctx;
    if (uv_getaddrinfo(loop_uv(loop), &r->req, on_resolved, host, NULL, &hints) != 0) {
        free(r);
        return tr_fail(err, TR_TRANSIENT, "the name %.80s cannot be looked up", host);
    }
    *ret_resolve = r;
    return TR_OK;
}

void resolve_stop(struct resolve *r)
{
    if (r == NULL)
        return;
    r->done = NULL;
    uv_cancel((uv_req_t *)&r->req);
}
