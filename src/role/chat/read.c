/* read - what a front door shows without opening a chat: turns, chats, characters; and the end of a whole chat. */
#include "role/chat/desk_impl.h"

#include <stdlib.h>
#include <string.h>

#define HISTORY_MAX 200
#define CHATS_PAGE 200
#define CHATS_MAX 5000

/* The end of a read: true: go on.  Else r is being tried again, or has ended. */
static bool is_read(struct desk_request *r, const char *what, enum tr_rc rc, const struct tr_err *err,
                    void (*step)(struct desk_request *r))
{
    if (desk_request_over(r))
        return false;
    if (rc == TR_OK)
        return true;
    if (!desk_rc_again(rc) || !desk_request_again(r, step))
        desk_request_broke(r, what, rc, err);
    return false;
}

/* ---- turns */

struct turns {
    struct desk_request base; /* first */
    desk_turns_done *done;
    void *ctx;
    struct uuid chat, user;
    struct history_range range;
};

static void turns_fail(struct desk_request *r, const struct desk_error *e)
{
    struct turns *t = (struct turns *)r;

    t->done(t->ctx, e, NULL, 0, false);
}

static void turns_read(struct desk_request *r);

static void on_rows(void *ctx, enum tr_rc rc, const struct turn_row *rows, size_t n, bool more,
                    const struct tr_err *err)
{
    struct turns *t = ctx;
    const struct seal_key *key;
    struct desk_page page = {0};
    struct tr_err own = {0};

    if (!is_read(&t->base, "turns", rc, err, turns_read))
        return;
    key = keyring_peek(t->base.d->env.keyring, &t->chat);
    if (key == NULL) { /* pushed out since */
        turns_read(&t->base);
        return;
    }
    rc = desk_page_build(key, rows, n, &page, &own);
    if (rc != TR_OK) {
        desk_request_broke(&t->base, "turns", rc, &own);
        return;
    }
    if (t->base.chat != NULL)
        desk_page_running(&page, t->base.chat);
    if (t->base.viewer != NULL)
        t->done(t->ctx, NULL, page.turns, page.n, more);
    desk_page_release(&page);
    desk_request_end(&t->base);
}

static void turns_read(struct desk_request *r)
{
    struct turns *t = (struct turns *)r;
    struct history *h = r->d->env.history;
    struct tr_err err = {0};
    enum tr_rc rc;

    if (desk_request_key(r, &t->chat, turns_read) == NULL)
        return;
    rc = h->ops->turns(h, &t->chat, &t->range, on_rows, t, &r->op, &err);
    if (rc != TR_OK)
        desk_request_broke(r, "turns", rc, &err);
}

static void turns_begin(struct desk_request *r);

static void on_owner(void *ctx, enum tr_rc rc, const struct history_chat *chat, bool mine, const struct tr_err *err)
{
    struct turns *t = ctx;

    (void)mine;
    if (!is_read(&t->base, "chat", rc, err, turns_begin))
        return;
    if (uuid_eq(&chat->user, &t->user))
        turns_read(&t->base);
    else
        desk_request_broke(&t->base, "turns", TR_NOT_FOUND, NULL);
}

static void turns_begin(struct desk_request *r)
{
    struct turns *t = (struct turns *)r;
    struct history *h = r->d->env.history;
    struct chat *c = desk_chat_find(r->d, &t->chat);
    struct tr_err err = {0};
    enum tr_rc rc;

    if (c != NULL && c->loaded && uuid_eq(&c->user, &t->user)) {
        if (r->chat == NULL) {
            r->chat = c;
            c->refs++;
        }
        turns_read(r);
        return;
    }
    rc = h->ops->chat_get(h, &t->chat, on_owner, t, &r->op, &err);
    if (rc != TR_OK)
        desk_request_broke(r, "chat", rc, &err);
}

bool desk_history(struct desk *d, struct desk_viewer *v, const struct uuid *chat, const struct uuid *before,
                  uint32_t limit, desk_turns_done *done, void *ctx)
{
    static const struct desk_request_ops ops = {.fail = turns_fail};
    struct turns *t = desk_request_new(d, v, sizeof *t, &ops);

    if (t == NULL)
        return false;
    t->done = done;
    t->ctx = ctx;
    t->chat = *chat;
    t->user = v->user;
    t->range = (struct history_range){
        .before = *before, .limit = limit == 0 || limit > HISTORY_MAX ? HISTORY_MAX : limit, .newest = true};
    desk_request_later(&t->base, turns_begin);
    return true;
}

