/*
 * role - what every role is handed, and the names of the queues between them (DESIGN.md, "A message's way").
 * A role consumes and publishes through the queue port and nothing else; it has no other way to another role.
 */
#ifndef ROLE_COMMON_ROLE_H
#define ROLE_COMMON_ROLE_H

#include "base/config.h"
#include "base/loop.h"
#include "domain/envelope.h"
#include "domain/seal.h"
#include "port/catalogue.h"
#include "port/engine.h"
#include "port/history.h"
#include "port/queue.h"
#include "port/registry.h"

struct keyring;
struct media;
struct watch;

/* All borrowed: they outlive the role. */
struct role_env {
    struct loop *loop;
    struct queue *queue;
    struct history *history;
    struct catalogue *catalogue;
    struct registry *registry;
    struct media *media; /* NULL: media are not served */
    struct keyring *keyring;
    const struct seal_master *master;
    const struct config *config;
    const struct watch *watch; /* do the stores answer?  NULL: nobody looks */
    const char *instance;      /* this process's own name, [a-z0-9]{1,24}, new at every start */
};

#define TOPIC_INCOMING "incoming"
#define TOPIC_CONTROL "control"
#define NOTIFY_PARTITIONS 8

/* "notify.<0-7>" of a chat. */
const char *topic_notify(const struct uuid *chat);
const char *topic_notify_number(unsigned n);
/* "inference.<character>.<number>" / "gateway.<instance>" into `out`. */
void topic_inference(const char *character, uint32_t number, char out[QUEUE_NAME_MAX + 1]);
void topic_gateway(const char *instance, char out[QUEUE_NAME_MAX + 1]);

/*
 * Publish an envelope: encode, hand to the queue.  transient: nobody waits, a failure is dropped (done may be NULL).
 */
enum tr_rc role_publish(const struct role_env *env, const char *topic, const struct envelope *envelope, bool transient,
                        queue_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err);
/* The same for a hop inside: durable, but nobody outside waits for the confirmation (queue_message.patient). */
enum tr_rc role_pass_on(const struct role_env *env, const char *topic, const struct envelope *envelope,
                        queue_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err);

#endif
