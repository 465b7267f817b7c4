/*
 * loader - see loader.h.
 * libllama logs through one callback a process: what it says goes to our log at debug level; the first error of a call
 * is kept, because that is the one that tells why.
 */
#include "adapter/llama/loader.h"

#include "adapter/llama/cores.h"
#include "base/log.h"

#include <errno.h>
#include <ggml-backend.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THREADS_MAX 16
#define CONTEXT_DEFAULT 4096
#define CONTEXT_MIN 256
#define KV_MIB_DEFAULT 512
#define SEQUENCES_MAX 64

static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static char log_error[160]; /* guarded by log_lock: the first error since log_reset() */

static void on_log(enum ggml_log_level level, const char *text, void *ctx)
{
    const char *colon;
    size_t len;

    (void)ctx;
    if (level != GGML_LOG_LEVEL_ERROR && level != GGML_LOG_LEVEL_WARN)
        return;
    log_event(LOG_DEBUG, "llama.log", "text=%Q", text);
    if (level != GGML_LOG_LEVEL_ERROR)
        return;
    colon = strstr(text, ": "); /* a function's name stands before it */
    if (colon != NULL && memchr(text, ' ', (size_t)(colon - text)) == NULL)
        text = colon + 2;
    len = strcspn(text, "\n");
    pthread_mutex_lock(&log_lock);
    if (log_error[0] == 0 && len > 0)
        snprintf(log_error, sizeof log_error, "%.*s", (int)len, text);
    pthread_mutex_unlock(&log_lock);
}

static void log_reset(void)
{
    pthread_mutex_lock(&log_lock);
    log_error[0] = 0;
    pthread_mutex_unlock(&log_lock);
}

/* Fail with what libllama said. */
static enum tr_rc fail_logged(struct tr_err *err, enum tr_rc rc, const char *path, const char *what)
{
    char said[sizeof log_error];

    pthread_mutex_lock(&log_lock);
    memcpy(said, log_error, sizeof said);
    pthread_mutex_unlock(&log_lock);
    return tr_fail(err, rc, "model '%.80s': %s: %.110s; get the file again, or name another", path, what,
                   said[0] != 0 ? said : "libllama gave no reason");
}

static void backend_init(void)
{
    llama_log_set(on_log, NULL);
    ggml_backend_load_all();
    llama_backend_init();
}

/* Say plainly what libllama would only hint at. */
static enum tr_rc check_file(const char *path, struct tr_err *err)
{
    FILE *f = fopen(path, "rbe");
    char magic[4] = {0};
    size_t n;

    if (f == NULL && errno == ENOENT)
        return tr_fail(err, TR_INVALID,
                       "model '%.100s': no such file; put a GGUF there or set TROUPE_ENGINE=llama:PATH", path);
    if (f == NULL)
        return tr_fail(err, TR_INVALID, "model '%.100s': %s", path, strerror(errno));
    n = fread(magic, 1, sizeof magic, f);
    fclose(f);
    if (n != sizeof magic || memcmp(magic, "GGUF", 4) != 0)
        return tr_fail(err, TR_INVALID, "model '%.100s': not a GGUF file: put a whole one there, or name another",
                       path);
    return TR_OK;
}

static enum tr_rc load_model(const char *path, struct loaded *l, struct tr_err *err)
{
    struct llama_model_params params = llama_model_default_params();
    const char *base = strrchr(path, '/');

    log_reset();
    l->model = llama_model_load_from_file(path, params);
    if (l->model == NULL)
        return fail_logged(err, TR_INVALID, path, "libllama can't load it");
    l->vocab = llama_model_get_vocab(l->model);
    if (llama_vocab_type(l->vocab) == LLAMA_VOCAB_TYPE_NONE || !llama_model_has_decoder(l->model) ||
        llama_model_has_encoder(l->model))
        return tr_fail(err, TR_INVALID, "model '%.100s': not a model that writes text", path);
    if (llama_model_meta_val_str(l->model, "general.name", l->name, sizeof l->name) <= 0)
        snprintf(l->name, sizeof l->name, "%.90s", base != NULL ? base + 1 : path);
    return TR_OK;
}

/* The model's own template where libllama knows how to apply it. */
static void choose_template(struct loaded *l, const char *path)
{
    const struct llama_chat_message probe = {.role = "user", .content = "x"};

    l->template = llama_model_chat_template(l->model, NULL);
    if (l->template != NULL && llama_chat_apply_template(l->template, &probe, 1, true, NULL, 0) > 0)
        return;
    log_event(LOG_DEBUG, "llama.template", "model=%Q using=chatml cause=%Q", path,
              l->template == NULL ? "the model has no chat template" : "its chat template is not known to libllama");
    l->template = "chatml";
}

