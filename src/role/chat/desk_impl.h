/*
 * desk_impl - what the files of role/chat share; for nobody else.
 *
 *   desk.c       start, drain, free; requests; the slow timer
 *   chats.c      the open chats, who follows them, what is held back
 *   arrive.c     what comes in on [gateway:<id>] and goes out to the followers
 *   follow.c     one follower: what it is told, what it lacks, what is held back for it
 *   catchup.c    reading from the history what a follower has missed
 *   refresh.c    one turn that has changed, for all its followers
 *   mend.c       when that is done: gaps, records that were lost, what could not be read
 *   page.c       rows -> turns with their texts
 *   open.c accept.c change.c read.c forget.c   the requests; greeting.c a new chat's first turn; check.c limits
 *   decide.c     what a change comes to, by the turn as it stands
 *   claim.c media.c mark.c   media of messages: marked, and let go of when no message names them any more
 *   admission.c  room for turns, rate limits, who else is a gateway
 *
 * What a follower has been told is two marks, for turns come and are answered in order:
 *   seen      the newest turn it knows: every turn up to it was in `opened`, in `accepted` or in a `turn` event
 *   answered  every turn up to it was answered (or deleted) as far as the follower knows
 * An event of a turn beyond `seen`, or a reply whose predecessor is beyond `answered`, shows that something was missed:
 * then the history is read (catchup.c), and what comes meanwhile is held back.  The third is of changes, which may come in any order:
 *   told, heard  every change up to `told`, and those of the bits of `heard`, were told: a hole shows that one was missed
 * A change is marked when its event is handed out, not before: what fails on the way to it is read again.  That of a regeneration's
 * reply is told by `changed`; until then `replied` keeps that the reply itself was handed out.
 */
#ifndef ROLE_CHAT_DESK_IMPL_H
#define ROLE_CHAT_DESK_IMPL_H

#include "port/media.h"
#include "role/chat/desk.h"
#include "role/common/keyring.h"
#include "role/common/story.h"

#define OPEN_TURNS 50
#define RETRY_FOR_MS 8000      /* a write that is not answered is tried again for so long */
#define TEXT_WAIT_MS 300       /* for the text so far of a running variant */
#define ACCEPTS_WAITING_MAX 32 /* of one chat */
#define PAGE_WAIT_MS 10000     /* for the client's next `open`, where there is more to be listed */
#define DELIVERED_MAX 64
#define CALL_AGAIN_MS 10000
#define BROKE_MS 10000 /* not ready for so long after a store failed for good */
#define HELD_DELTAS_MAX 512
#define CONN_TTL_MS 90000
#define CONN_REFRESH_MS 30000 /* every chat is put once in this time, a few at a time */
#define TICK_MS 100

/* An envelope that has to wait.  bytes: its sealed part, or the text where it was opened already. */
struct held {
    struct held *next;
    struct envelope env;
    size_t len;
    bool caught_up; /* the history was read because of it */
    uint8_t bytes[];
};
struct held_list {
    struct held *first, *last;
    size_t n;
};

/* The one copy of a running variant's text. */
struct running {
    struct running *next;
    struct uuid turn;
    int32_t variant;
    uint64_t attempt;
    struct buf text;
    bool known;         /* the text is there from its beginning */
    uint64_t asked_ms;  /* when TEXT was asked last; 0: never */
    uint64_t called_ms; /* when WORK was published again last; 0: never */
};

/* What is going on in a chat; most chats are idle and have none. */
struct work {
    struct running *running;
    struct held_list held;                       /* until the key is there, or `accepted` has been handed out */
    struct desk_request *key_fetch;              /* held, because the chat's key is being read */
    struct desk_request *accepts, *accepts_last; /* linked by line_next; the first is under way */
    size_t accepts_n;
    struct uuid accepting; /* the turn that is being written; nil: none */
    struct {
        struct uuid turn;
        int32_t variant;        /* -1: the turn is deleted */
    } delivered[DELIVERED_MAX]; /* regenerations and deletions, the latest ones */
    uint32_t delivered_n;       /* counts on */
    uint64_t lost_ms;           /* when the history was last read because of a turn that nobody knows */
};

