/* change_impl - what change.c and decide.c share; for nobody else. */
#ifndef ROLE_CHAT_CHANGE_IMPL_H
#define ROLE_CHAT_CHANGE_IMPL_H

#include "role/chat/desk_impl.h"

enum change_kind { CHANGE_STOP, CHANGE_REGENERATE, CHANGE_CHOOSE, CHANGE_EDIT, CHANGE_DELETE };

struct change {
    struct desk_request base; /* first */
    desk_ok_done *done;
    void *ctx;
    enum change_kind kind;
    struct uuid turn;
    struct uuid *chats; /* owned: those to look in */
    size_t chats_n, at;
    int32_t variant; /* asked for: choose's, or regenerate's expected one; then the one that is answered */
    char *text;      /* owned: edit's */
    size_t len;
    struct turn_row row;
    struct buf sealed;
    struct buf plain;       /* the user's message as it stands, of edit and delete */
    struct message message; /* the same, borrowed from it */
    struct envelope work;
    uint64_t change; /* of the write; 0: nothing was written */
    uint32_t races;
    bool running; /* as read */
    bool told;    /* something has changed */
    bool gone;    /* delete: the turn was deleted before, and its words are erased */
};

/* decide.c: by the turn as it was read, begin one of the steps below, or refuse and end the request. */
void decide_change(struct change *ch, const struct turn_view *v);
/* The same for a turn that is to be deleted and was deleted before.  rows: all n that it has. */
void decide_deleted(struct change *ch, const struct turn_view *v, const struct turn_row *rows, size_t n);

/* change.c: the steps.  Each goes on to the next one by itself; ch may be gone when it returns. */
void change_read(struct desk_request *r);    /* the turn, and decide again */
void change_write(struct desk_request *r);   /* ch->row, with ch->sealed */
void change_publish(struct desk_request *r); /* ch->work */
void change_tell(struct desk_request *r);    /* the other gateways */
void change_done(struct change *ch);         /* answer and end: nothing is left to be done */

#endif
