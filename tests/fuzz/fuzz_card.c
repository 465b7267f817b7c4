/* A card that is taken is within its limits, prints, and prints the same once more after being read again. */
#include "domain/card.h"
#include "domain/prompt.h"
#include "domain/text.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct card *card = NULL, *again = NULL;
    struct buf once = {0}, twice = {0};
    struct prompt prompt;

    if (card_parse(data, size, &card, NULL) != TR_OK)
        return 0;
    FUZZ_CHECK(character_id_valid(card->id, strlen(card->id)));
    FUZZ_CHECK(text_length(card->name, strlen(card->name)) <= 100);
    FUZZ_CHECK(text_utf8_valid(card->tagline, strlen(card->tagline)));
    FUZZ_CHECK(card->greetings_n <= 32 && card->lore_n <= 512);
    FUZZ_CHECK(card_print(card, &once) == TR_OK);
    if (once.len <= CARD_BYTES_MAX) { /* indenting may have made it too long */
        FUZZ_CHECK(card_parse(once.data, once.len, &again, NULL) == TR_OK);
        FUZZ_CHECK(card_print(again, &twice) == TR_OK);
        FUZZ_CHECK(once.len == twice.len && memcmp(once.data, twice.data, once.len) == 0);
        FUZZ_CHECK(strcmp(card->id, again->id) == 0);
    }
    FUZZ_CHECK(prompt_build(card, "you", &(struct prompt_recent){SPEAKER_USER, "hi fox", 6}, 1, &prompt) == TR_OK);
    FUZZ_CHECK(prompt.n >= 2 && prompt.messages[0].speaker == SPEAKER_SYSTEM);
    FUZZ_CHECK(memmem(prompt.messages[prompt.n - 1].text, prompt.messages[prompt.n - 1].len, "hi fox", 6) != NULL);
    prompt_release(&prompt);
    card_free(card);
    card_free(again);
    buf_release(&once);
    buf_release(&twice);
    return 0;
}
