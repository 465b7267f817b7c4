/*
 * routing - which worker a chat goes to: our rendezvous hashing (domain/hrw.h) beside a ring of 160 points a worker
 * (Karger 1997, as libketama), jump hashing (Lamping & Veach 2014) and Maglev's table (Eisenbud 2016), each written from
 * its paper.  All of equal weight, for jump and the table know no weights.  Prints a Markdown table.
 *
 * moved: of all chats, when one worker (in the middle of the list) is gone, or one more comes.  "in vain": of these, the
 * ones that neither left the lost worker nor went to the new one.  Jump numbers its workers without gaps: the last one
 * takes the lost one's number.
 */
#include "domain/hrw.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define POINTS 160
#define NODES_MAX 1001

static uint64_t seed = 7;

static uint64_t next_random(void) /* splitmix64 */
{
    uint64_t z = seed += UINT64_C(0x9E3779B97F4A7C15);

    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

struct point {
    uint64_t at;
    uint32_t node;
};

struct map {
    struct hrw_node nodes[NODES_MAX]; /* in the order of the registry's numbers */
    size_t n;
    struct point *ring;
    uint32_t *table;
    size_t table_n; /* a prime, at least 100 times the workers */
};

static void *must(void *p)
{
    if (p == NULL)
        abort();
    return p;
}

static uint64_t mix(uint64_t a, uint64_t b)
{
    const uint64_t both[2] = {a, b};

    return hrw_hash(both, sizeof both);
}

static int by_place(const void *a, const void *b)
{
    const struct point *x = a, *y = b;

    return (x->at > y->at) - (x->at < y->at);
}

static void ring_build(struct map *m)
{
    m->ring = must(malloc(m->n * POINTS * sizeof *m->ring));
    for (size_t i = 0; i < m->n; i++)
        for (size_t p = 0; p < POINTS; p++)
            m->ring[i * POINTS + p] = (struct point){mix(m->nodes[i].id, p), (uint32_t)i};
    qsort(m->ring, m->n * POINTS, sizeof *m->ring, by_place);
}

static size_t ring_choose(const struct map *m, const struct uuid *chat)
{
    const uint64_t h = hrw_hash(chat->b, sizeof chat->b);
    size_t low = 0, high = m->n * POINTS;

    while (low < high) {
        const size_t middle = (low + high) / 2;

        if (m->ring[middle].at < h)
            low = middle + 1;
        else
            high = middle;
    }
    return m->ring[low == m->n * POINTS ? 0 : low].node;
}

static size_t jump_choose(const struct map *m, const struct uuid *chat)
{
    uint64_t key = hrw_hash(chat->b, sizeof chat->b);
    int64_t b = -1, j = 0;

    while (j < (int64_t)m->n) {
        b = j;
        key = key * UINT64_C(2862933555777941757) + 1;
        j = (int64_t)((double)(b + 1) * (2147483648.0 / (double)((key >> 33) + 1)));
    }
    return (size_t)b;
}

static void maglev_build(struct map *m)
{
    size_t *offset = must(calloc(m->n, sizeof *offset)), *skip = must(calloc(m->n, sizeof *skip));
    size_t filled = 0;

    m->table_n = m->n > 500 ? 655373 : 65537;
    m->table = must(malloc(m->table_n * sizeof *m->table));
    memset(m->table, 0xff, m->table_n * sizeof *m->table);
    for (size_t i = 0; i < m->n; i++) {
        offset[i] = mix(m->nodes[i].id, 1) % m->table_n;
        skip[i] = mix(m->nodes[i].id, 2) % (m->table_n - 1) + 1;
    }
    while (filled < m->table_n)
        for (size_t i = 0; i < m->n && filled < m->table_n; i++, filled++) {
            while (m->table[offset[i]] != UINT32_MAX)
                offset[i] = (offset[i] + skip[i]) % m->table_n;
            m->table[offset[i]] = (uint32_t)i;
        }
    free(offset);
    free(skip);
}

static size_t maglev_choose(const struct map *m, const struct uuid *chat)
{
    return m->table[hrw_hash(chat->b, sizeof chat->b) % m->table_n];
}

static size_t rendezvous_choose(const struct map *m, const struct uuid *chat)
{
    return hrw_choose(chat, m->nodes, m->n);
}

static void nothing_to_build(struct map *m)
{
    (void)m;
}

static const struct way {
    const char *name;
    void (*build)(struct map *m);
    size_t (*choose)(const struct map *m, const struct uuid *chat);
} ways[] = {
    {"HRW (ours)", nothing_to_build, rendezvous_choose},
    {"ring, 160 points", ring_build, ring_choose},
    {"jump", nothing_to_build, jump_choose},
    {"Maglev", maglev_build, maglev_choose},
};

static void map_release(struct map *m)
{
    free(m->ring);
    free(m->table);
    m->ring = NULL;
    m->table = NULL;
}

static double now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

struct moved {
    double share, in_vain; /* percent of all chats */
};

/* The chats' workers now beside those before; `changed`: the one that is gone, or the new one. */
static struct moved compare(const struct way *way, struct map *m, const struct uuid *chats, const uint64_t *before,
                            size_t n, uint64_t changed)
{
    size_t moved = 0, vain = 0;

    way->build(m);
    for (size_t i = 0; i < n; i++) {
        const uint64_t now = m->nodes[way->choose(m, &chats[i])].id;

        moved += now != before[i];
        vain += now != before[i] && now != changed && before[i] != changed;
    }
    map_release(m);
    return (struct moved){100.0 * (double)moved / (double)n, 100.0 * (double)vain / (double)n};
}

static void row(const struct way *way, size_t nodes, const struct uuid *chats, size_t n)
{
    static struct map m;
    static size_t load[NODES_MAX];
    uint64_t *before = must(calloc(n, sizeof *before)), gone, added;
    struct moved lost, more;
    double began, built, looked;
    size_t most = 0;

    memset(load, 0, sizeof load);
    m.n = nodes;
    for (size_t i = 0; i < nodes; i++)
        m.nodes[i] = (struct hrw_node){.id = mix(99, i), .weight = 1};
    began = now_ns();
    way->build(&m);
    built = now_ns();
    for (size_t i = 0; i < n; i++) {
        const size_t at = way->choose(&m, &chats[i]);

        before[i] = m.nodes[at].id;
        load[at]++;
    }
    looked = now_ns();
    map_release(&m);
    for (size_t i = 0; i < nodes; i++)
        most = load[i] > most ? load[i] : most;

    gone = m.nodes[nodes / 2].id;
    added = mix(99, nodes);
    m.nodes[nodes / 2] = m.nodes[nodes - 1];
    m.n = nodes - 1;
    lost = compare(way, &m, chats, before, n, gone);
    m.nodes[nodes / 2].id = gone;
    m.nodes[nodes - 1].id = mix(99, nodes - 1);
    m.nodes[nodes] = (struct hrw_node){.id = added, .weight = 1};
    m.n = nodes + 1;
    more = compare(way, &m, chats, before, n, added);
    printf("| %zu | %s | %.0f ns | %.2f ms | %.3f %% (%.3f %%) | %.3f %% (%.3f %%) | %.2f |\n", nodes, way->name,
           (looked - began - (built - began)) / (double)n, (built - began) / 1e6, lost.share, lost.in_vain, more.share,
           more.in_vain, (double)most * (double)nodes / (double)n);
    free(before);
}

int main(void)
{
    static const size_t sizes[] = {10, 100, 1000};
    const size_t n = 200000;
    struct uuid *chats = must(calloc(n, sizeof *chats));

    for (size_t i = 0; i < n; i++)
        for (size_t b = 0; b < sizeof chats[i].b; b += 8) {
            const uint64_t word = next_random();

            memcpy(chats[i].b + b, &word, 8);
        }
    printf("%zu chats; in brackets: moved in vain. The minimum is 1/n of all for a lost worker, 1/(n + 1) for a new "
           "one.\n\n",
           n);
    printf(
        "| workers | way | a lookup | building | moved when one is lost | when one comes | most loaded / average |\n");
    printf("|---|---|---|---|---|---|---|\n");
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
        for (size_t w = 0; w < sizeof ways / sizeof ways[0]; w++)
            row(&ways[w], sizes[s], chats, n);
    free(chats);
    return 0;
}
