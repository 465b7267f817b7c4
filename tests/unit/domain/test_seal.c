/* Tests of domain/seal: what opens, and above all what does not. */
#include "domain/seal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define HEX_A "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
#define HEX_B "ffeeddccbbaa99887766554433221100FFEEDDCCBBAA99887766554433221100"

static int setup(void **state)
{
    (void)state;
    return seal_init(NULL) == TR_OK ? 0 : -1;
}

static struct seal_master *master_of(const char *text)
{
    struct seal_master *m = NULL;
    struct tr_err err = {0};

    if (seal_master_parse(text, strlen(text), &m, &err) != TR_OK)
        fail_msg("%s", err.msg);
    return m;
}

static struct seal_bind bind_of(void)
{
    struct seal_bind b = {.kind = SEAL_HISTORY, .part = -1, .rev = 2, .role = 1};

    memset(b.chat.b, 0xc, 16);
    memset(b.turn.b, 0xd, 16);
    return b;
}

static void opens_only_where_it_belongs(void **state)
{
    static const char words[] = "the words of a user";
    struct seal_bind bind = bind_of(), wrong[7];
    struct seal_key key, other, impostor;
    struct buf sealed = {0}, plain = {0};
    struct uuid id;
    struct tr_err err;

    (void)state;
    seal_key_new(1700000000000, &key);
    seal_key_new(1700000000000, &other);
    impostor = other;
    impostor.id = key.id;
    assert_true(uuid_ms(&key.id) == 1700000000000);
    assert_memory_not_equal(key.key, other.key, 32);
    buf_add_str(&sealed, "before");
    assert_int_equal(seal_data(&key, &bind, words, sizeof words, &sealed), TR_OK);
    assert_int_equal(sealed.len, 6 + sizeof words + SEAL_OVERHEAD);
    assert_null(memmem(sealed.data, sealed.len, "words", 5));
    assert_true(seal_key_id(sealed.data + 6, sealed.len - 6, &id) && uuid_eq(&id, &key.id));
    buf_add_str(&plain, "-");
    assert_int_equal(seal_open(&key, &bind, sealed.data + 6, sealed.len - 6, &plain, &err), TR_OK);
    assert_int_equal(plain.len, 1 + sizeof words);
    assert_memory_equal(plain.data + 1, words, sizeof words);

    for (size_t i = 0; i < 7; i++)
        wrong[i] = bind;
    wrong[0].kind = SEAL_QUEUE;
    wrong[1].chat.b[15] ^= 1;
    wrong[2].turn.b[0] ^= 1;
    wrong[3].part++;
    wrong[4].rev++;
    wrong[5].role++;
    wrong[6].part = bind.rev; /* swapped */
    wrong[6].rev = bind.part;
    for (size_t i = 0; i < 7; i++) {
        assert_int_equal(seal_open(&key, &wrong[i], sealed.data + 6, sealed.len - 6, &plain, &err), TR_INVALID);
        assert_string_equal(err.msg, "sealed data: altered, or not of this place");
    }
    assert_int_equal(seal_open(&other, &bind, sealed.data + 6, sealed.len - 6, &plain, &err), TR_INVALID);
    assert_string_equal(err.msg, "sealed data: sealed with another key");
    assert_int_equal(seal_open(&impostor, &bind, sealed.data + 6, sealed.len - 6, &plain, &err), TR_INVALID);
    for (size_t i = 6; i < sealed.len; i++) { /* every byte matters */
        sealed.data[i] ^= 0x40;
        assert_int_equal(seal_open(&key, &bind, sealed.data + 6, sealed.len - 6, &plain, NULL), TR_INVALID);
        sealed.data[i] ^= 0x40;
    }
    for (size_t len = 0; len < sealed.len - 6; len++)
        assert_int_equal(seal_open(&key, &bind, sealed.data + 6, len, &plain, NULL), TR_INVALID);
    assert_int_equal(plain.len, 1 + sizeof words); /* untouched by all of them */
    buf_release(&sealed);
    buf_release(&plain);
}

static void empty_and_fresh(void **state)
{
    struct seal_bind bind = bind_of();
    struct seal_key key;
    struct buf a = {0}, b = {0}, plain = {0};
    uint8_t zeros[sizeof key] = {0};

    (void)state;
    seal_key_new(1, &key);
    assert_int_equal(seal_data(&key, &bind, NULL, 0, &a), TR_OK);
    assert_int_equal(a.len, SEAL_OVERHEAD);
    assert_int_equal(seal_open(&key, &bind, a.data, a.len, &plain, NULL), TR_OK);
    assert_int_equal(plain.len, 0);
    assert_int_equal(seal_data(&key, &bind, NULL, 0, &b), TR_OK);
    assert_memory_not_equal(a.data, b.data, a.len); /* never a nonce twice */
    seal_key_wipe(&key);
    assert_memory_equal(&key, zeros, sizeof key);
    buf_release(&a);
    buf_release(&b);
    buf_release(&plain);
}

