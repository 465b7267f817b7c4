/*
 * loop - libuv's loop with deferred calls, posts from other threads, and timers.
 * Posted calls come with an eventfd of our own: a uv_async_t would make the loop spin until its sender is through, and the
 * sender has often just been put aside for the loop.  Deferred ones keep an idle handle active, so that the loop does not
 * sleep before them.
 */
#include "base/loop.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

#define DEFERRED_ROUNDS 8 /* of calls that defer others, before I/O gets its turn */

struct call_list {
    struct loop_call *first, *last;
};

struct loop {
    uv_loop_t uv;
    uv_poll_t wake; /* of wake_fd */
    int wake_fd;
    uv_check_t check; /* runs the deferred calls of this round */
    uv_idle_t idle;   /* active while calls are deferred: the poll must not block */
    struct call_list deferred;
    struct call_list running; /* taken from one of the other two, being called */
    pthread_mutex_t lock;     /* guards posted */
    struct call_list posted;
    size_t timers;
    uint64_t began_ms; /* where the grid of repeated timers begins: not the same in all processes */
    bool stop;
};

struct loop_timer {
    uv_timer_t uv;
    struct loop *loop;
    void (*fn)(void *ctx);
    void *ctx;
    uint64_t repeat_ms;
};

static void list_add(struct call_list *l, struct loop_call *first, struct loop_call *last)
{
    last->next = NULL;
    if (l->first == NULL)
        l->first = first;
    else
        l->last->next = first;
    l->last = last;
}

/* Call what is in `running` until it is empty; a call may call loop_drain(), which goes on with the rest. */
static void run_calls(struct loop *loop)
{
    while (loop->running.first != NULL) {
        struct loop_call *call = loop->running.first;

        loop->running.first = call->next; /* the call may free itself */
        call->fn(call);
    }
}

static bool take_deferred(struct loop *loop)
{
    loop->running = loop->deferred;
    loop->deferred = (struct call_list){0};
    return loop->running.first != NULL;
}

static bool take_posted(struct loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    loop->running = loop->posted;
    loop->posted = (struct call_list){0};
    pthread_mutex_unlock(&loop->lock);
    return loop->running.first != NULL;
}

/* Only a call that finds nothing posted before it wakes the loop up. */
static void wake_up(struct loop *loop)
{
    const uint64_t one = 1;

    while (write(loop->wake_fd, &one, sizeof one) < 0 && errno == EINTR)
        continue; /* EAGAIN: it is awake */
}

static void on_wake(uv_poll_t *poll, int status, int events)
{
    struct loop *loop = poll->data;
    uint64_t n;

    (void)status;
    (void)events;
    while (read(loop->wake_fd, &n, sizeof n) < 0 && errno == EINTR)
        continue; /* before taking: what is posted from now on wakes it again */
    if (take_posted(loop))
        run_calls(loop);
}

static void on_check(uv_check_t *check)
{
    struct loop *loop = check->data;

    for (int i = 0; i < DEFERRED_ROUNDS && take_deferred(loop); i++)
        run_calls(loop);
    if (loop->deferred.first == NULL)
        uv_idle_stop(&loop->idle);
}

static void on_idle(uv_idle_t *idle)
{
    (void)idle; /* its being active is all it is for */
}

enum tr_rc loop_new(struct loop **ret_loop, struct tr_err *err)
{
    struct loop *loop = calloc(1, sizeof *loop);
    int r;

    if (loop == NULL)
        return tr_fail(err, TR_NOMEM, "loop");
    r = uv_loop_init(&loop->uv);
    if (r != 0) {
        free(loop);
        return tr_fail(err, TR_TRANSIENT, "event loop: %s", uv_strerror(r));
    }
    loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    r = loop->wake_fd < 0 ? uv_translate_sys_error(errno) : uv_poll_init(&loop->uv, &loop->wake, loop->wake_fd);
    if (r != 0) {
        if (loop->wake_fd >= 0)
            close(loop->wake_fd);
        uv_loop_close(&loop->uv);
        free(loop);
        return tr_fail(err, TR_TRANSIENT, "event loop: %s", uv_strerror(r));
    }
    loop->began_ms = uv_now(&loop->uv);
    pthread_mutex_init(&loop->lock, NULL);
    uv_check_init(&loop->uv, &loop->check);
    uv_idle_init(&loop->uv, &loop->idle);
    loop->wake.data = loop->check.data = loop;
    uv_poll_start(&loop->wake, UV_READABLE, on_wake);
    uv_check_start(&loop->check, on_check);
    uv_unref((uv_handle_t *)&loop->check);
    *ret_loop = loop;
    return TR_OK;
}

