/* queue_broker_fixture - see the header. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "adapter/rabbitmq/queue.h"
#include "base/url.h"
#include "domain/hrw.h"
#include "queue_broker_fixture.h"

#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

void broker_prefix(const char *place, char out[64])
{
    snprintf(out, 64, "test%016llx.", (unsigned long long)hrw_hash(place, strlen(place)));
}

enum tr_rc broker_open(struct loop *loop, const char *place, struct queue **ret_queue, struct tr_err *err)
{
    char url[512], prefix[64];

    broker_prefix(place, prefix);
    snprintf(url, sizeof url, "%s?prefix=%s", getenv("TROUPE_TEST_AMQP"), prefix);
    return rabbitmq_queue_open(loop, url, NULL, ret_queue, err);
}

static amqp_connection_state_t connect_plain(void)
{
    const amqp_connection_state_t conn = amqp_new_connection();
    amqp_socket_t *const socket = amqp_tcp_socket_new(conn);
    struct url u = {0};

    assert_int_equal(url_parse(getenv("TROUPE_TEST_AMQP"), 5672, &u, NULL), TR_OK);
    assert_int_equal(amqp_socket_open(socket, u.host[0].name, u.host[0].port), AMQP_STATUS_OK);
    assert_int_equal(amqp_login(conn, "/", 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, u.user, u.password).reply_type,
                     AMQP_RESPONSE_NORMAL);
    amqp_channel_open(conn, 1);
    assert_int_equal(amqp_get_rpc_reply(conn).reply_type, AMQP_RESPONSE_NORMAL);
    url_release(&u);
    return conn;
}

static bool has_cause(const amqp_message_t *m, const char *cause)
{
    for (int i = 0; i < m->properties.headers.num_entries; i++) {
        const amqp_table_entry_t *const e = &m->properties.headers.entries[i];

        if (e->key.len == 14 && memcmp(e->key.bytes, "x-troupe-cause", 14) == 0 &&
            e->value.value.bytes.len == strlen(cause) && memcmp(e->value.value.bytes.bytes, cause, strlen(cause)) == 0)
            return m->body.len > 0;
    }
    return false;
}

size_t broker_dead(const char *place, const char *cause)
{
    const amqp_connection_state_t conn = connect_plain();
    char name[80], prefix[64];
    size_t n = 0;

    broker_prefix(place, prefix);
    snprintf(name, sizeof name, "%sdead", prefix);
    for (;;) {
        const amqp_rpc_reply_t got = amqp_basic_get(conn, 1, amqp_cstring_bytes(name), false);
        amqp_message_t m;

        assert_int_equal(got.reply_type, AMQP_RESPONSE_NORMAL);
        if (got.reply.id == AMQP_BASIC_GET_EMPTY_METHOD)
            break;
        assert_int_equal(amqp_read_message(conn, 1, &m, 0).reply_type, AMQP_RESPONSE_NORMAL);
        n += has_cause(&m, cause);
        amqp_destroy_message(&m);
        amqp_maybe_release_buffers(conn);
    }
    (void)amqp_connection_close(conn, AMQP_REPLY_SUCCESS); /* what was looked at goes back */
    amqp_destroy_connection(conn);
    return n;
}

void broker_declare_old(const char *place, const char *queue)
{
    const amqp_connection_state_t conn = connect_plain();
    amqp_table_entry_t args[2] = {
        {.key = amqp_cstring_bytes("x-queue-type"), .value.kind = AMQP_FIELD_KIND_UTF8},
        {.key = amqp_cstring_bytes("x-delivery-limit"), .value = {.kind = AMQP_FIELD_KIND_I64, .value.i64 = 1000}},
    };
    char name[192], prefix[64];

    broker_prefix(place, prefix);
    snprintf(name, sizeof name, "%s%s", prefix, queue);
    args[0].value.value.bytes = amqp_cstring_bytes("quorum");
    amqp_queue_declare(conn, 1, amqp_cstring_bytes(name), false, true, false, false,
                       (amqp_table_t){.num_entries = 2, .entries = args});
    assert_int_equal(amqp_get_rpc_reply(conn).reply_type, AMQP_RESPONSE_NORMAL);
    (void)amqp_connection_close(conn, AMQP_REPLY_SUCCESS);
    amqp_destroy_connection(conn);
}

