/*
 * personal - text_personal(): spans of a text that look like personal data.  By shape alone; a hint, not a proof.
 *
 *   e-mail  local part of 1…64 ASCII letters, digits and !#$%&'*+/=?^_`{|}~.- that begins with a letter, a digit or _ and
 *           has single dots inside only; a domain of at least two labels of letters (of any script), digits and inner
 *           hyphens; a last one of letters or xn--
 *   card    13…19 digits, together or in groups apart by single spaces or dashes (the last may be short, the others have
 *           4 or more), the first digit 2…6 as payment cards have it, Luhn's check digit
 *   phone   7…15 digits: after a +; or in groups that begin with 0 or have an area code in parentheses; or in groups of a
 *           usual pattern.  Not: dates, times, addresses of hosts, decimals, a piece of a longer word or number
 */
#include <string.h>

#include "domain/text.h"

#define LOCAL_MAX 64
#define DOMAIN_MAX 253
#define LABEL_MAX 63
#define GROUPS_MAX 24

static bool digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool local_char(char c)
{
    return letter(c) || digit(c) || (c != '\0' && strchr("!#$%&'*+/=?^_`{|}~.-", c) != NULL);
}

static bool label_char(char c)
{
    return letter(c) || digit(c) || c == '-' || (uint8_t)c >= 0x80;
}

/* Where the local part that ends before `at` begins, not before `from`; `at`: there is none. */
static size_t local_start(const char *s, size_t from, size_t at)
{
    size_t start = at;

    while (start > from && at - start <= LOCAL_MAX && local_char(s[start - 1])) {
        if (s[start - 1] == '.' && (start == at || s[start] == '.'))
            break; /* a dot at the end, or two in a row */
        start--;
    }
    while (start < at && !letter(s[start]) && !digit(s[start]) && s[start] != '_')
        start++;
    return at - start <= LOCAL_MAX ? start : at;
}

static bool top_level(const char *label, size_t len)
{
    if (len > 4 && (memcmp(label, "xn--", 4) == 0))
        return true;
    for (size_t i = 0; i < len; i++)
        if (!letter(label[i]) && (uint8_t)label[i] < 0x80)
            return false;
    return len >= 2;
}

/* Where the domain that begins at `start` ends; `start`: there is none. */
static size_t domain_end(const char *s, size_t len, size_t start)
{
    size_t at = start, end = start, labels = 0;

    while (at < len && at - start <= DOMAIN_MAX) {
        size_t label = at, trimmed;

        while (at < len && label_char(s[at]) && at - label <= LABEL_MAX)
            at++;
        trimmed = at;
        while (trimmed > label && s[trimmed - 1] == '-')
            trimmed--;
        if (trimmed == label || trimmed - label > LABEL_MAX || s[label] == '-' || trimmed - start > DOMAIN_MAX)
            break;
        labels++;
        if (labels >= 2 && top_level(s + label, trimmed - label))
            end = trimmed;
        if (trimmed != at || at >= len || s[at] != '.')
            break;
        at++;
    }
    return end;
}

/* The first e-mail address in s[from..len). */
static bool find_email(const char *s, size_t len, size_t from, struct personal_span *ret)
{
    for (size_t at = from; at < len; at++) {
        const char *hit = memchr(s + at, '@', len - at);
        size_t start, end;

        if (hit == NULL)
            return false;
        at = (size_t)(hit - s);
        start = local_start(s, from, at);
        if (start == at)
            continue;
        end = domain_end(s, len, at + 1);
        if (end == at + 1)
            continue;
        *ret = (struct personal_span){PERSONAL_EMAIL, (uint32_t)start, (uint32_t)(end - start)};
        return true;
    }
    return false;
}

/* A run of digits and what may stand between those of one number. */
struct group {
    size_t start, len;
    char before; /* the separator before it; 0: none; '*': several characters */
    bool paren;  /* in parentheses */
};
struct run {
    struct group groups[GROUPS_MAX];
    size_t n;
    bool plus;
    size_t start, end;
};

static size_t take_separator(const char *s, size_t to, size_t at, char *ret)
{
    size_t n = 0;

    while (at + n < to && n < 3 && strchr(" -./()", s[at + n]) != NULL && s[at + n] != '\0')
        n++;
    *ret = n == 1 ? s[at] : '*';
    return at + n < to && n > 0 && digit(s[at + n]) ? n : 0;
}

