/* history_race - many writers at one place at once: one of them wins, and the others are told what stands. */
#include "history_race.h"

#include "history_fixture.h"

#include <stdio.h>

/* 64 at once with the same head: one wins; then the losers, with the new head, until all are in. */
void history_race_accept(void **state)
{
    enum { RACERS = 64 };
    static struct history_accept acc[RACERS];
    static struct answer answers[RACERS];
    struct store *s = store_new("race");
    struct history_chat chat = a_chat(an_id(T0), T0);
    bool in[RACERS] = {0};
    char client[17];
    struct answer a = {0};

    (void)state;
    make_chat(s, &chat);
    for (unsigned round = 0; round < RACERS; round++) {
        unsigned winners = 0, winner = 0;

        for (unsigned i = 0; i < RACERS; i++) {
            snprintf(client, sizeof client, "client-%u", i);
            acc[i] = an_accept(&chat, T0 + 10, client, "words");
            answers[i] = (struct answer){.w = {.loop = s->loop}};
            wait_started(&answers[i].w, s->h->ops->accept(s->h, &acc[i], on_accept_answer, &answers[i],
                                                          &answers[i].w.op, &answers[i].w.err));
        }
        for (unsigned i = 0; i < RACERS; i++) {
            support_count(s->loop, &answers[i].w.calls, 1);
            assert_int_equal(answers[i].w.rc, TR_OK);
            switch (answers[i].accepted.outcome) {
            case ACCEPT_DONE:
                winner = i;
                winners++;
                assert_false(in[i]);
                break;
            case ACCEPT_KNOWN:
                assert_true(in[i]);
                break;
            case ACCEPT_MOVED:
                assert_false(in[i]);
                break;
            }
        }
        assert_int_equal(winners, 1);
        for (unsigned i = 0; i < RACERS; i++)
            assert_true(uuid_eq(&answers[i].accepted.head, &acc[winner].row.turn) || i < winner);
        in[winner] = true;
        chat.head = acc[winner].row.turn;
        chat.index++;
    }
    assert_int_equal(do_chat_get(s, &chat.chat, &a), TR_OK);
    assert_int_equal(a.chat.index, RACERS);
    assert_int_equal(a.chat.change, 1 + RACERS);
    store_free(s);
}

/* 64 attempts at one variant at once: one is stored, and all the others are given it. */
void history_race_append(void **state)
{
    enum { RACERS = 64 };
    static struct answer answers[RACERS];
    struct store *s = store_new("append-race");
    struct history_chat chat = a_chat(an_id(T0), T0);
    unsigned winners = 0;
    uint64_t winner = 0;

    (void)state;
    make_chat(s, &chat);
    make_turn(s, &chat, T0 + 10, "client-1");
    for (unsigned i = 0; i < RACERS; i++) {
        struct turn_row row = a_row(&chat, chat.head, PART_FIRST_VARIANT, "reply");

        row.attempt = i + 1;
        answers[i] = (struct answer){.w = {.loop = s->loop}};
        wait_started(&answers[i].w, s->h->ops->append(s->h, &row, 1, on_append_answer, &answers[i], &answers[i].w.op,
                                                      &answers[i].w.err));
    }
    for (unsigned i = 0; i < RACERS; i++) {
        support_count(s->loop, &answers[i].w.calls, 1);
        assert_int_equal(answers[i].w.rc, TR_OK);
        if (answers[i].mine) {
            winners++;
            winner = i + 1;
        }
    }
    assert_int_equal(winners, 1);
    for (unsigned i = 0; i < RACERS; i++) {
        if (!answers[i].mine)
            assert_int_equal(answers[i].rows[0].attempt, winner);
        answer_release(&answers[i]);
    }
    store_free(s);
}
