/* boot - the steps before the roles start, one after another: are the stores there, is it the right master key. */
#ifndef COMMAND_BOOT_H
#define COMMAND_BOOT_H

#include "wiring.h"

/* What a store's check brought. */
struct boot_checked {
    enum tr_rc rc;
    struct tr_err err;
    struct service_report report;
};
/* Ask one store; runs the loop until it has answered. */
void boot_check(struct wiring *w, const struct wiring_service *s, struct boot_checked *ret_checked);

/*
 * Wait until every store outside answers, with a line now and then of whom it waits for; media are asked once.
 *   TR_TRANSIENT  limit_ms (0: none) have passed
 *   TR_NOT_FOUND, TR_INVALID  one that answered otherwise: waiting would not mend it; the err says what would
 */
enum tr_rc boot_wait(struct wiring *w, uint64_t limit_ms, struct tr_err *err) TR_MUST_CHECK;

/* A setting of the catalogue into `value`.  TR_NOT_FOUND: there is none. */
enum tr_rc boot_setting(struct wiring *w, const char *key, char *value, size_t size, struct tr_err *err) TR_MUST_CHECK;

/*
 * The stores must have been made with this master key (contract 11.15); `put`: the first one to come says with which.
 *   TR_INVALID    it is another
 *   TR_NOT_FOUND  none was noted yet, and put is false
 */
enum tr_rc boot_master_key(struct wiring *w, bool put, struct tr_err *err) TR_MUST_CHECK;

#endif
