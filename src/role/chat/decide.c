/* decide - what a change comes to on the turn as it was read: a row to write, one to publish or tell again, or a refusal. */
#include "role/chat/change_impl.h"

#include <string.h>

static void bad_turn(struct change *ch, const char *why)
{
    desk_request_fail(&ch->base, "bad_request", "turn", 0, "%s", why);
}

static void write_event(struct change *ch, const struct turn_view *v, enum turn_event event, int32_t variant)
{
    ch->row = (struct turn_row){.chat = v->chat,
                                .turn = v->turn,
                                .part = PART_STATE,
                                .rev = v->next_rev,
                                .speaker = SPEAKER_SYSTEM,
                                .user = ch->base.chat->user,
                                .created_ms = wall_ms(),
                                .event = event,
                                .variant = variant,
                                .known = v->variants};
    memcpy(ch->row.character, ch->base.chat->character->id, strlen(ch->base.chat->character->id));
    change_write(&ch->base);
}

static void decide_stop(struct change *ch, const struct turn_view *v)
{
    ch->row.variant = v->variants;
    if (!ch->running)
        change_done(ch); /* nothing is to change */
    else if (v->stop)
        change_publish(&ch->base); /* marked already */
    else
        write_event(ch, v, TURN_EVENT_STOP, v->variants);
}

static void decide_regenerate(struct change *ch, const struct turn_view *v)
{
    const int32_t expected = ch->variant;

    if (v->user == NULL) {
        bad_turn(ch, "The greeting can't be regenerated.");
        return;
    }
    if (expected > 0 && expected < v->wanted) { /* a repeat: it was asked for already */
        ch->variant = expected;
        if (expected == v->variants)
            change_publish(&ch->base);
        else
            change_done(ch);
        return;
    }
    if (ch->running)
        desk_call_again(ch->base.d, ch->base.chat, &v->turn, v->variants); /* in case that nobody knows of it */
    if (ch->running || (expected >= 0 && expected != v->wanted)) {
        desk_request_fail(&ch->base, "conflict", ch->running ? NULL : "variant", 0,
                          ch->running ? "A reply to this turn is being written."
                                      : "The turn has other variants by now.");
        return;
    }
    if (v->variants >= TURN_VARIANTS_MAX) {
        bad_turn(ch, "The turn has as many variants as a turn can have.");
        return;
    }
    if (ch->races == 0 && !desk_has_room(ch->base.d)) {
        desk_request_fail(&ch->base, "overloaded", NULL, 1000, "Too many messages are waiting for their replies.");
        return;
    }
    write_event(ch, v, TURN_EVENT_REGENERATE, v->variants);
}

static void decide_choose(struct change *ch, const struct turn_view *v)
{
    if (ch->variant < 0 || ch->variant >= v->variants) {
        desk_request_fail(&ch->base, "bad_request", "variant", 0, "The turn has no such variant.");
    } else if (ch->variant == v->chosen) {
        ch->told = true; /* asked again: a kill may have come between its row and the telling */
        change_tell(&ch->base);
    } else {
        write_event(ch, v, TURN_EVENT_CHOOSE, ch->variant);
    }
}

/* The message as it stands, into ch->message.  False: the key was pushed out of the keyring since; it is read again. */
static bool read_message(struct change *ch, const struct turn_view *v)
{
    const struct seal_key *key = keyring_peek(ch->base.d->env.keyring, &v->chat);
    struct tr_err err = {0};

    ch->message = (struct message){0};
    if (v->user == NULL || (v->deleted && v->user->sealed_len == 0))
        return true;
    if (key == NULL) {
        change_read(&ch->base);
        return false;
    }
    buf_clear(&ch->plain);
    if (desk_row_message(key, v->user, &ch->plain, &ch->message, &err) != TR_OK)
        desk_damaged(ch->base.d, &v->chat, &v->turn, &err); /* it may be written anew, and deleted */
    return true;
}

