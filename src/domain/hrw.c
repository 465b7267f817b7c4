/*
 * hrw - see hrw.h.  The score of a node is -weight / ln(u), u in (0, 1) from a 64-bit hash of the chat and the node.
 * hrw_hash() is XXH64 with seed 0 (the published algorithm), so that every process, of whatever machine, agrees.
 */
#include "domain/hrw.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define P1 UINT64_C(0x9E3779B185EBCA87)
#define P2 UINT64_C(0xC2B2AE3D27D4EB4F)
#define P3 UINT64_C(0x165667B19E3779F9)
#define P4 UINT64_C(0x85EBCA77C2B2AE63)
#define P5 UINT64_C(0x27D4EB2F165667C5)

static uint64_t rotate(uint64_t v, int by)
{
    return v << by | v >> (64 - by);
}

static uint64_t read_le(const uint8_t *p, int bytes)
{
    uint64_t v = 0;

    for (int i = bytes - 1; i >= 0; i--)
        v = v << 8 | p[i];
    return v;
}

static uint64_t xxh_round(uint64_t acc, uint64_t lane)
{
    return rotate(acc + lane * P2, 31) * P1;
}

static uint64_t xxh_lanes(const uint8_t **p, size_t *left)
{
    uint64_t v[4] = {P1 + P2, P2, 0, 0 - P1};
    uint64_t h;

    for (; *left >= 32; *left -= 32)
        for (int i = 0; i < 4; i++, *p += 8)
            v[i] = xxh_round(v[i], read_le(*p, 8));
    h = rotate(v[0], 1) + rotate(v[1], 7) + rotate(v[2], 12) + rotate(v[3], 18);
    for (int i = 0; i < 4; i++)
        h = (h ^ xxh_round(0, v[i])) * P1 + P4;
    return h;
}

uint64_t hrw_hash(const void *data, size_t len)
{
    const uint8_t *p = data;
    size_t left = len;
    uint64_t h = len >= 32 ? xxh_lanes(&p, &left) : P5;

    h += len;
    for (; left >= 8; left -= 8, p += 8)
        h = rotate(h ^ xxh_round(0, read_le(p, 8)), 27) * P1 + P4;
    if (left >= 4) {
        h = rotate(h ^ read_le(p, 4) * P1, 23) * P2 + P3;
        left -= 4;
        p += 4;
    }
    for (; left > 0; left--, p++)
        h = rotate(h ^ *p * P5, 11) * P1;
    h = (h ^ h >> 33) * P2;
    h = (h ^ h >> 29) * P3;
    return h ^ h >> 32;
}

/* MurmurHash3's 64-bit finaliser: every input bit changes every output bit with a chance of a half. */
static uint64_t finalise(uint64_t h)
{
    h = (h ^ h >> 33) * UINT64_C(0xff51afd7ed558ccd);
    h = (h ^ h >> 33) * UINT64_C(0xc4ceb9fe1a85ec53);
    return h ^ h >> 33;
}

static double score(uint64_t chat_hash, const struct hrw_node *node)
{
    uint64_t h = finalise(chat_hash ^ finalise(node->id + P1));
    double u = ((double)(h >> 11) + 0.5) * 0x1p-53; /* never 0 or 1 */

    return -(double)node->weight / log(u);
}

/* load < bound * share, where share = (all load + this one) * weight / all weight; the bound rounded up to whole chats. */
static bool has_room(const struct hrw_node *node, uint64_t load, uint64_t weight, uint32_t bound_percent)
{
    double bound = (double)bound_percent / 100.0 * ((double)load + 1.0) * (double)node->weight / (double)weight;

    return node->load < node->slots || (double)node->load < ceil(bound);
}

size_t hrw_choose_bounded(const struct uuid *chat, const struct hrw_node *nodes, size_t n, uint32_t bound_percent)
{
    uint64_t chat_hash = hrw_hash(chat->b, sizeof chat->b), load = 0, weight = 0;
    size_t best = n, roomy = n;
    double best_score = 0, roomy_score = 0;

    assert(n > 0);
    for (size_t i = 0; i < n; i++) {
        load += nodes[i].load;
        weight += nodes[i].weight;
    }
    for (size_t i = 0; i < n; i++) {
        double s = score(chat_hash, &nodes[i]);

        if (best == n || s > best_score || (s == best_score && nodes[i].id < nodes[best].id)) {
            best = i;
            best_score = s;
        }
        if (bound_percent == 0 || !has_room(&nodes[i], load, weight, bound_percent))
            continue;
        if (roomy == n || s > roomy_score || (s == roomy_score && nodes[i].id < nodes[roomy].id)) {
            roomy = i;
            roomy_score = s;
        }
    }
    return roomy != n ? roomy : best;
}

size_t hrw_choose(const struct uuid *chat, const struct hrw_node *nodes, size_t n)
{
    return hrw_choose_bounded(chat, nodes, n, 0);
}
