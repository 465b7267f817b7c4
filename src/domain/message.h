/*
 * message - what a user's message (part 0 of a turn) is made of: words, and the media that go with them.
 * One without media rests as its bare text, as it always has; one with media begins with a byte that no text begins with.
 */
#ifndef DOMAIN_MESSAGE_H
#define DOMAIN_MESSAGE_H

#include "base/buf.h"
#include "domain/media.h"
#include "domain/uuid.h"

#define MESSAGE_MEDIA_MAX 8
#define MESSAGE_REF 16

struct message_media {
    struct uuid id;
    uint8_t type; /* enum media_type, or a newer version's */
};
_Static_assert(sizeof(struct message_media) == 17, "as it rests: id, type");

struct message {
    const char *text; /* borrowed; never NULL after message_decode() */
    size_t len;
    const struct message_media *media; /* borrowed */
    size_t media_n;
    uint8_t ref[MESSAGE_REF]; /* names this turn in the media store (port/media.h, marks); zero without media */
};

/* Append the bytes.  TR_OK or TR_NOMEM. */
enum tr_rc message_encode(const struct message *m, struct buf *out) TR_MUST_CHECK;
/* Read them; what comes out lies within data.  TR_INVALID: of an unknown version, or cut. */
enum tr_rc message_decode(const void *data, size_t len, struct message *ret_message, struct tr_err *err) TR_MUST_CHECK;

/*
 * Append how a prompt tells it: "[The user attached an image and 2 audio files.]" before the words (normalised by the
 * caller).  Without media the words alone.
 */
void message_tell(const struct message_media *media, size_t n, const char *text, size_t len, struct buf *out);

/* The name of the mark of a message upon a file: "<owner>/<id>.<chat>.<ref, 32 hex digits>" (port/media.h). */
#define MESSAGE_MARK_NAME (MEDIA_FILE_NAME + 1 + 36 + 1 + 2 * MESSAGE_REF)
void message_mark_name(const struct uuid *owner, const struct uuid *id, const struct uuid *chat,
                       const uint8_t ref[MESSAGE_REF], char ret_name[MESSAGE_MARK_NAME + 1]);
/* False: it is the name of no mark. */
bool message_mark_read(const char *name, struct uuid *ret_chat, uint8_t ret_ref[MESSAGE_REF]);

#endif