/* The run that begins at s[at], a digit, '+' or '('; its end is at least at + 1. */
static void take_run(const char *s, size_t to, size_t at, struct run *run)
{
    char separator = 0;

    memset(run, 0, sizeof *run);
    run->start = at;
    if (s[at] == '+') {
        run->plus = true;
        at++;
    }
    if (at < to && s[at] == '(')
        at++;
    while (at < to && digit(s[at]) && run->n < GROUPS_MAX) {
        struct group *g = &run->groups[run->n++];
        size_t skip;

        g->start = at;
        g->before = separator;
        while (at < to && digit(s[at]))
            at++;
        g->len = at - g->start;
        g->paren = g->start > 0 && s[g->start - 1] == '(' && at < to && s[at] == ')';
        run->end = at;
        skip = take_separator(s, to, at, &separator);
        if (skip == 0)
            break;
        at += skip;
    }
    if (run->n == 0)
        run->end = run->start + 1;
}

/* Not a piece of a longer word, number, time or address. */
static bool stands_alone(const char *s, size_t len, const struct run *run)
{
    char before = run->start > 0 ? s[run->start - 1] : ' ', after = run->end < len ? s[run->end] : ' ';
    bool digit_before = run->start > 1 && digit(s[run->start - 2]);
    bool digit_after = run->end + 1 < len && digit(s[run->end + 1]);

    if (letter(before) || digit(before) || strchr("_@#$%&=+.\\", before) != NULL)
        return false;
    if (letter(after) || digit(after) || after == '_' || after == '@' || after == '%')
        return false;
    if (strchr(":,/-", before) != NULL && digit_before)
        return false;
    return !(strchr(":,", after) != NULL && digit_after) && run->n < GROUPS_MAX;
}

static int value_of(const char *s, const struct group *g)
{
    int v = 0;

    for (size_t i = 0; i < g->len && i < 9; i++)
        v = v * 10 + (s[g->start + i] - '0');
    return v;
}

static bool in(int v, int low, int high)
{
    return v >= low && v <= high;
}

/* Do three groups from g on read as a date, whichever way round? */
static bool date(const char *s, const struct run *run, size_t g)
{
    const struct group *d = &run->groups[g];
    int a, b, c;

    if (g + 3 > run->n || d[1].before != d[2].before || strchr("-./", d[1].before) == NULL || d[0].len > 4 ||
        d[1].len > 2 || d[2].len > 4)
        return false;
    a = value_of(s, &d[0]);
    b = value_of(s, &d[1]);
    c = value_of(s, &d[2]);
    if (d[0].len == 4)
        return d[2].len <= 2 && in(a, 1000, 2999) && in(b, 1, 12) && in(c, 1, 31);
    return d[0].len <= 2 && (d[2].len == 2 || d[2].len == 4) && in(a, 1, 31) && in(b, 1, 31) && (a <= 12 || b <= 12);
}

static bool luhn(const char *s, const struct run *run, size_t first, size_t end)
{
    unsigned sum = 0;
    bool twice = false;

    for (size_t g = end; g > first; g--) {
        const struct group *d = &run->groups[g - 1];

        for (size_t i = d->len; i > 0; i--, twice = !twice) {
            unsigned v = (unsigned)(s[d->start + i - 1] - '0') << twice;

            sum += v > 9 ? v - 9 : v;
        }
    }
    return sum % 10 == 0;
}

/* One past the last group of the longest card number from group g on; g: there is none. */
static size_t card_end(const char *s, const struct run *run, size_t g)
{
    size_t digits = 0, found = g;
    char separator = 0;

    if (run->plus || s[run->groups[g].start] < '2' || s[run->groups[g].start] > '6')
        return g;
    for (size_t end = g; end < run->n; end++) {
        const struct group *d = &run->groups[end];

        if (end > g) {
            if ((d->before != ' ' && d->before != '-') || (separator != 0 && d->before != separator) || d[-1].len < 4)
                break;
            separator = d->before;
        }
        digits += d->len;
        if (digits > 19)
            break;
        if (digits >= 13 && luhn(s, run, g, end + 1))
            found = end + 1;
    }
    return found;
}

