/* keyfile - reads or makes the master key's file. */
#include "keyfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEYFILE_MAX 65536

/* Write it beside, sync, and rename: a kill leaves either no key or a whole one. */
static enum tr_rc keyfile_make(const char *path, struct tr_err *err)
{
    char part[4096], dir[4096];
    struct buf text = {0};
    enum tr_rc rc = TR_OK;
    char *slash;
    int fd = -1;

    if (snprintf(part, sizeof part, "%s.part", path) >= (int)sizeof part)
        return tr_fail(err, TR_INVALID, "TROUPE_MASTER_KEY_FILE: path too long");
    snprintf(dir, sizeof dir, "%s", path);
    slash = strrchr(dir, '/');
    if (slash != NULL)
        *slash = '\0';
    rc = seal_master_generate(&text);
    if (rc != TR_OK)
        return rc;
    fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, text.data, text.len) != (ssize_t)text.len || fsync(fd) != 0 || rename(part, path) != 0)
        rc = tr_fail(err, TR_TRANSIENT, "cannot write the master key to %s: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
    fd = open(slash != NULL ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        if (fsync(fd) != 0 && rc == TR_OK)
            rc = tr_fail(err, TR_TRANSIENT, "cannot sync %s: %s", dir, strerror(errno));
        close(fd);
    }
    buf_wipe(&text);
    return rc;
}

enum tr_rc keyfile_load(const char *path, bool may_make, struct seal_master **ret_master, struct tr_err *err)
{
    uint8_t text[KEYFILE_MAX];
    struct seal_master *master = NULL;
    bool open_to_others;
    struct stat st;
    enum tr_rc rc;
    ssize_t len;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 && errno == ENOENT && may_make) {
        rc = keyfile_make(path, err);
        if (rc != TR_OK)
            return rc;
        fd = open(path, O_RDONLY | O_CLOEXEC);
    }
    if (fd < 0 && errno == ENOENT)
        return tr_fail(err, TR_NOT_FOUND, "no master key at %s: put back the copy that these stores were made with",
                       path);
    if (fd < 0)
        return tr_fail(err, TR_INVALID, "cannot read the master key %s: %s", path, strerror(errno));
    len = read(fd, text, sizeof text);
    open_to_others = fstat(fd, &st) == 0 && (st.st_mode & 037) != 0;
    close(fd);
    if (len < 0)
        return tr_fail(err, TR_INVALID, "cannot read the master key %s: %s", path, strerror(errno));
    rc = seal_master_parse((const char *)text, (size_t)len, &master, err);
    explicit_bzero(text, sizeof text);
    if (rc != TR_OK)
        return tr_wrap(err, rc, "TROUPE_MASTER_KEY_FILE: %s is not a key file", path);
    if (open_to_others) {
        seal_master_free(master);
        return tr_fail(err, TR_INVALID, "the master key %s may be read by others: chmod 600 %s (or 640)", path, path);
    }
    *ret_master = master;
    return TR_OK;
}
