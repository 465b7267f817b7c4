/* wiring - configuration -> adapters -> what the roles are handed.  The ONLY file that names adapters. */
#include "wiring.h"

#include "adapter/filesystem/media.h"
#include "adapter/memory/registry.h"
#include "adapter/postgres/catalogue.h"
#include "adapter/rabbitmq/queue.h"
#include "adapter/redis/registry.h"
#include "adapter/s3/media.h"
#include "adapter/sqlite/catalogue.h"
#include "adapter/sqlite/history.h"
#include "adapter/sqlite/queue.h"
#include "adapter/stub/engine.h"
#ifdef TROUPE_WITH_LLAMA
#include "adapter/llama/engine.h"
#endif
#ifdef TROUPE_WITH_CASSANDRA
#include "adapter/cassandra/history.h"
#endif
#include "keyfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* What follows "<scheme>:" of a URL of that scheme, else NULL. */
static const char *after_scheme(const char *url, const char *scheme)
{
    const size_t n = strlen(scheme);

    return strncmp(url, scheme, n) == 0 && url[n] == ':' ? url + n + 1 : NULL;
}

static bool is_folder(const char *path)
{
    struct stat st;

    if (stat(path, &st) != 0)
        return false;
    if (S_ISDIR(st.st_mode))
        return true;
    errno = EEXIST;
    return false;
}

/* The folder of an embedded store's file is made if it is missing. */
static enum tr_rc make_folder(const char *key, const char *path, struct tr_err *err)
{
    char dir[4096];
    char *slash;

    if (*path == '\0')
        return tr_fail(err, TR_INVALID, "%s: a path is missing", key);
    if (snprintf(dir, sizeof dir, "%s", path) >= (int)sizeof dir)
        return tr_fail(err, TR_INVALID, "%s: path too long", key);
    for (slash = strchr(dir + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if ((mkdir(dir, 0700) != 0 && errno != EEXIST) || !is_folder(dir))
            return tr_fail(err, TR_INVALID,
                           "%s: cannot make the folder %s: %s; give it to this user, or set another path", key, dir,
                           errno == EEXIST ? "a file of this name stands there" : strerror(errno));
        *slash = '/';
    }
    slash = strrchr(dir, '/');
    if (slash != NULL && slash != dir)
        *slash = '\0';
    else
        snprintf(dir, sizeof dir, ".");
    if (access(dir, W_OK) != 0)
        return tr_fail(err, TR_INVALID,
                       "%s: cannot write to the folder %s: %s; give it to this user, or set another path", key, dir,
                       strerror(errno));
    return TR_OK;
}

/* The embedded broker lives in one process: hold a lock beside its file. */
static enum tr_rc take_lock(const char *queue_path, int *ret_fd, struct tr_err *err)
{
    char path[4096];
    int fd;

    if (snprintf(path, sizeof path, "%s.lock", queue_path) >= (int)sizeof path)
        return tr_fail(err, TR_INVALID, "TROUPE_BROKER: path too long");
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return tr_fail(err, TR_INVALID, "%s: %s", path, strerror(errno));
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        close(fd);
        return tr_fail(err, TR_BUSY,
                       "another troupe is running on %s: stop it first, or set TROUPE_BROKER to another path",
                       queue_path);
    }
    *ret_fd = fd;
    return TR_OK;
}

#ifdef TROUPE_WITH_LLAMA
static enum tr_rc open_llama(const struct config *config, struct loop *loop, const char *path,
                             struct engine **ret_engine, struct tr_err *err)
{
    struct llama_engine_options opt = {0};
    uint64_t threads = 0, context = 0, kv = 0;
    enum tr_rc rc = config_u64(config, "TROUPE_THREADS", &threads, err);

