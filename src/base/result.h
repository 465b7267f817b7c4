/*
 * result - the one result enum and the one error struct of the whole program.
 * The enum says what the caller should DO; struct tr_err says what broke.
 */
#ifndef BASE_RESULT_H
#define BASE_RESULT_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TR_MUST_CHECK __attribute__((warn_unused_result))
#define TR_PRINTF(fmt, first) __attribute__((format(printf, fmt, first)))

enum tr_rc {
    TR_OK = 0,
    TR_NOT_FOUND, /* absent; not a failure */
    TR_INVALID,   /* bad input that stays bad: dead-letter it */
    TR_BUSY,      /* a limit is reached: try again after a pause */
    TR_TRANSIENT, /* lost connection, timeout; nothing was written: try again */
    TR_UNCERTAIN, /* a write may have landed: try again only if idempotent */
    TR_CANCELLED, /* we gave it up ourselves */
    TR_NOMEM,
    TR_RC_COUNT
};

/* What broke, for one log line or one error message.  Never holds a user's words or a secret. */
struct tr_err {
    enum tr_rc rc;
    char msg[256];
};

/* "ok", "not_found", ...; "?" for a value outside the enum.  Static. */
const char *tr_rc_name(enum tr_rc rc);

/* Fill *err (which may be NULL) and return rc, so that failing is one line. */
enum tr_rc tr_fail(struct tr_err *err, enum tr_rc rc, const char *fmt, ...) TR_PRINTF(3, 4);

/* Put "<text>: " before err's message (err may be NULL) and return rc. */
enum tr_rc tr_wrap(struct tr_err *err, enum tr_rc rc, const char *fmt, ...) TR_PRINTF(3, 4);

/* The message, or the code's name where there is none; err may be NULL. */
const char *tr_err_text(const struct tr_err *err);

#endif
