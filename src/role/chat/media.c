/*
 * media - the files that messages name: each message marks them (port/media.h), and a file whose last mark goes, goes too.
 *
 * One walk over names does it all: what is listed is looked at file by file (names come in order: a file, then its marks),
 * and what is to go is noted; then it is removed, marks first.
 *   LISTING  -> LISTING   on_names    there are more
 *   LISTING  -> REMOVING  on_names    the end; or the next media of a deleted turn
 *   REMOVING -> REMOVING  on_removed  one after the other
 *   REMOVING -> (end)
 * A walk that is cut (a kill, a store that is down for long) leaves files behind: those without a mark go a day later, when
 * their user sends another; those with one go with their chat or by DELETE.
 */
#include "role/chat/desk_impl.h"

#include "base/log.h"
#include "domain/media.h"

#include <stdlib.h>
#include <string.h>

#define UNNAMED_MS UINT64_C(86400000) /* a file that no message names for so long goes */

enum why { MEDIA_TURN_GONE, MEDIA_CHAT_GONE, MEDIA_OLD, MEDIA_DELETE };

struct walk {
    struct desk_request base; /* first */
    desk_ok_done *done;       /* of MEDIA_DELETE */
    void *ctx;
    enum why why;
    struct uuid user, chat;
    char ref[2 * MESSAGE_REF + 1];
    struct uuid media[MESSAGE_MEDIA_MAX]; /* those to walk over; none: all of the user's */
    size_t media_n, media_at;
    char prefix[MEDIA_NAME_MAX + 1], after[MEDIA_NAME_MAX + 1];
    /* the file that is being looked at */
    char file[UUID_TEXT + UUID_TEXT];
    bool there;
    size_t kept, dropped; /* marks */
    bool found;           /* any file at all */
    struct buf removals;  /* names, each with its 0 */
    size_t removed;       /* bytes of them */
};

static void walk_list(struct desk_request *r);
static void walk_remove(struct desk_request *r);

void desk_media_name(const struct uuid *user, const struct uuid *media, const struct uuid *chat,
                     const uint8_t ref[MESSAGE_REF], char name[MEDIA_NAME_MAX + 1])
{
    uuid_format(user, name);
    name[36] = '/';
    uuid_format(media, name + 37);
    if (chat == NULL)
        return;
    name[73] = '.';
    uuid_format(chat, name + 74);
    name[110] = '.';
    desk_hex(ref, MESSAGE_REF, name + 111);
}

static void walk_fail(struct desk_request *r, const struct desk_error *e)
{
    struct walk *w = (struct walk *)r;

    w->done(w->ctx, e, -1);
}

static void walk_release(struct desk_request *r)
{
    buf_release(&((struct walk *)r)->removals);
}

/* ---- removing */

static void walk_end(struct walk *w)
{
    if (w->why == MEDIA_DELETE && !w->found)
        desk_request_fail(&w->base, "not_found", NULL, 0, "There is no such media.");
    else {
        if (w->base.viewer != NULL)
            w->done(w->ctx, NULL, -1);
        desk_request_end(&w->base);
    }
}

static void on_removed(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    struct walk *w = ctx;

    if (desk_request_over(&w->base))
        return;
    if (rc != TR_OK) {
        if (!desk_rc_again(rc) || !desk_request_again(&w->base, walk_remove))
            desk_request_broke(&w->base, "media", rc, err); /* logs it; what is left is told above */
        return;
    }
    w->removed += strlen((const char *)w->removals.data + w->removed) + 1;
    w->base.began_ms = loop_now_ms(w->base.d->env.loop);
    walk_remove(&w->base);
}

static void walk_remove(struct desk_request *r)
{
    struct walk *w = (struct walk *)r;
    struct media *store = r->d->env.media;
    struct tr_err err = {0};
    enum tr_rc rc;

    if (w->removed >= w->removals.len) {
        walk_end(w);
        return;
    }
    rc = store->ops->remove(store, (const char *)w->removals.data + w->removed, on_removed, w, &r->op, &err);
    if (rc != TR_OK && (!desk_rc_again(rc) || !desk_request_again(r, walk_remove)))
        desk_request_broke(r, "media", rc, &err);
}

/* ---- looking */

static void note(struct walk *w, const char *name)
{
    buf_add(&w->removals, name, strlen(name) + 1);
}

/* All marks of the file have been seen: does it stay? */
static void file_over(struct walk *w)
{
    struct uuid id;
    bool go = w->why == MEDIA_DELETE;

    if (w->there && w->kept == 0)
        go = go || w->dropped > 0 ||
             (uuid_parse(w->file + 37, 36, &id) && uuid_ms(&id) + UNNAMED_MS < wall_ms() && w->why == MEDIA_OLD);
    if (w->there && go && (w->kept == 0 || w->why == MEDIA_DELETE))
        note(w, w->file);
    w->found = w->found || w->there;
    w->there = false;
    w->kept = w->dropped = 0;
}

