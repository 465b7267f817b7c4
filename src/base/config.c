/*
 * config - the table of keys, the reading of `.env`, the environment over it, and the files that KEY_FILE names.
 * Of one key the environment's word wins over the file's, whichever of KEY and KEY_FILE each of them gives.
 */
#include "base/config.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ENV_FILE_MAX (256 * 1024)
#define SECRET_FILE_MAX (64 * 1024)

#define TEXT 0, 0, false

static const struct key {
    const char *name, *value, *comment;
    uint64_t min, max; /* of a whole number; max 0: it is none */
    bool or_zero;      /* 0 is fine, too */
} keys[] = {
    {"TROUPE_LISTEN", "127.0.0.1:8080",
     "Where the gateway listens: address:port (port 0: any free one, told in the log).", TEXT},
    {"TROUPE_METRICS_LISTEN", "",
     "Where /metrics, /healthz and /readyz are served for those who watch: address:port; empty: nowhere but on "
     "TROUPE_LISTEN. When it is set, TROUPE_LISTEN serves no /metrics.",
     TEXT},
    {"TROUPE_BROKER", "sqlite:data/queue.db",
     "The queues between the roles: sqlite:PATH, or amqp://user:password@host:5672/vhost (RabbitMQ; several hosts with "
     "commas).",
     TEXT},
    {"TROUPE_HISTORY", "sqlite:data/history.db",
     "Chats and turns, sealed: sqlite:PATH, or cassandra://host1,host2:9042/keyspace (?replication=, &datacenter=, "
     "&consistency=local).",
     TEXT},
    {"TROUPE_CATALOGUE", "sqlite:data/catalogue.db",
     "Users and characters: sqlite:PATH, or postgresql://user:password@primary,replica:5432/database.", TEXT},
    {"TROUPE_REGISTRY", "memory:",
     "Workers, connections, recent context, rate limits, all of which can be rebuilt: memory:, or "
     "redis://:password@host:6379/0.",
     TEXT},
    {"TROUPE_MEDIA", "file:data/media",
     "Pictures, sound and video of chats, sealed: file:FOLDER, or s3://bucket (s3://bucket/prefix).", TEXT},
    {"S3_ENDPOINT_URL", "", "Where that bucket is served: http://host:9000; empty: Amazon's of the region.", TEXT},
    {"S3_REGION", "us-east-1", "Its region.", TEXT},
    {"S3_ACCESS_KEY_ID", "", "Who we are there,", TEXT},
    {"S3_SECRET_ACCESS_KEY", "", "and how we sign; better given as S3_SECRET_ACCESS_KEY_FILE.", TEXT},
    {"TROUPE_MEDIA_MAX_MIB", "25", "Largest picture, sound or video, in MiB.", 1, 32768, false},
    {"TROUPE_ENGINE", "llama:.deps/models/SmolLM2-135M-Instruct.Q4_1.gguf",
     "What writes the replies, several in order of fallback, comma-separated: llama:PATH of a GGUF. "
     "stub: answers without a model (?delay_ms=&gap_ms=), for tests.",
     TEXT},
    {"TROUPE_MASTER_KEY_FILE", "data/master.key",
     "The key that seals the data keys; made on first start. Keep a copy of it apart from the data.", TEXT},
    {"TROUPE_CONTEXT_MESSAGES", "20", "How many recent messages a reply is written from, at least (up to twice that).",
     2, 2000, false},
    {"TROUPE_MAX_TOKENS", "256", "Longest reply, in tokens.", 1, 1000000, false},
    {"TROUPE_TEMPERATURE", "0.8", "0 to 2; 0 always takes the likeliest token.", TEXT},
    {"TROUPE_THREADS", "0", "Threads of the llama engine; 0: as many as there are free cores.", 0, 512, false},
    {"TROUPE_CONTEXT_TOKENS", "4096", "Longest prompt and reply together, in tokens.", 256, 1048576, false},
    {"TROUPE_KV_MIB", "512", "Memory for the kept state of chats, in MiB.", 16, 1048576, false},
    {"TROUPE_GENERATE_SECONDS", "120", "An engine that gives no sign of life for so long has failed.", 1, 86400, false},
    {"TROUPE_ORIGINS", "",
     "Allowed Origins of browsers, comma-separated; empty: the listener's own address, localhost, [::1].", TEXT},
    {"TROUPE_RATE_USER", "60", "Messages, and as many files, a minute a user; 0: no limit.", 0, 1000000, false},
    {"TROUPE_RATE_ADDRESS", "600", "Messages and files a minute an address; 0: no limit.", 0, 1000000, false},
    {"TROUPE_TEXT_MAX", "8000", "Longest message, in characters.", 1, 100000, false},
    {"TROUPE_QUEUE_MAX", "10000", "Turns under way; past it a message is answered with `overloaded`.", 1, 100000000,
     false},
    {"TROUPE_CONNECTIONS_MAX", "18000",
     "Connections of the gateway at once (at most the open files of the process allow).", 1, 1000000, false},
    {"TROUPE_SEND_BUFFER_KIB", "256", "What may wait for a slow reader: deltas are dropped first, then the connection.",
     1, 1024 * 1024, false},
    {"TROUPE_IDLE_SECONDS", "300", "A connection that answers no ping for so long is closed.", 3, 24 * 3600, false},
    {"TROUPE_WORKER_TTL_MS", "10000", "How long a worker counts as alive after its last sign of life.", 100, 3600000,
     false},
    {"TROUPE_LOAD_BOUND_PERCENT", "125",
     "A chat that is placed anew goes past a worker whose slots are all busy and which has more than this share of an "
     "even "
     "load, to the next in line, and stays there; 100 to 1000, 0: never.",
     100, 1000, true},
    {"TROUPE_WORKER_ERRORS_MAX", "8",
     "So many failures of the engine in a row, and `troupe inference` hands over what it holds, leaves and exits with "
     "1; 0: never.",
     0, 1000000, false},
    {"TROUPE_WORKER_RSS_MAX_MIB", "0", "The same past so much memory, in MiB; 0: no limit.", 0, 100000000, false},
    {"TROUPE_DRAIN_SECONDS", "20", "How long a stop waits for what is under way.", 0, 3600, false},
    {"TROUPE_LOG_LEVEL", "info", "debug, info, warn, error.", TEXT},
};
#define KEYS (sizeof keys / sizeof keys[0])

