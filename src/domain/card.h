/*
 * card - a character's card: Character Card V2 JSON (github.com/malfoyslastname/character-card-spec-v2) in, the same
 * out.  Pure (jansson).  Fields we do not use are kept as they came, so that export gives back what import took.
 */
#ifndef DOMAIN_CARD_H
#define DOMAIN_CARD_H

#include "base/buf.h"
#include "domain/uuid.h"

#define CARD_BYTES_MAX (1024 * 1024)
#define CARD_FIELD_MAX (64 * 1024)
#define CARD_LORE_MAX 512 /* entries of the lorebook */

struct card_entry { /* of the lorebook */
    const char **keys;
    size_t keys_n;
    const char *content;
    bool enabled, constant, case_sensitive;
    int order;
};

struct card {
    char id[CHARACTER_ID_MAX + 1]; /* from extensions.troupe.id, else a slug of the name */
    const char *name, *description, *personality, *scenario, *first_message, *example_dialogue;
    const char *system_prompt, *post_history, *creator, *creator_notes, *version; /* "" where absent */
    const char *tagline;    /* extensions.troupe.tagline, else the first sentence of creator_notes or "" */
    const char **greetings; /* alternate ones, after first_message */
    size_t greetings_n;
    const char **tags;
    size_t tags_n;
    struct card_entry *lore;
    size_t lore_n;
    int lore_scan_depth; /* messages looked at for keys; default 4 */
    void *json;          /* the whole card (json_t *) */
};

/*
 * Read untrusted bytes.  V1 cards (flat fields) are taken too.
 *   TR_INVALID  the err names the field ("data.name: missing") or the limit
 */
enum tr_rc card_parse(const void *data, size_t len, struct card **ret_card, struct tr_err *err) TR_MUST_CHECK;
void card_free(struct card *card);
/* V2 JSON, indented, sorted as it came. */
enum tr_rc card_print(const struct card *card, struct buf *out) TR_MUST_CHECK;
/* {{char}} and {{user}} (any case; <USER>, <BOT> too) replaced. */
void card_expand(const char *text, const char *character, const char *user, struct buf *out);

/* The type of an avatar by its content: "image/png", "image/jpeg", "image/webp", "image/svg+xml"; NULL: none of them.
 * An SVG with a script, an event handler, a foreign object or an outside reference is none. */
const char *avatar_type(const void *data, size_t len);
#define AVATAR_BYTES_MAX (2 * 1024 * 1024)

#endif