/* "<user>/<media>[.<chat>.<ref>]" */
static void look(struct walk *w, const char *name)
{
    char chat[UUID_TEXT];
    bool drop;

    if (strlen(name) < 73)
        return; /* none of ours */
    if (strncmp(w->file, name, 73) != 0) {
        file_over(w);
        memcpy(w->file, name, 73);
        w->file[73] = '\0';
    }
    if (name[73] == '\0') {
        w->there = true;
        return;
    }
    uuid_format(&w->chat, chat);
    drop = w->why == MEDIA_DELETE || (strncmp(name + 74, chat, 36) == 0 &&
                                      (w->why == MEDIA_CHAT_GONE || (w->why == MEDIA_TURN_GONE && name[110] == '.' &&
                                                                     strcmp(name + 111, w->ref) == 0)));
    if (drop) {
        note(w, name);
        w->dropped++;
    } else {
        w->kept++;
    }
}

static void on_names(void *ctx, enum tr_rc rc, const char *const *names, size_t n, bool more, const struct tr_err *err)
{
    struct walk *w = ctx;

    if (desk_request_over(&w->base))
        return;
    if (rc != TR_OK) {
        if (!desk_rc_again(rc) || !desk_request_again(&w->base, walk_list))
            desk_request_broke(&w->base, "media", rc, err);
        return;
    }
    for (size_t i = 0; i < n; i++)
        look(w, names[i]);
    if (more && n > 0) {
        memcpy(w->after, names[n - 1], strlen(names[n - 1]) + 1);
        walk_list(&w->base);
        return;
    }
    file_over(w);
    w->file[0] = w->after[0] = '\0';
    if (++w->media_at < w->media_n)
        walk_list(&w->base);
    else if (w->removals.failed)
        desk_request_broke(&w->base, "media", TR_NOMEM, NULL);
    else
        walk_remove(&w->base);
}

static void walk_list(struct desk_request *r)
{
    struct walk *w = (struct walk *)r;
    struct media *store = r->d->env.media;
    struct tr_err err = {0};
    enum tr_rc rc;

    if (store == NULL) {
        walk_end(w);
        return;
    }
    if (w->media_n > 0) {
        desk_media_name(&w->user, &w->media[w->media_at], NULL, NULL, w->prefix);
    } else {
        uuid_format(&w->user, w->prefix);
        memcpy(w->prefix + 36, "/", 2);
    }
    rc = store->ops->list(store, w->prefix, w->after, MEDIA_LIST_MAX, on_names, w, &r->op, &err);
    if (rc != TR_OK && (!desk_rc_again(rc) || !desk_request_again(r, walk_list)))
        desk_request_broke(r, "media", rc, &err);
}

static struct walk *walk_new(struct desk *d, struct desk_viewer *v, enum why why, const struct uuid *user)
{
    static const struct desk_request_ops ops = {.fail = walk_fail, .release = walk_release};
    struct walk *w = desk_request_new(d, v, sizeof *w, &ops);

    if (w == NULL)
        return NULL;
    w->why = why;
    w->user = *user;
    w->base.began_ms = loop_now_ms(d->env.loop);
    desk_request_later(&w->base, walk_list);
    return w;
}

/* ---- what begins one */

void desk_media_turn_deleted(struct desk *d, const struct uuid *user, const struct uuid *chat, const struct message *m)
{
    struct walk *w = m->media_n > 0 ? walk_new(d, NULL, MEDIA_TURN_GONE, user) : NULL;

    if (w == NULL)
        return;
    w->chat = *chat;
    desk_hex(m->ref, sizeof m->ref, w->ref);
    for (size_t i = 0; i < m->media_n; i++)
        w->media[w->media_n++] = m->media[i].id;
}

void desk_media_chat_deleted(struct desk *d, const struct uuid *user, const struct uuid *chat)
{
    struct walk *w = d->env.media != NULL ? walk_new(d, NULL, MEDIA_CHAT_GONE, user) : NULL;

    if (w != NULL)
        w->chat = *chat;
}

void desk_media_stored(struct desk *d, const struct uuid *user)
{
    (void)walk_new(d, NULL, MEDIA_OLD, user);
}

bool desk_media_delete(struct desk *d, struct desk_viewer *v, const struct uuid *media, desk_ok_done *done, void *ctx)
{
    struct walk *w = walk_new(d, v, MEDIA_DELETE, &v->user);

    if (w == NULL)
        return false;
    w->media[0] = *media;
    w->media_n = 1;
    w->done = done;
    w->ctx = ctx;
    return true;
}