/* ---- chats */

struct chats {
    struct desk_request base; /* first */
    desk_chats_done *done;
    void *ctx;
    struct uuid user;
    struct desk_chat *list; /* owned */
    size_t n;
};

static void chats_fail(struct desk_request *r, const struct desk_error *e)
{
    struct chats *c = (struct chats *)r;

    c->done(c->ctx, e, NULL, 0);
}

static void chats_release(struct desk_request *r)
{
    free(((struct chats *)r)->list);
}

static void chats_names(struct desk_request *r);

static void on_names(void *ctx, enum tr_rc rc, const struct catalogue_character *list, size_t n,
                     const struct tr_err *err)
{
    struct chats *c = ctx;

    if (!is_read(&c->base, "characters", rc, err, chats_names))
        return;
    for (size_t i = 0; i < c->n; i++) {
        struct desk_chat *chat = &c->list[i];

        chat->name = chat->character;
        for (size_t k = 0; k < n; k++) {
            if (strcmp(list[k].id, chat->character) == 0) {
                chat->name = list[k].name;
                chat->has_avatar = list[k].avatar_type != NULL && list[k].avatar_type[0] != '\0';
                break;
            }
        }
    }
    if (c->base.viewer != NULL)
        c->done(c->ctx, NULL, c->list, c->n);
    desk_request_end(&c->base);
}

static void chats_names(struct desk_request *r)
{
    struct chats *c = (struct chats *)r;
    struct catalogue *cat = r->d->env.catalogue;
    struct tr_err err = {0};
    const enum tr_rc rc = cat->ops->characters(cat, on_names, c, &r->op, &err);

    if (rc != TR_OK)
        desk_request_broke(r, "characters", rc, &err);
}

static void chats_read(struct desk_request *r);

static void on_chats(void *ctx, enum tr_rc rc, const struct history_chat *list, size_t n, bool more,
                     const struct tr_err *err)
{
    struct chats *c = ctx;
    struct desk_chat *grown;

    if (!is_read(&c->base, "chats", rc, err, chats_read))
        return;
    if (n > 0) {
        grown = realloc(c->list, (c->n + n) * sizeof *grown);
        if (grown == NULL) {
            desk_request_broke(&c->base, "chats", TR_NOMEM, NULL);
            return;
        }
        c->list = grown;
    }
    for (size_t i = 0; i < n; i++) {
        struct desk_chat *to = &c->list[c->n++];

        *to = (struct desk_chat){
            .chat = list[i].chat, .created_ms = list[i].created_ms, .updated_ms = list[i].updated_ms};
        memcpy(to->character, list[i].character, sizeof to->character);
    }
    if (more && n > 0 && c->n < CHATS_MAX)
        chats_read(&c->base);
    else
        chats_names(&c->base);
}

static void chats_read(struct desk_request *r)
{
    struct chats *c = (struct chats *)r;
    struct history *h = r->d->env.history;
    const struct uuid *before = c->n > 0 ? &c->list[c->n - 1].chat : &uuid_nil;
    struct tr_err err = {0};
    const enum tr_rc rc = h->ops->chats_of_user(h, &c->user, before, CHATS_PAGE, on_chats, c, &r->op, &err);

    if (rc != TR_OK)
        desk_request_broke(r, "chats", rc, &err);
}

bool desk_chats(struct desk *d, struct desk_viewer *v, desk_chats_done *done, void *ctx)
{
    static const struct desk_request_ops ops = {.fail = chats_fail, .release = chats_release};
    struct chats *c = desk_request_new(d, v, sizeof *c, &ops);

    if (c == NULL)
        return false;
    c->done = done;
    c->ctx = ctx;
    c->user = v->user;
    desk_request_later(&c->base, chats_read);
    return true;
}

/* ---- characters */

struct characters {
    struct desk_request base; /* first */
    desk_characters_done *done;
    desk_avatar_done *avatar_done; /* instead of done */
    void *ctx;
    char id[CHARACTER_ID_MAX + 1]; /* "": all of them */
};

static void characters_fail(struct desk_request *r, const struct desk_error *e)
{
    struct characters *c = (struct characters *)r;

    if (c->avatar_done != NULL)
        c->avatar_done(c->ctx, e, (struct slice){0}, NULL, 0);
    else
        c->done(c->ctx, e, NULL, 0);
}

static void characters_read(struct desk_request *r);

