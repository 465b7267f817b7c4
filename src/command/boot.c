/* boot - see boot.h. */
#include "command/boot.h"

#include "base/log.h"

#include <stdio.h>
#include <string.h>

#define MASTER_KEY_CHECK "master_key_check"
#define PAUSE_FIRST_MS 200
#define PAUSE_MAX_MS 500
#define LOG_EVERY_MS 10000

struct checking {
    struct await a;
    struct boot_checked *out;
};

static void on_checked(void *ctx, enum tr_rc rc, const struct service_report *report, const struct tr_err *err)
{
    struct checking *c = ctx;

    if (report != NULL)
        c->out->report = *report;
    await_done(&c->a, rc, err);
}

void boot_check(struct wiring *w, const struct wiring_service *s, struct boot_checked *ret_checked)
{
    struct checking c = {.a = {.loop = w->loop}, .out = ret_checked};
    struct tr_op *op = NULL;

    *ret_checked = (struct boot_checked){0};
    ret_checked->rc =
        await(&c.a, wiring_service_check(w, s, on_checked, &c, &op, &ret_checked->err), &ret_checked->err);
}

static void on_pause(void *ctx)
{
    await_done(ctx, TR_OK, NULL);
}

static enum tr_rc pause_for(struct wiring *w, uint64_t ms, struct tr_err *err)
{
    struct await a = {.loop = w->loop};
    struct loop_timer *timer = NULL;
    enum tr_rc rc = timer_start(w->loop, ms, 0, on_pause, &a, &timer);

    if (rc != TR_OK)
        return tr_fail(err, rc, "a timer");
    rc = await(&a, rc, err);
    timer_stop(timer);
    return rc;
}

static enum tr_rc wait_one(struct wiring *w, const struct wiring_service *s, uint64_t limit_ns, struct tr_err *err)
{
    uint64_t pause = PAUSE_FIRST_MS, logged_ns = 0;

    for (;;) {
        struct boot_checked c;
        const uint64_t now = mono_ns();

        boot_check(w, s, &c);
        if (c.rc == TR_OK) {
            log_event(LOG_DEBUG, "boot.reached", "store=%s server=%Q", s->name, c.report.server);
            return TR_OK;
        }
        if ((c.rc != TR_TRANSIENT && c.rc != TR_BUSY) || (limit_ns != 0 && mono_ns() >= limit_ns))
            return tr_fail(err, c.rc, "%s: %s", s->key, tr_err_text(&c.err));
        if (logged_ns == 0 || now - logged_ns > LOG_EVERY_MS * UINT64_C(1000000)) {
            log_event(LOG_WARN, "boot.waiting", "store=%s cause=%Q", s->name, tr_err_text(&c.err));
            logged_ns = now;
        }
        if (pause_for(w, pause, err) != TR_OK)
            return TR_NOMEM;
        pause = pause * 2 < PAUSE_MAX_MS ? pause * 2 : PAUSE_MAX_MS;
    }
}

/* Chats go on without media (role/common/watch.h): it is told, and not waited for. */
static void look_at_media(struct wiring *w, const struct wiring_service *s)
{
    struct boot_checked c;

    boot_check(w, s, &c);
    if (c.rc != TR_OK)
        log_event(LOG_WARN, "boot.without", "store=%s cause=%Q", s->name, tr_err_text(&c.err));
}

enum tr_rc boot_wait(struct wiring *w, uint64_t limit_ms, struct tr_err *err)
{
    const uint64_t limit_ns = limit_ms != 0 ? mono_ns() + limit_ms * 1000000 : 0;
    struct wiring_service services[WIRING_SERVICES_MAX];
    const size_t n = wiring_services(w, services);
    enum tr_rc rc = TR_OK;

    for (size_t i = 0; i < n && rc == TR_OK; i++)
        if (services[i].part == WIRING_MEDIA && services[i].outside)
            look_at_media(w, &services[i]);
        else if (services[i].outside)
            rc = wait_one(w, &services[i], limit_ns, err);
    return rc;
}

struct setting {
    struct await a;
    char *value;
    size_t size;
};

static void on_setting(void *ctx, enum tr_rc rc, bool mine, const char *value, const struct tr_err *err)
{
    struct setting *s = ctx;

    (void)mine;
    if (rc == TR_OK)
        snprintf(s->value, s->size, "%s", value);
    await_done(&s->a, rc, err);
}

enum tr_rc boot_setting(struct wiring *w, const char *key, char *value, size_t size, struct tr_err *err)
{
    struct catalogue *const c = w->env.catalogue;
    struct setting s = {.a = {.loop = w->loop}, .value = value, .size = size};
    struct tr_op *op = NULL;

    return await(&s.a, c->ops->setting_get(c, key, on_setting, &s, &op, err), err);
}

enum tr_rc boot_master_key(struct wiring *w, bool put, struct tr_err *err)
{
    struct catalogue *const c = w->env.catalogue;
    char value[64] = "", want[33];
    struct setting s = {.a = {.loop = w->loop}, .value = value, .size = sizeof value};
    struct tr_op *op = NULL;
    enum tr_rc rc;

    seal_check_value(w->master, want);
    if (put)
        rc = await(&s.a, c->ops->setting_put(c, MASTER_KEY_CHECK, want, on_setting, &s, &op, err), err);
    else
        rc = boot_setting(w, MASTER_KEY_CHECK, value, sizeof value, err);
    if (rc == TR_NOT_FOUND)
        return tr_fail(err, rc, "nothing was set up here yet: run `troupe init` once");
    if (rc == TR_OK && strcmp(value, want) != 0)
        rc = tr_fail(err, TR_INVALID, "%s is not the master key that this data was sealed with: put the right one back",
                     config_str(w->env.config, "TROUPE_MASTER_KEY_FILE"));
    return rc;
}