struct character_name {
    struct character_name *next;
    uint32_t refs;
    char id[];
};

struct chat {
    struct chat *hash_next;
    struct uuid id, user;
    struct uuid head;     /* as far as is known here */
    uint64_t index;       /* of head */
    uint64_t change;      /* the greatest that was heard of */
    struct uuid answered; /* the newest turn whose first variant came by here */
    struct character_name *character;
    struct desk_follow *follows;
    struct work *work; /* NULL: idle */
    uint32_t refs;     /* requests and loops that use it */
    bool loaded;       /* user, character, head and index are known */
    bool gone;         /* deleted */
    bool hole;         /* it is looked at soon */
};

/* One viewer having one chat open. */
struct desk_follow {
    struct desk_viewer *viewer;
    struct chat *chat;
    struct desk_follow *v_next; /* of the viewer */
    struct desk_follow *c_next; /* of the chat */
    struct uuid seen, answered;
    uint64_t began;       /* the chat's change at the first `opened`: older replies were in it, or come by `changed` */
    struct uuid listed;   /* turns behind it were in the last `opened`, */
    uint64_t covered;     /* with their changes up to here */
    uint64_t told, heard; /* bit n: the change told + 1 + n */
    uint64_t *replied;    /* owned: changes of regenerations whose reply was handed out, and whose `changed` was not */
    size_t replied_n, replied_max;
    uint64_t page_ms;          /* when `opened` said that there is more, plus 1; 0: there is not */
    struct held_list *held;    /* while busy; while behind, too: turns that it sent itself */
    struct desk_request *busy; /* an open or a catch-up: what comes is held back.  NULL: events pass */
    bool behind;               /* something may have been missed: it is read again (mend.c) */
    bool far;                  /* a change was told that is beyond all bits */
    bool early;                /* turns are to be read: a reply waits for one before it, or not all were */
};

struct desk_request_ops {
    /* Hand the error to the caller; only called while the viewer is there. */
    void (*fail)(struct desk_request *r, const struct desk_error *e);
    void (*release)(struct desk_request *r); /* the kind's own members; may be NULL */
};

/* First member of every kind's own struct.  At most one operation or timer is under way. */
struct desk_request {
    const struct desk_request_ops *ops;
    struct desk *d;
    struct desk_viewer *viewer; /* NULL: nobody waits (any more) */
    struct desk_request *v_next, *v_prev, *d_next, *d_prev;
    struct desk_request *line_next; /* accepts of one chat */
    struct chat *chat;              /* referenced, or NULL */
    struct desk_follow *follow;     /* the one that is busy with it; NULL: none (any more) */
    struct tr_op *op;
    struct desk_claim *claim; /* the media that it waits for */
    struct desk_judge *judge; /* the mark that it asks about */
    struct loop_timer *timer;
    struct loop_call call;
    void (*step)(struct desk_request *r); /* what timer, call and key go on with */
    uint64_t began_ms;
    uint32_t tries;
    bool called; /* the call is on its way */
    bool unread; /* it ends because a store failed: that says nothing of what is there */
    bool lives;  /* the history said that the chat is there: nobody needs to ask because its key is not */
};

struct poll;

/* When the files of a user were walked over last. */
#define MEDIA_WALKED_MAX 256
struct media_walked {
    struct uuid user;
    uint64_t at_ms;                /* plus 1; 0: free */
    char from[MEDIA_NAME_MAX + 1]; /* the turns of marks behind it are asked for next; "": all */
};

