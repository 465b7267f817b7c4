/* static_files - the chat page's files, put into the binary by scripts/embed.py. */
#ifndef GATEWAY_STATIC_FILES_H
#define GATEWAY_STATIC_FILES_H

#include <stddef.h>

extern const struct static_file {
    const char *path, *type; /* "/app.js"; index.html is "/" */
    const unsigned char *data;
    size_t len;
    const unsigned char *gzip; /* NULL where it would not be smaller */
    size_t gzip_len;
    const char *etag; /* strong, with its quotes; the gzip form's has "-gz" before the last one */
} static_files[];
extern const size_t static_files_n;

#endif
