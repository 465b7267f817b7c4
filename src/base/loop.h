/*
 * loop - one libuv loop a thread, with timers, deferred calls and posts from other threads.
 * Threads: everything here belongs to the loop's thread, but for loop_post().
 */
#ifndef BASE_LOOP_H
#define BASE_LOOP_H

#include "base/result.h"

struct loop;
struct loop_timer;
struct uv_loop_s;

/* A call to be made by the loop.  Embed it in your own struct; it must live until it is called. */
struct loop_call {
    void (*fn)(struct loop_call *call);
    struct loop_call *next; /* the loop's own */
};

enum tr_rc loop_new(struct loop **ret_loop, struct tr_err *err) TR_MUST_CHECK;
void loop_free(struct loop *loop); /* asserts that no timer, call or handle is left; NULL is fine */

void loop_run(struct loop *loop);  /* until loop_stop() */
void loop_stop(struct loop *loop); /* loop_run() returns after the calls that are under way */

/* Monotonic milliseconds, as of this round of the loop. */
uint64_t loop_now_ms(const struct loop *loop);

/* Call back in this thread soon, after the running callback has returned, in the order of these calls. */
void loop_defer(struct loop *loop, struct loop_call *call);

/* The same from any thread: wakes the loop up. */
void loop_post(struct loop *loop, struct loop_call *call);

/* Run what is posted and deferred, and what that posts, now: for closing something in its owner's own call. */
void loop_drain(struct loop *loop);

/* Post a chain of calls linked by `next`, `first` to `last`, with one wake-up. */
void loop_post_all(struct loop *loop, struct loop_call *first, struct loop_call *last);

/*
 * Call fn(ctx) after `ms`, then every `repeat_ms` (0: once), the first time up to one period sooner: ticks of several timers
 * come in one wake-up.  A timer lives until timer_stop(), also after it fired.
 *   TR_OK      *ret_timer is owned by the caller
 *   TR_NOMEM
 */
enum tr_rc timer_start(struct loop *loop, uint64_t ms, uint64_t repeat_ms, void (*fn)(void *ctx), void *ctx,
                       struct loop_timer **ret_timer) TR_MUST_CHECK;
void timer_again(struct loop_timer *timer, uint64_t ms); /* fires `ms` from now, whether it is running or not */
void timer_stop(struct loop_timer *timer);               /* and free; NULL is fine; never fires after this */

/* For libraries that are driven on the loop. */
struct uv_loop_s *loop_uv(struct loop *loop);

/* Wall clock, milliseconds since 1970; any thread. */
uint64_t wall_ms(void);
/*
 * Milliseconds since a time of the wall clock that another machine may have told: 0 where that is still to come here.  To
 * show and to measure; what must happen in time goes by one clock alone (DESIGN.md, "Clocks").
 */
uint64_t wall_since_ms(uint64_t then_ms);
/* Monotonic nanoseconds; any thread. */
uint64_t mono_ns(void);

#endif
