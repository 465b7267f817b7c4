/*
 * media - pictures, sound and video as they rest in a store: what they are (by content, never by name), and the sealed
 * form that can be read from any place.  Pure: no I/O, no clock.
 *
 *   object = head | chunk 0 | chunk 1 | … | chunk n-1
 *   head   = "TRM" version | sealed (type, size of a chunk, size of the whole, time)
 *   chunk  = sealed MEDIA_CHUNK bytes (the last one what is left)
 *
 * Each piece is sealed by domain/seal.h under the owner's data key, bound to owner, id, the piece's number and, for the
 * last one, that it is the last: one that is altered, cut, put elsewhere or in another file does not open.
 */
#ifndef DOMAIN_MEDIA_H
#define DOMAIN_MEDIA_H

#include "domain/seal.h"

#define MEDIA_CHUNK 65536u
#define MEDIA_HEAD (4 + SEAL_OVERHEAD + 24)
#define MEDIA_CHUNK_SEALED (MEDIA_CHUNK + SEAL_OVERHEAD)
#define MEDIA_SNIFF 4096u                  /* so many bytes at most tell the type */
#define MEDIA_SIZE_MAX (UINT64_C(1) << 36) /* 64 GiB */

/* The values rest in heads and in turns: they never change. */
enum media_type {
    MEDIA_NONE = 0,
    MEDIA_PNG = 1,
    MEDIA_JPEG = 2,
    MEDIA_GIF = 3,
    MEDIA_WEBP = 4,
    MEDIA_MP3 = 5,
    MEDIA_OGG = 6,
    MEDIA_WAV = 7,
    MEDIA_FLAC = 8,
    MEDIA_M4A = 9,
    MEDIA_MP4 = 10,
    MEDIA_WEBM = 11,
    MEDIA_OGV = 12,
    MEDIA_WEBM_AUDIO = 13,
    MEDIA_TYPE_COUNT
};
enum media_kind { MEDIA_OTHER, MEDIA_IMAGE, MEDIA_AUDIO, MEDIA_VIDEO };

/* What the first bytes of a file say; MEDIA_NONE: none of the types that are taken. */
enum media_type media_sniff(const uint8_t *data, size_t len);
const char *media_type_name(enum media_type type); /* "image/png"; unknown: "application/octet-stream".  Static */
const char *media_extension(enum media_type type); /* "png"; unknown: "bin".  Static */
enum media_kind media_kind(enum media_type type);

struct media_head {
    enum media_type type; /* a newer version's: MEDIA_NONE */
    uint64_t bytes;       /* of the file itself */
    uint64_t created_ms;
};

/* Its name in a store: "<owner>/<id>" (port/media.h). */
#define MEDIA_FILE_NAME 73
void media_file_name(const struct uuid *owner, const struct uuid *id, char ret_name[MEDIA_FILE_NAME + 1]);

/* Pieces of a file of so many bytes (an empty one has none, and is refused by all of these). */
uint64_t media_chunks(uint64_t bytes);
uint64_t media_sealed_size(uint64_t bytes);             /* of the whole object */
uint64_t media_chunk_at(uint64_t chunk);                /* where it begins in the object */
size_t media_chunk_len(uint64_t bytes, uint64_t chunk); /* of its content; 0: there is no such chunk */

/* Append the sealed piece.  TR_OK or TR_NOMEM. */
enum tr_rc media_seal_head(const struct seal_key *key, const struct uuid *owner, const struct uuid *id,
                           const struct media_head *head, struct buf *out) TR_MUST_CHECK;
enum tr_rc media_seal_chunk(const struct seal_key *key, const struct uuid *owner, const struct uuid *id, uint64_t bytes,
                            uint64_t chunk, const void *plain, size_t len, struct buf *out) TR_MUST_CHECK;
/*
 * Open one; chunks append their content to `out`.  `stored`: the size of the whole object in its store.
 *   TR_INVALID  altered, cut, of another place, file, owner or key, or of a version that is not known here
 */
enum tr_rc media_open_head(const struct seal_key *key, const struct uuid *owner, const struct uuid *id,
                           const void *sealed, size_t len, uint64_t stored, struct media_head *ret_head,
                           struct tr_err *err) TR_MUST_CHECK;
enum tr_rc media_open_chunk(const struct seal_key *key, const struct uuid *owner, const struct uuid *id, uint64_t bytes,
                            uint64_t chunk, const void *sealed, size_t len, struct buf *out,
                            struct tr_err *err) TR_MUST_CHECK;

#endif
