/*
 * doctor - `troupe doctor`: looks at everything that the configuration names, one line each, whatever the others are
 * like: ok, note, or FAIL with what is wrong and how to mend it.  Changes nothing.
 */
#include "base/url.h"
#include "command/boot.h"
#include "command/command.h"
#include "keyfile.h"
#include "role/common/address.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CLOCK_APART_MAX_MS 2000

struct doctor {
    const struct config *config;
    unsigned looked, failed;
    bool catalogue; /* it was reached */
    bool registry;
};

enum finding { GOOD, NOTE, BAD };

static void tell(struct doctor *d, enum finding finding, const char *name, const char *fmt, ...) TR_PRINTF(4, 5);
static void tell(struct doctor *d, enum finding finding, const char *name, const char *fmt, ...)
{
    static const char *const words[] = {"ok", "note", "FAIL"};
    va_list ap;

    d->looked++;
    d->failed += finding == BAD;
    printf("%-5s %-10s ", words[finding], name);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
    fflush(stdout);
}

static const struct store {
    enum wiring_part part;
    const char *name, *key;
} stores[] = {
    {WIRING_CATALOGUE, "catalogue", "TROUPE_CATALOGUE"},
    {WIRING_HISTORY, "history", "TROUPE_HISTORY"},
    {WIRING_QUEUE, "broker", "TROUPE_BROKER"},
    {WIRING_REGISTRY, "registry", "TROUPE_REGISTRY"},
    {WIRING_MEDIA, "media", "TROUPE_MEDIA"},
};

/* The nearest folder above that is there, into `folder`: may we make something in it?  Roles make the folders between. */
static bool can_be_made(const char *path, char folder[PATH_MAX])
{
    struct stat st;

    snprintf(folder, PATH_MAX, "%s", path);
    do {
        char *const slash = strrchr(folder, '/');

        if (slash == NULL)
            strcpy(folder, ".");
        else
            slash[slash == folder] = '\0';
    } while (stat(folder, &st) != 0 && errno == ENOENT && strcmp(folder, ".") != 0 && strcmp(folder, "/") != 0);
    return stat(folder, &st) == 0 && S_ISDIR(st.st_mode) && access(folder, W_OK | X_OK) == 0;
}

static void look_at_embedded(struct doctor *d, const struct store *s, const struct wiring_store *is, const char *shown)
{
    struct wiring w;
    struct tr_err err = {0};
    char folder[PATH_MAX];
    enum tr_rc rc;

    if (*is->path == '\0' && strcmp(shown, "memory:") != 0) {
        tell(d, BAD, s->name, "%s  %s names no path", shown, s->key);
        return;
    }
    if (*is->path == '\0') {
        tell(d, GOOD, s->name, "%s  in this process", shown);
        return;
    }
    if (access(is->path, F_OK) != 0 && errno == ENOENT && !can_be_made(is->path, folder)) {
        tell(d, BAD, s->name,
             "%s  not there yet, and it can't be made: %.100s is no folder that this user may write to", shown, folder);
        return;
    }
    if (access(is->path, F_OK) != 0 && errno == ENOENT) {
        tell(d, GOOD, s->name, "%s  not there yet: made at the first start", shown);
        return;
    }
    rc = wiring_open(d->config, s->part, WIRING_ONE_PROCESS, &w, &err);
    if (rc == TR_OK)
        wiring_release(&w);
    if (rc == TR_BUSY)
        tell(d, GOOD, s->name, "%s  in use by a running troupe", shown);
    else if (rc != TR_OK)
        tell(d, BAD, s->name, "%s  %s", shown, tr_err_text(&err));
    else
        tell(d, GOOD, s->name, "%s", shown);
    d->catalogue |= s->part == WIRING_CATALOGUE && rc == TR_OK;
}

