/*
 * load - from a call to work to a prompt: the key, the kept context, the turn's rows, the turns before it, the card.
 *
 * One read of the history on a chat that is warm: what changed since the kept context.  It gives this turn's rows and
 * whatever else was accepted, edited, chosen or deleted since, so the context is mended rather than thrown away.  Where
 * that does not tell all (no context, too much changed, the turn itself is older), the turn is read by itself and the
 * turns before it anew.
 */
#include "role/inference/impl.h"

#include "domain/message.h"
#include "domain/notes.h"
#include "role/common/keyring.h"

#include <stdlib.h>
#include <string.h>

#define CHANGED_MAX 64 /* turns; more: build anew */

/* --- the key --- */

static void on_keyless(void *ctx, enum tr_rc rc, const struct history_chat *chat, bool mine, const struct tr_err *err)
{
    struct turn *t = ctx;

    (void)chat;
    (void)mine;
    t->op = NULL;
    if (t->r == NULL) {
        turn_free(t);
    } else if (rc == TR_NOT_FOUND) { /* forgotten (contract 11.15) */
        turn_forgotten(t);
    } else if (rc == TR_OK) {
        struct tr_err lost = {0};

        rc = tr_fail(&lost, TR_NOT_FOUND, "the chat is there, and its data key is not");
        turn_fail(t, "internal", false, rc, &lost);
    } else {
        turn_trouble(t, "turn.key", rc, err);
    }
}

/* No key: only the history can say that the chat is gone.  A turn that was accepted is never dropped for want of a key. */
static void load_keyless(struct turn *t)
{
    struct history *h = t->r->env.history;
    struct tr_err err = {0};
    const enum tr_rc rc = h->ops->chat_get(h, &t->work.chat, on_keyless, t, &t->op, &err);

    if (rc != TR_OK)
        turn_trouble(t, "turn.key", rc, &err);
}

static void with_key(struct turn *t, enum tr_rc rc, const struct seal_key *key, const struct tr_err *err)
{
    if (rc == TR_NOT_FOUND) {
        load_keyless(t);
    } else if (rc == TR_INVALID) { /* no other key will come */
        turn_fail(t, "internal", true, rc, err);
    } else if (rc != TR_OK) {
        turn_trouble(t, "turn.key", rc, err);
    } else {
        t->seal = *key;
        t->has_seal = true;
        turn_enter(t, TURN_CONTEXT);
    }
}

static void on_key(void *ctx, enum tr_rc rc, const struct seal_key *key, const struct tr_err *err)
{
    struct turn *t = ctx;

    t->op = NULL;
    if (t->r == NULL)
        turn_free(t);
    else
        with_key(t, rc, key, err);
}

void load_key(struct turn *t)
{
    const struct role_env *env = &t->r->env;
    const struct seal_key *key = keyring_peek(env->keyring, &t->work.chat);
    struct tr_err err = {0};
    enum tr_rc rc;

    if (key != NULL) {
        with_key(t, TR_OK, key, NULL);
        return;
    }
    rc = keyring_get(env->keyring, &t->work.chat, on_key, t, &t->op, &err);
    if (rc != TR_OK)
        turn_trouble(t, "turn.key", rc, &err);
}

/* --- the kept context --- */

static void open_context(struct turn *t, const struct registry_context *kept)
{
    const struct seal_bind bind = {.kind = SEAL_CONTEXT, .chat = t->work.chat, .turn = kept->last_turn};
    struct buf plain = {0};
    struct tr_err err = {0};
    enum tr_rc rc = seal_open(&t->seal, &bind, kept->sealed.data, kept->sealed.len, &plain, &err);

    if (rc == TR_OK)
        rc = context_decode(plain.data, plain.len, &t->context, &err);
    buf_wipe(&plain);
    if (rc != TR_OK) /* it can be built anew */
        turn_log(t, LOG_WARN, "turn.context", rc, tr_err_text(&err));
    else if (t->context.n == 0 || t->context.change != kept->change ||
             (t->key.variant == 0 && uuid_cmp(&kept->last_turn, &t->key.turn) >= 0))
        context_release(&t->context); /* of no use: this turn is in it already */
}

static void on_context(void *ctx, enum tr_rc rc, const struct registry_context *kept, const struct tr_err *err)
{
    struct turn *t = ctx;

    t->op = NULL;
    if (t->r == NULL) {
        turn_free(t);
        return;
    }
    if (rc == TR_OK)
        open_context(t, kept);
    else if (rc != TR_NOT_FOUND)
        turn_log(t, LOG_DEBUG, "turn.registry", rc, tr_err_text(err));
    turn_enter(t, TURN_LOADING);
}

