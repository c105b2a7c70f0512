/* SPDX-License-Identifier: Apache-2.0 */
/* RAM in frames and back, through channels of memory. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "../../src/migration/pages.h"
#include "memory_channel.h"

#define LOW (UINT64_C(512) * GUEST_PAGE_SIZE) /* one chunk, and then one of 40 pages */
#define SIZE (LOW + UINT64_C(40) * GUEST_PAGE_SIZE)
#define SHORT_PAGES 40u

static struct guest_memory *memory;
static struct pages_target target;
static struct zstd zstd;

static int setup(void **state)
{
    const struct memory_layout layout = {
        .size = SIZE, .hole_start = LOW, .hole_end = UINT64_C(4) << 30};
    struct error err;

    (void)state;
    return guest_memory_create(&layout, &memory, &err) < 0 || zstd_open(&zstd, &err) < 0 ||
                   pages_target_init(&target, memory, NULL, &err) < 0
               ? -1
               : 0;
}

static int teardown(void **state)
{
    (void)state;
    pages_target_fini(&target);
    guest_memory_destroy(memory);
    zstd_close(&zstd);
    return 0;
}

/* All frames that were sent are received. */
static int receive_all(const struct channel *sent, struct error *err)
{
    struct channel channel = {.in = sent->out, .in_len = sent->out_len};
    struct frame_stream stream = {.channel = &channel};
    int r = 0;

    while (r == 0 && channel.in_at < channel.in_len) {
        struct frame frame;

        r = frame_recv(&stream, &frame, err);
        if (r == 0) {
            assert_int_equal(frame.type, FRAME_PAGES);
            r = pages_receive(&target, &stream, &frame, err);
        }
    }
    return r;
}

static void send_chunk(struct channel *channel, const struct rounds_chunk *chunk,
                       const struct zstd *with, struct pages_counts *counts)
{
    struct frame_stream stream = {.channel = channel};
    struct pages_sender sender;
    struct error err;

    assert_int_equal(pages_sender_init(&sender, &stream, with, &err), 0);
    assert_int_equal(pages_send(&sender, chunk, &err), 0);
    *counts = sender.counts;
    pages_sender_fini(&sender);
}

/* There and back */

static void goes_there(unsigned region, unsigned pages, const struct zstd *with)
{
    static uint8_t source[512 * GUEST_PAGE_SIZE];
    uint64_t bits[ROUNDS_CHUNK_WORDS] = {0};
    struct channel channel = {.in = NULL};
    struct pages_counts counts;
    struct error err;

    for (unsigned i = 0; i < pages; i++) {
        uint8_t *page = source + (size_t)i * GUEST_PAGE_SIZE;

        memset(page, i % 3 ? (int)(i % 251 + 1) : 0, GUEST_PAGE_SIZE);
        if (i % 7 != 5)
            bits[i / 64] |= UINT64_C(1) << i % 64;
    }
    send_chunk(&channel,
               &(struct rounds_chunk){
                   .region = region, .first = 0, .pages = pages, .bits = bits, .host = source},
               with, &counts);
    target.zstd = with;
    if (receive_all(&channel, &err) < 0)
        fail_msg("%s", err.msg);
    for (unsigned i = 0; i < pages; i++) {
        const uint8_t *page = memory->regions[region].host + (size_t)i * GUEST_PAGE_SIZE;
        unsigned expected = i % 7 == 5 ? 0 : source[(size_t)i * GUEST_PAGE_SIZE];

        assert_int_equal(page[0], expected);
        assert_int_equal(page[GUEST_PAGE_SIZE - 1], expected);
        counts.data -= expected != 0;
        counts.zero -= expected == 0 && i % 7 != 5;
    }
    assert_int_equal(counts.data, 0);
    assert_int_equal(counts.zero, 0);
    free(channel.out);
}

static void some_pages_of_a_chunk_arrive_and_the_others_stay(void **state)
{
    (void)state;
    goes_there(0, 512, NULL);
}

static void a_chunk_that_is_cut_off_by_the_regions_end_arrives(void **state)
{
    (void)state;
    goes_there(1, SHORT_PAGES, NULL);
}

static void compressed_it_arrives_too(void **state)
{
    (void)state;
    goes_there(0, 512, &zstd);
}

