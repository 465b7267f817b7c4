/* role - names of queues, and publishing an envelope. */
#include "role/common/role.h"

#include "domain/hrw.h"

#include <stdio.h>

static const char *const notify_names[NOTIFY_PARTITIONS] = {"notify.0", "notify.1", "notify.2", "notify.3",
                                                            "notify.4", "notify.5", "notify.6", "notify.7"};

const char *topic_notify(const struct uuid *chat)
{
    return notify_names[hrw_hash(chat->b, sizeof chat->b) % NOTIFY_PARTITIONS];
}

const char *topic_notify_number(unsigned n)
{
    return notify_names[n % NOTIFY_PARTITIONS];
}

void topic_inference(const char *character, uint32_t number, char out[QUEUE_NAME_MAX + 1])
{
    snprintf(out, QUEUE_NAME_MAX + 1, "inference.%s.%u", character, (unsigned)number);
}

void topic_gateway(const char *instance, char out[QUEUE_NAME_MAX + 1])
{
    snprintf(out, QUEUE_NAME_MAX + 1, "gateway.%s", instance);
}

static enum tr_rc publish(const struct role_env *env, struct queue_message *msg, const struct envelope *envelope,
                          queue_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    struct buf body = {0};
    enum tr_rc rc = envelope_encode(envelope, &body);

    if (rc == TR_OK) {
        msg->body = (struct slice){body.data, body.len};
        rc = env->queue->ops->publish(env->queue, msg, done, ctx, ret_op, err);
    }
    buf_release(&body);
    return rc;
}

enum tr_rc role_publish(const struct role_env *env, const char *topic, const struct envelope *envelope, bool transient,
                        queue_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    struct queue_message msg = {.queue = topic, .transient = transient};

    return publish(env, &msg, envelope, done, ctx, ret_op, err);
}

enum tr_rc role_pass_on(const struct role_env *env, const char *topic, const struct envelope *envelope,
                        queue_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    struct queue_message msg = {.queue = topic, .patient = true};

    return publish(env, &msg, envelope, done, ctx, ret_op, err);
}