    if (rc == TR_OK)
        rc = config_u64(config, "TROUPE_CONTEXT_TOKENS", &context, err);
    if (rc == TR_OK)
        rc = config_u64(config, "TROUPE_KV_MIB", &kv, err);
    if (rc != TR_OK)
        return rc;
    opt.threads = (uint32_t)threads;
    opt.context_tokens = (uint32_t)context;
    opt.kv_mib = (uint32_t)kv;
    rc = llama_engine_open(loop, path, &opt, ret_engine, err);
    return rc == TR_OK ? rc : tr_wrap(err, rc, "TROUPE_ENGINE");
}
#endif

static enum tr_rc open_engine(const struct config *config, struct loop *loop, const char *url,
                              struct engine **ret_engine, struct tr_err *err)
{
    const char *rest = after_scheme(url, "stub");

    if (rest != NULL)
        return stub_engine_open(loop, rest, ret_engine, err);
    rest = after_scheme(url, "llama");
    if (rest == NULL)
        return tr_fail(err, TR_INVALID,
                       "TROUPE_ENGINE: '%.60s' is not understood here; this build knows llama:PATH and stub:", url);
#ifdef TROUPE_WITH_LLAMA
    return open_llama(config, loop, rest, ret_engine, err);
#else
    (void)config;
    return tr_fail(err, TR_INVALID,
                   "TROUPE_ENGINE: this build has no libllama; run `make run`, or install libllama and rebuild");
#endif
}

static enum tr_rc open_engines(const struct config *config, struct wiring *w, struct tr_err *err)
{
    char *const urls = strdup(config_str(config, "TROUPE_ENGINE"));
    enum tr_rc rc = TR_OK;
    char *save = NULL;

    if (urls == NULL)
        return tr_fail(err, TR_NOMEM, "engines");
    for (char *url = strtok_r(urls, ",", &save); url != NULL && rc == TR_OK; url = strtok_r(NULL, ",", &save)) {
        if (w->engines_n == WIRING_ENGINES_MAX)
            rc = tr_fail(err, TR_INVALID, "TROUPE_ENGINE: more than %d engines", WIRING_ENGINES_MAX);
        else
            rc = open_engine(config, w->loop, url + strspn(url, " "), &w->engines[w->engines_n], err);
        if (rc == TR_OK)
            w->engines_n++;
    }
    if (rc == TR_OK && w->engines_n == 0)
        rc = tr_fail(err, TR_INVALID, "TROUPE_ENGINE is empty: set llama:PATH of a GGUF");
    free(urls);
    return rc;
}

/* ---- one function an adapter: what follows the scheme (embedded) or the whole URL (outside) -> the open store ---- */

static enum tr_rc open_sqlite_queue(struct wiring *w, const char *url, struct tr_err *err)
{
    return sqlite_queue_open(w->loop, after_scheme(url, "sqlite"), &w->env.queue,
                             err); /* folder and lock: open_stores() */
}

static enum tr_rc open_sqlite_history(struct wiring *w, const char *url, struct tr_err *err)
{
    const char *const path = after_scheme(url, "sqlite");
    const enum tr_rc rc = make_folder("TROUPE_HISTORY", path, err);

    return rc == TR_OK ? sqlite_history_open(w->loop, path, &w->env.history, err) : rc;
}

static enum tr_rc open_sqlite_catalogue(struct wiring *w, const char *url, struct tr_err *err)
{
    const char *const path = after_scheme(url, "sqlite");
    const enum tr_rc rc = make_folder("TROUPE_CATALOGUE", path, err);

    return rc == TR_OK ? sqlite_catalogue_open(w->loop, path, &w->env.catalogue, err) : rc;
}

static enum tr_rc open_memory_registry(struct wiring *w, const char *url, struct tr_err *err)
{
    (void)url;
    return memory_registry_open(w->loop, &w->env.registry, err);
}

static enum tr_rc open_rabbitmq(struct wiring *w, const char *url, struct tr_err *err)
{
    struct rabbitmq_options opt = {0};
    uint64_t ttl_ms = 0;
    enum tr_rc rc = config_u64(w->env.config, "TROUPE_WORKER_TTL_MS", &ttl_ms, err);

