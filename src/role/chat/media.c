/*
 * media - the files that messages name: each message marks them (port/media.h), and a file whose last mark goes, goes too.
 *
 * One walk over names does it all: what is listed is looked at file by file (names come in order: a file, then its marks),
 * and what is to go is noted; then it is removed, marks first.
 *   LISTING  -> LOOKING   on_names    a page of names
 *   LOOKING  -> LOOKING   mark.c      MEDIA_OLD: whether a mark's chat and turn still stand is asked
 *   LOOKING  -> LISTING   walk_look   there are more; or the next media of a deleted turn
 *   LOOKING  -> REMOVING  walk_look   the end
 *   REMOVING -> REMOVING  on_removed  one after the other; before a file its marks are listed once more
 *   REMOVING -> REMOVING  on_head     MEDIA_OLD: does the user's key open the file?  Else it is passed over with its marks
 *   REMOVING -> REMOVING  on_mark_age MEDIA_OLD: a mark of a send that was never accepted; sent again meanwhile, it stays
 *   REMOVING -> (end)
 * A walk that is cut (a kill, a store that is down for long) leaves files behind, marked or not.  They go at a later walk over all
 * of the user's files (MEDIA_OLD): when the user sends another, or deletes a deleted turn again; one an hour a gateway.  Those of a
 * chat go, too, when its deletion is asked for again.
 *
 * MEDIA_OLD takes what the history does not know for gone.  A history that was emptied, or is another installation's, knows
 * nothing: so it removes only what that history's own key opens.  The store's files name their history by being sealed under it.
 */
#include "role/chat/desk_impl.h"

#include "base/log.h"
#include "base/metrics.h"
#include "domain/media.h"

#include <stdlib.h>
#include <string.h>

#define UNNAMED_MS UINT64_C(86400000) /* a file that no message names for so long goes */
#define WALK_MS UINT64_C(3600000)     /* between two walks over all files of a user */

static struct metric metric_foreign = METRIC(METRIC_COUNTER, "troupe_media_foreign_total", NULL,
                                             "Files that would go, but that no key of this history opens: kept.");

enum why { MEDIA_TURN_GONE, MEDIA_CHAT_GONE, MEDIA_OLD, MEDIA_DELETE };

struct walk {
    struct desk_request base; /* first */
    desk_ok_done *done;       /* of MEDIA_DELETE */
    void *ctx;
    enum why why;
    struct uuid user, chat;
    uint8_t ref[MESSAGE_REF];
    struct uuid media[MESSAGE_MEDIA_MAX]; /* those to walk over; none: all of the user's */
    size_t media_n, media_at;
    char prefix[MEDIA_NAME_MAX + 1], after[MEDIA_NAME_MAX + 1];
    struct buf page; /* names, each with its 0 */
    size_t page_at;
    bool more; /* names behind the page */
    struct desk_judge judge;
    /* the file that is being looked at */
    char file[MEDIA_FILE_NAME + 1];
    bool there;
    size_t kept, dropped;             /* marks */
    bool found;                       /* any file at all */
    struct buf removals;              /* names, each with its 0 */
    struct buf unclaimed;             /* marks among them that no turn has, each with its 0 */
    size_t removed;                   /* bytes of them */
    bool looked_again;                /* the next one is a file that has no mark, or a mark that is still old */
    struct seal_key key;              /* MEDIA_OLD: the user's; no id: not read yet */
    char opened[MEDIA_FILE_NAME + 1]; /* the file that was looked into, */
    bool ours;                        /* and may go with its marks */
    size_t foreign;                   /* files that the key does not open */
    bool ended;                       /* all of it was done */
};

static void walk_list(struct desk_request *r);
static void walk_remove(struct desk_request *r);

/* The user's place in the table: the old one, or the one that was walked over the longest time ago, made free. */
static struct media_walked *walked_of(struct desk *d, const struct uuid *user)
{
    struct media_walked *oldest = &d->walked[0];

    for (size_t i = 0; i < MEDIA_WALKED_MAX; i++) {
        if (d->walked[i].at_ms != 0 && uuid_eq(&d->walked[i].user, user))
            return &d->walked[i];
        if (d->walked[i].at_ms < oldest->at_ms)
            oldest = &d->walked[i];
    }
    *oldest = (struct media_walked){.user = *user};
    return oldest;
}

static void walk_fail(struct desk_request *r, const struct desk_error *e)
{
    struct walk *w = (struct walk *)r;

    w->done(w->ctx, e, -1);
}