void load_context(struct turn *t)
{
    struct registry *reg = t->r->env.registry;

    context_release(&t->context);
    t->context_exact = false;
    if (reg->ops->context_get(reg, &t->work.chat, on_context, t, &t->op, NULL) != TR_OK) {
        t->op = NULL;
        turn_enter(t, TURN_LOADING); /* without */
    }
}

/* --- the turn's rows --- */

/* What the prompt says of the user's message, and what engines without a model hear of it. */
static void tell_user(struct turn *t, const struct notes *n)
{
    message_tell((const struct message_media *)n->media.data, n->media.len / sizeof(struct message_media),
                 (const char *)n->normalised.data, n->normalised.len, &t->user_text);
    if (n->raw.len > 0)
        buf_add(&t->said, n->raw.data, n->raw.len);
    else
        buf_add(&t->said, t->user_text.data, t->user_text.len);
}

/* The user's words of this turn: from the notes that came along if they are of this revision, else from the row. */
static enum tr_rc take_text(struct turn *t, const struct turn_view *view, struct tr_err *err)
{
    const struct turn_row *row = view->user;
    struct seal_bind bind = {.kind = SEAL_QUEUE,
                             .chat = t->work.chat,
                             .turn = t->key.turn,
                             .part = PART_USER,
                             .rev = t->work.rev,
                             .role = SPEAKER_USER};
    struct buf plain = {0}, encoded = {0};
    struct message m = {0};
    struct notes notes;
    enum tr_rc rc = TR_INVALID;

    buf_wipe(&t->user_text);
    buf_wipe(&t->said);
    buf_release(&t->notes_sealed);
    t->language[0] = '\0';
    if (t->work.sealed.len > 0 && t->work.rev == row->rev)
        rc = seal_open(&t->seal, &bind, t->work.sealed.data, t->work.sealed.len, &plain, err);
    if (rc == TR_OK)
        rc = notes_decode(plain.data, plain.len, &notes, err);
    if (rc == TR_OK && (notes.normalised.len > 0 || notes.media.len > 0)) {
        tell_user(t, &notes);
        memcpy(t->language, notes.language, sizeof t->language);
        notes.raw = notes.media = (struct slice){0}; /* they rest with part 0 */
        notes.rev = row->rev;
        rc = notes_encode(&notes, &encoded);
        bind = (struct seal_bind){.kind = SEAL_HISTORY,
                                  .chat = t->work.chat,
                                  .turn = t->key.turn,
                                  .part = PART_NOTES,
                                  .rev = row->rev,
                                  .role = SPEAKER_USER};
        if (rc == TR_OK)
            rc = seal_data(&t->seal, &bind, encoded.data, encoded.len, &t->notes_sealed);
    } else if (rc != TR_NOMEM && row->sealed_len > 0) {
        buf_wipe(&plain);
        bind = (struct seal_bind){.kind = SEAL_HISTORY,
                                  .chat = row->chat,
                                  .turn = row->turn,
                                  .part = row->part,
                                  .rev = row->rev,
                                  .role = (uint8_t)row->speaker};
        rc = seal_open(&t->seal, &bind, row->sealed, row->sealed_len, &plain, err);
        if (rc == TR_OK)
            rc = message_decode(plain.data, plain.len, &m, err);
        if (rc == TR_OK)
            rc = text_normalise(m.text, m.len, &encoded, err);
        if (rc == TR_OK) {
            notes = (struct notes){.raw = {(const uint8_t *)m.text, m.len},
                                   .normalised = {encoded.data, encoded.len},
                                   .media = {(const uint8_t *)m.media, m.media_n * sizeof *m.media}};
            tell_user(t, &notes);
        }
    }
    buf_wipe(&plain);
    buf_wipe(&encoded);
    if (rc == TR_OK && (t->user_text.failed || t->said.failed))
        rc = TR_NOMEM;
    return rc;
}

