/* filesystem media - the media port on a folder: <folder>/<user>/<name>, what is on its way in <folder>/.uploads. */
#ifndef ADAPTER_FILESYSTEM_MEDIA_H
#define ADAPTER_FILESYSTEM_MEDIA_H

#include "base/loop.h"
#include "port/media.h"

/*
 * Open the folder, made if it is missing.  Several processes may have the same one open.  Blocks: for start-up.
 *   TR_OK       *ret_media is owned by the caller: media->ops->close() it, on the loop's thread
 *   TR_INVALID  says what is wrong with the folder and how to mend it
 */
enum tr_rc filesystem_media_open(struct loop *loop, const char *folder, struct media **ret_media,
                                 struct tr_err *err) TR_MUST_CHECK;

#endif