static void tell_foreign(const struct walk *w)
{
    char user[UUID_TEXT];

    uuid_format(&w->user, user);
    metric_add(&metric_foreign, w->foreign);
    log_event(
        LOG_WARN, "media.foreign", "user=%s files=%zu cause=%Q", user, w->foreign,
        "no key of this history opens them, so they are kept: TROUPE_MEDIA is another installation's, or the history "
        "was lost; give each the other that it belongs to");
}

static void walk_release(struct desk_request *r)
{
    struct walk *w = (struct walk *)r;

    if (w->why == MEDIA_OLD && !w->ended)
        walked_of(r->d, &w->user)->at_ms = 0; /* the next file begins another */
    if (w->foreign > 0)
        tell_foreign(w);
    seal_key_wipe(&w->key);
    buf_release(&w->removals);
    buf_release(&w->unclaimed);
    buf_release(&w->page);
}

void desk_media_broke(struct desk_request *r, enum tr_rc rc, const struct tr_err *err)
{
    if (!desk_rc_again(rc)) {
        desk_request_broke(r, "media", rc, err);
        return;
    }
    log_event(LOG_WARN, "desk.failed", "what=media rc=%s cause=%Q", tr_rc_name(rc), tr_err_text(err));
    desk_request_fail(r, "overloaded", NULL, 2000,
                      "The store of media is full or does not answer. Try again in a moment.");
}

static void walk_failed(struct walk *w, void (*step)(struct desk_request *r), enum tr_rc rc, const struct tr_err *err)
{
    if (!desk_rc_again(rc) || !desk_request_again(&w->base, step))
        desk_media_broke(&w->base, rc, err); /* logs it; what is left is told above */
}

/* ---- removing */

static void walk_end(struct walk *w)
{
    w->ended = true;
    if (w->why == MEDIA_DELETE && !w->found)
        desk_request_fail(&w->base, "not_found", NULL, 0, "There is no such media.");
    else {
        if (w->base.viewer != NULL)
            w->done(w->ctx, NULL, -1);
        desk_request_end(&w->base);
    }
}

static void removed(struct walk *w)
{
    w->removed += strlen((const char *)w->removals.data + w->removed) + 1;
    w->looked_again = false;
    w->base.began_ms = loop_now_ms(w->base.d->env.loop);
    walk_remove(&w->base);
}

static void on_removed(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    struct walk *w = ctx;

    if (desk_request_over(&w->base))
        return;
    if (rc != TR_OK)
        walk_failed(w, walk_remove, rc, err);
    else
        removed(w);
}

/* Somebody may name the file in this very moment: then it stays, and a later walk looks at it again. */
static void on_marks(void *ctx, enum tr_rc rc, const char *const *names, size_t n, bool more, const struct tr_err *err)
{
    struct walk *w = ctx;
    bool named = false;

    (void)more;
    if (desk_request_over(&w->base))
        return;
    if (rc != TR_OK && rc != TR_NOT_FOUND) {
        walk_failed(w, walk_remove, rc, err);
        return;
    }
    for (size_t i = 0; rc == TR_OK && i < n; i++)
        named = named || names[i][MEDIA_FILE_NAME] != '\0';
    if (named) {
        removed(w);
    } else {
        w->looked_again = true;
        walk_remove(&w->base);
    }
}

static bool is_unclaimed(const struct walk *w, const char *name)
{
    size_t at = 0;

    while (at < w->unclaimed.len && strcmp((const char *)w->unclaimed.data + at, name) != 0)
        at += strlen((const char *)w->unclaimed.data + at) + 1;
    return at < w->unclaimed.len;
}

/* The same message may have been sent again since the mark was judged, and be accepted by now: that made the mark young. */
static void on_mark_age(void *ctx, enum tr_rc rc, uint64_t age_ms, const struct tr_err *err)
{
    struct walk *w = ctx;

    if (desk_request_over(&w->base))
        return;
    if (rc != TR_OK && rc != TR_NOT_FOUND) {
        walk_failed(w, walk_remove, rc, err);
    } else if (rc == TR_NOT_FOUND || age_ms < UNNAMED_MS) {
        removed(w);
    } else {
        w->looked_again = true;
        walk_remove(&w->base);
    }
}

static void found_out(struct walk *w, bool ours)
{
    const char *name = (const char *)w->removals.data + w->removed;

    memcpy(w->opened, name, MEDIA_FILE_NAME);
    w->ours = ours;
    w->base.began_ms = loop_now_ms(w->base.d->env.loop);
    walk_remove(&w->base);
}