/* What this turn's own rows say.  True: go on towards a prompt; false: it has gone on by itself. */
static bool take_turn(struct turn *t, const struct turn_view *view)
{
    struct tr_err err = {0};
    enum tr_rc rc;

    if (view->deleted || t->key.variant >= TURN_VARIANTS_MAX) {
        inference_settled(t->r, &t->key.turn);
        turn_finish(t, SETTLE_ACK, 0, NULL);
        return false;
    }
    t->accepted_ms = view->created_ms;
    t->index = view->user != NULL ? view->user->index : 0;
    t->predecessor = view->user != NULL ? view->user->predecessor : uuid_nil;
    t->user_rev = view->user_rev;
    t->next_rev = view->next_rev;
    t->attempt_rows = view->attempts;
    t->last_attempt = view->last_attempt;
    if (view->variant[t->key.variant] != NULL) { /* redelivered: send that one again (contract 3.2) */
        rc = store_adopt(t, view->variant[t->key.variant], &err);
        if (rc == TR_NOMEM) {
            turn_trouble(t, "turn.adopt", rc, &err);
        } else {
            if (rc != TR_OK) { /* never skipped in silence */
                turn_log(t, LOG_ERROR, "turn.unread", rc, tr_err_text(&err));
                t->finish = FINISH_ERROR;
                strcpy(t->code, "internal");
                t->dead = true;
                t->cause = err;
            }
            turn_enter(t, TURN_PUBLISHING);
        }
        return false;
    }
    if (t->key.variant != view->variants) { /* not the one that is to come: the right call is on its way */
        turn_finish(t, SETTLE_ACK, 0, NULL);
        return false;
    }
    t->stop = t->stop || view->stop; /* its empty reply waits for the replies before it, too */
    rc = view->user != NULL ? take_text(t, view, &err) : TR_OK;
    if (rc == TR_INVALID)
        turn_fail(t, "internal", true, rc, &err);
    else if (rc != TR_OK)
        turn_trouble(t, "turn.text", rc, &err);
    return rc == TR_OK;
}

/*
 * Take the settled turns of rows[0..n) before this one into the context; *ret_mine is folded where its rows are among
 * them.  An unsettled one is noted in t->before (nil: none).
 */
static enum tr_rc take_rows(struct turn *t, const struct turn_row *rows, size_t n, struct turn_view *ret_mine,
                            struct tr_err *err)
{
    enum tr_rc rc = TR_OK;

    t->before.turn = uuid_nil;
    for (size_t from = 0, to; rc == TR_OK && from < n; from = to) {
        struct turn_view view;
        int cmp = uuid_cmp(&rows[from].turn, &t->key.turn);

        for (to = from + 1; to < n && uuid_eq(&rows[to].turn, &rows[from].turn); to++)
            continue;
        if (cmp > 0)
            continue;
        turn_fold(&rows[from], to - from, &view);
        if (cmp == 0)
            *ret_mine = view;
        else if (context_settled(&view))
            rc = context_take(&t->context, &t->seal, &view, err);
        else if (view.user != NULL)
            wait_note(t, &view);
    }
    return rc;
}

/* The rows of this turn are known, and maybe what is before it. */
static void loaded(struct turn *t)
{
    if (uuid_is_nil(&t->predecessor)) { /* the first one */
        context_release(&t->context);
        t->context.from_start = true;
        t->context_exact = true;
    } else {
        t->context_exact = context_covers(&t->context, &t->key.turn, t->index, t->r->keep);
    }
    if (t->key.variant == 0 && !t->context_exact && !uuid_is_nil(&t->before.turn))
        turn_enter(t, TURN_WAITING);
    else if (t->context_exact)
        wait_over(t, TURN_CARD);
    else
        turn_enter(t, TURN_REBUILDING);
}

static void on_turn(void *ctx, enum tr_rc rc, const struct turn_row *rows, size_t n, bool more,
                    const struct tr_err *err)
{
    struct turn *t = ctx;
    struct turn_view view;

    (void)more;
    t->op = NULL;
    if (t->r == NULL) {
        turn_free(t);
    } else if (rc == TR_NOT_FOUND) {
        turn_forgotten(t);
    } else if (rc != TR_OK) {
        turn_trouble(t, "turn.load", rc, err);
    } else {
        turn_fold(rows, n, &view);
        t->seen_change = view.change;
        if (take_turn(t, &view))
            loaded(t);
    }
}

static void load_turn_alone(struct turn *t)
{
    struct history *h = t->r->env.history;
    struct tr_err err = {0};
    enum tr_rc rc;

    context_release(&t->context);
    t->before.turn = uuid_nil;
    rc = h->ops->turn_get(h, &t->work.chat, &t->key.turn, on_turn, t, &t->op, &err);
    if (rc != TR_OK)
        turn_trouble(t, "turn.load", rc, &err);
}

