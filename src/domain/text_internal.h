/* text_internal - what text.c and text_normalise.c share; for nobody else. */
#ifndef DOMAIN_TEXT_INTERNAL_H
#define DOMAIN_TEXT_INTERNAL_H

#include "domain/text.h"

struct code_points {
    int32_t *c; /* owned: free() it */
    size_t n;
};

/* The code points of the NFC of s[0..len).  TR_INVALID, TR_NOMEM: ret untouched. */
enum tr_rc text_code_points(const char *s, size_t len, struct code_points *ret, struct tr_err *err) TR_MUST_CHECK;
/* Bring valid code points into NFC, in place. */
enum tr_rc text_nfc(struct code_points *cps) TR_MUST_CHECK;

#endif