    if (rc == TR_OK && ttl_ms < 500)
        rc = tr_fail(err, TR_INVALID,
                     "TROUPE_WORKER_TTL_MS: at least 500 with RabbitMQ, whose heartbeat is a third of it");
    /* the broker gives a dead worker's queue to another within one TTL (contract 11.13) */
    opt.heartbeat_ms = ttl_ms / 3;
    return rc == TR_OK ? rabbitmq_queue_open(w->loop, url, &opt, &w->env.queue, err) : rc;
}

static enum tr_rc open_postgres(struct wiring *w, const char *url, struct tr_err *err)
{
    return postgres_catalogue_open(w->loop, url, &w->env.catalogue, err);
}

static enum tr_rc open_cassandra(struct wiring *w, const char *url, struct tr_err *err)
{
#ifdef TROUPE_WITH_CASSANDRA
    return cassandra_history_open(w->loop, url, &w->env.history, err);
#else
    (void)w, (void)url;
    return tr_fail(err, TR_INVALID,
                   "this build has no Cassandra client: scripts/cassandra-client.sh, then meson with -Dcassandra=true "
                   "(`make build-servers` does both)");
#endif
}

static enum tr_rc open_redis(struct wiring *w, const char *url, struct tr_err *err)
{
    return redis_registry_open(w->loop, url, &w->env.registry, err);
}

static enum tr_rc open_folder(struct wiring *w, const char *url, struct tr_err *err)
{
    return filesystem_media_open(w->loop, after_scheme(url, "file"), &w->env.media, err);
}

static enum tr_rc open_s3(struct wiring *w, const char *url, struct tr_err *err)
{
    const struct config *const config = w->env.config;
    const struct s3_options s3 = {.endpoint = config_str(config, "S3_ENDPOINT_URL"),
                                  .region = config_str(config, "S3_REGION"),
                                  .access_key = config_str(config, "S3_ACCESS_KEY_ID"),
                                  .secret_key = config_str(config, "S3_SECRET_ACCESS_KEY")};

    return s3_media_open(w->loop, url, &s3, &w->env.media, err);
}

static const struct adapter {
    enum wiring_part part;
    const char *name, *key, *scheme;
    bool embedded; /* in this process alone */
    enum tr_rc (*open)(struct wiring *w, const char *url, struct tr_err *err);
} adapters[] = {
    {WIRING_QUEUE, "broker", "TROUPE_BROKER", "sqlite", true, open_sqlite_queue},
    {WIRING_CATALOGUE, "catalogue", "TROUPE_CATALOGUE", "sqlite", true, open_sqlite_catalogue},
    {WIRING_HISTORY, "history", "TROUPE_HISTORY", "sqlite", true, open_sqlite_history},
    {WIRING_REGISTRY, "registry", "TROUPE_REGISTRY", "memory", true, open_memory_registry},
    {WIRING_QUEUE, "broker", "TROUPE_BROKER", "amqp", false, open_rabbitmq},
    {WIRING_CATALOGUE, "catalogue", "TROUPE_CATALOGUE", "postgresql", false, open_postgres},
    {WIRING_HISTORY, "history", "TROUPE_HISTORY", "cassandra", false, open_cassandra},
    {WIRING_REGISTRY, "registry", "TROUPE_REGISTRY", "redis", false, open_redis},
    {WIRING_MEDIA, "media", "TROUPE_MEDIA", "file", true, open_folder},
    {WIRING_MEDIA, "media", "TROUPE_MEDIA", "s3", false, open_s3},
};
#define ADAPTERS (sizeof adapters / sizeof adapters[0])

/* In the order in which they are opened: the broker first.  Media: open_media(). */
static const enum wiring_part stores[] = {WIRING_QUEUE, WIRING_CATALOGUE, WIRING_HISTORY, WIRING_REGISTRY};
#define STORES (sizeof stores / sizeof stores[0])