static void on_changed(void *ctx, enum tr_rc rc, const struct turn_row *rows, size_t n, bool more,
                       const struct tr_err *err)
{
    struct turn *t = ctx;
    struct turn_view mine = {0};
    struct tr_err broken = {0};

    t->op = NULL;
    if (t->r == NULL) {
        turn_free(t);
        return;
    }
    if (rc != TR_OK && rc != TR_NOT_FOUND) {
        turn_trouble(t, "turn.load", rc, err);
        return;
    }
    if (rc == TR_OK && !more)
        rc = take_rows(t, rows, n, &mine, &broken);
    if (rc != TR_OK || !mine.exists) { /* the long way */
        load_turn_alone(t);
        return;
    }
    t->seen_change = t->context.change;
    for (size_t i = 0; i < n; i++)
        if (rows[i].change > t->seen_change)
            t->seen_change = rows[i].change;
    if (take_turn(t, &mine))
        loaded(t);
}

void load_turn(struct turn *t)
{
    struct history *h = t->r->env.history;

    if (t->context.n == 0 ||
        h->ops->changed(h, &t->work.chat, t->context.change, CHANGED_MAX, on_changed, t, &t->op, NULL) != TR_OK) {
        t->op = NULL;
        load_turn_alone(t);
    }
}

/* --- the turns before, anew --- */

static void on_before(void *ctx, enum tr_rc rc, const struct turn_row *rows, size_t n, bool more,
                      const struct tr_err *err)
{
    struct turn *t = ctx;
    struct turn_view ignored;
    struct tr_err broken = {0};

    t->op = NULL;
    if (t->r == NULL) {
        turn_free(t);
        return;
    }
    if (rc == TR_NOT_FOUND)
        n = 0;
    else if (rc != TR_OK) {
        turn_trouble(t, "turn.load", rc, err);
        return;
    }
    context_release(&t->context);
    t->context.from_start = !more;
    rc = take_rows(t, rows, n, &ignored, &broken);
    if (rc == TR_INVALID) {
        turn_fail(t, "internal", true, rc, &broken);
    } else if (rc != TR_OK) {
        turn_trouble(t, "turn.context", rc, &broken);
    } else if (t->key.variant == 0 && !uuid_is_nil(&t->before.turn)) {
        turn_enter(t, TURN_WAITING);
    } else {
        t->context_exact = uuid_is_nil(&t->before.turn);
        wait_over(t, TURN_CARD);
    }
}

void load_rebuild(struct turn *t)
{
    const uint64_t start = context_start(t->index, t->r->keep);

    wait_read_before(t, t->index > start ? t->index - start : 1, on_before);
}

/* --- the card, and the prompt --- */

static void with_card(struct turn *t, const struct card *card)
{
    struct prompt_recent *recent = NULL;
    size_t n = 0;
    enum tr_rc rc;

    free(t->name); /* it may come here a second time */
    prompt_release(&t->prompt);
    t->name = strdup(card->name);
    rc = t->name == NULL ? TR_NOMEM
                         : context_messages(&t->context, &t->key.turn, t->index, t->r->keep,
                                            (struct slice){t->user_text.data, t->user_text.len}, &recent, &n);
    if (rc == TR_OK)
        rc = prompt_build(card, "User", recent, n, &t->prompt);
    free(recent);
    if (rc == TR_OK)
        turn_enter(t, TURN_NUMBERING);
    else
        turn_fail(t, "internal", rc == TR_INVALID, rc, NULL);
}

static void on_card(void *ctx, enum tr_rc rc, const struct catalogue_character *c, const struct tr_err *err)
{
    struct turn *t = ctx;
    const struct card *card = NULL;
    struct tr_err mine = {0};

    t->op = NULL;
    if (t->r == NULL) {
        turn_free(t);
        return;
    }
    if (rc == TR_OK) {
        rc = cards_put(t->r, c, &card, &mine);
        err = &mine;
    }
    if (rc == TR_OK)
        with_card(t, card);
    else if (rc == TR_NOT_FOUND) /* removed: nobody is left to answer */
        turn_fail(t, "not_found", true, rc, err);
    else if (rc == TR_INVALID)
        turn_fail(t, "internal", true, rc, err);
    else if ((card = cards_stale(t->r, t->work.character)) != NULL)
        with_card(t, card); /* the catalogue does not answer: better the card of a while ago than no reply */
    else
        turn_trouble(t, "turn.card", rc, err);
}

void load_card(struct turn *t)
{
    struct catalogue *cat = t->r->env.catalogue;
    const struct card *card = cards_find(t->r, t->work.character);
    struct tr_err err = {0};
    enum tr_rc rc;

    if (card != NULL) {
        with_card(t, card);
        return;
    }
    rc = cat->ops->character_get(cat, t->work.character, on_card, t, &t->op, &err);
    if (rc != TR_OK)
        turn_trouble(t, "turn.card", rc, &err);
}
