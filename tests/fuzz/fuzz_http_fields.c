/*
 * The gateway's small languages.  By the first byte: a request's head (slices lie within its bytes); a cookie, a
 * query, a list; origins and a listen address (what is taken, formatted and read again is the same).
 */
#include "fuzz.h"

#include "role/common/address.h"
#include "role/common/http_parse.h"

#include <stdlib.h>
#include <string.h>

static void within(struct slice s, const uint8_t *data, size_t size)
{
    if (s.data != NULL && (s.data < data || s.data + s.len > data + size))
        abort();
}

static void head(const uint8_t *data, size_t size)
{
    const size_t end = http_head_end(data, size, 0);
    struct http_request req;
    const char *message = NULL;
    unsigned status;

    if (end == 0)
        return;
    status = http_parse(data, end, &req, &message);
    if (status != 0 ? message == NULL || status < 400 : req.head_len != end || strlen(req.path) > HTTP_PATH_MAX)
        abort();
    if (status != 0)
        return;
    within(req.query, data, end);
    for (int h = 0; h < HTTP_HEADER_COUNT; h++)
        within(req.header[h], data, end);
}

static void fields(struct slice s)
{
    struct slice value = {NULL, 0};
    char out[32];
    size_t at = 0, before = 0, len = 0;

    while (http_cookie(s, "c", &at, &value)) {
        within(value, s.data, s.len);
        if (at <= before)
            abort(); /* it goes on, and ends */
        before = at;
    }
    if (http_query(s, "q", out, sizeof out, &len) == 1 && (len >= sizeof out || strlen(out) != len))
        abort();
    (void)http_list_has(s, "upgrade");
    (void)http_etag_matches(s, "\"e\"");
}

static void texts(const char *text)
{
    struct sockaddr_storage address, again;
    struct origins origins = {0};
    char formatted[ADDRESS_TEXT], twice[ADDRESS_TEXT];

    if (address_parse(text, &address, NULL) == TR_OK) {
        address_format(&address, formatted);
        if (address_parse(formatted, &again, NULL) != TR_OK)
            abort();
        address_format(&again, twice);
        if (strcmp(formatted, twice) != 0)
            abort();
    }
    if (origins_parse(text, 80, NULL, &origins, NULL) == TR_OK) {
        for (size_t i = 0; i < origins.n; i++)
            if (!origins_allow(&origins, origins.list[i], strlen(origins.list[i])))
                abort();
        origins_release(&origins);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text;

    if (size == 0)
        return 0;
    switch (data[0] % 3) {
    case 0:
        head(data + 1, size - 1);
        break;
    case 1:
        fields((struct slice){data + 1, size - 1});
        break;
    default:
        text = calloc(1, size);
        if (text != NULL)
            memcpy(text, data + 1, size - 1);
        if (text != NULL)
            texts(text);
        free(text);
    }
    return 0;
}