struct config {
    char *value[KEYS]; /* NULL: not set */
    char *file[KEYS];  /* what KEY_FILE says; NULL: not set.  At most one of the two */
};

/* Which source a key was given in, to tell that it was given twice there. */
struct seen {
    bool value[KEYS], file[KEYS];
};

static size_t key_index(const char *name, size_t len)
{
    size_t i;

    for (i = 0; i < KEYS; i++)
        if (strlen(keys[i].name) == len && memcmp(keys[i].name, name, len) == 0)
            break;
    return i;
}

/* Levenshtein's distance, for "did you mean". */
static size_t distance(const char *a, size_t n, const char *b)
{
    size_t row[128];
    const size_t m = strlen(b);

    if (m >= 127)
        return 127;
    for (size_t j = 0; j <= m; j++)
        row[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t diagonal = row[0];

        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);

            diagonal = row[j];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[m];
}

static const char *nearest(const char *name, size_t len)
{
    size_t best = 0, best_distance = SIZE_MAX;

    for (size_t i = 0; i < KEYS; i++) {
        const size_t d = distance(name, len, keys[i].name);

        if (d < best_distance) {
            best_distance = d;
            best = i;
        }
    }
    return keys[best].name;
}

/* KEY, or KEY_FILE: of which key, and is it that of a file?  KEYS: unknown. */
static size_t key_or_file(const char *name, size_t len, bool *ret_file)
{
    const size_t suffix = strlen("_FILE"), i = key_index(name, len);

    *ret_file = i == KEYS && len > suffix && memcmp(name + len - suffix, "_FILE", suffix) == 0;
    return *ret_file ? key_index(name, len - suffix) : i; /* TROUPE_MASTER_KEY_FILE is a key itself */
}

static enum tr_rc set(struct config *c, struct seen *seen, size_t i, bool file, const char *value, size_t len,
                      struct tr_err *err)
{
    char *copy;

    if (file ? seen->value[i] : seen->file[i])
        return tr_fail(err, TR_INVALID, "%s and %s_FILE are both set: keep one of them", keys[i].name, keys[i].name);
    copy = strndup(value, len);
    if (copy == NULL)
        return tr_fail(err, TR_NOMEM, "configuration");
    free(c->value[i]);
    free(c->file[i]);
    c->value[i] = file ? NULL : copy;
    c->file[i] = file ? copy : NULL;
    *(file ? &seen->file[i] : &seen->value[i]) = true;
    return TR_OK;
}

