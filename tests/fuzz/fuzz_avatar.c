/* An SVG that is taken has none of the tags that must not be in it, and is taken no more once something bad is put in. */
#include "base/buf.h"
#include "domain/card.h"
#include "domain/text.h"
#include "fuzz.h"

/* `bad` put in at `at` must turn it away. */
static void check_refused(const uint8_t *data, size_t size, size_t at, const char *bad)
{
    struct buf worse = {0};

    buf_add(&worse, data, at);
    buf_add_str(&worse, bad);
    buf_add(&worse, data + at, size - at);
    FUZZ_CHECK(avatar_type(worse.data, worse.len) == NULL);
    buf_release(&worse);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const attributes[] = {" onload=\"x\"",
                                             " ONX = 'x'",
                                             " href='javascript:x'",
                                             " x:href=\"http://x\"",
                                             " style='fill:url(http://x)'",
                                             " a=\"&#106;\"",
                                             " style=\"@import 'x'\"",
                                             " a=b"};
    static const char *const elements[] = {"<script>x</script>",
                                           "<a:foreignObject/>",
                                           "<!DOCTYPE x>",
                                           "<style>@import 'x'</style>",
                                           "&x;",
                                           "<image src='//x'/>",
                                           "<?x?>"};
    const char *type = avatar_type(data, size);
    const uint8_t *root;

    if (type == NULL || strcmp(type, "image/svg+xml") != 0)
        return 0;
    FUZZ_CHECK(text_utf8_valid(data, size) && memchr(data, 0, size) == NULL);
    if (memmem(data, size, "<!--", 4) != NULL)
        return 0; /* a comment may say anything, of a root too */
    root = memchr(data, '<', size);
    if (root + 1 < data + size && root[1] == '?')
        root = memchr(root + 1, '<', size - (size_t)(root + 1 - data));
    FUZZ_CHECK(root != NULL);
    for (size_t i = 0; i < sizeof attributes / sizeof attributes[0]; i++)
        check_refused(data, size, (size_t)(root - data) + 4, attributes[i]);
    for (size_t i = 0; i < sizeof elements / sizeof elements[0]; i++)
        check_refused(data, size, size, elements[i]);
    return 0;
}