/* Bytes of kept state a token costs (16-bit keys and values). */
static uint64_t kv_bytes(const struct llama_model *m)
{
    uint64_t heads = (uint64_t)llama_model_n_head(m), kv_heads = (uint64_t)llama_model_n_head_kv(m);
    uint64_t width = heads > 0 ? (uint64_t)llama_model_n_embd(m) / heads : 0;
    uint64_t bytes = 2 * 2 * (uint64_t)llama_model_n_layer(m) * kv_heads * width;

    return bytes > 0 ? bytes : 1;
}

static uint32_t choose_sequences(const struct loaded *l, const struct llama_engine_options *opt)
{
    uint64_t room = (uint64_t)(opt->kv_mib > 0 ? opt->kv_mib : KV_MIB_DEFAULT) << 20;
    uint64_t n = opt->sequences > 0 ? opt->sequences : room / (kv_bytes(l->model) * l->context_tokens);
    uint64_t most = llama_max_parallel_sequences();

    most = most < SEQUENCES_MAX ? most : SEQUENCES_MAX;
    n = n < most ? n : most;
    return n > 0 ? (uint32_t)n : 1;
}

static enum tr_rc make_context(const char *path, const struct llama_engine_options *opt, struct loaded *l,
                               struct tr_err *err)
{
    struct llama_context_params params = llama_context_default_params();
    uint32_t trained = (uint32_t)llama_model_n_ctx_train(l->model), cores = cores_available();
    bool gpu = llama_supports_gpu_offload();

    l->context_tokens = opt->context_tokens > 0 ? opt->context_tokens : CONTEXT_DEFAULT;
    if (trained > 0 && l->context_tokens > trained)
        l->context_tokens = trained;
    if (l->context_tokens < CONTEXT_MIN)
        return tr_fail(err, TR_INVALID, "model '%.100s': a context of %u tokens is less than %d", path,
                       l->context_tokens, CONTEXT_MIN);
    l->sequences = choose_sequences(l, opt);
    l->threads = opt->threads > 0 ? opt->threads : cores < THREADS_MAX ? cores : THREADS_MAX;
    l->threads_fixed = opt->threads > 0 || gpu;
    params.n_seq_max = l->sequences;
    params.n_ctx = (l->context_tokens + 255) / 256 * 256 * l->sequences;
    params.n_batch = params.n_ubatch = LOADER_BATCH;
    params.n_threads = params.n_threads_batch = (int32_t)l->threads;
    params.kv_unified = false; /* a long chat must not slow the others down */
    params.no_perf = true;
    if (!gpu) /* on a CPU it costs most of what keeping the state gains */
        params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    log_reset();
    l->ctx = llama_init_from_model(l->model, params);
    if (l->ctx == NULL)
        return fail_logged(err, TR_NOMEM, path, "no context");
    if (llama_get_memory(l->ctx) == NULL)
        return tr_fail(err, TR_INVALID, "model '%.100s': not a model that writes text", path);
    snprintf(l->device, sizeof l->device, "%s, %u thread%s", gpu ? "GPU" : "CPU", l->threads,
             l->threads == 1 ? "" : "s");
    return TR_OK;
}

enum tr_rc loader_open(const char *path, const struct llama_engine_options *opt, struct loaded *ret, struct tr_err *err)
{
    static const struct llama_engine_options defaults;
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct loaded l = {0};
    enum tr_rc rc;

    rc = check_file(path, err);
    if (rc != TR_OK)
        return rc;
    pthread_once(&once, backend_init);
    rc = load_model(path, &l, err);
    if (rc == TR_OK) {
        choose_template(&l, path);
        rc = make_context(path, opt != NULL ? opt : &defaults, &l, err);
    }
    if (rc != TR_OK) {
        loader_release(&l);
        return rc;
    }
    *ret = l;
    return TR_OK;
}

void loader_release(struct loaded *l)
{
    if (l->ctx != NULL) {
        if (llama_get_memory(l->ctx) != NULL)
            llama_memory_clear(llama_get_memory(l->ctx), true);
        llama_free(l->ctx);
    }
    if (l->model != NULL)
        llama_model_free(l->model);
    *l = (struct loaded){0};
}
