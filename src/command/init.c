/*
 * init - `troupe init`: makes what the servers must have before the roles start: schemas, queues, buckets, the master key
 * where there is none yet, the characters that ship with the program.  Harmless twice, and when two run at once.
 */
#include "base/log.h"
#include "command/boot.h"
#include "command/command.h"
#include "command/shipped.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define WAIT_MS 60000 /* for each server to answer */
#define PAUSE_US 500000

static enum tr_rc make_one(struct wiring *w, const struct wiring_service *s, struct tr_err *err)
{
    const uint64_t until = mono_ns() + WAIT_MS * UINT64_C(1000000);
    enum tr_rc rc;

    for (;;) {
        struct await a = {.loop = w->loop};
        struct tr_op *op = NULL;
        struct tr_err mine = {0};

        rc = await(&a, wiring_service_init(w, s, await_done, &a, &op, &mine), &mine);
        if (rc == TR_OK || rc == TR_INVALID || mono_ns() >= until) {
            if (rc != TR_OK)
                tr_fail(err, rc, "%s: %s", s->key, tr_err_text(&mine));
            return rc;
        }
        log_event(LOG_WARN, "init.again", "store=%s rc=%s cause=%Q", s->name, tr_rc_name(rc), tr_err_text(&mine));
        usleep(PAUSE_US); /* every step is repeatable */
    }
}

/* Schemas of the stores in `parts`, made through a wiring of their own. */
static enum tr_rc make_parts(const struct config *config, unsigned parts, struct tr_err *err)
{
    struct wiring_service services[WIRING_SERVICES_MAX];
    struct wiring w;
    enum tr_rc rc = wiring_open(config, parts, WIRING_INIT, &w, err);
    size_t n;

    if (rc != TR_OK)
        return rc;
    n = wiring_services(&w, services);
    for (size_t i = 0; i < n && rc == TR_OK; i++) {
        if (services[i].outside)
            rc = make_one(&w, &services[i], err);
        if (rc == TR_OK && (parts == WIRING_CATALOGUE || services[i].part != WIRING_CATALOGUE))
            printf("ok    %-10s %s\n", services[i].name, services[i].outside ? "made, or there already" : "embedded");
        fflush(stdout);
    }
    wiring_release(&w);
    return rc;
}

/* A key that this data was sealed with before is never replaced by a new one. */
static enum tr_rc key_may_be_made(const struct config *config, struct tr_err *err)
{
    const char *const path = config_str(config, "TROUPE_MASTER_KEY_FILE");
    char value[64];
    struct wiring w;
    enum tr_rc rc;

    if (access(path, F_OK) == 0)
        return TR_OK;
    rc = wiring_open(config, WIRING_CATALOGUE, WIRING_INIT, &w, err);
    if (rc != TR_OK)
        return rc;
    rc = boot_setting(&w, "master_key_check", value, sizeof value, err);
    wiring_release(&w);
    if (rc == TR_OK)
        return tr_fail(
            err, TR_INVALID,
            "TROUPE_MASTER_KEY_FILE: there is no %s, and this data was sealed with a master key: put it there", path);
    return rc == TR_NOT_FOUND ? TR_OK : rc;
}

static enum tr_rc init(const struct config *config, struct tr_err *err)
{
    struct wiring w;
    enum tr_rc rc = make_parts(config, WIRING_CATALOGUE, err);

    if (rc == TR_OK)
        rc = key_may_be_made(config, err);
    if (rc == TR_OK)
        rc = make_parts(config, WIRING_STORES, err);
    if (rc == TR_OK)
        rc = wiring_open(config, WIRING_KEY | WIRING_CATALOGUE, WIRING_INIT, &w, err);
    if (rc != TR_OK)
        return rc;
    rc = boot_master_key(&w, true, err);
    if (rc == TR_OK) {
        printf("ok    %-10s %s\n", "master key", config_str(config, "TROUPE_MASTER_KEY_FILE"));
        rc = shipped_characters(&w, err);
    }
    if (rc == TR_OK)
        printf("ok    %-10s in the catalogue\n", "characters");
    wiring_release(&w);
    return rc;
}

int command_init(const struct config *config, int argc, char **argv)
{
    struct tr_err err = {0};

    if (argc == 1 && (strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "-h") == 0)) {
        puts("usage: troupe init\n\nMakes what the configured servers must have: schemas, queues, buckets; the master "
             "key where "
             "there is none\nyet; the characters that ship with the program. Harmless twice. Waits up to a minute for "
             "each "
             "server.");
        return EXIT_DONE;
    }
    if (argc > 0) {
        fprintf(stderr, "troupe init: takes no '%.40s'\n", argv[0]);
        return EXIT_USAGE;
    }
    if (init(config, &err) == TR_OK)
        return EXIT_DONE;
    fprintf(stderr, "troupe init: %s\n", tr_err_text(&err));
    return EXIT_FAILED;
}
