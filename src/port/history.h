/*
 * history - the turns of every chat, kept for good; the truth behind every promise (contract 9, 11.1 to 11.3, 11.8).
 * Adapters: sqlite (embedded), later Cassandra.  tests/contract/history.c holds each of them to these rules:
 *  1. Operations follow base/op.h.  A write whose end is unknown says TR_UNCERTAIN; issuing the same one again settles it:
 *     every write here is idempotent.
 *  2. `accept` is one conditional write: nothing of it is seen unless all of it is.
 *  3. `append`: the first write of (chat, turn, part, rev) wins; a second one is answered with the row that stands.
 *  4. A read sees every write that was answered before it began.
 *  5. `change` grows with every change of a chat; rows carry the value of the change that wrote them.  Whoever has been told of a
 *     change (chat_get, accept, changed) and then reads turns or what changed, is shown all rows up to it.
 *  6. Rows handed to a callback are borrowed until it returns.
 *  7. Text comes in sealed; an adapter never sees it.  It copies what it is given before the start returns.
 *  8. After chat_delete: chat_get, accept, append and reads of the chat say TR_NOT_FOUND, and its key is gone.
 *  9. A deletion that was begun is finished.  At every moment of it the chat is whole, or gone for every reader and writer of every
 *     process: no row comes in behind it.  Whoever meets a chat whose deletion was cut off (a kill) finishes it first: any
 *     operation says TR_NOT_FOUND of a deleted chat only once its key, its rows and its place in the lists are gone.
 * 10. The same for a turn: its deletion is an event (append), and `done` comes when the words of all its rows are erased.  A kill
 *     between the two may leave words with the event: reads give them out as they are, so look at the event first, and have
 *     them erased; the same event appended again is done only when they are.
 */
#ifndef PORT_HISTORY_H
#define PORT_HISTORY_H

#include "base/buf.h"
#include "base/op.h"
#include "domain/seal.h"
#include "domain/turn.h"
#include "port/service.h"

struct history;

struct history_chat {
    struct uuid chat, user;
    char character[CHARACTER_ID_MAX + 1];
    uint64_t created_ms, updated_ms; /* updated: the newest turn's time; an estimate is enough */
    struct uuid head;                /* the newest accepted turn (the greeting at first) */
    uint64_t index;                  /* its index */
    uint64_t change;
};

struct history_accept {
    struct turn_row row;     /* part 0, rev 0: chat, turn, predecessor (= head as read), index, sealed, ... */
    uint8_t client_hash[16]; /* seal_client_id() */
    struct uuid head;        /* as read: the write is done only if it still is.  HISTORY_NO_HEAD: it is only asked */
    uint64_t change;         /* a hint: the chat's, as last heard of; 0: none.  Right, it may save a round trip */
};
/* A head that no chat has (its time is 1970): `accept` upon it writes nothing, and says whether the client id has a turn. */
#define HISTORY_NO_HEAD ((struct uuid){{[15] = 1}})
enum accept_outcome {
    ACCEPT_DONE,  /* written: turn and change are the new ones */
    ACCEPT_KNOWN, /* this client id has a turn already: that one is in `turn`; nothing was written */
    ACCEPT_MOVED, /* the head is another by now: head and index are in `chat`; nothing was written */
};
struct history_accepted {
    enum accept_outcome outcome;
    struct uuid turn, head;
    uint64_t index; /* of head */
    uint64_t change;
};

/* Which turns of a chat to read: by ids (exclusive bounds, nil = open), at most `limit` turns (0: all). */
struct history_range {
    struct uuid after, before;
    uint32_t limit;
    bool newest; /* count the limit from the newest end; rows come oldest turn first in any case */
};

typedef void history_done(void *ctx, enum tr_rc rc, const struct tr_err *err);
typedef void history_chat_done(void *ctx, enum tr_rc rc, const struct history_chat *chat, bool mine,
                               const struct tr_err *err);
typedef void history_chats_done(void *ctx, enum tr_rc rc, const struct history_chat *chats, size_t n, bool more,
                                const struct tr_err *err);
typedef void history_accept_done(void *ctx, enum tr_rc rc, const struct history_accepted *res,
                                 const struct tr_err *err);