/* How far its clock is from ours, in milliseconds; it was read somewhere between `before` and now. */
static long long clock_apart(uint64_t theirs, uint64_t before)
{
    const uint64_t now = wall_ms();

    if (theirs > now)
        return (long long)(theirs - now);
    return theirs < before ? -(long long)(before - theirs) : 0;
}

static void look_at_server(struct doctor *d, const struct store *s, const char *shown)
{
    struct wiring_service services[WIRING_SERVICES_MAX];
    struct boot_checked c;
    struct wiring w;
    struct tr_err err = {0};
    const uint64_t before = wall_ms();
    long long apart;

    if (wiring_open(d->config, s->part, WIRING_ONE_PROCESS, &w, &err) != TR_OK) {
        tell(d, BAD, s->name, "%s  %s", shown, tr_err_text(&err));
        return;
    }
    if (wiring_services(&w, services) != 1) {
        wiring_release(&w);
        return;
    }
    boot_check(&w, &services[0], &c);
    wiring_release(&w);
    if (c.rc != TR_OK) {
        tell(d, BAD, s->name, "%s  %s%s", shown, tr_err_text(&c.err),
             c.rc == TR_NOT_FOUND && strstr(c.err.msg, "troupe init") == NULL ? "; run `troupe init`" : "");
        return;
    }
    apart = c.report.clock_ms != 0 ? clock_apart(c.report.clock_ms, before) : 0;
    if (llabs(apart) > CLOCK_APART_MAX_MS)
        tell(d, BAD, s->name,
             "%s  %s: its clock is %lld.%lld s %s this machine's; set both by NTP (chrony, systemd-timesyncd)", shown,
             c.report.server, llabs(apart) / 1000, llabs(apart) % 1000 / 100, apart > 0 ? "ahead of" : "behind");
    else if (c.report.warning[0] != '\0')
        tell(d, BAD, s->name, "%s  %s, but %s", shown, c.report.server, c.report.warning);
    else
        tell(d, GOOD, s->name, "%s  %s", shown, c.report.server);
    d->catalogue |= s->part == WIRING_CATALOGUE;
    d->registry |= s->part == WIRING_REGISTRY;
}

static void look_at_store(struct doctor *d, const struct store *s)
{
    struct wiring_store is;
    struct tr_err err = {0};
    char shown[200];

    url_shown(config_str(d->config, s->key), shown, sizeof shown);
    if (wiring_describe(d->config, s->part, &is, &err) != TR_OK)
        tell(d, BAD, s->name, "%s", tr_err_text(&err));
    else if (is.embedded)
        look_at_embedded(d, s, &is, shown);
    else
        look_at_server(d, s, shown);
}

static void look_at_listener(struct doctor *d, const char *key)
{
    const char *const text = config_str(d->config, key);
    struct sockaddr_storage address;
    struct tr_err err = {0};

    if (*text != '\0' && address_parse(text, &address, &err) != TR_OK)
        tell(d, BAD, "listener", "%s: %s", key, tr_err_text(&err));
}

static void look_at_key(struct doctor *d)
{
    const char *const path = config_str(d->config, "TROUPE_MASTER_KEY_FILE");
    struct seal_master *master = NULL;
    struct tr_err err = {0};
    char want[33], value[64];
    struct wiring w;
    enum tr_rc rc;

    rc = seal_init(&err);
    if (rc == TR_OK)
        rc = keyfile_load(path, false, &master, &err);
    if (rc == TR_NOT_FOUND && !d->catalogue) {
        tell(d, NOTE, "master key", "%s  not there yet: made at the first start, or by `troupe init`", path);
        return;
    }
    if (rc != TR_OK) {
        tell(d, BAD, "master key", "%s", tr_err_text(&err));
        return;
    }
    seal_check_value(master, want);
    seal_master_free(master);
    if (!d->catalogue) {
        tell(d, NOTE, "master key", "%s  whole; not compared: the catalogue was not reached", path);
        return;
    }
    rc = wiring_open(d->config, WIRING_CATALOGUE, WIRING_ONE_PROCESS, &w, &err);
    if (rc == TR_OK) {
        rc = boot_setting(&w, "master_key_check", value, sizeof value, &err);
        wiring_release(&w);
    }
    if (rc == TR_OK && strcmp(value, want) != 0)
        tell(d, BAD, "master key", "%s is not the one that this data was sealed with: put the right one back", path);
    else if (rc == TR_OK)
        tell(d, GOOD, "master key", "%s  the one that this data was sealed with", path);
    else if (rc == TR_NOT_FOUND)
        tell(d, BAD, "master key", "nothing was set up here yet: run `troupe init` (or `troupe up`) once");
    else
        tell(d, BAD, "master key", "%s", tr_err_text(&err));
}