void broker_give_back(const char *place, const char *queue, size_t times)
{
    const amqp_connection_state_t conn = connect_plain();
    char name[192], prefix[64];

    broker_prefix(place, prefix);
    snprintf(name, sizeof name, "%s%s", prefix, queue);
    for (size_t i = 0; i < times; i++) {
        amqp_rpc_reply_t got;
        amqp_message_t m;

        do
            got = amqp_basic_get(conn, 1, amqp_cstring_bytes(name), false);
        while (got.reply_type == AMQP_RESPONSE_NORMAL && got.reply.id == AMQP_BASIC_GET_EMPTY_METHOD);
        assert_int_equal(got.reply_type, AMQP_RESPONSE_NORMAL);
        {
            const uint64_t tag = ((amqp_basic_get_ok_t *)got.reply.decoded)->delivery_tag;

            assert_int_equal(amqp_read_message(conn, 1, &m, 0).reply_type, AMQP_RESPONSE_NORMAL);
            amqp_destroy_message(&m);
            assert_int_equal(amqp_basic_nack(conn, 1, tag, false, true), AMQP_STATUS_OK);
        }
        amqp_maybe_release_buffers(conn);
    }
    (void)amqp_connection_close(conn, AMQP_REPLY_SUCCESS);
    amqp_destroy_connection(conn);
}

/* How many are confirmed after the frames that wait here. */
static uint64_t take_confirms(amqp_connection_state_t conn, uint64_t acked)
{
    struct pollfd fd = {.fd = amqp_get_sockfd(conn), .events = POLLIN};

    if (!amqp_frames_enqueued(conn) && !amqp_data_in_buffer(conn))
        assert_int_equal(poll(&fd, 1, 20000), 1);
    for (;;) {
        struct timeval now = {0};
        amqp_frame_t f;
        const int got = amqp_simple_wait_frame_noblock(conn, &f, &now);

        if (got == AMQP_STATUS_TIMEOUT)
            break;
        assert_int_equal(got, AMQP_STATUS_OK);
        if (f.frame_type == AMQP_FRAME_METHOD) {
            const amqp_basic_ack_t *const ack = f.payload.method.decoded;

            assert_int_equal(f.payload.method.id, AMQP_BASIC_ACK_METHOD);
            acked = ack->multiple ? ack->delivery_tag : acked + 1;
        }
    }
    amqp_maybe_release_buffers(conn);
    return acked;
}

void broker_publish_bare(const char *place, const char *queue, size_t n, size_t window, size_t size)
{
    const amqp_connection_state_t conn = connect_plain();
    const amqp_basic_properties_t props = {._flags = AMQP_BASIC_DELIVERY_MODE_FLAG, .delivery_mode = 2};
    uint64_t sent = 0, acked = 0;
    void *const body = calloc(1, size);
    char name[192], prefix[64];

    assert_non_null(body);
    broker_prefix(place, prefix);
    snprintf(name, sizeof name, "%s%s", prefix, queue);
    amqp_confirm_select(conn, 1);
    assert_int_equal(amqp_get_rpc_reply(conn).reply_type, AMQP_RESPONSE_NORMAL);
    while (acked < n) {
        for (; sent < n && sent - acked < window; sent++)
            assert_int_equal(amqp_basic_publish(conn, 1, amqp_empty_bytes, amqp_cstring_bytes(name), true, false,
                                                &props, (amqp_bytes_t){.len = size, .bytes = body}),
                             AMQP_STATUS_OK);
        acked = take_confirms(conn, acked);
    }
    free(body);
    (void)amqp_connection_close(conn, AMQP_REPLY_SUCCESS);
    amqp_destroy_connection(conn);
}
