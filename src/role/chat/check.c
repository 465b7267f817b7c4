/* check - the limits of what a client may send (contract 11.18). */
#include "role/chat/desk_impl.h"

#include "domain/text.h"

#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

bool desk_id_check(const char *id, size_t len)
{
    return len > 0 && len <= (size_t)DESK_ID_MAX * 4 && text_utf8_valid(id, len) && text_length(id, len) <= DESK_ID_MAX;
}

/* Printable ASCII is its own NFC.  *ret_words: something is left once it is trimmed. */
static bool is_plain(const char *text, size_t len, bool *ret_words)
{
    bool words = false;

    for (size_t i = 0; i < len; i++) {
        const unsigned char ch = (unsigned char)text[i];

        if ((ch < 0x20 && ch != '\n') || ch > 0x7e)
            return false;
        words = words || (ch > 0x20);
    }
    *ret_words = words;
    return true;
}

const char *desk_text_check(const struct desk *d, const char *text, size_t len, bool may_be_empty, char why[static 120])
{
    struct buf clean = {0};
    size_t length = len;
    bool words = false;

    snprintf(why, 120, "The text is empty.");
    if (!is_plain(text, len, &words)) {
        enum tr_rc rc = text_nfc_length(text, len, &length, NULL);

        if (rc == TR_OK && length <= d->text_max) {
            rc = text_normalise(text, len, &clean, NULL);
            words = clean.len > 0;
            buf_wipe(&clean);
        }
        if (rc != TR_OK) {
            snprintf(why, 120, "%s",
                     rc == TR_INVALID ? "The text is not valid UTF-8." : "The server is out of memory.");
            return rc == TR_INVALID ? "bad_request" : "internal";
        }
    }
    if (length > d->text_max) {
        snprintf(why, 120, "The text is longer than %" PRIu64 " characters.", d->text_max);
        return "too_large";
    }
    return words || may_be_empty ? NULL : "bad_request";
}

void desk_address_key(const uint8_t address[16], char ret_key[DESK_ADDRESS_KEY + 1])
{
    memcpy(ret_key, "address:", 8);
    sodium_bin2hex(ret_key + 8, 2 * 16 + 1, address, 16);
}