/* The adapter that the configuration names for a part. */
static enum tr_rc find_adapter(const struct config *config, enum wiring_part part, const struct adapter **ret_adapter,
                               struct tr_err *err)
{
    const char *key = NULL, *url = NULL;
    char known[96] = "";

    for (size_t i = 0; i < ADAPTERS; i++) {
        if (adapters[i].part != part)
            continue;
        key = adapters[i].key;
        url = config_str(config, key);
        if (after_scheme(url, adapters[i].scheme) != NULL) {
            *ret_adapter = &adapters[i];
            return TR_OK;
        }
        snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s:", known[0] != '\0' ? ", " : "",
                 adapters[i].scheme);
    }
    return tr_fail(err, TR_INVALID, "%s: '%.*s:' is not understood here; this build knows %s", key,
                   (int)(strcspn(url, ":") < 40 ? strcspn(url, ":") : 40), url, known);
}

enum tr_rc wiring_describe(const struct config *config, enum wiring_part part, struct wiring_store *ret_store,
                           struct tr_err *err)
{
    const struct adapter *found = NULL;
    const enum tr_rc rc = find_adapter(config, part, &found, err);

    if (rc != TR_OK)
        return rc;
    *ret_store = (struct wiring_store){.embedded = found->embedded};
    ret_store->path = found->embedded ? after_scheme(config_str(config, found->key), found->scheme) : NULL;
    return rc;
}

/* Two embedded stores in one file would overwrite each other. */
static enum tr_rc check_files(const struct config *config, const struct adapter *const *found, struct tr_err *err)
{
    for (size_t i = 0; i < STORES; i++)
        for (size_t j = 0; j < i; j++)
            if (found[i] != NULL && found[j] != NULL && strcmp(found[i]->scheme, "sqlite") == 0 &&
                strcmp(found[j]->scheme, "sqlite") == 0 &&
                strcmp(config_str(config, found[i]->key), config_str(config, found[j]->key)) == 0)
                return tr_fail(err, TR_INVALID, "%s and %s name the same file %s: each needs its own", found[j]->key,
                               found[i]->key, after_scheme(config_str(config, found[i]->key), "sqlite"));
    return TR_OK;
}

/* A master key is made where all stores are embedded and new, or by `troupe init`: never where something may be sealed. */
static enum tr_rc load_key(const struct config *config, const struct adapter *const *found, enum wiring_mode mode,
                           struct wiring *w, struct tr_err *err)
{
    const char *const path = config_str(config, "TROUPE_MASTER_KEY_FILE");
    bool fresh = true, embedded = true;
    enum tr_rc rc = TR_OK;

    for (size_t i = 0; i < STORES; i++) {
        const char *const file = found[i] != NULL ? after_scheme(config_str(config, found[i]->key), "sqlite") : NULL;

        embedded = embedded && found[i] != NULL && found[i]->embedded;
        fresh = fresh && !(stores[i] != WIRING_CATALOGUE && file != NULL && access(file, F_OK) == 0);
    }
    if (fresh && (embedded || mode == WIRING_INIT))
        rc = make_folder("TROUPE_MASTER_KEY_FILE", path, err);
    if (rc == TR_OK)
        rc = keyfile_load(path, fresh && (embedded || mode == WIRING_INIT), &w->master, err);
    if (rc == TR_NOT_FOUND && !embedded)
        tr_fail(err, rc,
                "TROUPE_MASTER_KEY_FILE: there is no %s: mount the one that the other processes have, or make the "
                "first one by `troupe init`",
                path);
    return rc;
}

static enum tr_rc open_stores(const struct config *config, unsigned parts, enum wiring_mode mode, struct wiring *w,
                              struct tr_err *err)
{
    const struct adapter *found[STORES] = {NULL};
    enum tr_rc rc = TR_OK;

