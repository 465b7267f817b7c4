/*
 * timeline - which of the hosts may be used.
 * A promotion begins a new timeline.  So where the old primary came back and two hosts take writes, the one with the higher
 * timeline is right, and the other, and every replica that follows it, is refused.  Two with the same timeline (two replicas
 * were promoted) can't be told apart: both are refused.  A server of another database system is none of ours.
 *
 * The newest timeline is remembered as long as the process lives, and is written into the old primary itself (the setting
 * MARK): a process that reaches only that one reads it there.
 *
 * An old primary may be the first to answer: a host that came up is used once all others have been asked after it, or
 * don't answer.
 */
#include "adapter/postgres/impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define HEAR_MS 2000 /* a host that says nothing for so long is not waited for */
#define MARK "postgres_newest_timeline"

/*
 * Recovery, schema's version (0: none), wall clock in milliseconds; system, timeline, start of the server in microseconds.
 * A replica tells the newest timeline that it knows itself to be on; some of that it knows late, and it never tells too much.
 */
const char pg_probe_sql[] =
    "SELECT pg_is_in_recovery()::int::int8, to_regclass('schema_version') IS NOT NULL AND has_table_privilege("
    "current_user, to_regclass('schema_version'), 'SELECT'), (extract(epoch FROM clock_timestamp()) * 1000)::int8,"
    " (SELECT system_identifier FROM pg_control_system())::int8,"
    " CASE WHEN pg_is_in_recovery() THEN greatest((SELECT timeline_id FROM pg_control_checkpoint()),"
    " (SELECT min_recovery_end_timeline FROM pg_control_recovery()), (SELECT received_tli FROM "
    "pg_stat_wal_receiver))::int8"
    " ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int8 END,"
    " (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::int8";
const char pg_version_sql[] =
    "SELECT coalesce(max(version), 0)::int8, (SELECT value FROM settings WHERE key = '" MARK "') FROM schema_version";
const char pg_mark_sql[] =
    "INSERT INTO settings (key, value) VALUES ('" MARK "', $1) ON CONFLICT (key) DO UPDATE SET value = excluded.value";

void pg_told(struct pg_link *l, uint64_t system, uint64_t timeline, uint64_t started)
{
    if (l->system != system)
        l->newest = 0;
    l->system = system;
    l->timeline = timeline;
    l->started = started;
    l->marked = 0;
    if (timeline > l->newest)
        l->newest = timeline;
}

void pg_told_mark(struct pg_link *l, const char *text)
{
    uint64_t system, timeline;

    /* one that was restored from another system's copy says nothing */
    if (sscanf(text, "%" SCNu64 "/%" SCNu64, &system, &timeline) != 2 || system != l->system)
        return;
    l->marked = timeline;
    if (timeline > l->newest)
        l->newest = timeline;
}

/* Ours: that of the first operation; before it, of the first host in the URL that is up. */
static uint64_t our_system(const struct postgres_catalogue *c)
{
    uint64_t system = c->system;

    for (size_t i = 0; i < c->url.hosts && system == 0; i++)
        if (c->link[i].state == PG_UP)
            system = c->link[i].system;
    return system;
}

uint64_t pg_newest(const struct postgres_catalogue *c)
{
    const uint64_t system = our_system(c);
    uint64_t newest = 0;

    for (size_t i = 0; i < c->url.hosts; i++)
        if (c->link[i].system == system && c->link[i].newest > newest)
            newest = c->link[i].newest;
    return newest;
}

/* Another host takes writes on the same timeline, and is not the same server by another name. */
static bool has_twin(const struct pg_link *l)
{
    const struct postgres_catalogue *const c = l->c;

    for (size_t i = 0; i < c->url.hosts; i++) {
        const struct pg_link *const o = &c->link[i];

        if (o != l && o->state == PG_UP && o->primary && o->system == l->system && o->timeline == l->timeline &&
            o->started != l->started)
            return true;
    }
    return false;
}

/* All others were asked since this one came up, or don't answer. */
static bool others_heard(const struct pg_link *l)
{
    const struct postgres_catalogue *const c = l->c;

    if (loop_now_ms(c->loop) - l->up_ms >= HEAR_MS)
        return true;
    for (size_t i = 0; i < c->url.hosts; i++) {
        const struct pg_link *const o = &c->link[i];

        if (o == l)
            continue;
        if (o->state == PG_UP ? o->heard < l->up_turn : o->state == PG_ASKING || o->trouble == TR_OK)
            return false;
    }
    return true;
}

void pg_came_up(struct pg_link *l)
{
    struct postgres_catalogue *const c = l->c;

    l->up_ms = loop_now_ms(c->loop);
    l->up_turn = l->heard = ++c->up_turns;
    for (size_t i = 0; i < c->url.hosts; i++)
        c->link[i].ask_now = &c->link[i] != l && c->link[i].state == PG_UP;
}

enum pg_standing pg_standing(const struct pg_link *l)
{
    if (l->system != our_system(l->c))
        return PG_FOREIGN;
    if (l->timeline < pg_newest(l->c))
        return PG_OLD;
    if (l->primary && has_twin(l))
        return PG_TWIN;
    return others_heard(l) ? PG_GOOD : PG_UNSURE;
}

void pg_standing_text(const struct pg_link *l, char *out, size_t size)
{
    char where[96];

    pg_where(l, where);
    switch (pg_standing(l)) {
    case PG_FOREIGN:
        snprintf(out, size,
                 "%s is another database system: take it out of TROUPE_CATALOGUE, or restart Troupe if it took the "
                 "place of ours",
                 where);
        return;
    case PG_OLD:
        snprintf(out, size, "%s is %s (timeline %" PRIu64 ", newest %" PRIu64 ") and is not used: %s", where,
                 l->primary ? "an old primary that came back" : "a replica of an old primary", l->timeline,
                 pg_newest(l->c),
                 l->primary ? "stop it, then make it a replica (pg_rewind)" : "let it follow the new one");
        return;
    case PG_TWIN:
        snprintf(out, size,
                 "%s and another host take writes on the same timeline %" PRIu64 ": stop the one that is wrong", where,
                 l->timeline);
        return;
    case PG_UNSURE:
    case PG_GOOD:
        out[0] = '\0';
        return;
    }
}
