/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_frames: a hostile stream, through all that receives frames: what takes them whole, in
 * pieces, as HELLO, and as pages of a machine's memory.
 *
 * An input is a byte of choices (frame_mend.h has two of them) and then the stream.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "frame_mend.h"
#include "memory_channel.h"
#include "migration/hello.h"
#include "migration/pages.h"

#define EXPECT 4u /* every frame whole, as its type or, with the next bit, as STATE */
#define EXPECT_STATE 8u
#define HELLO_FIRST 16u
#define RAM_BYTES (UINT64_C(5) << 20) /* two chunks and a half */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct pages_target ram;

static void make_ram(void)
{
    const struct memory_layout layout = {
        .size = RAM_BYTES, .hole_start = 3u << 20, .hole_end = UINT64_C(4) << 30};
    struct guest_memory *memory;
    struct error err;

    if (guest_memory_create(&layout, &memory, &err) < 0 ||
        pages_target_init(&ram, memory, NULL, &err) < 0)
        abort();
}

static int take_in_pieces(struct frame_stream *s, struct error *err)
{
    static uint8_t bytes[3][1000];
    struct frame frame;
    int r = frame_recv(s, &frame, err);

    if (r == 0 && frame.type == FRAME_PAGES)
        return pages_receive(&ram, s, &frame, err);
    if (r < 0)
        return r;
    if (frame.length > frame_max_bytes(frame.type) || frame_name(frame.type)[0] == '?')
        abort();
    for (uint32_t left = frame.length; r == 0 && left > 500;) {
        struct iovec iov[3] = {{bytes[0], left % 1000}, {bytes[1], 0}, {bytes[2], 100}};
        uint32_t taken = left % 1000 + 100;

        if (taken > left)
            break;
        r = frame_recv_body(s, iov, 3, err);
        left -= taken;
    }
    return r < 0 ? r : frame_recv_end(s, err);
}

static int take_whole(struct frame_stream *s, unsigned type, struct error *err)
{
    uint8_t *body = NULL;
    size_t len = 0;
    int r = frame_expect(s, type, (void **)&body, &len, err);

    if ((r == 0) != (body != NULL) || (body && body[len] != 0))
        abort();
    free(body);
    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned choices = size ? data[0] : 0;
    size_t len = size ? size - 1 : 0;
    struct channel channel = {.in_len = len};
    struct frame_stream s = {.channel = &channel};
    uint8_t *stream = malloc(len + 1);
    struct error err;
    int r = 0;

    if (!stream)
        abort();
    memcpy(stream, data + (size != 0), len);
    frame_mend(stream, len, choices);
    channel.in = stream;
    if (!ram.memory)
        make_ram();
    if (choices & HELLO_FIRST) {
        struct hello hello;

        r = hello_receive(&s, &hello, &err);
        if (r == 0 && (hello.channels > HELLO_MAX_CHANNELS || hello.channel >= hello.channels))
            abort();
    }
    while (r == 0) {
        unsigned type = channel.in_at + 3 < len ? stream[channel.in_at + 2] : 0;

        if (choices & EXPECT)
            r = take_whole(&s, choices & EXPECT_STATE ? FRAME_STATE : type % FRAME_PONG + 1, &err);
        else
            r = take_in_pieces(&s, &err);
    }
    if (err.code <= 0 || memchr(err.msg, '\n', strlen(err.msg)))
        abort();
    free(stream);
    return 0;
}
