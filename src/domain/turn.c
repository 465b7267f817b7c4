/*
 * turn - see turn.h.  The fold looks at each row once for the newest of each part, then at the events against what is
 * stored:
 *   wanted   1 for the user's message, raised by each regeneration; never below what is stored
 *   chosen   the newest stored variant, unless the newest choice of a stored variant was made when all of today's were
 *            known.  Greetings (no part 0) are stored together: there it is the first until one is regenerated.
 *   stop     an event for the variant that comes next
 *   attempts the events of later attempts at it
 */
#include "domain/turn.h"

#include <string.h>

static bool newer(const struct turn_row *row, const struct turn_row *than)
{
    return than == NULL || row->rev > than->rev;
}

struct events {
    const struct turn_row *choice;          /* the newest one of a stored variant */
    int regenerated_first, regenerated_end; /* variants asked for: the lowest, and one past the highest; -1 and 0 */
};

static void sort_rows(const struct turn_row *rows, size_t n, struct turn_view *v)
{
    for (size_t i = 0; i < n; i++) {
        const struct turn_row *r = &rows[i];

        if (r->change > v->change)
            v->change = r->change;
        if (r->rev < 0)
            continue;
        if (r->part == PART_USER) {
            if (newer(r, v->user))
                v->user = r;
        } else if (r->part == PART_NOTES) {
            if (newer(r, v->notes))
                v->notes = r;
        } else if (r->part == PART_STATE) {
            if (r->rev >= v->next_rev && r->rev < INT32_MAX)
                v->next_rev = r->rev + 1;
        } else if (r->part >= PART_FIRST_VARIANT && r->part < PART_FIRST_VARIANT + TURN_VARIANTS_MAX && r->rev == 0) {
            if (v->variant[r->part - PART_FIRST_VARIANT] == NULL)
                v->variant[r->part - PART_FIRST_VARIANT] = r;
        }
    }
    while (v->variants < TURN_VARIANTS_MAX && v->variant[v->variants] != NULL)
        v->variants++;
    v->user_rev = v->user != NULL ? v->user->rev : -1;
}

static struct events look_at_events(const struct turn_row *rows, size_t n, struct turn_view *v)
{
    struct events e = {.regenerated_first = -1};

    for (size_t i = 0; i < n; i++) {
        const struct turn_row *r = &rows[i];

        if (r->part != PART_STATE || r->rev < 0)
            continue;
        if (r->event == TURN_EVENT_DELETE)
            v->deleted = true;
        if (r->variant < 0 || r->variant >= TURN_VARIANTS_MAX)
            continue;
        if (r->event == TURN_EVENT_STOP && r->variant == v->variants)
            v->stop = true;
        if (r->event == TURN_EVENT_ATTEMPT && r->variant == v->variants) {
            v->attempts++;
            if (r->rev > v->last_attempt)
                v->last_attempt = r->rev;
        }
        if (r->event == TURN_EVENT_CHOOSE && r->variant < v->variants && newer(r, e.choice))
            e.choice = r;
        if (r->event == TURN_EVENT_REGENERATE) {
            if (e.regenerated_first < 0 || r->variant < e.regenerated_first)
                e.regenerated_first = r->variant;
            if (r->variant + 1 > e.regenerated_end)
                e.regenerated_end = r->variant + 1;
        }
    }
    return e;
}

/* When the turn came in: not when it was edited. */
static uint64_t created(const struct turn_row *rows, size_t n)
{
    const struct turn_row *first = NULL;

    for (size_t i = 0; i < n; i++) {
        const struct turn_row *r = &rows[i];
        bool first_is_text = first != NULL && first->part >= PART_USER;

        if (first == NULL || (r->part >= PART_USER) != first_is_text) {
            if (first == NULL || r->part >= PART_USER)
                first = r;
        } else if (r->part < first->part || (r->part == first->part && r->rev < first->rev)) {
            first = r;
        }
    }
    return first != NULL ? first->created_ms : 0;
}

void turn_fold(const struct turn_row *rows, size_t n, struct turn_view *ret_view)
{
    struct turn_view v;
    struct events e;

    memset(&v, 0, sizeof v);
    v.chosen = -1;
    v.user_rev = v.last_attempt = -1;
    if (n > 0) {
        v.exists = true;
        v.chat = rows[0].chat;
        v.turn = rows[0].turn;
    }
    sort_rows(rows, n, &v);
    e = look_at_events(rows, n, &v);
    v.created_ms = created(rows, n);

    v.wanted = v.user != NULL ? 1 : 0;
    if (e.regenerated_end > v.wanted)
        v.wanted = e.regenerated_end;
    if (v.variants > v.wanted)
        v.wanted = v.variants;
    if (v.variants == v.wanted)
        v.stop = false; /* nothing is to come */

    if (e.choice != NULL && e.choice->known >= v.variants)
        v.chosen = e.choice->variant;
    else if (v.user == NULL && v.variants > 0 && (e.regenerated_first < 0 || e.regenerated_first >= v.variants))
        v.chosen = 0;
    else
        v.chosen = v.variants - 1;
    *ret_view = v;
}

static const char *const finish_names[] = {
    [FINISH_STOP] = "stop",
    [FINISH_LENGTH] = "length",
    [FINISH_STOPPED] = "stopped",
    [FINISH_ERROR] = "error",
};

const char *finish_name(enum finish finish)
{
    return (unsigned)finish < sizeof finish_names / sizeof finish_names[0] ? finish_names[finish] : NULL;
}

bool finish_parse(const char *name, enum finish *ret_finish)
{
    for (unsigned i = FINISH_STOP; i <= FINISH_ERROR; i++) {
        if (strcmp(name, finish_names[i]) == 0) {
            *ret_finish = (enum finish)i;
            return true;
        }
    }
    return false;
}
