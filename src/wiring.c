/* wiring - configuration -> adapters -> what the roles are handed.  The ONLY file that names adapters. */
#include "wiring.h"

#include "adapter/memory/registry.h"
#include "adapter/sqlite/catalogue.h"
#include "adapter/sqlite/history.h"
#include "adapter/sqlite/queue.h"
#include "adapter/stub/engine.h"
#ifdef TROUPE_WITH_LLAMA
#include "adapter/llama/engine.h"
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

/* The path of an embedded store; its folder is made if it is missing. */
static enum tr_rc store_path(const struct config *config, const char *key, const char *const allowed,
                             const char **ret_path, struct tr_err *err)
{
    const char *const url = config_str(config, key);
    const char *const path = after_scheme(url, allowed);
    char dir[4096];
    char *slash;

    if (path == NULL || *path == '\0')
        return tr_fail(err, TR_INVALID, "%s: '%.60s' is not understood here; this build knows %s:PATH", key, url,
                       allowed);
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
    *ret_path = path;
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
        return tr_fail(err, TR_INVALID,
                       "another troupe is running on %s: stop it first, or set TROUPE_BROKER to another path",
                       queue_path);
    }
    *ret_fd = fd;
    return TR_OK;
}

static enum tr_rc open_stores(const struct config *config, struct wiring *w, struct tr_err *err)
{
    const char *const key_file = config_str(config, "TROUPE_MASTER_KEY_FILE");
    const char *queue = NULL, *history = NULL;
    enum tr_rc rc = store_path(config, "TROUPE_BROKER", "sqlite", &queue, err);

    if (rc == TR_OK)
        rc = store_path(config, "TROUPE_HISTORY", "sqlite", &history, err);
    if (rc == TR_OK && after_scheme(config_str(config, "TROUPE_REGISTRY"), "memory") == NULL)
        rc = tr_fail(err, TR_INVALID, "TROUPE_REGISTRY: '%.60s' is not understood here; this build knows memory:",
                     config_str(config, "TROUPE_REGISTRY"));
    if (rc == TR_OK && strcmp(queue, history) == 0)
        rc = tr_fail(err, TR_INVALID, "TROUPE_BROKER and TROUPE_HISTORY name the same file %s: each needs its own",
                     queue);
    if (rc == TR_OK)
        rc = take_lock(queue, &w->lock, err);
    /* A key is made only where there is nothing yet that an older one has sealed. */
    if (rc == TR_OK)
        rc = keyfile_load(key_file, access(history, F_OK) != 0 && access(queue, F_OK) != 0, &w->master, err);
    if (rc == TR_OK)
        rc = sqlite_queue_open(w->loop, queue, &w->env.queue, err);
    if (rc == TR_OK)
        rc = sqlite_history_open(w->loop, history, &w->env.history, err);
    if (rc == TR_OK)
        rc = memory_registry_open(w->loop, &w->env.registry, err);
    if (rc == TR_OK)
        rc = keyring_new(w->loop, w->env.history, w->master, &w->keyring, err);
    w->env.keyring = w->keyring;
    w->env.master = w->master;
    return rc;
}

#ifdef TROUPE_WITH_LLAMA
static enum tr_rc open_llama(const struct config *config, struct loop *loop, const char *path,
                             struct engine **ret_engine, struct tr_err *err)
{
    struct llama_engine_options opt = {0};
    uint64_t threads = 0, context = 0, kv = 0;
    enum tr_rc rc = config_u64(config, "TROUPE_THREADS", 0, 512, &threads, err);

    if (rc == TR_OK)
        rc = config_u64(config, "TROUPE_CONTEXT_TOKENS", 256, 1048576, &context, err);
    if (rc == TR_OK)
        rc = config_u64(config, "TROUPE_KV_MIB", 16, 1048576, &kv, err);
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

static void name_instance(char name[25])
{
    uint8_t r[12];

    seal_random(r, sizeof r);
    for (size_t i = 0; i < sizeof r; i++)
        snprintf(name + 2 * i, 3, "%02x", r[i]);
}

enum tr_rc wiring_open(const struct config *config, unsigned parts, struct wiring *ret_wiring, struct tr_err *err)
{
    struct wiring *const w = ret_wiring;
    const char *path = NULL;
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
    if (rc == TR_OK && (parts & WIRING_STORES) != 0)
        rc = open_stores(config, w, err);
    if (rc == TR_OK && (parts & WIRING_CATALOGUE) != 0) {
        rc = store_path(config, "TROUPE_CATALOGUE", "sqlite", &path, err);
        if (rc == TR_OK && (strcmp(config_str(config, "TROUPE_HISTORY"), config_str(config, "TROUPE_CATALOGUE")) == 0 ||
                            strcmp(config_str(config, "TROUPE_BROKER"), config_str(config, "TROUPE_CATALOGUE")) == 0))
            rc = tr_fail(err, TR_INVALID, "TROUPE_CATALOGUE names the file %s of another store: each needs its own",
                         path);
        if (rc == TR_OK)
            rc = sqlite_catalogue_open(w->loop, path, &w->env.catalogue, err);
    }
    if (rc != TR_OK)
        wiring_release(w);
    return rc;
}

void wiring_release(struct wiring *w)
{
    for (size_t i = 0; i < w->engines_n; i++)
        w->engines[i]->ops->close(w->engines[i]);
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
