/* sign - AWS signature version 4 in an Authorization header.  Signed: Host, x-amz-content-sha256, x-amz-date.  Pure. */
#include "adapter/s3/impl.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define SIGNED "host;x-amz-content-sha256;x-amz-date"

void s3_hash(const void *data, size_t len, char ret_hex[65])
{
    uint8_t hash[crypto_hash_sha256_BYTES];

    crypto_hash_sha256(hash, data, len);
    sodium_bin2hex(ret_hex, 2 * sizeof hash + 1, hash, sizeof hash);
}

void s3_date(uint64_t unix_s, char ret_date[17])
{
    const time_t t = (time_t)unix_s;
    struct tm tm = {0};

    gmtime_r(&t, &tm);
    strftime(ret_date, 17, "%Y%m%dT%H%M%SZ", &tm);
}

static void hmac(const uint8_t *key, size_t key_len, const void *data, size_t len, uint8_t ret[32])
{
    crypto_auth_hmacsha256_state st;

    crypto_auth_hmacsha256_init(&st, key, key_len);
    crypto_auth_hmacsha256_update(&st, data, len);
    crypto_auth_hmacsha256_final(&st, ret);
    sodium_memzero(&st, sizeof st);
}

void s3_query(struct buf *out, const char *name, const char *value)
{
    static const char hex[] = "0123456789ABCDEF";

    if (out->len > 0)
        buf_add_u8(out, '&');
    buf_add_str(out, name);
    buf_add_u8(out, '=');
    for (const char *p = value; *p != '\0'; p++) {
        const uint8_t c = (uint8_t)*p;

        if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || strchr("-._~", c) != NULL) {
            buf_add_u8(out, c);
        } else {
            buf_add_u8(out, '%');
            buf_add_u8(out, (uint8_t)hex[c >> 4]);
            buf_add_u8(out, (uint8_t)hex[c & 15]);
        }
    }
}

/* The key of the day, region and service, out of the secret. */
static void day_key(const struct s3_signing *s, const char *date, uint8_t ret[32])
{
    char secret[4 + 256];
    uint8_t a[32], b[32];

    snprintf(secret, sizeof secret, "AWS4%s", s->secret_key);
    hmac((const uint8_t *)secret, strlen(secret), date, 8, a);
    hmac(a, sizeof a, s->region, strlen(s->region), b);
    hmac(b, sizeof b, "s3", 2, a);
    hmac(a, sizeof a, "aws4_request", 12, ret);
    sodium_memzero(secret, sizeof secret);
    sodium_memzero(a, sizeof a);
    sodium_memzero(b, sizeof b);
}

void s3_sign(const struct s3_signing *s, struct buf *out)
{
    char date[17], hash[65], signature[65];
    struct buf text = {0};
    uint8_t key[32], mac[32];

    s3_date(s->unix_s, date);
    buf_printf(&text, "%s\n%s\n%s\nhost:%s\nx-amz-content-sha256:%s\nx-amz-date:%s\n\n" SIGNED "\n%s", s->method,
               s->path, s->query, s->host, s->hash, date, s->hash);
    s3_hash(buf_str(&text), text.len, hash);
    buf_clear(&text);
    buf_printf(&text, "AWS4-HMAC-SHA256\n%s\n%.8s/%s/s3/aws4_request\n%s", date, date, s->region, hash);
    day_key(s, date, key);
    hmac(key, sizeof key, buf_str(&text), text.len, mac);
    sodium_bin2hex(signature, 2 * sizeof mac + 1, mac, sizeof mac);
    out->failed = out->failed || text.failed;
    buf_printf(out, "AWS4-HMAC-SHA256 Credential=%s/%.8s/%s/s3/aws4_request,SignedHeaders=" SIGNED ",Signature=%s",
               s->access_key, date, s->region, signature);
    sodium_memzero(key, sizeof key);
    buf_release(&text);
}