struct desk {
    struct role_env env;
    struct desk_events events;
    char queue[QUEUE_NAME_MAX + 1]; /* "gateway.<instance>": this one's name in envelopes and the registry too */
    struct queue_consumer *consumer;
    struct desk_request *requests;
    size_t requests_n;
    struct chat **table;
    size_t table_n, chats_n, walk;
    struct character_name *characters;
    struct desk_follow *iter; /* the next one of the loop under way */
    struct loop_timer *tick;
    uint64_t tick_ms, gateway_ms;
    uint64_t gateway_ttl_ms; /* a gateway counts as alive for so long, as a worker does */
    size_t gap_left;         /* table slots to look at since the last gap */
    size_t gap_walk;
    size_t behind_n, behind_walk; /* followers that are behind */
    uint64_t behind_at_ms;        /* before, the history is not asked for them */
    size_t catchups_n;            /* under way */
    struct registry_gap registry_gap;
    struct tr_op *gateway_op;
    bool registry_failed; /* the last gateway_refresh did */

    uint64_t text_max, queue_max, rate_user, rate_address;
    struct poll *poll;
    uint64_t lengths, accepted_since, polled_ms, traffic_ms, workers_ms, rate_log_ms, damage_log_ms;
    char (*worker_queues)[QUEUE_NAME_MAX + 1];
    size_t worker_queues_n;
    struct media_walked walked[MEDIA_WALKED_MAX];
    bool alone; /* no other gateway is alive */
    bool poll_failed;
    uint64_t broke_ms; /* when a store failed a request for good, plus 1; 0: never */

    bool started, draining, dead, freed;
    void (*drained)(void *ctx);
    void *drained_ctx;
};

/* ---- desk.c: requests */

/* `size` bytes, zeroed, with a desk_request first; NULL: no memory.  viewer may be NULL. */
void *desk_request_new(struct desk *d, struct desk_viewer *viewer, size_t size, const struct desk_request_ops *ops);
/* Go on with step(r) in a call of its own, or after ms. */
void desk_request_later(struct desk_request *r, void (*step)(struct desk_request *r));
bool desk_request_after(struct desk_request *r, uint64_t ms, void (*step)(struct desk_request *r));
/* The same again, a bit later; false: it has been tried long enough. */
bool desk_request_again(struct desk_request *r, void (*step)(struct desk_request *r));
/* First in every callback: r->op is gone; true: the desk is closing, and so is r. */
bool desk_request_over(struct desk_request *r);
/* Unlink and free.  The caller has been answered, or nobody waits. */
void desk_request_end(struct desk_request *r);
/* Answer with an error and end. */
void desk_request_fail(struct desk_request *r, const char *code, const char *field, uint64_t retry_after_ms,
                       const char *fmt, ...) TR_PRINTF(5, 6);
/* The same for what a port said; `what` names the operation in the log. */
void desk_request_broke(struct desk_request *r, const char *what, enum tr_rc rc, const struct tr_err *err);
/* The chat's key.  NULL: r goes on with step when it is there (or has failed). */
const struct seal_key *desk_request_key(struct desk_request *r, const struct uuid *chat,
                                        void (*step)(struct desk_request *r));
static inline bool desk_rc_again(enum tr_rc rc)
{
    return rc == TR_UNCERTAIN || rc == TR_TRANSIENT || rc == TR_BUSY;
}
void desk_ignore(void *ctx, enum tr_rc rc, const struct tr_err *err); /* a callback for what nobody waits for */
/* Publish a transient envelope with this chat; lost is fine. */
void desk_tell(struct desk *d, const char *topic, const struct envelope *env);
/* A stored text did not open: told in the log, not too often. */
void desk_damaged(struct desk *d, const struct uuid *chat, const struct uuid *turn, const struct tr_err *err);

/* ---- chats.c */
struct chat *desk_chat_find(struct desk *d, const struct uuid *id);
struct chat *desk_chat_get(struct desk *d, const struct uuid *id); /* referenced; made if need be; NULL: no memory */
void desk_chat_unref(struct desk *d, struct chat *c);
bool desk_chat_apply(struct desk *d, struct chat *c, const struct history_chat *facts); /* false: no memory */
void desk_chat_moved(struct chat *c, const struct uuid *head, uint64_t index);          /* a newer head was heard of */
void desk_chat_changed(struct chat *c, uint64_t change);                                /* so was a change */
struct work *desk_work(struct chat *c); /* made if need be; NULL: no memory */
void desk_work_tidy(struct chat *c);    /* drop it where nothing is left in it */
void desk_chats_free(struct desk *d);
void desk_chats_walk(struct desk *d, size_t slots, size_t *at, void (*fn)(struct desk *d, struct chat *c));

