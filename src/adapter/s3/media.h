/*
 * s3 media - the media port on a bucket of S3 or of what speaks like it (path-style addresses, signature version 4).
 * Files: sign.c (pure), xml.c (pure), request.c (libcurl on the loop), media.c, put.c (the port).
 */
#ifndef ADAPTER_S3_MEDIA_H
#define ADAPTER_S3_MEDIA_H

#include "base/loop.h"
#include "port/media.h"

/* Borrowed while opening. */
struct s3_options {
    const char *endpoint; /* http[s]://host[:port]; "": Amazon's of the region */
    const char *region;
    const char *access_key, *secret_key;
};

/*
 * `url`: s3://bucket[/prefix].  Opening reaches nothing (port/service.h).
 *   TR_OK       *ret_media is owned by the caller: media->ops->close() it, on the loop's thread
 *   TR_INVALID  says which setting is wrong, and never shows a secret
 */
enum tr_rc s3_media_open(struct loop *loop, const char *url, const struct s3_options *options, struct media **ret_media,
                         struct tr_err *err) TR_MUST_CHECK;

#endif