/* KEY=value, # comments; a value may stand in quotes. */
static enum tr_rc read_line(struct config *c, struct seen *seen, const char *path, size_t number, const char *line,
                            size_t len, struct tr_err *err)
{
    const char *eq, *value;
    size_t key_len, value_len, i;
    bool file;

    while (len > 0 && isspace((unsigned char)line[len - 1]))
        len--;
    while (len > 0 && isspace((unsigned char)*line)) {
        line++;
        len--;
    }
    if (len == 0 || *line == '#')
        return TR_OK;
    if (len > 7 && memcmp(line, "export ", 7) == 0) { /* as shells write it */
        line += 7;
        len -= 7;
    }
    eq = memchr(line, '=', len);
    if (eq == NULL)
        return tr_fail(err, TR_INVALID, "%s line %zu: expected KEY=value", path, number);
    key_len = (size_t)(eq - line);
    value = eq + 1;
    value_len = len - key_len - 1;
    if (value_len >= 2 && (*value == '"' || *value == '\'') && value[value_len - 1] == *value) {
        value++;
        value_len -= 2;
    }
    i = key_or_file(line, key_len, &file);
    if (i < KEYS) {
        const enum tr_rc rc = set(c, seen, i, file, value, value_len, err);

        return rc == TR_OK ? rc : tr_wrap(err, rc, "%s line %zu", path, number);
    }
    if (key_len > 7 && key_len < 64 && memcmp(line, "TROUPE_", 7) == 0)
        return tr_fail(err, TR_INVALID, "%s line %zu: unknown key %.*s; did you mean %s?", path, number, (int)key_len,
                       line, nearest(line, key_len));
    return TR_OK; /* other programs' keys may stand there */
}

static enum tr_rc read_file(struct config *c, const char *path, struct tr_err *err)
{
    struct seen seen = {0};
    FILE *f = fopen(path, "re");
    char *text = NULL;
    size_t len, number = 1, start = 0;
    enum tr_rc rc = TR_OK;
    bool failed;

    if (f == NULL)
        return errno == ENOENT ? TR_OK : tr_fail(err, TR_INVALID, "%s: %s", path, strerror(errno));
    text = malloc(ENV_FILE_MAX + 1);
    len = text != NULL ? fread(text, 1, ENV_FILE_MAX + 1, f) : 0;
    failed = ferror(f) != 0;
    fclose(f);
    if (text == NULL)
        return tr_fail(err, TR_NOMEM, "configuration");
    if (failed)
        rc = tr_fail(err, TR_INVALID, "%s: cannot be read: %s", path, strerror(errno));
    else if (memchr(text, '\0', len) != NULL)
        rc = tr_fail(err, TR_INVALID, "%s: not a text file: there is a zero byte in it", path);
    else if (len > ENV_FILE_MAX)
        rc = tr_fail(err, TR_INVALID, "%s: larger than %d bytes", path, ENV_FILE_MAX);
    if (rc == TR_OK && len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
        start = 3; /* a byte order mark */
    for (size_t at = start; rc == TR_OK && at < len; number++) {
        const char *const end = memchr(text + at, '\n', len - at);
        const size_t line = end != NULL ? (size_t)(end - (text + at)) : len - at;

        rc = read_line(c, &seen, path, number, text + at, line, err);
        at += line + 1;
    }
    free(text);
    return rc;
}

extern char **environ;

static enum tr_rc read_environment(struct config *c, struct tr_err *err)
{
    struct seen seen = {0};

    for (char **e = environ; *e != NULL; e++) {
        const char *const eq = strchr(*e, '=');
        size_t len, i;
        enum tr_rc rc;
        bool file;

        if (eq == NULL)
            continue;
        len = (size_t)(eq - *e);
        i = key_or_file(*e, len, &file);
        if (i < KEYS) {
            rc = set(c, &seen, i, file, eq + 1, strlen(eq + 1), err);
            if (rc != TR_OK)
                return rc;
        } else if (len > 7 && len < 64 && memcmp(*e, "TROUPE_", 7) == 0 && memcmp(*e, "TROUPE_TEST_", 12) != 0 &&
                   memcmp(*e, "TROUPE_E2E_", 11) != 0) {
            return tr_fail(err, TR_INVALID, "environment: unknown key %.*s; did you mean %s?", (int)len, *e,
                           nearest(*e, len));
        }
    }
    return TR_OK;
}

/* The value that a KEY_FILE names: the file's one line, without its end.  The error never shows what is in it. */
static enum tr_rc read_secret(struct config *c, size_t i, struct tr_err *err)
{
    const char *const name = keys[i].name, *const path = c->file[i];
    FILE *const f = fopen(path, "re");
    char *const text = malloc(SECRET_FILE_MAX + 1);
    size_t len = 0;
    int failed = f == NULL ? errno : 0;
    enum tr_rc rc = TR_OK;

