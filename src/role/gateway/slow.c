/*
 * slow - deltas for a client that reads slowly.  Past half of what may wait for it, a variant's deltas are joined into
 * one that is kept back, and sent when there is room again; its reply, which carries the whole text, makes it needless.
 * Past the whole, ws.c closes the connection.
 */
#include "role/gateway/gateway_impl.h"

#include "base/metrics.h"

#include <stdlib.h>

struct metric gateway_joined =
    METRIC(METRIC_COUNTER, "troupe_gateway_deltas_joined_total", NULL, "Deltas kept back for slow readers.");

struct kept_delta {
    struct kept_delta *next;
    struct uuid chat, turn;
    int32_t variant;
    uint64_t attempt, offset;
    struct buf text;
};

static struct kept_delta **find(struct out_queue *q, const struct uuid *turn, int32_t variant)
{
    struct kept_delta **at = &q->kept;

    while (*at != NULL && !(uuid_eq(&(*at)->turn, turn) && (*at)->variant == variant))
        at = &(*at)->next;
    return at;
}

static void drop(struct out_queue *q, struct kept_delta **at)
{
    struct kept_delta *k = *at;

    *at = k->next;
    q->bytes -= k->text.len;
    q->kept_bytes -= k->text.len;
    buf_wipe(&k->text);
    free(k);
}

void slow_release(struct out_queue *q)
{
    while (q->kept != NULL)
        drop(q, &q->kept);
}

/* Put the delta behind what is kept, or in its place from its offset on. */
static void join(struct out_queue *q, struct kept_delta *k, const struct peer_delta *d)
{
    const size_t before = k->text.len;

    if (d->attempt != k->attempt || d->offset < k->offset || d->offset > k->offset + k->text.len) {
        k->attempt = d->attempt;
        k->offset = d->offset;
        k->text.len = 0;
    } else {
        k->text.len = (size_t)(d->offset - k->offset);
    }
    buf_add(&k->text, d->text, d->len);
    q->bytes = q->bytes - before + k->text.len;
    q->kept_bytes = q->kept_bytes - before + k->text.len;
}

bool slow_delta(struct peer *peer, const struct peer_delta *delta)
{
    struct conn *c = conn_of(peer);
    struct out_queue *q = c->out;
    struct kept_delta **at;

    if (q == NULL || c->state != CONN_OPEN)
        return true;
    at = find(q, delta->turn, delta->variant);
    if (*at == NULL) {
        struct kept_delta *k;

        if (q->bytes <= conn_gateway(c)->send_max / 2)
            return true;
        k = calloc(1, sizeof *k);
        if (k == NULL) {
            conn_abort(c);
            return false;
        }
        k->chat = *delta->chat;
        k->turn = *delta->turn;
        k->variant = delta->variant;
        k->attempt = delta->attempt;
        k->offset = delta->offset;
        *at = k;
    }
    join(q, *at, delta);
    metric_add(&gateway_joined, 1);
    if ((*at)->text.failed)
        conn_abort(c);
    else if (conn_overfull(c))
        ws_close(c, FRAME_STATUS_TRY_LATER, "reads too slowly: reconnect and resume");
    return false;
}

void slow_settled(struct peer *peer, const struct uuid *turn, int32_t variant)
{
    struct out_queue *q = conn_of(peer)->out;

    for (struct kept_delta **at = q == NULL ? NULL : &q->kept; at != NULL && *at != NULL;) {
        if (uuid_eq(&(*at)->turn, turn) && (variant < 0 || (*at)->variant == variant))
            drop(q, at);
        else
            at = &(*at)->next;
    }
}

void slow_drained(struct conn *c)
{
    struct out_queue *q = c->out;

    while (c->state == CONN_OPEN && q->kept != NULL && q->bytes - q->kept_bytes <= conn_gateway(c)->send_max / 4) {
        struct kept_delta k = *q->kept;
        const struct peer_delta delta = {&k.chat,   &k.turn, k.variant, k.attempt, k.offset, (const char *)k.text.data,
                                         k.text.len};

        free(q->kept);
        q->kept = k.next;
        q->bytes -= k.text.len;
        q->kept_bytes -= k.text.len;
        protocol_delta(&c->peer, &delta);
        buf_wipe(&k.text);
    }
}
