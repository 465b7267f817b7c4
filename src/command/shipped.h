/* shipped - the characters that come with the program. */
#ifndef COMMAND_SHIPPED_H
#define COMMAND_SHIPPED_H

#include "wiring.h"

/* On the first start with this catalogue put them in; later nothing (what a user removed stays removed). */
enum tr_rc shipped_characters(struct wiring *w, struct tr_err *err) TR_MUST_CHECK;

/* Put a card (JSON bytes) and an avatar (may be empty) into the catalogue; the card's id comes back. */
enum tr_rc shipped_put(struct wiring *w, struct slice json, struct slice avatar, const char *id, bool replace,
                       char ret_id[CHARACTER_ID_MAX + 1], struct tr_err *err) TR_MUST_CHECK;

#endif