static void send_page(unsigned page, uint8_t value, struct channel *channel)
{
    static uint8_t source[512 * GUEST_PAGE_SIZE];
    uint64_t bits[ROUNDS_CHUNK_WORDS] = {0};
    struct pages_counts counts;

    memset(source + (size_t)page * GUEST_PAGE_SIZE, value, GUEST_PAGE_SIZE);
    bits[page / 64] = UINT64_C(1) << page % 64;
    send_chunk(channel, &(struct rounds_chunk){.pages = 512, .bits = bits, .host = source}, NULL,
               &counts);
}

static void receive_page(unsigned page, uint8_t value)
{
    struct channel channel = {.in = NULL};
    struct error err;

    send_page(page, value, &channel);
    if (receive_all(&channel, &err) < 0)
        fail_msg("%s", err.msg);
    free(channel.out);
}

static void zeros_clear_what_was_filled(void **state)
{
    (void)state;
    receive_page(100, 7);
    assert_int_equal(memory->regions[0].host[100 * GUEST_PAGE_SIZE], 7);
    receive_page(100, 0);
    assert_int_equal(memory->regions[0].host[100 * GUEST_PAGE_SIZE], 0);
    receive_page(100, 9);
    assert_int_equal(memory->regions[0].host[101 * GUEST_PAGE_SIZE - 1], 9);
}

/* As those that the guest gave up after they were sent. */
static void zeros_cost_no_memory_where_something_was_filled(void **state)
{
    uint8_t resident;

    (void)state;
    receive_page(100, 7);
    receive_page(100, 0);
    assert_int_equal(
        mincore(memory->regions[0].host + 100 * GUEST_PAGE_SIZE, GUEST_PAGE_SIZE, &resident), 0);
    assert_int_equal(resident & 1, 0);
}

static void zeros_touch_nothing_that_was_never_filled(void **state)
{
    uint8_t resident;

    (void)state;
    receive_page(200, 0);
    assert_int_equal(
        mincore(memory->regions[0].host + 200 * GUEST_PAGE_SIZE, GUEST_PAGE_SIZE, &resident), 0);
    assert_int_equal(resident & 1, 0);
}

/* Each field made wrong */

#define BODY FRAME_PAGES_HEADER_BYTES

static void put_le(uint8_t *to, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        to[i] = (uint8_t)(value >> (8 * i));
}

/* Page 0 of region 0 with data, then what a test changes. */
static void head(uint8_t *body)
{
    memset(body, 0, BODY + GUEST_PAGE_SIZE);
    put_le(body + 4, 512, 4);
    put_le(body + 16, 1, 8);
}

static void refuses(const uint8_t *body, size_t len, uint16_t flags, const char *words)
{
    struct channel channel = {.in = NULL};
    struct frame_stream stream = {.channel = &channel};
    struct error err;

    assert_int_equal(
        frame_send(&stream, FRAME_PAGES, flags, &(struct iovec){(void *)body, len}, 1, &err), 0);
    if (!words) {
        if (receive_all(&channel, &err) < 0)
            fail_msg("%s", err.msg);
    } else {
        assert_int_equal(receive_all(&channel, &err), -EPROTO);
        if (!strstr(err.msg, words) || strncmp(err.msg, "frame 0 (PAGES): ", 17) != 0)
            fail_msg("\"%s\" is not in: %s", words, err.msg);
    }
    free(channel.out);
}