static void look_at_engine(struct doctor *d)
{
    struct wiring w;
    struct tr_err err = {0};

    if (wiring_open(d->config, WIRING_ENGINES, WIRING_ONE_PROCESS, &w, &err) != TR_OK) {
        tell(d, BAD, "engine", "%s", tr_err_text(&err));
        return;
    }
    for (size_t i = 0; i < w.engines_n; i++) {
        const struct engine_info *const info = w.engines[i]->ops->info(w.engines[i]);

        tell(d, GOOD, "engine", "%s: %s on %s, %u slots of %u tokens", info->engine, info->model, info->device,
             (unsigned)info->slots, (unsigned)info->context_tokens);
    }
    wiring_release(&w);
}

struct counted {
    struct await a;
    size_t n;
};

static void on_workers(void *ctx, enum tr_rc rc, const struct registry_worker *list, size_t n, const struct tr_err *err)
{
    struct counted *c = ctx;

    (void)list;
    c->n = n;
    await_done(&c->a, rc == TR_NOT_FOUND ? TR_OK : rc, err);
}

static void look_at_workers(struct doctor *d)
{
    struct counted c = {0};
    struct wiring w;
    struct tr_op *op = NULL;
    struct tr_err err = {0};
    enum tr_rc rc;

    if (!d->registry || wiring_open(d->config, WIRING_REGISTRY, WIRING_ONE_PROCESS, &w, &err) != TR_OK)
        return;
    c.a.loop = w.loop;
    rc = await(&c.a, w.env.registry->ops->workers(w.env.registry, "any", on_workers, &c, &op, &err), &err);
    wiring_release(&w);
    if (rc != TR_OK)
        tell(d, BAD, "workers", "%s", tr_err_text(&err));
    else if (c.n == 0)
        tell(d, NOTE, "workers", "none of the shared pool lives: messages wait until `troupe inference` runs");
    else
        tell(d, GOOD, "workers", "%zu of the shared pool", c.n);
}

int command_doctor(const struct config *config, int argc, char **argv)
{
    struct doctor d = {.config = config};

    if (argc == 1 && (strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "-h") == 0)) {
        puts("usage: troupe doctor\n\nReads the configuration, reaches every service in it, and says in plain words "
             "what is "
             "wrong and how to mend\nit. Changes nothing. Exit: 0 all is well, 1 something needs mending.");
        return EXIT_DONE;
    }
    if (argc > 0) {
        fprintf(stderr, "troupe doctor: takes no '%.40s'\n", argv[0]);
        return EXIT_USAGE;
    }
    for (size_t i = 0; i < sizeof stores / sizeof stores[0]; i++)
        look_at_store(&d, &stores[i]);
    look_at_listener(&d, "TROUPE_LISTEN");
    look_at_listener(&d, "TROUPE_METRICS_LISTEN");
    look_at_key(&d);
    look_at_engine(&d);
    look_at_workers(&d);
    if (d.failed == 0)
        puts("\nAll is well.");
    else
        printf("\n%u of %u need mending.\n", d.failed, d.looked);
    return d.failed == 0 ? EXIT_DONE : EXIT_FAILED;
}
