/* What Cassandra sends of a set of numbers and of a map: any bytes are read to their end and no further. */
#include "fuzz.h"

#ifdef TROUPE_WITH_CASSANDRA
#include "adapter/cassandra/history_impl.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *exact = malloc(size > 0 ? size : 1); /* so that a step beyond is seen */
    struct cql_value v = {exact, (int32_t)size};
    int32_t at = 0, n, numbers[64];
    size_t count = 0;
    struct uuid id = {0};
    struct buf b = {0};

    if (exact == NULL || size > 65536) {
        free(exact);
        return 0;
    }
    memcpy(exact, data, size);
    if (size >= 16)
        memcpy(id.b, data + size - 16, 16);
    cass_wire_map_has(v, &id);
    while (cass_wire_list_next(v, &at, &n))
        if (count < 64)
            numbers[count++] = n;

    /* what was read is written, and read again */
    cass_wire_list_i32(&b, numbers, count);
    v = (struct cql_value){b.data, (int32_t)b.len};
    at = 0;
    for (size_t i = 0; i < count; i++)
        if (!cass_wire_list_next(v, &at, &n) || n != numbers[i])
            abort();
    if (cass_wire_list_next(v, &at, &n))
        abort();
    buf_release(&b);
    free(exact);
    return 0;
}
#else
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    (void)data;
    (void)size;
    return 0;
}
#endif