void loop_free(struct loop *loop)
{
    int r;

    if (loop == NULL)
        return;
    assert(loop->timers == 0);
    assert(loop->deferred.first == NULL && loop->posted.first == NULL);
    uv_close((uv_handle_t *)&loop->wake, NULL);
    uv_close((uv_handle_t *)&loop->check, NULL);
    uv_close((uv_handle_t *)&loop->idle, NULL);
    while (uv_run(&loop->uv, UV_RUN_NOWAIT) != 0)
        continue; /* closing handles end in the next rounds */
    r = uv_loop_close(&loop->uv);
    assert(r == 0);
    (void)r;
    close(loop->wake_fd);
    pthread_mutex_destroy(&loop->lock);
    free(loop);
}

void loop_run(struct loop *loop)
{
    loop->stop = false;
    while (!loop->stop)
        uv_run(&loop->uv, UV_RUN_ONCE);
}

void loop_stop(struct loop *loop)
{
    loop->stop = true;
    wake_up(loop);
}

uint64_t loop_now_ms(const struct loop *loop)
{
    return uv_now(&loop->uv);
}

void loop_defer(struct loop *loop, struct loop_call *call)
{
    if (loop->deferred.first == NULL)
        uv_idle_start(&loop->idle, on_idle);
    list_add(&loop->deferred, call, call);
}

void loop_post_all(struct loop *loop, struct loop_call *first, struct loop_call *last)
{
    bool wake;

    pthread_mutex_lock(&loop->lock);
    wake = loop->posted.first == NULL;
    list_add(&loop->posted, first, last);
    pthread_mutex_unlock(&loop->lock);
    if (wake)
        wake_up(loop);
}

void loop_post(struct loop *loop, struct loop_call *call)
{
    loop_post_all(loop, call, call);
}

void loop_drain(struct loop *loop)
{
    do
        run_calls(loop);
    while (take_deferred(loop) || take_posted(loop));
}

static void on_timer(uv_timer_t *uv)
{
    struct loop_timer *t = uv->data;
    const uint64_t since = uv_now(&t->loop->uv) - t->loop->began_ms;

    if (t->repeat_ms > 0) /* on the grid of its period, so that ticks of several share a wake-up */
        uv_timer_start(uv, on_timer, t->repeat_ms - since % t->repeat_ms, 0);
    t->fn(t->ctx);
}

enum tr_rc timer_start(struct loop *loop, uint64_t ms, uint64_t repeat_ms, void (*fn)(void *ctx), void *ctx,
                       struct loop_timer **ret_timer)
{
    struct loop_timer *t = calloc(1, sizeof *t);

    if (t == NULL)
        return TR_NOMEM;
    t->loop = loop;
    t->fn = fn;
    t->ctx = ctx;
    t->repeat_ms = repeat_ms;
    uv_timer_init(&loop->uv, &t->uv);
    t->uv.data = t;
    uv_timer_start(&t->uv, on_timer, ms, 0); /* repeated by on_timer() */
    loop->timers++;
    *ret_timer = t;
    return TR_OK;
}

void timer_again(struct loop_timer *timer, uint64_t ms)
{
    uv_timer_start(&timer->uv, on_timer, ms, 0);
}

static void on_timer_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void timer_stop(struct loop_timer *timer)
{
    if (timer == NULL)
        return;
    timer->loop->timers--;
    uv_timer_stop(&timer->uv);
    uv_close((uv_handle_t *)&timer->uv, on_timer_closed);
}

struct uv_loop_s *loop_uv(struct loop *loop)
{
    return &loop->uv;
}

uint64_t wall_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

uint64_t wall_since_ms(uint64_t then_ms)
{
    const uint64_t now = wall_ms();

    return now > then_ms ? now - then_ms : 0;
}

uint64_t mono_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}