struct desk_follow *desk_follow_find(const struct desk_viewer *v, const struct chat *c);
struct desk_follow *desk_follow_new(struct desk_viewer *v, struct chat *c); /* NULL: no memory */
void desk_follow_free(struct desk *d, struct desk_follow *f);
/* Call fn for each follower; fn may free any of them. */
void desk_follow_each(struct desk *d, struct chat *c, void (*fn)(struct desk *d, struct desk_follow *f, void *arg),
                      void *arg);

bool desk_hold(struct held_list *l, const struct envelope *env, const void *bytes, size_t len);
struct held *desk_held_take(struct held_list *l); /* owned; NULL: empty */
void desk_held_release(struct held_list *l);

struct running *desk_running_find(const struct chat *c, const struct uuid *turn, int32_t variant);
struct running *desk_running_get(struct chat *c, const struct uuid *turn, int32_t variant); /* NULL: no memory */
void desk_running_drop(struct chat *c, const struct uuid *turn, int32_t variant);           /* -1: all of the turn */
/* Publish WORK for a running variant that nobody seems to be at: a kill may have come between its write and its call. */
void desk_call_again(struct desk *d, struct chat *c, const struct uuid *turn, int32_t variant);
/* Ask the worker for the text so far, not too often. */
void desk_running_ask(struct desk *d, struct chat *c, struct running *r);

/* ---- arrive.c */
void desk_on_message(void *ctx, const struct queue_incoming *msg);
/* Is this variant's reply past already, or its turn deleted (variant -1: note that)? */
bool desk_is_settled(const struct chat *c, const struct uuid *turn, int32_t variant);
void desk_note_settled(struct chat *c, const struct uuid *turn, int32_t variant);
/* What was held back in the chat: look at it again. */
void desk_replay(struct desk *d, struct chat *c);
/* A regeneration's reply that was found in the history: it is as if it came by, and its turn's `changed` follows. */
void desk_reply_found(struct desk *d, struct chat *c, const struct envelope *env, const char *text, size_t len);
/* The turn or, where it is nil, the whole chat is deleted: tell the followers but `except`.  Told before: nothing.  change: 0
 * unknown. */
void desk_follow_deleted(struct desk *d, struct chat *c, const struct uuid *turn, uint64_t change,
                         const struct desk_viewer *except);

/* ---- follow.c */
struct arrival {
    const struct envelope *env;
    const char *text; /* opened */
    size_t len;
    bool caught_up; /* the history was read since: no reading it again for the same */
    bool found;     /* in the history */
};
/* Tell the follower, or hold it back for it.  arg: struct arrival; for desk_follow_each(). */
void desk_follow_take(struct desk *d, struct desk_follow *f, void *arg);
/* The chat is deleted: the follower is told and freed. */
void desk_follow_gone(struct desk *d, struct desk_follow *f);
/* A turn was accepted: tell a follower.  own: it sent it itself.  text may be NULL (then it is read).  change: 0 unknown. */
void desk_follow_turn(struct desk *d, struct desk_follow *f, const struct desk_turn *turn,
                      const struct uuid *predecessor, uint64_t change, bool own);
/* A turn is settled: a reply that waited for that is read. */
void desk_follow_settled(struct desk *d, struct desk_follow *f);
/*
 * The text so far of everything that runs and that the follower knows, or of turns before `before` alone (NULL: all), as a delta from
 * offset 0: while it was busy, or not there, it was not passed on.
 */
