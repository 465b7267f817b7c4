/*
 * Each message gets one answer: at once, or, where it is under way at the desk, when the desk answers.  Every text
 * sent is JSON with a type.  A connection that goes leaves nothing behind.
 */
#include "fuzz.h"

#include "domain/text.h"
#include "role/gateway/protocol.h"
#include "tests/unit/role/fake_desk.h"

#include <jansson.h>

#define HEADROOM 10

static unsigned sent;

static void on_send(struct peer *peer, struct buf *text)
{
    json_t *json;

    (void)peer;
    if (text->failed)
        return;
    json = json_loadb((const char *)text->data + HEADROOM, text->len - HEADROOM, JSON_ALLOW_NUL, NULL);
    if (json == NULL || !json_is_string(json_object_get(json, "type")))
        abort();
    json_decref(json);
    sent++;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct protocol p = {.desk = fake_desk_handle(), .send = on_send, .headroom = HEADROOM};
    struct peer peer = {.protocol = &p};

    if (!text_utf8_valid(data, size))
        return 0; /* closed with 1007 before it gets here */
    fake_desk_reset();
    sent = 0;
    protocol_message(&peer, (const char *)data, size);
    if (sent + peer.under_way != 1)
        abort();
    fake_desk_answer();
    if (sent != 1 || peer.under_way != 0)
        abort();
    protocol_message(&peer, (const char *)data, size);
    peer_release(&peer); /* gone before the desk answers */
    if (fake_desk.waiting != 0 || peer.requests != NULL)
        abort();
    protocol_release(&p);
    return 0;
}
