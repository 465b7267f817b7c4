/*
 * envelope - one message on its way from one role to the next: plain routing facts and sealed words (contract 11.15).
 * Format: "TE", version, then fields (tag, length, bytes); unknown tags are skipped, so that a newer version's envelope
 * is read (contract 11.19).  What is absent reads as zero.
 */
#ifndef DOMAIN_ENVELOPE_H
#define DOMAIN_ENVELOPE_H

#include "base/buf.h"
#include "domain/turn.h"
#include "domain/uuid.h"

enum envelope_kind {
    ENVELOPE_WORK =
        1,            /* a call to work: make variant `variant` of `turn`.  sealed: notes (domain/notes.h) or nothing */
    ENVELOPE_STATUS,  /* state, position */
    ENVELOPE_DELTA,   /* variant, attempt, offset; sealed: text.  snapshot: the whole text so far, offset 0 */
    ENVELOPE_REPLY,   /* variant, attempt, finish, code, usage, change; sealed: the whole text */
    ENVELOPE_TURN,    /* a turn was accepted (origin: the connection that sent it) */
    ENVELOPE_CHANGED, /* edit, choice, regeneration: read the turn again */
    ENVELOPE_DELETED, /* the turn is deleted; nil turn: the whole chat is.  [control] its key is to be forgotten */
    ENVELOPE_STOP,    /* [control] end turn/variant's generation */
    ENVELOPE_TEXT,    /* [control] send the text so far of turn/variant as a snapshot delta to gateway `origin` */
    ENVELOPE_KIND_COUNT
};
/* Whom an event is for, as far as the notifier knows (role/notifier). */
enum envelope_reach {
    REACH_HOLDERS = 0, /* those who have the chat open: the notifier finds them */
    REACH_RECORDED,    /* sent to those whom the chat's record names, and to nobody else */
    REACH_ALL,         /* to all living gateways, whatever the record says */
};
enum turn_state { STATE_NONE = 0, STATE_QUEUED, STATE_THINKING, STATE_WRITING };

#define ENVELOPE_BYTES_MAX (1024 * 1024)
#define ENVELOPE_SEALED_MAX (ENVELOPE_BYTES_MAX - 1024) /* room for all the other fields */
#define ENVELOPE_ORIGIN_MAX 47
#define ENVELOPE_TRACE_MAX 32

struct envelope {
    enum envelope_kind kind;
    struct uuid chat, turn, predecessor, user;
    char character[CHARACTER_ID_MAX + 1];
    char trace[ENVELOPE_TRACE_MAX + 1];   /* one a turn, 16 hex digits, through all logs */
    char origin[ENVELOPE_ORIGIN_MAX + 1]; /* see the kinds */
    int32_t variant, rev;
    uint64_t attempt, offset, change, index, created_ms;
    uint32_t position; /* from 1; 0: unknown */
    enum turn_state state;
    enum finish finish;
    char code[24];
    uint32_t prompt_tokens, cached_tokens, completion_tokens, ttft_ms;
    bool snapshot;
    bool again;          /* of WORK: not the only call for this variant, as far as its publisher knows */
    struct slice sealed; /* borrowed */
    uint32_t reach;      /* enum envelope_reach; a value that is not known: as 0 */
};

/* Append the bytes to `out`.  TR_OK, TR_NOMEM, or TR_INVALID: `sealed` is over ENVELOPE_SEALED_MAX; out untouched. */
enum tr_rc envelope_encode(const struct envelope *env, struct buf *out) TR_MUST_CHECK;
/* Append encoded bytes that have no reach (0) of their own, with this one.  TR_OK, TR_NOMEM: out untouched. */
enum tr_rc envelope_with_reach(struct slice encoded, enum envelope_reach reach, struct buf *out) TR_MUST_CHECK;
/*
 * Read one envelope out of `len` untrusted bytes; env->sealed borrows them.
 *   TR_INVALID  not exactly one envelope: short, over a limit, no or an unknown kind, bytes left over; *ret_env untouched
 */
enum tr_rc envelope_decode(const void *data, size_t len, struct envelope *ret_env, struct tr_err *err) TR_MUST_CHECK;

#endif
