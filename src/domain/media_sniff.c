/*
 * media_sniff - a file's type by its content.  A short table of the types that are taken, and of nothing else: SVG and
 * HTML, which carry programs, have no place in it.  Where a container may hold sound or a picture that moves (Ogg, WebM, MP4),
 * its beginning tells which.
 */
#include "domain/media.h"

#include <string.h>

static const struct {
    const char *name, *extension;
    enum media_kind kind;
} types[MEDIA_TYPE_COUNT] = {
    [MEDIA_NONE] = {"application/octet-stream", "bin", MEDIA_OTHER},
    [MEDIA_PNG] = {"image/png", "png", MEDIA_IMAGE},
    [MEDIA_JPEG] = {"image/jpeg", "jpg", MEDIA_IMAGE},
    [MEDIA_GIF] = {"image/gif", "gif", MEDIA_IMAGE},
    [MEDIA_WEBP] = {"image/webp", "webp", MEDIA_IMAGE},
    [MEDIA_MP3] = {"audio/mpeg", "mp3", MEDIA_AUDIO},
    [MEDIA_OGG] = {"audio/ogg", "ogg", MEDIA_AUDIO},
    [MEDIA_WAV] = {"audio/wav", "wav", MEDIA_AUDIO},
    [MEDIA_FLAC] = {"audio/flac", "flac", MEDIA_AUDIO},
    [MEDIA_M4A] = {"audio/mp4", "m4a", MEDIA_AUDIO},
    [MEDIA_MP4] = {"video/mp4", "mp4", MEDIA_VIDEO},
    [MEDIA_WEBM] = {"video/webm", "webm", MEDIA_VIDEO},
    [MEDIA_OGV] = {"video/ogg", "ogv", MEDIA_VIDEO},
    [MEDIA_WEBM_AUDIO] = {"audio/webm", "weba", MEDIA_AUDIO},
};

static size_t known(enum media_type type)
{
    return (unsigned)type < MEDIA_TYPE_COUNT ? (size_t)type : MEDIA_NONE;
}

const char *media_type_name(enum media_type type)
{
    return types[known(type)].name;
}

const char *media_extension(enum media_type type)
{
    return types[known(type)].extension;
}

enum media_kind media_kind(enum media_type type)
{
    return types[known(type)].kind;
}

static bool at(const uint8_t *data, size_t len, size_t offset, const char *bytes, size_t n)
{
    return data != NULL && len >= offset + n && memcmp(data + offset, bytes, n) == 0;
}
#define AT(offset, literal) at(data, len, (offset), (literal), sizeof(literal) - 1)

static bool holds(const uint8_t *data, size_t len, const char *bytes, size_t n)
{
    return data != NULL && len >= n && memmem(data, len, bytes, n) != NULL;
}

/* An MPEG audio frame's first four bytes: layer III with a bit rate and a sample rate that exist. */
static bool mp3_frame(const uint8_t *p, size_t len)
{
    return len >= 4 && p[0] == 0xff && (p[1] & 0xe0) == 0xe0 && (p[1] & 0x18) != 0x08 && (p[1] & 0x06) == 0x02 &&
           (p[2] & 0xf0) != 0xf0 && (p[2] & 0xf0) != 0 && (p[2] & 0x0c) != 0x0c;
}

/* An ISO media file: its brand, and what its handlers say where the table of contents comes first. */
static enum media_type sniff_mp4(const uint8_t *data, size_t len)
{
    static const char *const video[] = {"isom", "iso2", "iso4", "iso5", "iso6", "mp41", "mp42",
                                        "avc1", "M4V ", "M4VH", "M4VP", "mmp4", "MSNV", "dash"};

    if (AT(8, "M4A ") || AT(8, "M4B "))
        return MEDIA_M4A;
    for (size_t i = 0; i < sizeof video / sizeof video[0]; i++)
        if (at(data, len, 8, video[i], 4))
            return holds(data, len, "soun", 4) && !holds(data, len, "vide", 4) && holds(data, len, "mdia", 4) &&
                           holds(data, len, "mdat", 4)
                       ? MEDIA_M4A
                       : MEDIA_MP4;
    return MEDIA_NONE;
}

/* EBML with the DocType "webm" in its head; plain Matroska is not taken. */
static enum media_type sniff_webm(const uint8_t *data, size_t len)
{
    if (!holds(data, len < 64 ? len : 64, "\x42\x82\x84webm", 7))
        return MEDIA_NONE;
    return holds(data, len, "V_VP", 4) || holds(data, len, "V_AV1", 5) || !holds(data, len, "A_", 2) ? MEDIA_WEBM
                                                                                                     : MEDIA_WEBM_AUDIO;
}

enum media_type media_sniff(const uint8_t *data, size_t len)
{
    if (data == NULL || len < 4)
        return MEDIA_NONE;
    if (len > MEDIA_SNIFF)
        len = MEDIA_SNIFF;
    if (AT(0, "\x89PNG\r\n\x1a\n"))
        return AT(12, "IHDR") ? MEDIA_PNG : MEDIA_NONE;
    if (AT(0, "\xff\xd8\xff"))
        return MEDIA_JPEG;
    if (AT(0, "GIF87a") || AT(0, "GIF89a"))
        return MEDIA_GIF;
    if (AT(0, "RIFF"))
        return AT(8, "WEBPVP8") ? MEDIA_WEBP : AT(8, "WAVE") ? MEDIA_WAV : MEDIA_NONE;
    if (AT(0, "fLaC"))
        return MEDIA_FLAC;
    if (AT(0, "OggS"))
        return holds(data, len, "\x80theora", 7) ? MEDIA_OGV : MEDIA_OGG;
    if (AT(0, "\0\0") && AT(4, "ftyp")) /* the size before it is small: no text stands there */
        return sniff_mp4(data, len);
    if (AT(0, "\x1a\x45\xdf\xa3"))
        return sniff_webm(data, len);
    if (AT(0, "ID3"))
        return len >= 10 && data[3] >= 2 && data[3] <= 4 && ((data[6] | data[7] | data[8] | data[9]) & 0x80) == 0
                   ? MEDIA_MP3
                   : MEDIA_NONE;
    return mp3_frame(data, len) ? MEDIA_MP3 : MEDIA_NONE;
}
