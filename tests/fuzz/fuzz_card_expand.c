/* Text without '{' and '<' stays as it is; after expanding with values of our own, no macro is left that stood there before. */
#include "domain/card.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf out = {0};
    char *text = malloc(size + 1);

    memcpy(text, data, size);
    text[size] = '\0';
    card_expand(text, "L", "", &out);
    if (strpbrk(text, "{<") == NULL)
        FUZZ_CHECK(strcmp(buf_str(&out), text) == 0);
    FUZZ_CHECK(out.len <= strlen(text));
    if (strcasestr(text, "{{char}}") == NULL && strcasestr(text, "{{user}}") == NULL &&
        strcasestr(text, "<user>") == NULL && strcasestr(text, "<bot>") == NULL && strcasestr(text, "<char>") == NULL)
        FUZZ_CHECK(strcmp(buf_str(&out), text) == 0);
    else
        FUZZ_CHECK(out.len < strlen(text));
    buf_release(&out);
    free(text);
    return 0;
}
