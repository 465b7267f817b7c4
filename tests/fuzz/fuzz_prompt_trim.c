/* What is left always fits, no fixed one is counted as dropped, and no reply is left without its question. */
#include "domain/prompt.h"
#include "fuzz.h"

#define MESSAGES_MAX 200

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint32_t cost[MESSAGES_MAX] = {0}, budget;
    bool fixed[MESSAGES_MAX] = {false};
    enum speaker speakers[MESSAGES_MAX] = {SPEAKER_SYSTEM};
    uint64_t fixed_cost = 0, kept = 0;
    size_t n = 0, loose = 0, drop = 0, gone = 0;

    if (size < 4)
        return 0;
    memcpy(&budget, data, 4);
    budget %= data[3] % 2 == 0 ? 1000 : UINT32_MAX;
    for (data += 4, size -= 4; size >= 2 && n < MESSAGES_MAX; data += 2, size -= 2, n++) {
        cost[n] = data[0] == 0xff ? UINT32_MAX : data[0];
        fixed[n] = (data[1] & 1) != 0;
        speakers[n] = (enum speaker)(data[1] / 2 % 3);
        fixed_cost += fixed[n] ? cost[n] : 0;
        loose += !fixed[n];
    }
    if (prompt_trim(cost, fixed, speakers, n, budget, &drop, NULL) != TR_OK) {
        FUZZ_CHECK(fixed_cost > budget);
        return 0;
    }
    FUZZ_CHECK(fixed_cost <= budget && drop <= loose);
    for (size_t i = 0; i < n; i++) {
        if (!fixed[i] && gone < drop) {
            gone++;
            continue;
        }
        kept += cost[i];
        if (!fixed[i] && gone == drop && drop > 0) {
            FUZZ_CHECK(speakers[i] != SPEAKER_CHARACTER);
            gone++; /* only the first that is left */
        }
    }
    FUZZ_CHECK(kept <= budget);
    FUZZ_CHECK(prompt_trim(cost, fixed, NULL, n, budget, &gone, NULL) == TR_OK && gone <= drop);
    return 0;
}