void desk_follow_texts(struct desk *d, struct desk_follow *f, const struct uuid *before);
/* Let a follower that was busy go on with what was held back for it; texts: with the running texts so far first. */
void desk_follow_resume(struct desk *d, struct desk_follow *f, bool texts);
void desk_send_reply(struct desk *d, struct desk_follow *f, const struct desk_reply *reply, const char *code);
/* This change was told (0: unknown) / was it? / all up to this one were. */
void desk_told(struct desk *d, struct desk_follow *f, uint64_t change);
bool desk_was_told(const struct desk_follow *f, uint64_t change);
void desk_told_up_to(struct desk_follow *f, uint64_t change);
/* The reply of a regeneration was handed out, and its `changed` is still to come / was it, or was it in `opened`?  change: 0 unknown. */
void desk_replied(struct desk_follow *f, uint64_t change);
bool desk_was_replied(const struct desk_follow *f, const struct uuid *turn, uint64_t change);

/* ---- catchup.c */
/* Read what the follower lacks, at once or, where the client is about to ask for it, then.  own: a turn it sent itself, or nil. */
void desk_catchup(struct desk *d, struct desk_follow *f, const struct uuid *own);
/* ---- refresh.c */
/* Regenerations that are stored, whose reply did not come by here: it is as if it came now, `changed` too.  false: there is none. */
bool desk_replies_found(struct desk *d, struct chat *c, const struct turn_view *v, const struct seal_key *key);
/* Read a turn and send `changed` to all followers but `except` (which may be NULL), of this change (0: unknown). */
void desk_refresh(struct desk *d, struct chat *c, const struct uuid *turn, struct desk_viewer *except, uint64_t change);

/* ---- mend.c */
/* Something may have been missed: every open chat's record is put again, then what its followers lack is read. */
void desk_gap(struct desk *d);
/* The same of this follower: it is read at once, or as soon as it is idle. */
void desk_mend(struct desk *d, struct desk_follow *f);
/* `opened` said that there is more, and the client asks for it now: what is behind it is not told before, it would come twice. */
bool desk_awaits_page(const struct desk *d, const struct desk_follow *f);
/* All followers of the chat are behind, and read: after a gap, or where it has no key and only the history can say whether it is gone. */
void desk_mend_all(struct desk *d, struct chat *c);
/* It was to be read, and could not be: later. */
void desk_unread(struct desk *d, struct desk_follow *f);
void desk_not_behind(struct desk *d, struct desk_follow *f);
/* The same, but it was cut short: soon. */
void desk_behind(struct desk *d, struct desk_follow *f);
/* A change that nobody told of shows in the chat: where it does not come by itself, it is read. */
void desk_hole(struct desk *d, struct chat *c);
/* Say in the registry that this gateway still holds a connection of the chat, if it does. */
void desk_conn_renew(struct desk *d, struct chat *c);
void desk_mend_step(struct desk *d);

/* ---- page.c */
struct desk_page {
    struct desk_turn *turns; /* the deleted ones left out */
    struct desk_variant *variants;
    size_t n;
    struct buf text;
    struct uuid last;     /* the newest turn of the rows, deleted or not; nil: no rows */
    struct uuid before;   /* the turn before the first one */
    struct uuid answered; /* every turn of the rows up to it is settled; `before` where not even the first is */
    struct uuid *deleted;
    size_t deleted_n;
    uint64_t change; /* the greatest of the rows */
};
/* Open the texts of whole turns.  Running variants stand there with an empty text. */
enum tr_rc desk_page_build(const struct seal_key *key, const struct turn_row *rows, size_t n,
                           struct desk_page *ret_page, struct tr_err *err) TR_MUST_CHECK;
/* Put the texts so far in, as known now; borrowed from the chat. */
void desk_page_running(struct desk_page *p, const struct chat *c);
void desk_page_release(struct desk_page *p);
/* How many of rows[0..n) are of the first one's turn. */
size_t desk_turn_rows(const struct turn_row *rows, size_t n);
/* The static text of an error's code as it stands in a row or an envelope. */
const char *desk_code(const char *code);
/* Append the plain text of a row. */
enum tr_rc desk_row_open(const struct seal_key *key, const struct turn_row *row, struct buf *out,
                         struct tr_err *err) TR_MUST_CHECK;

