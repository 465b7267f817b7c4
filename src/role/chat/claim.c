/*
 * claim - the media that a message names, before it is accepted: each must be there and the user's own; then each is marked
 * with the message, so that it is kept as long as the message is.  Comes from: accept.c; goes to: port/media.h.
 */
#include "role/chat/desk_impl.h"

static void claim_step(struct desk_request *r);

static void claim_end(struct desk_claim *c, const char *refused)
{
    c->refused = refused;
    c->ended = true;
    seal_key_wipe(&c->key);
    c->done(c->r);
}

static void claim_broke(struct desk_claim *c, enum tr_rc rc, const struct tr_err *err)
{
    if (!desk_rc_again(rc) || !desk_request_again(c->r, claim_step))
        desk_media_broke(c->r, rc, err);
}

static void on_marked(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    struct desk_claim *c = ctx;

    if (desk_request_over(c->r))
        return;
    if (rc != TR_OK) {
        claim_broke(c, rc, err);
        return;
    }
    c->at++;
    claim_step(c->r);
}

static void on_head(void *ctx, enum tr_rc rc, struct slice data, uint64_t size, const struct tr_err *err)
{
    struct desk_claim *c = ctx;
    struct message_media *const m = &c->media[c->at];
    struct media_head head;
    struct tr_err own = {0};

    if (desk_request_over(c->r))
        return;
    if (rc == TR_OK) {
        rc = media_open_head(&c->key, c->user, &m->id, data.data, data.len, size, &head, &own);
        err = &own;
    }
    if (rc == TR_OK) {
        m->type = (uint8_t)head.type;
        c->at++;
        claim_step(c->r);
    } else if (rc == TR_NOT_FOUND) {
        claim_end(c, "There is no such media: send the file first.");
    } else if (rc == TR_INVALID) {
        claim_end(c, "The stored file is damaged: send it again.");
    } else {
        claim_broke(c, rc, err);
    }
}

static void on_key(void *ctx, enum tr_rc rc, const struct seal_key *key, const struct tr_err *err)
{
    struct desk_claim *c = ctx;

    if (desk_request_over(c->r))
        return;
    if (rc == TR_OK) {
        c->key = *key;
        claim_step(c->r);
    } else if (rc == TR_NOT_FOUND) {
        claim_end(c, "There is no such media: send the file first.");
    } else {
        claim_broke(c, rc, err);
    }
}

/* c->at counts those that were looked at, then those that were marked. */
static void claim_step(struct desk_request *r)
{
    struct desk_claim *c = r->claim;
    struct media *store = r->d->env.media;
    char name[MEDIA_NAME_MAX + 1];
    struct tr_err err = {0};
    enum tr_rc rc;

    if (store == NULL) {
        claim_end(c, "Media are not served here.");
        return;
    }
    if (c->at == 2 * c->n) {
        claim_end(c, NULL);
        return;
    }
    if (uuid_is_nil(&c->key.id)) {
        rc = keyring_user(r->d->env.keyring, c->user, false, on_key, c, &r->op, &err);
    } else if (c->at < c->n) {
        media_file_name(c->user, &c->media[c->at].id, name);
        rc = store->ops->read(store, name, 0, MEDIA_HEAD, on_head, c, &r->op, &err);
    } else {
        message_mark_name(c->user, &c->media[c->at - c->n].id, c->chat, c->ref, name);
        rc = store->ops->mark(store, name, on_marked, c, &r->op, &err);
    }
    if (rc != TR_OK)
        claim_broke(c, rc, &err);
}

void desk_claim(struct desk_request *r, struct desk_claim *c, void (*done)(struct desk_request *r))
{
    r->claim = c;
    c->r = r;
    c->done = done;
    r->began_ms = loop_now_ms(r->d->env.loop); /* not with each attempt: it is to end */
    claim_step(r);
}
