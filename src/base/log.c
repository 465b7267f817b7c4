/* log - one logfmt line an event, formatted on the stack and written with one write(). */
#include "base/log.h"

#include "base/loop.h"

#include <ctype.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES 2048
#define QUOTED_MAX 400

static atomic_int threshold = LOG_INFO;
static const char *const level_names[] = {"debug", "info", "warn", "error"};

struct line {
    char text[LINE_MAX_BYTES];
    size_t len;
};

void log_set_level(enum log_level level)
{
    atomic_store(&threshold, (int)level);
}

bool log_parse_level(const char *text, enum log_level *ret_level)
{
    for (size_t i = 0; i < sizeof level_names / sizeof level_names[0]; i++)
        if (strcmp(text, level_names[i]) == 0) {
            *ret_level = (enum log_level)i;
            return true;
        }
    return false;
}

bool log_on(enum log_level level)
{
    return (int)level >= atomic_load(&threshold);
}

static void put(struct line *l, const char *s, size_t len)
{
    const size_t room = sizeof l->text - 1 - l->len; /* the newline always fits */

    if (len > room)
        len = room;
    memcpy(l->text + l->len, s, len);
    l->len += len;
}

static void put_quoted(struct line *l, const char *s)
{
    put(l, "\"", 1);
    for (size_t i = 0; s[i] != '\0' && i < QUOTED_MAX; i++) {
        const unsigned char c = (unsigned char)s[i];

        if (c == '"' || c == '\\') {
            const char esc[2] = {'\\', (char)c};
            put(l, esc, 2);
        } else if (c < 0x20 || c == 0x7f) {
            put(l, c == '\n' ? "\\n" : " ", c == '\n' ? 2 : 1);
        } else {
            put(l, (const char *)&s[i], 1);
        }
    }
    put(l, "\"", 1);
}

/* One conversion of printf, spec = "%...X", its argument taken from *ap. */
static void put_conversion(struct line *l, const char *spec, size_t len, va_list *ap)
{
    char fmt[32], out[QUOTED_MAX];
    const char kind = spec[len - 1];
    int n = 0;

    if (kind == 'Q') {
        const char *s = va_arg(*ap, const char *);
        put_quoted(l, s != NULL ? s : "");
        return;
    }
    if (len >= sizeof fmt)
        return;
    memcpy(fmt, spec, len);
    fmt[len] = '\0';
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    if (kind == 's')
        n = snprintf(out, sizeof out, fmt, va_arg(*ap, const char *));
    else if (kind == 'f' || kind == 'g')
        n = snprintf(out, sizeof out, fmt, va_arg(*ap, double));
    else if (strchr(fmt, 'l') != NULL || strchr(fmt, 'z') != NULL)
        n = snprintf(out, sizeof out, fmt, va_arg(*ap, unsigned long));
    else
        n = snprintf(out, sizeof out, fmt, va_arg(*ap, int));
#pragma GCC diagnostic pop
    if (n > 0)
        put(l, out, (size_t)n < sizeof out ? (size_t)n : sizeof out - 1);
}

static void put_time(struct line *l)
{
    const uint64_t ms = wall_ms();
    const time_t s = (time_t)(ms / 1000);
    char out[40];
    struct tm tm;
    int n;

    gmtime_r(&s, &tm);
    n = (int)strftime(out, sizeof out, "ts=%Y-%m-%dT%H:%M:%S", &tm);
    n += snprintf(out + n, sizeof out - (size_t)n, ".%03uZ ", (unsigned)(ms % 1000));
    put(l, out, (size_t)n);
}

void log_event(enum log_level level, const char *ev, const char *fmt, ...)
{
    struct line l;
    va_list ap;
    ssize_t ignored;

    if (!log_on(level))
        return;
    l.len = 0;
    put_time(&l);
    put(&l, "level=", 6);
    put(&l, level_names[level], strlen(level_names[level]));
    put(&l, " ev=", 4);
    put(&l, ev, strlen(ev));
    va_start(ap, fmt);
    if (fmt[0] != '\0')
        put(&l, " ", 1);
    while (*fmt != '\0') {
        size_t n = strcspn(fmt, "%");

        put(&l, fmt, n);
        fmt += n;
        if (*fmt == '\0')
            break;
        if (fmt[1] == '%') {
            put(&l, "%", 1);
            fmt += 2;
            continue;
        }
        n = 1 + strspn(fmt + 1, "0123456789.-+# lzhj");
        if (fmt[n] == '\0')
            break;
        put_conversion(&l, fmt, n + 1, &ap);
        fmt += n + 1;
    }
    va_end(ap);
    l.text[l.len++] = '\n';
    ignored = write(STDERR_FILENO, l.text, l.len);
    (void)ignored; /* nowhere to tell it */
}