/* The user's message of a turn: opened behind what is in `out`, and taken apart; it borrows from `out`. */
enum tr_rc desk_row_message(const struct seal_key *key, const struct turn_row *row, struct buf *out,
                            struct message *ret_message, struct tr_err *err) TR_MUST_CHECK;

/* ---- forget.c */
/* The history says that the chat is gone: its key is forgotten, what runs for it is stopped, its followers here are told. */
void desk_chat_gone(struct desk *d, const struct uuid *chat);

/* ---- media.c */
/* Nothing of these waits for an answer; what can't be let go of is told in the log. */
void desk_media_turn_deleted(struct desk *d, const struct uuid *user, const struct uuid *chat, const struct message *m);
void desk_media_chat_deleted(struct desk *d, const struct uuid *user, const struct uuid *chat);
/* The store of media failed: as desk_request_broke(), but it is no reason to be unready, and is told as a store that is away. */
void desk_media_broke(struct desk_request *r, enum tr_rc rc, const struct tr_err *err);

/* ---- claim.c */
struct desk_claim {
    struct desk_request *r;
    const struct uuid *user, *chat;                /* borrowed: the caller's */
    const uint8_t *ref;                            /* borrowed: MESSAGE_REF bytes */
    struct message_media media[MESSAGE_MEDIA_MAX]; /* ids in; types out */
    size_t n, at;
    struct seal_key key; /* the user's, meanwhile */
    bool ended;
    const char *refused; /* why they can't be had; NULL: all are there, and marked.  Static */
    void (*done)(struct desk_request *r);
};
/* done is called once; not where r was answered with an error meanwhile. */
void desk_claim(struct desk_request *r, struct desk_claim *c, void (*done)(struct desk_request *r));

/* ---- mark.c */
#define DESK_JUDGED_CHATS 64
struct desk_judge {
    struct desk_request *r;
    struct uuid user;
    char from[MEDIA_NAME_MAX + 1]; /* marks up to it: their turns are not asked for */
    char last[MEDIA_NAME_MAX +
              1]; /* the last mark whose turn was asked for, where there was no time for more; "": all were */
    struct desk_judged_chat {
        struct uuid id, head;
        bool gone;
    } chats[DESK_JUDGED_CHATS]; /* the latest ones */
    size_t chats_n, asked;      /* chats_n counts on */
    /* the mark */
    char name[MEDIA_NAME_MAX + 1];
    struct uuid chat, turn;
    uint8_t ref[MESSAGE_REF];
    bool unclaimed; /* no turn has its ref */
    bool ask;       /* for its turn, too */
    bool left;      /* out: its chat or its turn is gone */
    bool known;     /* that was found out, and is to be taken by `next` */
    void (*next)(struct desk_request *r);
};
/* Judge a mark (what is none stays): false: at once; true: next is called when it is known, not where r ended meanwhile. */
bool desk_judge(struct desk_request *r, struct desk_judge *j, const char *name, void (*next)(struct desk_request *r));

/* ---- greeting.c */
struct desk_greeting {
    struct turn_row *rows; /* owned; their sealed bytes lie in `sealed` */
    size_t n;
    struct buf sealed;
};
/* The variants of chat->head, whose id is made here; a card without a first message: none, and no head. */
enum tr_rc desk_greeting_make(const struct card *card, const struct seal_key *key, struct history_chat *chat,
                              struct desk_greeting *ret_greeting) TR_MUST_CHECK;
void desk_greeting_release(struct desk_greeting *g);

/* ---- open.c */
void desk_open_poke(struct desk *d, struct chat *c); /* a running text came: perhaps it was waited for */

/* ---- check.c */
#define DESK_ID_MAX 64 /* characters */
/* NULL, or what is wrong with a text (a code), with a message in `why`. */
const char *desk_text_check(const struct desk *d, const char *text, size_t len, bool may_be_empty,
                            char why[static 120]);
bool desk_id_check(const char *id, size_t len);

/* ---- admission.c */
bool desk_has_room(struct desk *d); /* and note that there is traffic */
void desk_admission_tick(struct desk *d);
void desk_admission_free(struct desk *d);

#endif
