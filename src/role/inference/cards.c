/*
 * cards - the characters' cards of this worker, read from the catalogue.  One that is older than FRESH_MS is read
 * again by whoever asks first; meanwhile the others go on with what is there.
 */
#include "role/inference/impl.h"

#include <stdlib.h>
#include <string.h>

#define FRESH_MS 5000
#define KEPT_MAX 256

static void drop(struct inference *r, struct card_kept *kept)
{
    HASH_DEL(r->cards, kept);
    card_free(kept->card);
    free(kept);
}

const struct card *cards_find(struct inference *r, const char *id)
{
    const uint64_t now = loop_now_ms(r->env.loop);
    struct card_kept *kept;

    HASH_FIND_STR(r->cards, id, kept);
    if (kept == NULL)
        return NULL;
    if (now - kept->asked_ms >= FRESH_MS) {
        kept->asked_ms = now;
        return NULL;
    }
    return kept->card;
}

const struct card *cards_stale(struct inference *r, const char *id)
{
    struct card_kept *kept;

    HASH_FIND_STR(r->cards, id, kept);
    return kept != NULL ? kept->card : NULL;
}

enum tr_rc cards_put(struct inference *r, const struct catalogue_character *c, const struct card **ret_card,
                     struct tr_err *err)
{
    struct card_kept *kept, *fresh;
    enum tr_rc rc;

    HASH_FIND_STR(r->cards, c->id, kept);
    if (kept != NULL && kept->updated_ms == c->updated_ms) {
        kept->asked_ms = loop_now_ms(r->env.loop);
        *ret_card = kept->card;
        return TR_OK;
    }
    fresh = calloc(1, sizeof *fresh);
    if (fresh == NULL)
        return tr_fail(err, TR_NOMEM, "card");
    rc = card_parse(c->card.data, c->card.len, &fresh->card, err);
    if (rc != TR_OK) {
        free(fresh);
        return rc;
    }
    memcpy(fresh->id, c->id, sizeof fresh->id);
    fresh->updated_ms = c->updated_ms;
    fresh->asked_ms = loop_now_ms(r->env.loop);
    if (kept != NULL)
        drop(r, kept);
    else if (HASH_COUNT(r->cards) >= KEPT_MAX)
        drop(r, r->cards); /* the one that was read first */
    HASH_ADD_STR(r->cards, id, fresh);
    *ret_card = fresh->card;
    return TR_OK;
}

void cards_release(struct inference *r)
{
    struct card_kept *kept, *next;

    HASH_ITER (hh, r->cards, kept, next)
        drop(r, kept);
}