static void master_files(void **state)
{
    static const struct {
        const char *name, *text, *cause;
    } rows[] = {
        {"one", "1:" HEX_A, NULL},
        {"several, comments, blanks", "# keys\r\n\r\n  2:" HEX_B " \n1:" HEX_A "\n", NULL},
        {"empty", "", "master key: no version in it"},
        {"comment only", "# 1:" HEX_A "\n", "master key: no version in it"},
        {"no version", HEX_A, "master key: line 1: must be version:64 hex digits, the version from 1"},
        {"version 0", "0:" HEX_A, "master key: line 1: must be version:64 hex digits, the version from 1"},
        {"version too long", "1234567890:" HEX_A,
         "master key: line 1: must be version:64 hex digits, the version from 1"},
        {"negative", "-1:" HEX_A, "master key: line 1: must be version:64 hex digits, the version from 1"},
        {"short", "#\n1:" HEX_A "\n2:abcd", "master key: line 3: the key must have 64 hex digits"},
        {"long", "1:" HEX_A "0", "master key: line 1: the key must have 64 hex digits"},
        {"no hex", "1:g00102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
         "master key: line 1: the key must have 64 hex digits"},
        {"zeros", "1:0000000000000000000000000000000000000000000000000000000000000000",
         "master key: line 1: the key is all zeros"},
        {"twice", "1:" HEX_A "\n1:" HEX_B, "master key: line 2: this version stands there twice"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct seal_master *m = NULL;
        struct tr_err err = {0};
        enum tr_rc rc = seal_master_parse(rows[i].text, strlen(rows[i].text), &m, &err);

        if (rc != (rows[i].cause == NULL ? TR_OK : TR_INVALID) ||
            strcmp(err.msg, rows[i].cause ? rows[i].cause : "") != 0)
            fail_msg("%s: %s, %s", rows[i].name, tr_rc_name(rc), err.msg);
        assert_true((m != NULL) == (rc == TR_OK));
        seal_master_free(m);
    }
}

static void too_many_versions(void **state)
{
    struct buf text = {0};
    struct seal_master *m = NULL;
    struct tr_err err;

    (void)state;
    for (int v = 65; v >= 1; v--)
        buf_printf(&text, "%d:%s\n", v, HEX_A);
    assert_int_equal(seal_master_parse((const char *)text.data, text.len, &m, &err), TR_INVALID);
    assert_string_equal(err.msg, "master key: line 65: too many versions");
    buf_release(&text);
}

static void generated_file_is_read(void **state)
{
    struct buf a = {0}, b = {0};
    struct seal_master *m;

    (void)state;
    assert_int_equal(seal_master_generate(&a), TR_OK);
    assert_int_equal(seal_master_generate(&b), TR_OK);
    assert_string_not_equal(buf_str(&a), buf_str(&b));
    m = master_of(buf_str(&a));
    seal_master_free(m);
    buf_wipe(&a);
    buf_wipe(&b);
}

static void wraps_for_one_owner(void **state)
{
    struct seal_master *old = master_of("1:" HEX_A), *both = master_of("2:" HEX_B "\n1:" HEX_A),
                       *new = master_of("2:" HEX_B);
    struct seal_master *fake = master_of("1:" HEX_B);
    struct seal_key key, back;
    struct buf wrapped = {0}, newer = {0};
    char long_id[130];
    struct tr_err err;

    (void)state;
    memset(long_id, 'x', sizeof long_id - 1);
    long_id[sizeof long_id - 1] = '\0';
    seal_key_new(5, &key);
    assert_int_equal(seal_wrap(old, &key, SEAL_OWNER_CHAT, "a-chat", &wrapped), TR_OK);
    assert_true(wrapped.len <= SEAL_WRAPPED_MAX);
    assert_null(memmem(wrapped.data, wrapped.len, key.key, 32));
    assert_int_equal(seal_unwrap(both, wrapped.data, wrapped.len, SEAL_OWNER_CHAT, "a-chat", &back, NULL), TR_OK);
    assert_memory_equal(&back, &key, sizeof key);
    assert_int_equal(seal_wrap(both, &key, SEAL_OWNER_CHAT, "a-chat", &newer), TR_OK); /* by the newest */
    assert_int_equal(seal_unwrap(new, newer.data, newer.len, SEAL_OWNER_CHAT, "a-chat", &back, NULL), TR_OK);

    assert_int_equal(seal_unwrap(new, wrapped.data, wrapped.len, SEAL_OWNER_CHAT, "a-chat", &back, &err), TR_INVALID);
    assert_string_equal(err.msg, "wrapped key: version 1 of the master key is not in the key file");
    assert_int_equal(seal_unwrap(old, wrapped.data, wrapped.len, SEAL_OWNER_USER, "a-chat", &back, &err), TR_INVALID);
    assert_string_equal(err.msg, "wrapped key: altered, of another owner, or of another master key");
    assert_int_equal(seal_unwrap(old, wrapped.data, wrapped.len, SEAL_OWNER_CHAT, "a-chax", &back, NULL), TR_INVALID);
    assert_int_equal(seal_unwrap(old, wrapped.data, wrapped.len, SEAL_OWNER_CHAT, "a-chat-", &back, NULL), TR_INVALID);
    assert_int_equal(seal_unwrap(old, wrapped.data, wrapped.len, SEAL_OWNER_CHAT, long_id, &back, NULL), TR_INVALID);
    assert_int_equal(seal_unwrap(fake, wrapped.data, wrapped.len, SEAL_OWNER_CHAT, "a-chat", &back, NULL), TR_INVALID);
    assert_int_equal(seal_unwrap(old, wrapped.data, wrapped.len - 1, SEAL_OWNER_CHAT, "a-chat", &back, &err),
                     TR_INVALID);
    assert_string_equal(err.msg, "wrapped key: cut or of an unknown format");
    for (size_t i = 0; i < wrapped.len; i++) {
        wrapped.data[i] ^= 1;
        assert_int_equal(seal_unwrap(both, wrapped.data, wrapped.len, SEAL_OWNER_CHAT, "a-chat", &back, NULL),
                         TR_INVALID);
        wrapped.data[i] ^= 1;
    }
    assert_int_equal(seal_wrap(old, &key, SEAL_OWNER_CHAT, long_id, &wrapped), TR_INVALID);
    seal_master_free(old);
    seal_master_free(both);
    seal_master_free(new);
    seal_master_free(fake);
    buf_release(&wrapped);
    buf_release(&newer);
}

static void tokens(void **state)
{
    struct seal_master *one = master_of("1:" HEX_A), *two = master_of("1:" HEX_A "\n2:" HEX_B),
                       *other = master_of("1:" HEX_B);
    struct uuid user, back = uuid_nil;
    uint64_t expires = 7;
    char text[SEAL_TOKEN_MAX], newer[SEAL_TOKEN_MAX];
    size_t len;

    (void)state;
    memset(user.b, 0x77, 16);
    seal_token(one, &user, 1000, text);
    len = strlen(text);
    assert_int_equal(strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"), len);
    for (size_t i = 0; i < len; i++) {
        char was = text[i];

        text[i] = was == 'A' ? 'B' : 'A';
        assert_int_equal(seal_token_check(one, text, len, 0, &back, &expires), TR_INVALID);
        text[i] = was;
    }
    assert_int_equal(seal_token_check(one, text, len - 1, 0, &back, &expires), TR_INVALID);
    assert_int_equal(seal_token_check(one, text, len + 1, 0, &back, &expires), TR_INVALID);
    assert_int_equal(seal_token_check(one, "", 0, 0, &back, &expires), TR_INVALID);
    assert_int_equal(seal_token_check(other, text, len, 0, &back, &expires), TR_INVALID);
    assert_int_equal(seal_token_check(one, text, len, 1000, &back, &expires), TR_INVALID); /* past its time */
    assert_true(uuid_is_nil(&back) && expires == 7);
    assert_int_equal(seal_token_check(one, text, len, 999, &back, &expires), TR_OK);
    assert_true(uuid_eq(&back, &user) && expires == 1000);
    assert_int_equal(seal_token_check(two, text, len, 999, &back, &expires), TR_OK); /* outlives a rotation */
    seal_token(two, &user, 1000, newer);
    assert_int_equal(seal_token_check(two, newer, strlen(newer), 999, &back, &expires), TR_OK);
    assert_int_equal(seal_token_check(one, newer, strlen(newer), 999, &back, &expires), TR_INVALID);
    seal_master_free(one);
    seal_master_free(two);
    seal_master_free(other);
}

static void same_over_a_rotation(void **state)
{
    struct seal_master *one = master_of("1:" HEX_A), *two = master_of("2:" HEX_B "\n1:" HEX_A),
                       *other = master_of("1:" HEX_B);
    struct uuid scope = uuid_nil, scope2 = {{1}};
    uint8_t a[16], b[16];
    char check[33], check2[33];

    (void)state;
    seal_check_value(one, check);
    seal_check_value(two, check2);
    assert_int_equal(strlen(check), 32);
    assert_string_equal(check, check2);
    seal_check_value(other, check2);
    assert_string_not_equal(check, check2);
    seal_client_id(one, &scope, "id", 2, a);
    seal_client_id(two, &scope, "id", 2, b);
    assert_memory_equal(a, b, 16);
    seal_client_id(one, &scope2, "id", 2, b);
    assert_memory_not_equal(a, b, 16);
    seal_client_id(one, &scope, "ie", 2, b);
    assert_memory_not_equal(a, b, 16);
    seal_client_id(other, &scope, "id", 2, b);
    assert_memory_not_equal(a, b, 16);
    seal_master_free(one);
    seal_master_free(two);
    seal_master_free(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opens_only_where_it_belongs),
        cmocka_unit_test(empty_and_fresh),
        cmocka_unit_test(master_files),
        cmocka_unit_test(too_many_versions),
        cmocka_unit_test(generated_file_is_read),
        cmocka_unit_test(wraps_for_one_owner),
        cmocka_unit_test(tokens),
        cmocka_unit_test(same_over_a_rotation),
    };

    return cmocka_run_group_tests(tests, setup, NULL);
}