    for (size_t i = 0; i < STORES && rc == TR_OK; i++) {
        rc = find_adapter(config, stores[i], &found[i], err);
        if ((parts & stores[i]) == 0)
            rc = TR_OK; /* not our affair */
        else if (rc == TR_OK && mode == WIRING_ROLE && found[i]->embedded)
            rc = tr_fail(
                err, TR_INVALID,
                "%s is %s:, which lives in one process: run `troupe up`, or set it to a server that the roles share",
                found[i]->key, found[i]->scheme);
    }
    if (rc == TR_OK)
        rc = check_files(config, found, err);
    if (rc == TR_OK && (parts & WIRING_QUEUE) != 0 && found[0]->embedded) {
        const char *const path = after_scheme(config_str(config, found[0]->key), found[0]->scheme);

        rc = make_folder(found[0]->key, path, err);
        if (rc == TR_OK)
            rc = take_lock(path, &w->lock, err);
    }
    if (rc == TR_OK && (parts & WIRING_KEY) != 0) /* behind the lock, and before there are new files */
        rc = load_key(config, found, mode, w, err);
    for (size_t i = 0; i < STORES && rc == TR_OK; i++) {
        if ((parts & stores[i]) == 0)
            continue;
        rc = found[i]->open(w, config_str(config, found[i]->key), err);
        if (rc != TR_OK && !found[i]->embedded)
            rc = tr_wrap(err, rc, "%s", found[i]->key);
    }
    return rc;
}

/* Opened with all the stores, or alone; unlike theirs, its folder may be shared by processes. */
static enum tr_rc open_media(const struct config *config, struct wiring *w, struct tr_err *err)
{
    const struct adapter *found = NULL;
    enum tr_rc rc = find_adapter(config, WIRING_MEDIA, &found, err);

    if (rc != TR_OK)
        return rc;
    rc = found->open(w, config_str(config, found->key), err);
    return rc == TR_OK ? rc : tr_wrap(err, rc, "%s", found->key);
}

static void name_instance(char name[25])
{
    uint8_t r[12];

    seal_random(r, sizeof r);
    for (size_t i = 0; i < sizeof r; i++)
        snprintf(name + 2 * i, 3, "%02x", r[i]);
}

enum tr_rc wiring_open(const struct config *config, unsigned parts, enum wiring_mode mode, struct wiring *ret_wiring,
                       struct tr_err *err)
{
    struct wiring *const w = ret_wiring;
    enum tr_rc rc;

    *w = (struct wiring){.lock = -1};
    rc = seal_init(err);
    if (rc == TR_OK)
        rc = loop_new(&w->loop, err);
    if (rc == TR_OK) {
        name_instance(w->instance);
        w->env.loop = w->loop;
        w->env.config = config;
        w->env.instance = w->instance;
        /* The engine first: a missing model is told before any file is made. */
        if ((parts & WIRING_ENGINES) != 0)
            rc = open_engines(config, w, err);
    }
    if (rc == TR_OK)
        rc = open_stores(config, parts, mode, w, err);
    if (rc == TR_OK && ((parts & WIRING_STORES) == WIRING_STORES || (parts & WIRING_MEDIA) != 0))
        rc = open_media(config, w, err);
    if (rc == TR_OK && (parts & WIRING_HISTORY) != 0)
        rc = keyring_new(w->loop, w->env.history, w->master, &w->keyring, err);
    w->env.keyring = w->keyring;
    w->env.master = w->master;
    if (rc != TR_OK)
        wiring_release(w);
    return rc;
}

