/* greeting - a new chat's first turn: the card's first message and its alternates, as variants (contract 11.17). */
#include "role/chat/desk_impl.h"

#include <stdlib.h>
#include <string.h>

#define USER_NAME "you"

void desk_greeting_release(struct desk_greeting *g)
{
    free(g->rows);
    buf_release(&g->sealed);
    *g = (struct desk_greeting){0};
}

/* One more variant; its sealed bytes go behind the others', and are pointed to when all are there. */
static enum tr_rc add(struct desk_greeting *g, const struct card *card, const char *text, const struct seal_key *key,
                      const struct history_chat *chat)
{
    struct turn_row *row = &g->rows[g->n];
    const size_t at = g->sealed.len;
    struct seal_bind bind;
    struct buf plain = {0};
    enum tr_rc rc;

    *row = (struct turn_row){.chat = chat->chat,
                             .turn = chat->head,
                             .part = PART_FIRST_VARIANT + (int32_t)g->n,
                             .speaker = SPEAKER_CHARACTER,
                             .user = chat->user,
                             .created_ms = chat->created_ms,
                             .attempt = 1,
                             .finish = FINISH_STOP};
    memcpy(row->character, chat->character, sizeof row->character);
    bind = (struct seal_bind){
        .kind = SEAL_HISTORY, .chat = row->chat, .turn = row->turn, .part = row->part, .role = SPEAKER_CHARACTER};
    card_expand(text, card->name, USER_NAME, &plain);
    rc = plain.failed ? TR_NOMEM : seal_data(key, &bind, plain.data, plain.len, &g->sealed);
    buf_wipe(&plain);
    if (rc != TR_OK)
        return rc;
    row->sealed_len = g->sealed.len - at;
    g->n++;
    return TR_OK;
}

enum tr_rc desk_greeting_make(const struct card *card, const struct seal_key *key, struct history_chat *chat,
                              struct desk_greeting *ret_greeting)
{
    const size_t max = card->greetings_n + 1 < TURN_VARIANTS_MAX ? card->greetings_n + 1 : TURN_VARIANTS_MAX;
    struct desk_greeting g = {0};
    uint8_t random[10];
    size_t at = 0;
    enum tr_rc rc;

    if (card->first_message[0] == '\0')
        return TR_OK;
    g.rows = calloc(max, sizeof *g.rows);
    if (g.rows == NULL)
        return TR_NOMEM;
    seal_random(random, sizeof random);
    chat->head = uuid_v7(chat->created_ms, random);
    rc = add(&g, card, card->first_message, key, chat);
    for (size_t i = 0; rc == TR_OK && i + 1 < max; i++)
        if (card->greetings[i][0] != '\0')
            rc = add(&g, card, card->greetings[i], key, chat);
    if (rc != TR_OK) {
        desk_greeting_release(&g);
        return rc;
    }
    for (size_t i = 0; i < g.n; i++) {
        g.rows[i].sealed = g.sealed.data + at;
        at += g.rows[i].sealed_len;
    }
    *ret_greeting = g;
    return TR_OK;
}