/* A file that never had a mark goes when it is old by the store's own clock. */
static void on_age(void *ctx, enum tr_rc rc, uint64_t age_ms, const struct tr_err *err)
{
    struct walk *w = ctx;

    if (desk_request_over(&w->base))
        return;
    if (rc == TR_OK || rc == TR_NOT_FOUND)
        found_out(w, age_ms >= UNNAMED_MS);
    else
        walk_failed(w, walk_remove, rc, err);
}

static void on_head(void *ctx, enum tr_rc rc, struct slice data, uint64_t size, const struct tr_err *err)
{
    struct walk *w = ctx;
    struct media *store = w->base.d->env.media;
    const char *name = (const char *)w->removals.data + w->removed;
    struct media_head head;
    struct tr_err own = {0};
    struct uuid id;

    if (desk_request_over(&w->base))
        return;
    if (rc == TR_NOT_FOUND) { /* a mark alone */
        found_out(w, true);
        return;
    }
    if (rc != TR_OK) {
        walk_failed(w, walk_remove, rc, err);
        return;
    }
    if (!uuid_parse(name + 37, 36, &id) ||
        media_open_head(&w->key, &w->user, &id, data.data, data.len, size, &head, &own) != TR_OK) {
        w->foreign++;
        found_out(w, false);
    } else if (strlen(name) > MEDIA_FILE_NAME) {
        found_out(w, true);
    } else {
        rc = store->ops->age(store, name, on_age, w, &w->base.op, &own);
        if (rc != TR_OK)
            walk_failed(w, walk_remove, rc, &own);
    }
}

static void on_key(void *ctx, enum tr_rc rc, const struct seal_key *key, const struct tr_err *err)
{
    struct walk *w = ctx;

    if (desk_request_over(&w->base))
        return;
    if (rc == TR_OK) {
        w->key = *key;
        walk_remove(&w->base);
    } else if (rc == TR_NOT_FOUND || rc == TR_INVALID) { /* none of them opens */
        w->foreign++;
        walk_end(w);
    } else {
        walk_failed(w, walk_remove, rc, err);
    }
}

/* May the next name go?  True: yes; false: it is being found out, or nothing is left. */
static bool may_go(struct walk *w)
{
    struct media *store = w->base.d->env.media;
    char file[MEDIA_FILE_NAME + 1] = "";
    struct tr_err err = {0};
    enum tr_rc rc;

    for (; w->removed < w->removals.len; w->removed += strlen((const char *)w->removals.data + w->removed) + 1) {
        const char *name = (const char *)w->removals.data + w->removed;

        if (w->why != MEDIA_OLD)
            return true;
        if (strncmp(w->opened, name, MEDIA_FILE_NAME) == 0) {
            if (w->ours)
                return true;
            continue;
        }
        memcpy(file, name, MEDIA_FILE_NAME);
        if (uuid_is_nil(&w->key.id))
            rc = keyring_user(w->base.d->env.keyring, &w->user, false, on_key, w, &w->base.op, &err);
        else
            rc = store->ops->read(store, file, 0, MEDIA_HEAD, on_head, w, &w->base.op, &err);
        if (rc != TR_OK)
            walk_failed(w, walk_remove, rc, &err);
        return false;
    }
    walk_end(w);
    return false;
}

static void walk_remove(struct desk_request *r)
{
    struct walk *w = (struct walk *)r;
    struct media *store = r->d->env.media;
    struct tr_err err = {0};
    const char *name;
    enum tr_rc rc;

    if (!may_go(w))
        return;
    name = (const char *)w->removals.data + w->removed;
    if (strlen(name) == MEDIA_FILE_NAME && w->why != MEDIA_DELETE && !w->looked_again)
        rc = store->ops->list(store, name, "", 2, on_marks, w, &r->op, &err);
    else if (!w->looked_again && is_unclaimed(w, name))
        rc = store->ops->age(store, name, on_mark_age, w, &r->op, &err);
    else
        rc = store->ops->remove(store, name, on_removed, w, &r->op, &err);
    if (rc != TR_OK)
        walk_failed(w, walk_remove, rc, &err);
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
    bool go = w->kept == 0 && w->dropped > 0;

    /* one that no message names: the store is asked before it goes; this only saves asking */
    if (w->kept == 0 && w->why == MEDIA_OLD && uuid_parse(w->file + 37, 36, &id))
        go = go || wall_since_ms(uuid_ms(&id)) >= UNNAMED_MS;

    if (w->there && (go || w->why == MEDIA_DELETE))
        note(w, w->file);
    w->found = w->found || w->there;
    w->there = false;
    w->kept = w->dropped = 0;
}