static void every_field_of_the_head_is_checked(void **state)
{
    static const struct {
        unsigned at, bytes;
        uint64_t value;
        const char *words; /* NULL: this one is right */
    } fields[] = {
        {0, 4, 0, NULL},
        {0, 4, 2, "no such region"},
        {0, 4, UINT32_MAX, "no such region"},
        {0, 4, 1, "no such pages"}, /* region 1 has 40 pages */
        {4, 4, 0, "no such pages"},
        {4, 4, 513, "no such pages"},
        {4, 4, UINT32_MAX, "no such pages"},
        {4, 4, 1, NULL},
        {8, 8, 1, "no such pages"},
        {8, 8, 64, "no such pages"},
        {8, 8, 512, "no such pages"},
        {8, 8, UINT64_MAX - 511, "no such pages"},
        {16, 8, 3, "not as many pages as it says"},
        {16, 8, 0, "not as many pages as it says"},
        {72, 8, UINT64_C(1) << 63, "not as many pages as it says"},
        {80, 8, 1, "not as many pages as it says"},
        {80, 8, 2, "zeros that are not present"},
        {136, 8, UINT64_C(1) << 63, "zeros that are not present"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        uint8_t body[BODY + GUEST_PAGE_SIZE];

        head(body);
        put_le(body + fields[i].at, fields[i].value, fields[i].bytes);
        refuses(body, sizeof(body), 0, fields[i].words);
    }
}

static void pages_behind_the_last_one_are_refused(void **state)
{
    uint8_t body[BODY + GUEST_PAGE_SIZE];

    (void)state;
    head(body);
    put_le(body, 1, 4);
    put_le(body + 4, SHORT_PAGES, 4);
    refuses(body, sizeof(body), 0, NULL);
    put_le(body + 16, UINT64_C(1) << SHORT_PAGES, 8);
    refuses(body, sizeof(body), 0, "pages behind the last one");
    put_le(body + 16, 0, 8);
    put_le(body + 72, 1, 8);
    refuses(body, sizeof(body), 0, "pages behind the last one");
}

static void compressed_pages_that_nobody_agreed_upon_are_refused(void **state)
{
    uint8_t body[BODY + GUEST_PAGE_SIZE];

    (void)state;
    head(body);
    refuses(body, sizeof(body), FRAME_ZSTD, "that was not agreed upon");
}

static void what_unpacks_to_something_else_is_refused(void **state)
{
    uint8_t body[BODY + GUEST_PAGE_SIZE], packed[2 * sizeof(body)];
    ZSTD_CCtx *packer = zstd.create_packer();

    (void)state;
    target.zstd = &zstd;
    head(body);
    refuses(body, sizeof(body), FRAME_ZSTD, ""); /* not packed at all */
    size_t len = zstd.pack_all(packer, packed, sizeof(packed), body, sizeof(body));
    refuses(packed, len, FRAME_ZSTD, NULL);
    refuses(packed, len - 1, FRAME_ZSTD, "");
    len = zstd.pack_all(packer, packed, sizeof(packed), body, sizeof(body) - 1);
    refuses(packed, len, FRAME_ZSTD, "not as many pages as it says");
    len = zstd.pack_all(packer, packed, sizeof(packed), body, BODY - 1);
    refuses(packed, len, FRAME_ZSTD, "");
    zstd.free_packer(packer);
}

/* A mebibyte of zeros fits into some hundred bytes, and so would a gigabyte. */
static void what_unpacks_to_more_than_a_chunk_is_refused(void **state)
{
    size_t bytes = (size_t)8 << 20, room = bytes;
    uint8_t *zeros = calloc(1, bytes), *packed = malloc(room);
    ZSTD_CCtx *packer = zstd.create_packer();

    (void)state;
    target.zstd = &zstd;
    size_t len = zstd.pack_all(packer, packed, room, zeros, bytes);
    assert_true(len < 10000);
    refuses(packed, len, FRAME_ZSTD, "");
    zstd.free_packer(packer);
    free(zeros);
    free(packed);
}

static void a_frame_that_ends_anywhere_is_refused(void **state)
{
    struct channel channel = {.in = NULL};
    struct error err;
    size_t whole;

    (void)state;
    send_page(3, 5, &channel);
    whole = channel.out_len;
    for (channel.out_len = 1; channel.out_len < whole; channel.out_len += 61)
        assert_int_equal(receive_all(&channel, &err), -EPIPE);
    channel.out_len = whole;
    assert_int_equal(receive_all(&channel, &err), 0);
    free(channel.out);
}

static void a_page_that_was_damaged_on_the_way_is_refused(void **state)
{
    struct channel channel = {.in = NULL};
    struct error err;

    (void)state;
    send_page(3, 5, &channel);
    channel.out[channel.out_len - 1000] ^= 1;
    assert_int_equal(receive_all(&channel, &err), -EPROTO);
    free(channel.out);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(some_pages_of_a_chunk_arrive_and_the_others_stay),
        TEST(a_chunk_that_is_cut_off_by_the_regions_end_arrives),
        TEST(compressed_it_arrives_too),
        TEST(zeros_clear_what_was_filled),
        TEST(zeros_cost_no_memory_where_something_was_filled),
        TEST(zeros_touch_nothing_that_was_never_filled),
        TEST(every_field_of_the_head_is_checked),
        TEST(pages_behind_the_last_one_are_refused),
        TEST(compressed_pages_that_nobody_agreed_upon_are_refused),
        TEST(what_unpacks_to_something_else_is_refused),
        TEST(what_unpacks_to_more_than_a_chunk_is_refused),
        TEST(a_frame_that_ends_anywhere_is_refused),
        TEST(a_page_that_was_damaged_on_the_way_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
