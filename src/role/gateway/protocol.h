/*
 * protocol - troupe.v1 (contract 7): a client's JSON text -> a call of the desk; its answers and events -> JSON text.
 * Knows no sockets: a transport hands text in, and takes text out through `send`.
 *
 *   transport --protocol_message()--> desk
 *   transport <------ send() -------- desk
 */
#ifndef GATEWAY_PROTOCOL_H
#define GATEWAY_PROTOCOL_H

#include "role/chat/desk.h"

#define PROTOCOL_UNDER_WAY_MAX 64 /* requests of one connection that wait for an answer */
#define PROTOCOL_REF_MAX 64       /* characters */

struct protocol;
struct protocol_request;

/* One connection's end of the protocol; zeroed but for `protocol` and the viewer's user and address. */
struct peer {
    struct desk_viewer viewer;
    struct protocol *protocol;         /* borrowed */
    struct protocol_request *requests; /* owned: under way at the desk */
    uint8_t under_way;
};

/* What a delta is of, for a transport that joins or drops them. */
struct peer_delta {
    const struct uuid *chat, *turn;
    int32_t variant;
    uint64_t attempt, offset;
    const char *text;
    size_t len;
};

struct protocol {
    struct desk *desk;
    /* Send `text`, of which the first `headroom` bytes are the transport's to write into.  Borrowed. */
    void (*send)(struct peer *peer, struct buf *text);
    /* May this delta go out now?  false: the transport keeps or drops it.  NULL: always. */
    bool (*delta)(struct peer *peer, const struct peer_delta *delta);
    /* Deltas of this turn's variant are of no more use (-1: of any variant).  NULL: nobody minds. */
    void (*settled)(struct peer *peer, const struct uuid *turn, int32_t variant);
    /* The last request under way has been answered.  NULL: nobody minds. */
    void (*quiet)(struct peer *peer);
    size_t headroom;
    struct buf scratch; /* owned: the text being made */
};

/* The desk's events, for viewers that are in a struct peer. */
extern const struct desk_events protocol_events;

void protocol_release(struct protocol *p);

/* One message of valid UTF-8 from this peer; a bad one is answered with an error. */
void protocol_message(struct peer *peer, const char *text, size_t len);
/* Send a delta that was kept back. */
void protocol_delta(struct peer *peer, const struct peer_delta *delta);
/* The connection is gone: forgets its requests, closes its chats. */
void peer_release(struct peer *peer);

#endif
