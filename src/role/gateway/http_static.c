/* http_static - the chat page's files, out of the binary. */
#include "base/embedded.h"
#include "role/gateway/gateway_impl.h"

#include <stdio.h>
#include <string.h>

static const struct embedded_file *find(const char *path)
{
    for (size_t i = 0; i < static_files_n; i++)
        if (strcmp(static_files[i].path, path) == 0)
            return &static_files[i];
    return NULL;
}

bool http_static_has(const char *path)
{
    return find(path) != NULL;
}

bool http_static(struct conn *c, const struct http_request *req)
{
    static const char page_csp[] =
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    const struct embedded_file *f = find(req->path);
    struct http_answer a = {.status = 200, .csp = page_csp, .cache = "no-cache"};
    char headers[256], packed_tag[96];
    bool packed;

    if (f == NULL)
        return false;
    packed = f->gzip != NULL && req->deflate_gzip;
    snprintf(packed_tag, sizeof packed_tag, "%.*s-gz\"", (int)strlen(f->etag) - 1, f->etag);
    snprintf(headers, sizeof headers, "ETag: %s\r\nVary: Accept-Encoding\r\n%s", packed ? packed_tag : f->etag,
             packed ? "Content-Encoding: gzip\r\n" : "");
    a.headers = headers;
    if (http_etag_matches(req->header[HTTP_IF_NONE_MATCH], packed ? packed_tag : f->etag)) {
        snprintf(headers, sizeof headers, "ETag: %s\r\nVary: Accept-Encoding\r\n", packed ? packed_tag : f->etag);
        a.status = 304;
    } else {
        a.type = f->type;
        a.body = packed ? f->gzip : f->data;
        a.len = packed ? f->gzip_len : f->len;
    }
    http_reply(c, &a);
    return true;
}
