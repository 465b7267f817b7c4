/* record - a worker's record as text: key=value lines.  It comes back from outside, so it is read with care. */
#include "adapter/redis/impl.h"

#include <stdlib.h>
#include <string.h>

/* A value may not end its line. */
static void line(struct buf *out, const char *key, const char *value)
{
    buf_add_str(out, key);
    buf_add_u8(out, '=');
    for (; *value != '\0'; value++)
        buf_add_u8(out, *value == '\n' ? ' ' : (uint8_t)*value);
    buf_add_u8(out, '\n');
}

void rr_record_print(const struct registry_worker *w, struct buf *out)
{
    line(out, "id", w->id);
    line(out, "engine", w->engine);
    line(out, "model", w->model);
    line(out, "device", w->device);
    buf_printf(out, "slots=%u\ncontext_tokens=%u\nweight=%u\nload=%u\n", (unsigned)w->slots,
               (unsigned)w->context_tokens, (unsigned)w->weight, (unsigned)w->load);
    if (w->draining)
        buf_add_str(out, "draining=1\n"); /* an older version skips it */
}

static bool take_text(char *to, size_t size, const char *value, size_t len)
{
    if (len >= size || memchr(value, '\0', len) != NULL)
        return false;
    memcpy(to, value, len);
    to[len] = '\0';
    return true;
}

bool rr_number(const char *value, size_t len, uint32_t *ret_number)
{
    uint64_t n = 0;

    if (len == 0 || len > 10)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (value[i] < '0' || value[i] > '9')
            return false;
        n = n * 10 + (uint64_t)(value[i] - '0');
    }
    if (n > UINT32_MAX)
        return false;
    *ret_number = (uint32_t)n;
    return true;
}

static bool take(struct registry_worker *w, uint32_t *draining, const char *key, size_t key_len, const char *value,
                 size_t len)
{
    const struct {
        const char *key;
        char *text;
        size_t size;
        uint32_t *number;
    } fields[] = {
        {"id", w->id, sizeof w->id, NULL},
        {"engine", w->engine, sizeof w->engine, NULL},
        {"model", w->model, sizeof w->model, NULL},
        {"device", w->device, sizeof w->device, NULL},
        {"slots", NULL, 0, &w->slots},
        {"context_tokens", NULL, 0, &w->context_tokens},
        {"weight", NULL, 0, &w->weight},
        {"load", NULL, 0, &w->load},
        {"draining", NULL, 0, draining},
    };

    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        if (strlen(fields[i].key) == key_len && memcmp(fields[i].key, key, key_len) == 0)
            return fields[i].text != NULL ? take_text(fields[i].text, fields[i].size, value, len)
                                          : rr_number(value, len, fields[i].number);
    return true;
}

enum tr_rc rr_record_parse(const char *text, size_t len, struct registry_worker *ret_worker)
{
    struct registry_worker w = {0};
    uint32_t draining = 0;
    const char *const end = text + len;

    while (text < end) {
        const char *const stop = memchr(text, '\n', (size_t)(end - text));
        const char *const line_end = stop != NULL ? stop : end;
        const char *const eq = memchr(text, '=', (size_t)(line_end - text));

        if (eq == NULL || !take(&w, &draining, text, (size_t)(eq - text), eq + 1, (size_t)(line_end - eq - 1)))
            return TR_INVALID;
        text = line_end + 1;
    }
    if (w.id[0] == '\0' || w.weight == 0)
        return TR_INVALID;
    w.draining = draining != 0;
    *ret_worker = w;
    return TR_OK;
}
