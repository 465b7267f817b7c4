/*
 * wiring - builds what a process needs out of the configuration.  wiring.c is the only file that names adapters.
 */
#ifndef WIRING_H
#define WIRING_H

#include "role/common/keyring.h"
#include "role/common/role.h"

#define WIRING_ENGINES_MAX 4

/* What a command needs; a set of them is or'ed. */
enum wiring_part {
    WIRING_KEY = 1, /* the master key */
    WIRING_CATALOGUE = 2,
    WIRING_HISTORY = 4, /* and the keyring */
    WIRING_QUEUE = 8,
    WIRING_REGISTRY = 16,
    WIRING_ENGINES = 32,
    WIRING_MEDIA = 64, /* opened with all the stores, too */
    WIRING_STORES = WIRING_KEY | WIRING_CATALOGUE | WIRING_HISTORY | WIRING_QUEUE | WIRING_REGISTRY,
    WIRING_ALL = WIRING_STORES | WIRING_ENGINES,
};

enum wiring_mode {
    WIRING_ONE_PROCESS, /* `troupe up`: embedded stores are fine */
    WIRING_ROLE,        /* one role among others: every store must be one that processes can share */
    WIRING_INIT,        /* `troupe init`: may make the master key */
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

/* Open the parts.  No server is needed for it (port/service.h).  On failure nothing stays open; the err says how to mend it. */
enum tr_rc wiring_open(const struct config *config, unsigned parts, enum wiring_mode mode, struct wiring *ret_wiring,
                       struct tr_err *err) TR_MUST_CHECK;
/* Close all; with no operation under way. */
void wiring_release(struct wiring *w);

/* One store of the wiring, whatever its port, for init, doctor and waiting at the start. */
struct wiring_service {
    enum wiring_part part;
    const char *name; /* "broker", "history", … */
    const char *key;  /* "TROUPE_BROKER", … */
    bool outside;     /* it has init and check */
};
#define WIRING_SERVICES_MAX 8
/* What the configuration says of a store, without opening anything. */
struct wiring_store {
    bool embedded;
    const char *path; /* embedded: what follows the scheme, "" for memory:; borrowed from the configuration */
};
enum tr_rc wiring_describe(const struct config *config, enum wiring_part part, struct wiring_store *ret_store,
                           struct tr_err *err) TR_MUST_CHECK;

/* Those that are open, in the order in which they are to be made. */
size_t wiring_services(const struct wiring *w, struct wiring_service services[WIRING_SERVICES_MAX]);
enum tr_rc wiring_service_init(struct wiring *w, const struct wiring_service *s, service_done *done, void *ctx,
                               struct tr_op **ret_op, struct tr_err *err) TR_MUST_CHECK;
enum tr_rc wiring_service_check(struct wiring *w, const struct wiring_service *s, service_checked *done, void *ctx,
                                struct tr_op **ret_op, struct tr_err *err) TR_MUST_CHECK;

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
