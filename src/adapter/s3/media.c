#include "adapter/s3/media.h"
enum tr_rc s3_media_open(struct loop *loop, const char *url, const struct s3_options *options, struct media **ret_media,
                         struct tr_err *err)
{
    (void)loop, (void)url, (void)options, (void)ret_media;
    return tr_fail(err, TR_INVALID, "not yet");
}