/* Group lengths of numbers without + or a leading 0, as people write them: North America, Spain, Poland, China, India, Russia. */
static bool usual_pattern(const char *s, const struct run *run, size_t g, size_t end)
{
    static const char *const patterns[] = {"334", "1334", "333", "3222", "344", "55", "3322", "13322"};
    char lengths[8];
    size_t n = end - g;

    if (n < 2 || n >= sizeof lengths)
        return false;
    for (size_t i = 0; i < n; i++) {
        const struct group *d = &run->groups[g + i];

        if (d->len > 9 || (i > 0 && (d->before == '/' || d->before == '*')))
            return false;
        lengths[i] = (char)('0' + d->len);
    }
    lengths[n] = '\0';
    if (strcmp(lengths, "34") == 0)
        return run->groups[g + 1].before == '-';
    if (strcmp(lengths, "333") == 0) /* else a number in the French way: 123 456 789 */
        return s[run->groups[g].start] >= '5' && run->groups[g + 1].before != '.';
    for (size_t i = 0; i < sizeof patterns / sizeof patterns[0]; i++)
        if (strcmp(lengths, patterns[i]) == 0)
            return true;
    return false;
}

/* Whether groups g…end-1, `digits` in all, are a phone number. */
static bool phone(const char *s, const struct run *run, size_t g, size_t end, size_t digits)
{
    const struct group *d = &run->groups[g];
    char first = s[d->start];

    if (digits < 7 || digits > 15)
        return false;
    if (g == 0 && run->plus)
        return first != '0';
    if (first == '0' && d->len > 1)
        return end - g > 1 ? digits >= 8 : digits >= 9 && digits <= 13;
    if (d->paren && end - g > 1)
        return d->len >= 2 && d->len <= 5;
    if (end - g > 2 && d->len <= 3 && d[1].paren)
        return true;
    return usual_pattern(s, run, g, end);
}

static size_t phone_end(const char *s, const struct run *run, size_t g)
{
    size_t digits = 0, found = g;

    for (size_t end = g; end < run->n; end++) {
        digits += run->groups[end].len;
        if (end > g && date(s, run, end))
            break; /* "… 2024-01-01" behind a number */
        if (phone(s, run, g, end + 1, digits))
            found = end + 1;
    }
    return found;
}

/* One run's numbers.  Returns the new count. */
static size_t take_numbers(const char *s, const struct run *run, struct personal_span *spans, size_t n, size_t max)
{
    for (size_t g = 0; g < run->n && n < max;) {
        enum personal_kind kind = PERSONAL_CARD;
        size_t end = card_end(s, run, g), start, stop;

        if (end == g && date(s, run, g)) {
            g += 3;
            continue;
        }
        if (end == g) {
            kind = PERSONAL_PHONE;
            end = phone_end(s, run, g);
        }
        if (end == g) {
            g++;
            continue;
        }
        start = g == 0 ? run->start : run->groups[g].start - (run->groups[g].paren ? 1 : 0);
        stop = run->groups[end - 1].start + run->groups[end - 1].len;
        spans[n++] = (struct personal_span){kind, (uint32_t)start, (uint32_t)(stop - start)};
        g = end;
    }
    return n;
}

/* An IPv4 address: then nothing in the run is a phone number. */
static bool host_address(const char *s, const struct run *run)
{
    for (size_t g = 0; g + 4 <= run->n; g++) {
        const struct group *d = &run->groups[g];
        bool fits = d[1].before == '.' && d[2].before == '.' && d[3].before == '.';

        for (size_t i = 0; i < 4; i++)
            fits = fits && d[i].len <= 3 && value_of(s, &d[i]) <= 255;
        if (fits)
            return true;
    }
    return false;
}

static size_t find_numbers(const char *s, size_t len, size_t from, size_t to, struct personal_span *spans, size_t n,
                           size_t max)
{
    struct run run;

    while (from < to && n < max) {
        if (!digit(s[from]) && s[from] != '+' && s[from] != '(') {
            from++;
            continue;
        }
        take_run(s, to, from, &run);
        if (run.n > 0 && stands_alone(s, len, &run) && !host_address(s, &run))
            n = take_numbers(s, &run, spans, n, max);
        from = run.end;
    }
    return n;
}

size_t text_personal(const char *s, size_t len, struct personal_span *ret_spans, size_t max)
{
    size_t from = 0, n = 0;

    while (from < len && n < max) {
        struct personal_span email;
        bool found = find_email(s, len, from, &email);

        n = find_numbers(s, len, from, found ? email.start : len, ret_spans, n, max);
        if (!found || n == max)
            break;
        ret_spans[n++] = email;
        from = (size_t)email.start + email.len;
    }
    return n;
}
