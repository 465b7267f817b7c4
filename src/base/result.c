/* result - names of the result codes and the filling of struct tr_err. */
#include "base/result.h"

#include <stdio.h>
#include <string.h>

static const char *const names[TR_RC_COUNT] = {
    [TR_OK] = "ok",
    [TR_NOT_FOUND] = "not_found",
    [TR_INVALID] = "invalid",
    [TR_BUSY] = "busy",
    [TR_TRANSIENT] = "transient",
    [TR_UNCERTAIN] = "uncertain",
    [TR_CANCELLED] = "cancelled",
    [TR_NOMEM] = "nomem",
};

const char *tr_rc_name(enum tr_rc rc)
{
    return (unsigned)rc < TR_RC_COUNT ? names[rc] : "?";
}

enum tr_rc tr_fail(struct tr_err *err, enum tr_rc rc, const char *fmt, ...)
{
    va_list ap;

    if (err == NULL)
        return rc;
    err->rc = rc;
    va_start(ap, fmt);
    vsnprintf(err->msg, sizeof err->msg, fmt, ap);
    va_end(ap);
    return rc;
}

/* ": <old>" behind the first n bytes, as much as fits. */
static void tr_append(struct tr_err *err, size_t n, const char *old)
{
    const size_t room = sizeof err->msg - 1 - n;
    const size_t len = strlen(old);

    if (room < 3)
        return;
    memcpy(err->msg + n, ": ", 2);
    memcpy(err->msg + n + 2, old, len < room - 2 ? len : room - 2);
    err->msg[n + 2 + (len < room - 2 ? len : room - 2)] = '\0';
}

enum tr_rc tr_wrap(struct tr_err *err, enum tr_rc rc, const char *fmt, ...)
{
    char old[sizeof err->msg];
    va_list ap;
    int n;

    if (err == NULL)
        return rc;
    memcpy(old, err->msg, sizeof old);
    err->rc = rc;
    va_start(ap, fmt);
    n = vsnprintf(err->msg, sizeof err->msg, fmt, ap);
    va_end(ap);
    if (n >= 0 && (size_t)n < sizeof err->msg)
        tr_append(err, (size_t)n, old);
    return rc;
}

const char *tr_err_text(const struct tr_err *err)
{
    if (err == NULL)
        return "no cause given";
    return err->msg[0] != '\0' ? err->msg : tr_rc_name(err->rc);
}
