/* handshake - Sec-WebSocket-Accept: base64 of SHA-1 (RFC 3174) of the key and a fixed text. */
#include "role/gateway/frame.h"

#include <sodium.h>
#include <string.h>

static uint32_t rotate(uint32_t v, unsigned n)
{
    return v << n | v >> (32 - n);
}

static void sha1_block(uint32_t h[5], const uint8_t block[64])
{
    uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];

    for (unsigned i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 |
               block[4 * i + 3];
    for (unsigned i = 16; i < 80; i++)
        w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    for (unsigned i = 0; i < 80; i++) {
        const uint32_t f = i < 20 ? (b & c) | (~b & d) : i < 40 || i >= 60 ? b ^ c ^ d : (b & c) | (b & d) | (c & d);
        const uint32_t k = i < 20 ? 0x5a827999 : i < 40 ? 0x6ed9eba1 : i < 60 ? 0x8f1bbcdc : 0xca62c1d6;
        const uint32_t t = rotate(a, 5) + f + e + k + w[i];

        e = d;
        d = c;
        c = rotate(b, 30);
        b = a;
        a = t;
    }
    h[0] += a;
    h[1] += b;
    h[2] += c;
    h[3] += d;
    h[4] += e;
}

static void sha1(const uint8_t *data, size_t len, uint8_t ret_hash[20])
{
    uint32_t h[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    uint8_t block[64] = {0};
    size_t at = 0;

    for (; len - at >= 64; at += 64)
        sha1_block(h, data + at);
    memcpy(block, data + at, len - at);
    block[len - at] = 0x80;
    if (len - at >= 56) {
        sha1_block(h, block);
        memset(block, 0, sizeof block);
    }
    for (unsigned i = 0; i < 8; i++)
        block[56 + i] = (uint8_t)(((uint64_t)len * 8) >> (56 - 8 * i));
    sha1_block(h, block);
    for (unsigned i = 0; i < 20; i++)
        ret_hash[i] = (uint8_t)(h[i / 4] >> (24 - 8 * (i % 4)));
}

void frame_accept(const char *key, size_t len, char ret_text[FRAME_ACCEPT_TEXT])
{
    static const char magic[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    uint8_t text[128], hash[20];

    if (len > sizeof text - sizeof magic)
        len = sizeof text - sizeof magic; /* a key has 24 bytes: checked by the caller */
    memcpy(text, key, len);
    memcpy(text + len, magic, sizeof magic - 1);
    sha1(text, len + sizeof magic - 1, hash);
    sodium_bin2base64(ret_text, FRAME_ACCEPT_TEXT, hash, sizeof hash, sodium_base64_VARIANT_ORIGINAL);
}