static void on_characters(void *ctx, enum tr_rc rc, const struct catalogue_character *list, size_t n,
                          const struct tr_err *err)
{
    struct characters *c = ctx;
    struct desk_character *out;

    if (!is_read(&c->base, "characters", rc, err, characters_read))
        return;
    out = calloc(n + 1, sizeof *out);
    if (out == NULL) {
        desk_request_broke(&c->base, "characters", TR_NOMEM, NULL);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        out[i].name = list[i].name;
        out[i].tagline = list[i].tagline;
        out[i].has_avatar = list[i].avatar_type != NULL && list[i].avatar_type[0] != '\0';
        out[i].updated_ms = list[i].updated_ms;
        memcpy(out[i].id, list[i].id, sizeof out[i].id);
    }
    if (c->base.viewer != NULL)
        c->done(c->ctx, NULL, out, n);
    free(out);
    desk_request_end(&c->base);
}

/* The card, or the avatar where that was asked for. */
static void character_hand_out(struct characters *c, const struct catalogue_character *ch)
{
    struct desk_character out = {
        .name = ch->name, .tagline = ch->tagline, .has_avatar = ch->avatar.len > 0, .updated_ms = ch->updated_ms};
    struct card *card = NULL;
    struct tr_err err = {0};
    enum tr_rc rc;

    if (c->avatar_done != NULL) {
        c->avatar_done(c->ctx, NULL, ch->avatar, ch->avatar_type, ch->updated_ms);
        desk_request_end(&c->base);
        return;
    }
    rc = card_parse(ch->card.data, ch->card.len, &card, &err);
    if (rc != TR_OK) {
        desk_request_broke(&c->base, "card", rc, &err);
        return;
    }
    memcpy(out.id, ch->id, sizeof out.id);
    out.card = card;
    c->done(c->ctx, NULL, &out, 1);
    card_free(card);
    desk_request_end(&c->base);
}

static void on_one(void *ctx, enum tr_rc rc, const struct catalogue_character *ch, const struct tr_err *err)
{
    struct characters *c = ctx;

    if (desk_request_over(&c->base))
        return;
    if (rc == TR_NOT_FOUND)
        desk_request_fail(&c->base, "not_found", NULL, 0, "There is no such character.");
    else if (rc != TR_OK && (!desk_rc_again(rc) || !desk_request_again(&c->base, characters_read)))
        desk_request_broke(&c->base, "character", rc, err);
    else if (rc == TR_OK && c->avatar_done != NULL && ch->avatar.len == 0)
        desk_request_fail(&c->base, "not_found", NULL, 0, "The character has no avatar.");
    else if (rc == TR_OK && c->base.viewer == NULL)
        desk_request_end(&c->base);
    else if (rc == TR_OK)
        character_hand_out(c, ch);
}

static void characters_read(struct desk_request *r)
{
    struct characters *c = (struct characters *)r;
    struct catalogue *cat = r->d->env.catalogue;
    struct tr_err err = {0};
    const enum tr_rc rc = c->id[0] == '\0' ? cat->ops->characters(cat, on_characters, c, &r->op, &err)
                                           : cat->ops->character_get(cat, c->id, on_one, c, &r->op, &err);

    if (rc != TR_OK)
        desk_request_broke(r, "characters", rc, &err);
}

static void characters_unknown(struct desk_request *r)
{
    desk_request_fail(r, "not_found", NULL, 0, "There is no such character.");
}

static bool characters_new(struct desk *d, struct desk_viewer *v, const char *id, desk_characters_done *done,
                           desk_avatar_done *avatar_done, void *ctx)
{
    static const struct desk_request_ops ops = {.fail = characters_fail};
    struct characters *c = desk_request_new(d, v, sizeof *c, &ops);
    const bool known = id == NULL || character_id_valid(id, strlen(id));

    if (c == NULL)
        return false;
    c->done = done;
    c->avatar_done = avatar_done;
    c->ctx = ctx;
    if (id != NULL && known)
        memcpy(c->id, id, strlen(id));
    desk_request_later(&c->base, known ? characters_read : characters_unknown);
    return true;
}

bool desk_characters(struct desk *d, struct desk_viewer *v, desk_characters_done *done, void *ctx)
{
    return characters_new(d, v, NULL, done, NULL, ctx);
}

bool desk_character(struct desk *d, struct desk_viewer *v, const char *id, desk_characters_done *done, void *ctx)
{
    return characters_new(d, v, id, done, NULL, ctx);
}

bool desk_avatar(struct desk *d, struct desk_viewer *v, const char *id, desk_avatar_done *done, void *ctx)
{
    return characters_new(d, v, id, NULL, done, ctx);
}