/* "<user>/<media>[.<chat>.<ref>]"; left: the mark's chat or turn is gone. */
static void look(struct walk *w, const char *name, bool left)
{
    uint8_t ref[MESSAGE_REF];
    struct uuid chat;
    bool drop;

    if (strlen(name) < MEDIA_FILE_NAME)
        return; /* none of ours */
    if (strncmp(w->file, name, MEDIA_FILE_NAME) != 0) {
        file_over(w);
        memcpy(w->file, name, MEDIA_FILE_NAME);
        w->file[MEDIA_FILE_NAME] = '\0';
    }
    if (name[MEDIA_FILE_NAME] == '\0') {
        w->there = true;
        return;
    }
    drop = left || w->why == MEDIA_DELETE ||
           (message_mark_read(name, &chat, ref) && uuid_eq(&chat, &w->chat) &&
            (w->why == MEDIA_CHAT_GONE || (w->why == MEDIA_TURN_GONE && memcmp(ref, w->ref, sizeof ref) == 0)));
    if (drop) {
        note(w, name);
        w->dropped++;
    } else {
        w->kept++;
    }
}

/* Where the next walk over this user's files goes on. */
static void note_walked(struct walk *w)
{
    struct media_walked *all = w->base.d->walked;

    for (size_t i = 0; w->why == MEDIA_OLD && i < MEDIA_WALKED_MAX; i++)
        if (all[i].at_ms != 0 && uuid_eq(&all[i].user, &w->user))
            memcpy(all[i].from, w->judge.last, sizeof all[i].from);
}

/* Go on with the page; from the beginning of a name, or with what was found out about its mark. */
static void walk_look(struct desk_request *r)
{
    struct walk *w = (struct walk *)r;

    if (w->why == MEDIA_OLD && r->d->draining) {
        desk_request_end(r); /* there is no hurry */
        return;
    }
    while (w->page_at < w->page.len) {
        const char *name = (const char *)w->page.data + w->page_at;

        if (w->why == MEDIA_OLD && !w->judge.known && desk_judge(r, &w->judge, name, walk_look))
            return;
        w->judge.known = false;
        if (w->why == MEDIA_OLD && w->judge.left && w->judge.unclaimed)
            buf_add(&w->unclaimed, name, strlen(name) + 1);
        look(w, name, w->why == MEDIA_OLD && w->judge.left);
        w->page_at += strlen(name) + 1;
    }
    r->began_ms = loop_now_ms(r->d->env.loop);
    if (w->more) {
        walk_list(r);
        return;
    }
    file_over(w);
    w->file[0] = w->after[0] = '\0';
    if (++w->media_at < w->media_n) {
        walk_list(r);
        return;
    }
    note_walked(w);
    if (w->removals.failed || w->unclaimed.failed)
        desk_request_broke(r, "media", TR_NOMEM, NULL);
    else
        walk_remove(r);
}

static void on_names(void *ctx, enum tr_rc rc, const char *const *names, size_t n, bool more, const struct tr_err *err)
{
    struct walk *w = ctx;

    if (desk_request_over(&w->base))
        return;
    if (rc == TR_NOT_FOUND) { /* nothing of the user's at all */
        n = 0;
        rc = TR_OK;
    }
    if (rc != TR_OK) {
        walk_failed(w, walk_list, rc, err);
        return;
    }
    buf_clear(&w->page);
    w->page_at = 0;
    for (size_t i = 0; i < n; i++)
        buf_add(&w->page, names[i], strlen(names[i]) + 1);
    if (w->page.failed) {
        desk_request_broke(&w->base, "media", TR_NOMEM, NULL);
        return;
    }
    w->more = more && n > 0;
    if (w->more)
        memcpy(w->after, names[n - 1], strlen(names[n - 1]) + 1);
    walk_look(&w->base);
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
        media_file_name(&w->user, &w->media[w->media_at], w->prefix);
    } else {
        uuid_format(&w->user, w->prefix);
        memcpy(w->prefix + 36, "/", 2);
    }
    rc = store->ops->list(store, w->prefix, w->after, MEDIA_LIST_MAX, on_names, w, &r->op, &err);
    if (rc != TR_OK)
        walk_failed(w, walk_list, rc, &err);
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
    memcpy(w->ref, m->ref, sizeof w->ref);
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
    struct media_walked *m = walked_of(d, user);
    const uint64_t now = loop_now_ms(d->env.loop);
    struct walk *w;

    if (d->env.media == NULL || (m->at_ms != 0 && now + 1 - m->at_ms < WALK_MS))
        return;
    w = walk_new(d, NULL, MEDIA_OLD, user);
    if (w == NULL)
        return;
    m->at_ms = now + 1;
    w->judge.user = *user;
    memcpy(w->judge.from, m->from, sizeof m->from);
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
