/*
 * s3_server - an S3 that misbehaves as a test tells it: HTTP on the test's own loop, answered by the test's function.
 * Include after <cmocka.h> and what that needs.
 */
#ifndef TESTS_S3_SERVER_H
#define TESTS_S3_SERVER_H

#include "base/buf.h"
#include "base/loop.h"

enum s3_then { S3_THEN_STAY, S3_THEN_CLOSE, S3_THEN_SILENT };

struct s3_asked {
    char method[8], target[1024]; /* as they came: "/bucket/name?query" */
    char head[4096];              /* all of it */
    size_t body;                  /* bytes */
    size_t n;                     /* how many came before */
};
/* Append the answer's bytes, status line and all. */
typedef enum s3_then s3_answers(const struct s3_asked *asked, struct buf *out);

/* Listens on 127.0.0.1; "http://127.0.0.1:port" is borrowed.  Fails the test by itself. */
const char *s3_server_start(struct loop *loop, s3_answers *answers);
size_t s3_server_stop(void); /* how many were asked; run the loop once after it */

/* An answer with a Content-Length; headers: "Name: value\r\n…", may be "". */
void s3_say(struct buf *out, const char *status, const char *headers, const char *body);

#endif
