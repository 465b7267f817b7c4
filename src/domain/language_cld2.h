/* language_cld2 - the C face of CLD2 (C++); only text.c uses it. */
#ifndef DOMAIN_LANGUAGE_CLD2_H
#define DOMAIN_LANGUAGE_CLD2_H

#ifdef __cplusplus
extern "C" {
#endif

/* The code of the language of `len` bytes of valid UTF-8 behind which readable bytes stand; NULL: not reliable.  Static. */
const char *language_cld2(const char *text, int len);

#ifdef __cplusplus
}
#endif

#endif
