/*
 * wiring - builds what a process needs out of the configuration.  wiring.c is the only file that names adapters.
 */
#ifndef WIRING_H
#define WIRING_H

#include "role/common/keyring.h"
#include "role/common/role.h"

#define WIRING_ENGINES_MAX 4

enum wiring_part {
    WIRING_CATALOGUE = 1,
    WIRING_STORES = 2, /* queue, history, registry, master key, keyring; takes the data folder for itself */
    WIRING_ENGINES = 4,
};

struct wiring {
    struct role_env env; /* what the roles get */
    struct loop *loop;
    struct engine *engines[WIRING_ENGINES_MAX];
    size_t engines_n;
    struct seal_master *master;
    struct keyring *keyring;
    char instance[25];
    int lock; /* file descriptor, -1: none */
};

/* Open the parts (a set of enum wiring_part).  On failure nothing stays open; the err says how to mend it. */
enum tr_rc wiring_open(const struct config *config, unsigned parts, struct wiring *ret_wiring,
                       struct tr_err *err) TR_MUST_CHECK;
/* Close all; with no operation under way. */
void wiring_release(struct wiring *w);

/* For steps that are made one after another at the start and in commands: pass await_done, then await it. */
struct await {
    struct loop *loop;
    bool done;
    enum tr_rc rc;
    struct tr_err err;
};
void await_done(void *ctx, enum tr_rc rc, const struct tr_err *err);
/* Run the loop until it is done.  rc: what the start function returned (an error there ends it at once). */
enum tr_rc await(struct await *a, enum tr_rc rc, struct tr_err *err);

#endif