size_t wiring_services(const struct wiring *w, struct wiring_service services[WIRING_SERVICES_MAX])
{
    const struct role_env *const e = &w->env;
    const struct wiring_service all[] = {
        {WIRING_CATALOGUE, "catalogue", "TROUPE_CATALOGUE", e->catalogue != NULL && e->catalogue->ops->check != NULL},
        {WIRING_HISTORY, "history", "TROUPE_HISTORY", e->history != NULL && e->history->ops->check != NULL},
        {WIRING_QUEUE, "broker", "TROUPE_BROKER", e->queue != NULL && e->queue->ops->check != NULL},
        {WIRING_REGISTRY, "registry", "TROUPE_REGISTRY", e->registry != NULL && e->registry->ops->check != NULL},
        {WIRING_MEDIA, "media", "TROUPE_MEDIA", e->media != NULL && e->media->ops->check != NULL},
    };
    const bool open[] = {e->catalogue != NULL, e->history != NULL, e->queue != NULL, e->registry != NULL,
                         e->media != NULL};
    size_t n = 0;

    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (open[i])
            services[n++] = all[i];
    return n;
}

enum tr_rc wiring_service_init(struct wiring *w, const struct wiring_service *s, service_done *done, void *ctx,
                               struct tr_op **ret_op, struct tr_err *err)
{
    const struct role_env *const e = &w->env;

    switch (s->part) {
    case WIRING_CATALOGUE:
        return e->catalogue->ops->init(e->catalogue, done, ctx, ret_op, err);
    case WIRING_HISTORY:
        return e->history->ops->init(e->history, done, ctx, ret_op, err);
    case WIRING_QUEUE:
        return e->queue->ops->init(e->queue, done, ctx, ret_op, err);
    case WIRING_REGISTRY:
        return e->registry->ops->init(e->registry, done, ctx, ret_op, err);
    case WIRING_MEDIA:
        return e->media->ops->init(e->media, done, ctx, ret_op, err);
    default:
        return tr_fail(err, TR_INVALID, "%s: nothing to make", s->name);
    }
}

enum tr_rc wiring_service_check(struct wiring *w, const struct wiring_service *s, service_checked *done, void *ctx,
                                struct tr_op **ret_op, struct tr_err *err)
{
    const struct role_env *const e = &w->env;

    switch (s->part) {
    case WIRING_CATALOGUE:
        return e->catalogue->ops->check(e->catalogue, done, ctx, ret_op, err);
    case WIRING_HISTORY:
        return e->history->ops->check(e->history, done, ctx, ret_op, err);
    case WIRING_QUEUE:
        return e->queue->ops->check(e->queue, done, ctx, ret_op, err);
    case WIRING_REGISTRY:
        return e->registry->ops->check(e->registry, done, ctx, ret_op, err);
    case WIRING_MEDIA:
        return e->media->ops->check(e->media, done, ctx, ret_op, err);
    default:
        return tr_fail(err, TR_INVALID, "%s: nothing to ask", s->name);
    }
}

void wiring_release(struct wiring *w)
{
    for (size_t i = 0; i < w->engines_n; i++)
        w->engines[i]->ops->close(w->engines[i]);
    if (w->env.media != NULL)
        w->env.media->ops->close(w->env.media);
    keyring_free(w->keyring);
    if (w->env.queue != NULL)
        w->env.queue->ops->close(w->env.queue);
    if (w->env.registry != NULL)
        w->env.registry->ops->close(w->env.registry);
    if (w->env.history != NULL)
        w->env.history->ops->close(w->env.history);
    if (w->env.catalogue != NULL)
        w->env.catalogue->ops->close(w->env.catalogue);
    if (w->loop != NULL)
        loop_drain(w->loop);
    loop_free(w->loop);
    seal_master_free(w->master);
    if (w->lock >= 0)
        close(w->lock);
    *w = (struct wiring){.lock = -1};
}

void await_done(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    struct await *a = ctx;

    a->done = true;
    a->rc = rc;
    if (err != NULL)
        a->err = *err;
    loop_stop(a->loop);
}

enum tr_rc await(struct await *a, enum tr_rc rc, struct tr_err *err)
{
    if (rc != TR_OK)
        return rc;
    while (!a->done)
        loop_run(a->loop);
    a->done = false;
    if (a->rc != TR_OK && err != NULL)
        *err = a->err;
    return a->rc;
}
