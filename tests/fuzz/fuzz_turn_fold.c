/* Rows made of the bytes: the view holds together, and is the same whatever the order of the rows. */
#include "domain/turn.h"
#include "fuzz.h"

#define ROWS_MAX 64

static size_t make_rows(const uint8_t *data, size_t size, struct turn_row *rows)
{
    size_t n = 0;

    for (; size >= 6 && n < ROWS_MAX; data += 6, size -= 6) {
        struct turn_row r = {.part = (int8_t)data[0] % 70,
                             .rev = (int8_t)data[1],
                             .event = (enum turn_event)(data[2] % 6),
                             .variant = (int8_t)data[3] % 70,
                             .known = (int8_t)data[4],
                             .change = data[5],
                             .created_ms = data[5]};
        bool there = false;

        if (data[1] == 0x7f)
            r.rev = INT32_MAX;
        for (size_t i = 0; i < n; i++) /* (part, rev) is the key */
            there = there || (rows[i].part == r.part && rows[i].rev == r.rev);
        if (!there)
            rows[n++] = r;
    }
    return n;
}

static int32_t rev_of(const struct turn_row *r)
{
    return r != NULL ? r->rev : -1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct turn_row rows[ROWS_MAX], backwards[ROWS_MAX];
    struct turn_view v, w;
    size_t n = make_rows(data, size, rows);

    for (size_t i = 0; i < n; i++)
        backwards[i] = rows[n - 1 - i];
    turn_fold(rows, n, &v);
    turn_fold(backwards, n, &w);
    FUZZ_CHECK(v.exists == (n > 0) && v.variants >= 0 && v.variants <= TURN_VARIANTS_MAX);
    FUZZ_CHECK(v.wanted >= v.variants && v.wanted <= TURN_VARIANTS_MAX && (v.user == NULL || v.wanted >= 1));
    FUZZ_CHECK(v.chosen >= -1 && v.chosen < v.variants && (v.chosen >= 0) == (v.variants > 0));
    FUZZ_CHECK(!v.stop || v.variants < v.wanted);
    for (int i = 0; i < v.variants; i++)
        FUZZ_CHECK(v.variant[i] != NULL);
    for (size_t i = 0; i < n; i++)
        FUZZ_CHECK(rows[i].part != PART_STATE || rows[i].rev == INT32_MAX || v.next_rev > rows[i].rev);
    FUZZ_CHECK(v.variants == w.variants && v.wanted == w.wanted && v.chosen == w.chosen && v.stop == w.stop);
    FUZZ_CHECK(v.deleted == w.deleted && v.next_rev == w.next_rev && v.change == w.change &&
               v.created_ms == w.created_ms);
    FUZZ_CHECK(v.user_rev == w.user_rev && rev_of(v.notes) == rev_of(w.notes) && rev_of(v.user) == v.user_rev);
    return 0;
}
