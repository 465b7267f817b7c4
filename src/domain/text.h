/*
 * text - what preprocess does to a user's words (contract 2): validity, NFC, invisible and bidirectional control
 * characters, white space; language; spans of personal data.  Pure (utf8proc, CLD2).  The rules are in text.c's head.
 */
#ifndef DOMAIN_TEXT_H
#define DOMAIN_TEXT_H

#include "base/buf.h"

bool text_utf8_valid(const void *s, size_t len);
/* Code points of valid UTF-8. */
size_t text_length(const char *s, size_t len);
/* The longest prefix of s[0..len) that does not end inside a UTF-8 character (for streams cut anywhere). */
size_t text_utf8_prefix(const char *s, size_t len);

/*
 * Normalise: NFC; drops controls (but \n and \t), zero-width and bidirectional control characters and other
 * default-ignorables (kept: ZWJ/ZWNJ and variation selectors where they join emoji or letters of scripts that need
 * them); CRLF and CR -> LF, runs of spaces stay inside a line but trailing ones go, more than two empty lines become
 * two, ends trimmed.  Idempotent.
 *   TR_INVALID  not valid UTF-8 (the err says at which byte), out untouched
 *   TR_NOMEM
 */
enum tr_rc text_normalise(const char *s, size_t len, struct buf *out, struct tr_err *err) TR_MUST_CHECK;

/* NFC alone, to count a message's length by (contract 11.18). */
enum tr_rc text_nfc_length(const char *s, size_t len, size_t *ret_code_points, struct tr_err *err) TR_MUST_CHECK;

/* ISO 639-1 (or CLD2's own code) of valid UTF-8; "" where it can't be told reliably. */
void text_language(const char *s, size_t len, char ret_code[8]);

enum personal_kind { PERSONAL_EMAIL = 1, PERSONAL_PHONE, PERSONAL_CARD };
struct personal_span {
    enum personal_kind kind;
    uint32_t start, len; /* bytes of the normalised text */
};
/* E-mail addresses, phone numbers, card numbers whose check digit (Luhn) fits.  In order, not overlapping; at most `max`. */
size_t text_personal(const char *s, size_t len, struct personal_span *ret_spans, size_t max);

#endif
