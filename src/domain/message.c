/* message - see message.h.  0xff | version 1 | ref 16 | n 1 | n times (id 16, type 1) | text */
#include "domain/message.h"

#include <assert.h>
#include <sodium.h>
#include <string.h>

#define CHAT_AT (MEDIA_FILE_NAME + 1) /* in a mark's name */
#define REF_AT (CHAT_AT + 36 + 1)

#define MARK 0xff /* no UTF-8 has it */
#define VERSION 1
#define HEAD (2 + MESSAGE_REF + 1)

enum tr_rc message_encode(const struct message *m, struct buf *out)
{
    const size_t before = out->len;

    assert(m->media_n <= MESSAGE_MEDIA_MAX);
    if (m->media_n > 0) {
        buf_add_u8(out, MARK);
        buf_add_u8(out, VERSION);
        buf_add(out, m->ref, sizeof m->ref);
        buf_add_u8(out, (uint8_t)m->media_n);
        buf_add(out, m->media, m->media_n * sizeof *m->media);
    }
    if (m->len > 0)
        buf_add(out, m->text, m->len);
    if (!out->failed)
        return TR_OK;
    out->len = before;
    return TR_NOMEM;
}

enum tr_rc message_decode(const void *data, size_t len, struct message *ret_message, struct tr_err *err)
{
    const uint8_t *const p = data;
    struct message m = {.text = "", .len = len};
    size_t head = 0;

    if (len > 0 && p[0] == MARK) {
        if (len < HEAD || p[1] != VERSION)
            return tr_fail(err, TR_INVALID, "message: cut, or of an unknown version");
        m.media_n = p[HEAD - 1];
        head = HEAD + m.media_n * sizeof *m.media;
        if (m.media_n == 0 || m.media_n > MESSAGE_MEDIA_MAX || head > len)
            return tr_fail(err, TR_INVALID, "message: cut, or with too many media");
        memcpy(m.ref, p + 2, sizeof m.ref);
        m.media = (const struct message_media *)(p + HEAD); /* bytes all of them: no alignment is needed */
    }
    if (len > head)
        m.text = (const char *)p + head;
    m.len = len - head;
    *ret_message = m;
    return TR_OK;
}

void message_tell(const struct message_media *media, size_t n, const char *text, size_t len, struct buf *out)
{
    static const struct {
        enum media_kind kind;
        const char *one, *many;
    } words[] = {
        {MEDIA_IMAGE, "an image", "images"},
        {MEDIA_AUDIO, "an audio file", "audio files"},
        {MEDIA_VIDEO, "a video", "videos"},
        {MEDIA_OTHER, "a file", "files"},
    };
    size_t told = 0;

    if (n > 0)
        buf_add_str(out, "[The user attached ");
    for (size_t w = 0; n > 0 && w < sizeof words / sizeof words[0]; w++) {
        size_t count = 0;

        for (size_t i = 0; i < n; i++)
            count += media_kind((enum media_type)media[i].type) == words[w].kind;
        if (count == 0)
            continue;
        if (told > 0)
            buf_add_str(out, told + count == n ? " and " : ", ");
        if (count == 1)
            buf_add_str(out, words[w].one);
        else
            buf_printf(out, "%zu %s", count, words[w].many);
        told += count;
    }
    if (n > 0)
        buf_add_str(out, len > 0 ? ".]\n" : ".]");
    if (len > 0)
        buf_add(out, text, len);
}

void message_mark_name(const struct uuid *owner, const struct uuid *id, const struct uuid *chat,
                       const uint8_t ref[MESSAGE_REF], char ret_name[MESSAGE_MARK_NAME + 1])
{
    media_file_name(owner, id, ret_name);
    ret_name[MEDIA_FILE_NAME] = '.';
    uuid_format(chat, ret_name + CHAT_AT);
    ret_name[REF_AT - 1] = '.';
    sodium_bin2hex(ret_name + REF_AT, 2 * MESSAGE_REF + 1, ref, MESSAGE_REF);
}

bool message_mark_read(const char *name, struct uuid *ret_chat, uint8_t ret_ref[MESSAGE_REF])
{
    return strlen(name) == MESSAGE_MARK_NAME && name[MEDIA_FILE_NAME] == '.' && name[REF_AT - 1] == '.' &&
           uuid_parse(name + CHAT_AT, 36, ret_chat) &&
           sodium_hex2bin(ret_ref, MESSAGE_REF, name + REF_AT, 2 * MESSAGE_REF, NULL, NULL, NULL) == 0;
}
