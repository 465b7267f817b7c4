/* notes - what preprocess found in a user's message, as it travels to inference and rests beside the turn (sealed). */
#ifndef DOMAIN_NOTES_H
#define DOMAIN_NOTES_H

#include "domain/text.h"

#define NOTES_SPANS_MAX 64

struct notes {
    int32_t rev; /* the revision of part 0 that they are of */
    char language[8];
    struct slice raw;        /* borrowed: the text as sent; may be absent (where it rests beside part 0) */
    struct slice normalised; /* borrowed */
    struct slice media;      /* borrowed: struct message_media (message.h) of a message that has some */
    struct personal_span spans[NOTES_SPANS_MAX]; /* in the normalised text */
    size_t spans_n;
};

enum tr_rc notes_encode(const struct notes *notes, struct buf *out) TR_MUST_CHECK;
enum tr_rc notes_decode(const void *data, size_t len, struct notes *ret_notes, struct tr_err *err) TR_MUST_CHECK;

#endif