    if (f != NULL && text != NULL) {
        len = fread(text, 1, SECRET_FILE_MAX + 1, f);
        failed = ferror(f) != 0 ? errno : 0;
    }
    while (len > 0 && len <= SECRET_FILE_MAX && (text[len - 1] == '\n' || text[len - 1] == '\r'))
        len--;
    if (text == NULL)
        rc = tr_fail(err, TR_NOMEM, "configuration");
    else if (failed != 0)
        rc = tr_fail(err, TR_INVALID, "%s_FILE: %s: %s", name, path, strerror(failed));
    else if (len > SECRET_FILE_MAX)
        rc = tr_fail(err, TR_INVALID, "%s_FILE: %s: larger than %d bytes", name, path, SECRET_FILE_MAX);
    else if (memchr(text, '\0', len) != NULL || memchr(text, '\n', len) != NULL)
        rc = tr_fail(err, TR_INVALID, "%s_FILE: %s: more than one line, or no text", name, path);
    else
        c->value[i] = strndup(text, len);
    if (rc == TR_OK && c->value[i] == NULL)
        rc = tr_fail(err, TR_NOMEM, "configuration");
    if (text != NULL)
        explicit_bzero(text, SECRET_FILE_MAX + 1);
    free(text);
    if (f != NULL)
        fclose(f);
    return rc;
}

enum tr_rc config_load(const char *path, struct config **ret_config, struct tr_err *err)
{
    struct config *c = calloc(1, sizeof *c);
    uint64_t number;
    enum tr_rc rc;

    if (c == NULL)
        return tr_fail(err, TR_NOMEM, "configuration");
    rc = read_file(c, path, err);
    if (rc == TR_OK)
        rc = read_environment(c, err);
    for (size_t i = 0; i < KEYS && rc == TR_OK; i++)
        if (c->file[i] != NULL)
            rc = read_secret(c, i, err);
    for (size_t i = 0; i < KEYS && rc == TR_OK; i++)
        if (keys[i].max > 0)
            rc = config_u64(c, keys[i].name, &number, err);
    if (rc == TR_OK) {
        *ret_config = c;
        c = NULL;
    }
    config_free(c);
    return rc;
}

void config_free(struct config *config)
{
    if (config == NULL)
        return;
    for (size_t i = 0; i < KEYS; i++) {
        free(config->value[i]);
        free(config->file[i]);
    }
    free(config);
}

static size_t known(const char *key)
{
    const size_t i = key_index(key, strlen(key));

    if (i == KEYS)
        abort(); /* our own mistake: a key that is not in the table */
    return i;
}

bool config_is_set(const struct config *config, const char *key)
{
    return config->value[known(key)] != NULL;
}

const char *config_str(const struct config *config, const char *key)
{
    const size_t i = known(key);

    return config->value[i] != NULL ? config->value[i] : keys[i].value;
}

enum tr_rc config_u64(const struct config *config, const char *key, uint64_t *ret_value, struct tr_err *err)
{
    const struct key *const k = &keys[known(key)];
    const char *const text = config_str(config, key);
    char *end = NULL;
    unsigned long long v;

    errno = 0;
    v = strtoull(text, &end, 10);
    if (!isdigit((unsigned char)text[0]) || *end != '\0' || errno != 0 || v > k->max ||
        (v < k->min && !(v == 0 && k->or_zero)))
        return tr_fail(err, TR_INVALID, "%s: '%.40s' is not a whole number from %llu to %llu%s", key, text,
                       (unsigned long long)k->min, (unsigned long long)k->max, k->or_zero ? ", or 0" : "");
    *ret_value = v;
    return TR_OK;
}

void config_print_example(void *file)
{
    FILE *const f = file;

    fputs(
        "# Every key of Troupe with its default. Copy to .env and change what you need; a variable that is set wins.\n"
        "# Any key may be given as KEY_FILE: the value is then the one line of the file of that name, for secrets that "
        "are mounted as files.\n",
        f);
    for (size_t i = 0; i < KEYS; i++)
        fprintf(f, "\n# %s\n#%s=%s\n", keys[i].comment, keys[i].name, keys[i].value);
}
