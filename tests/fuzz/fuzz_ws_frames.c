/* Frames mean the same however they are cut: read at once or byte by byte, the same events and the same end. */
#include "fuzz.h"
#include "role/gateway/frame.h"

struct run {
    struct buf events;
    bool closed;
};

static bool on_text(void *ctx, const char *text, size_t len)
{
    struct run *run = ctx;

    buf_add_u8(&run->events, 't');
    buf_add_be32(&run->events, (uint32_t)len);
    buf_add(&run->events, text, len);
    return true;
}

static bool on_control(void *ctx, enum frame_opcode opcode, const uint8_t *data, size_t len)
{
    struct run *run = ctx;

    buf_add_u8(&run->events, (uint8_t)opcode);
    buf_add_be32(&run->events, (uint32_t)len);
    buf_add(&run->events, data, len);
    return true;
}

static void on_closed(void *ctx, unsigned code)
{
    struct run *run = ctx;

    run->closed = true;
    buf_add_u8(&run->events, 'c');
    buf_add_be32(&run->events, code);
}

/* What happens when it comes in pieces of `piece` bytes, then the code. */
static void read_in_pieces(const uint8_t *data, size_t size, size_t piece, struct run *run)
{
    static const struct frame_events events = {on_text, on_control, on_closed};
    struct frame_reader r = {0};
    uint8_t *copy = malloc(size + 1);
    const char *reason = "";
    unsigned code = 0;

    FUZZ_CHECK(copy != NULL);
    memcpy(copy, data, size);
    for (size_t at = 0; at < size && code == 0 && !run->closed; at += piece) {
        code = frame_read(&r, copy + at, size - at < piece ? size - at : piece, &events, run, &reason);
        FUZZ_CHECK(r.message.len <= FRAME_MESSAGE_MAX && (code == 0 || reason[0] != '\0'));
    }
    buf_add_be32(&run->events, code);
    frame_reader_release(&r);
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct run whole = {0}, bytes = {0};

    if (size > 4096)
        return 0;
    read_in_pieces(data, size, size + 1, &whole);
    read_in_pieces(data, size, 1, &bytes);
    FUZZ_CHECK(whole.events.len == bytes.events.len);
    FUZZ_CHECK(memcmp(whole.events.data, bytes.events.data, whole.events.len) == 0);
    buf_release(&whole.events);
    buf_release(&bytes.events);
    return 0;
}
