/* driver - libcurl's multi interface on the loop: sockets, its timer, and what has come to an end. */
#include "adapter/s3/impl.h"

#include <assert.h>
#include <stdlib.h>

#define CONNECTIONS_MAX 64L

/* What polls a socket for curl. */
struct poll {
    uv_poll_t handle; /* first; data: the media, NULL: closing */
    curl_socket_t fd;
};

static void check_done(struct s3_media *m)
{
    const CURLMsg *msg;
    int left;

    while ((msg = curl_multi_info_read(m->multi, &left)) != NULL) {
        struct s3_request *r = NULL;
        const CURLcode code = msg->data.result;

        if (msg->msg == CURLMSG_DONE && curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, (char **)&r) == CURLE_OK)
            s3_complete(r, code);
    }
}

static void on_poll(uv_poll_t *handle, int status, int events)
{
    struct poll *p = (struct poll *)handle;
    struct s3_media *m = handle->data;
    int flags = 0, running;

    if (m == NULL)
        return;
    if (status < 0)
        flags = CURL_CSELECT_ERR;
    if ((events & UV_READABLE) != 0)
        flags |= CURL_CSELECT_IN;
    if ((events & UV_WRITABLE) != 0)
        flags |= CURL_CSELECT_OUT;
    (void)curl_multi_socket_action(m->multi, p->fd, flags, &running);
    check_done(m);
}

static void on_poll_closed(uv_handle_t *handle)
{
    free(handle);
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *ctx, void *socket_ctx)
{
    struct s3_media *m = ctx;
    struct poll *p = socket_ctx;

    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        if (p != NULL) {
            curl_multi_assign(m->multi, fd, NULL);
            p->handle.data = NULL;
            uv_poll_stop(&p->handle);
            uv_close((uv_handle_t *)&p->handle, on_poll_closed);
        }
        return 0;
    }
    if (p == NULL) {
        p = calloc(1, sizeof *p);
        if (p == NULL || uv_poll_init_socket(loop_uv(m->loop), &p->handle, fd) != 0) {
            free(p);
            return -1;
        }
        p->fd = fd;
        p->handle.data = m;
        curl_multi_assign(m->multi, fd, p);
    }
    uv_poll_start(&p->handle,
                  ((what & CURL_POLL_IN) != 0 ? UV_READABLE : 0) | ((what & CURL_POLL_OUT) != 0 ? UV_WRITABLE : 0),
                  on_poll);
    return 0;
}

static void on_uv_timer(uv_timer_t *timer)
{
    struct s3_media *m = timer->data;
    int running;

    (void)curl_multi_socket_action(m->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    check_done(m);
}

static int on_timer(CURLM *multi, long ms, void *ctx)
{
    struct s3_media *m = ctx;

    (void)multi;
    if (m->timer == NULL)
        return 0;
    if (ms < 0)
        uv_timer_stop(m->timer);
    else
        uv_timer_start(m->timer, on_uv_timer, (uint64_t)ms, 0); /* 0: in the loop's next round, not from here */
    return 0;
}

enum tr_rc s3_driver_start(struct s3_media *m, struct tr_err *err)
{
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return tr_fail(err, TR_NOMEM, "libcurl");
    m->multi = curl_multi_init();
    m->timer = calloc(1, sizeof *m->timer);
    if (m->multi == NULL || m->timer == NULL || uv_timer_init(loop_uv(m->loop), m->timer) != 0) {
        free(m->timer);
        m->timer = NULL;
        return tr_fail(err, TR_NOMEM, "libcurl");
    }
    m->timer->data = m;
    curl_multi_setopt(m->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(m->multi, CURLMOPT_SOCKETDATA, m);
    curl_multi_setopt(m->multi, CURLMOPT_TIMERFUNCTION, on_timer);
    curl_multi_setopt(m->multi, CURLMOPT_TIMERDATA, m);
    curl_multi_setopt(m->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, CONNECTIONS_MAX);
    return TR_OK;
}

static void on_timer_closed(uv_handle_t *handle)
{
    free(handle);
}

void s3_driver_stop(struct s3_media *m)
{
    m->closing = true;
    s3_cancel_all(m);
    loop_drain(m->loop);
    assert(m->requests == NULL);
    if (m->timer != NULL) {
        uv_timer_stop(m->timer);
        uv_close((uv_handle_t *)m->timer, on_timer_closed);
        m->timer = NULL;
    }
    if (m->multi != NULL)
        curl_multi_cleanup(m->multi);
    m->multi = NULL;
    curl_global_cleanup();
}
