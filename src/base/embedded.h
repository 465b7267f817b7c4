/* embedded - files that live in the binary; the C is made by scripts/embed.py when the program is built. */
#ifndef BASE_EMBEDDED_H
#define BASE_EMBEDDED_H

#include <stddef.h>

struct embedded_file {
    const char *path, *type; /* "/app.js" (index.html: "/"), "text/javascript; charset=utf-8" */
    const unsigned char *data;
    size_t len;
    const unsigned char *gzip; /* NULL where it is no smaller */
    size_t gzip_len;
    const char *etag; /* strong, with its quotes */
};

extern const struct embedded_file static_files[]; /* the page */
extern const size_t static_files_n;
extern const struct embedded_file shipped_files[]; /* characters/: cards and avatars */
extern const size_t shipped_files_n;

#endif