/* With the media that it had. */
static enum tr_rc seal_edited(struct change *ch, const struct seal_key *key, const struct seal_bind *bind)
{
    struct message m = ch->message;
    struct buf plain = {0};
    enum tr_rc rc;

    m.text = ch->text;
    m.len = ch->len;
    rc = message_encode(&m, &plain);
    buf_clear(&ch->sealed);
    if (rc == TR_OK)
        rc = seal_data(key, bind, plain.data, plain.len, &ch->sealed);
    buf_wipe(&plain);
    return rc;
}

static void decide_edit(struct change *ch, const struct turn_view *v)
{
    const struct seal_key *key = keyring_peek(ch->base.d->env.keyring, &v->chat);
    struct seal_bind bind;
    char why[120];
    const char *code;

    if (v->user == NULL) {
        bad_turn(ch, "The greeting can't be edited.");
        return;
    }
    if (!read_message(ch, v))
        return;
    code = desk_text_check(ch->base.d, ch->text, ch->len, ch->message.media_n > 0, why);
    if (code != NULL) {
        desk_request_fail(&ch->base, code, "text", 0, "%s", why);
        return;
    }
    ch->row = *v->user;
    ch->row.rev = v->user_rev + 1;
    ch->row.created_ms = wall_ms();
    ch->row.attempt = 0;
    bind = (struct seal_bind){.kind = SEAL_HISTORY,
                              .chat = v->chat,
                              .turn = v->turn,
                              .part = PART_USER,
                              .rev = ch->row.rev,
                              .role = (uint8_t)ch->row.speaker};
    if (seal_edited(ch, key, &bind) != TR_OK)
        desk_request_broke(&ch->base, "seal", TR_NOMEM, NULL);
    else
        change_write(&ch->base);
}

void decide_change(struct change *ch, const struct turn_view *v)
{
    ch->running = v->variants < v->wanted;
    ch->work = (struct envelope){.kind = ENVELOPE_WORK,
                                 .again = true, /* but for a regeneration's first one */
                                 .chat = v->chat,
                                 .turn = v->turn,
                                 .variant = v->variants,
                                 .user = ch->base.chat->user};
    if (v->user != NULL) {
        ch->work.predecessor = v->user->predecessor;
        ch->work.index = v->user->index;
        ch->work.rev = v->user_rev;
        ch->work.created_ms = v->created_ms;
    }
    memcpy(ch->work.character, ch->base.chat->character->id, strlen(ch->base.chat->character->id));
    story_trace(&v->turn, ch->work.trace);
    switch (ch->kind) {
    case CHANGE_STOP:
        decide_stop(ch, v);
        break;
    case CHANGE_REGENERATE:
        decide_regenerate(ch, v);
        break;
    case CHANGE_CHOOSE:
        decide_choose(ch, v);
        break;
    case CHANGE_EDIT:
        decide_edit(ch, v);
        break;
    case CHANGE_DELETE:
        if (!read_message(ch, v))
            break;
        if (v->deleted)
            change_write(&ch->base); /* the event that stands */
        else
            write_event(ch, v, TURN_EVENT_DELETE, v->variants);
        break;
    }
}

/*
 * It was deleted before, and whoever did it may have been killed on the way: the same event is issued again, so that the words
 * go, and all that follows is done again.  Somebody who finds the words gone is told that there is no such turn.
 */
void decide_deleted(struct change *ch, const struct turn_view *v, const struct turn_row *rows, size_t n)
{
    ch->gone = true;
    for (size_t i = 0; i < n; i++) {
        if (rows[i].part == PART_STATE && rows[i].event == TURN_EVENT_DELETE)
            ch->row = rows[i];
        else if (rows[i].sealed_len > 0)
            ch->gone = false;
    }
    buf_clear(&ch->sealed);
    if (v->user == NULL || v->user->sealed_len == 0) /* which media it had, it does not tell any more */
        desk_media_stored(ch->base.d, &ch->base.chat->user);
    decide_change(ch, v);
}