/* mine: written now (or by the same attempt before); else `standing` is the row that was there. */
typedef void history_append_done(void *ctx, enum tr_rc rc, bool mine, uint64_t change, const struct turn_row *standing,
                                 const struct tr_err *err);
/* Rows of whole turns, turn by turn; more: the limit cut it. */
typedef void history_rows_done(void *ctx, enum tr_rc rc, const struct turn_row *rows, size_t n, bool more,
                               const struct tr_err *err);
typedef void history_key_done(void *ctx, enum tr_rc rc, bool mine, struct slice wrapped, const struct tr_err *err);

struct history_ops {
    const char *scheme;
    /*
     * Create a chat with its greeting (rows of ONE turn, chat->head = that turn; n may be 0), all or nothing.
     * Idempotent on (user, client_hash) where client_hash is not NULL: then the standing chat, mine = false.
     */
    enum tr_rc (*chat_create)(struct history *h, const struct history_chat *chat, const uint8_t client_hash[16],
                              const struct turn_row *greeting, size_t n, history_chat_done *done, void *ctx,
                              struct tr_op **ret_op, struct tr_err *err);
    enum tr_rc (*chat_get)(struct history *h, const struct uuid *chat, history_chat_done *done, void *ctx,
                           struct tr_op **ret_op, struct tr_err *err);
    /* A user's chats, newest chat id first, those before `before` (nil: from the newest). */
    enum tr_rc (*chats_of_user)(struct history *h, const struct uuid *user, const struct uuid *before, uint32_t limit,
                                history_chats_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err);
    /*
     * Durable before done.  TR_OK: there was something of it, and now nothing is left, be it of a deletion that was begun
     * before.  TR_NOT_FOUND: there is nothing of it, any more or at all; issued again after TR_UNCERTAIN that settles it, too.
     */
    enum tr_rc (*chat_delete)(struct history *h, const struct uuid *chat, history_done *done, void *ctx,
                              struct tr_op **ret_op, struct tr_err *err);

    enum tr_rc (*accept)(struct history *h, const struct history_accept *a, history_accept_done *done, void *ctx,
                         struct tr_op **ret_op, struct tr_err *err);
    /*
     * Write rows of one turn, all or nothing, if rows[0] (chat, turn, part, rev) is not there yet; the others go along
     * with it, each only if it is not there.  A row with the same attempt or, for state events and edits, the same bytes
     * counts as mine.  TR_NOT_FOUND: no such turn.
     */
    enum tr_rc (*append)(struct history *h, const struct turn_row *rows, size_t n, history_append_done *done, void *ctx,
                         struct tr_op **ret_op, struct tr_err *err);

    /* All rows of one turn; TR_NOT_FOUND: none. */
    enum tr_rc (*turn_get)(struct history *h, const struct uuid *chat, const struct uuid *turn, history_rows_done *done,
                           void *ctx, struct tr_op **ret_op, struct tr_err *err);
    enum tr_rc (*turns)(struct history *h, const struct uuid *chat, const struct history_range *range,
                        history_rows_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err);
    /* The turns that have a row with change > since, whole, at most `limit` turns, oldest first. */
    enum tr_rc (*changed)(struct history *h, const struct uuid *chat, uint64_t since, uint32_t limit,
                          history_rows_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err);

    /* An owner's wrapped data key.  put: first write wins, the standing one comes back.  get: TR_NOT_FOUND. */
    enum tr_rc (*key_put)(struct history *h, enum seal_owner owner, const char *id, struct slice wrapped,
                          history_key_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err);
    enum tr_rc (*key_get)(struct history *h, enum seal_owner owner, const char *id, history_key_done *done, void *ctx,
                          struct tr_op **ret_op, struct tr_err *err);
    /* Of a service outside, else NULL: see port/service.h. */
    enum tr_rc (*init)(struct history *h, service_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err);
    enum tr_rc (*check)(struct history *h, service_checked *done, void *ctx, struct tr_op **ret_op, struct tr_err *err);
    void (*close)(struct history *h); /* outstanding operations end with TR_CANCELLED before it returns */
};

struct history { /* first member of every adapter's own struct */
    const struct history_ops *ops;
};

#endif
