/* SPDX-License-Identifier: Apache-2.0 */
/* virtqueue: taking requests from the split ring of VIRTIO 1.2. */
#include "vmrun/virtqueue.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ring_bench.h"

/* Taking requests */

static void an_empty_ring_has_no_request(void **state)
{
    struct ring_bench *f = *state;

    assert_int_equal(ring_pop(f), 0);
    assert_int_equal(ring_pop(f), 0);
    assert_false(f->vq.broken);
}

static void a_queue_that_was_not_started_has_no_request(void **state)
{
    struct ring_bench *f = *state;

    ring_offer_buffer(f, 0);
    virtqueue_stop(&f->vq);
    assert_int_equal(ring_pop(f), 0);
    assert_false(virtqueue_needs_interrupt(&f->vq));
    assert_false(virtqueue_enable_kicks(&f->vq));
}

static void a_chain_is_popped_with_its_buffers_in_order(void **state)
{
    struct ring_bench *f = *state;

    ring_set(f, 5, RING_DATA, 16, NEXT, 2);
    ring_set(f, 2, RING_HIGH_AT + RING_HIGH - 512, 512, WRITE | NEXT, 7);
    ring_set(f, 7, 0, 1, WRITE, 0);
    ring_offer(f, 5);
    assert_int_equal(ring_pop(f), 1);
    assert_int_equal(f->chain.head, 5);
    assert_int_equal(f->chain.out, 1);
    assert_int_equal(f->chain.in, 2);
    assert_int_equal(f->chain.out_bytes, 16);
    assert_int_equal(f->chain.in_bytes, 513);
    assert_ptr_equal(f->iov[0].iov_base, ring_at(f, RING_DATA));
    assert_ptr_equal(f->iov[1].iov_base, ring_at(f, RING_HIGH_AT + RING_HIGH - 512));
    assert_int_equal(f->iov[1].iov_len, 512);
    assert_ptr_equal(f->iov[2].iov_base, ring_at(f, 0));
    assert_int_equal(ring_pop(f), 0);
}

static void a_chain_of_the_whole_table_is_popped(void **state)
{
    struct ring_bench *f = *state;

    for (uint16_t i = 0; i < RING_SIZE; i++)
        ring_set(f, i, RING_DATA, 8, i + 1 < RING_SIZE ? NEXT : 0, (uint16_t)(i + 1));
    ring_offer(f, 0);
    assert_int_equal(ring_pop(f), 1);
    assert_int_equal(f->chain.out, RING_SIZE);
    assert_int_equal(f->chain.out_bytes, 8 * RING_SIZE);
}

static void an_indirect_table_is_followed_also_from_an_odd_address(void **state)
{
    struct ring_bench *f = *state;
    const struct vring_desc table[] = {
        {RING_DATA, 16, NEXT, 2}, {RING_DATA, 99, 0, 0}, {RING_DATA + 64, 32, WRITE, 0}};

    for (unsigned odd = 0; odd < 9; odd++) {
        memcpy(ring_at(f, RING_TABLE + odd), table, sizeof(table));
        ring_set(f, 0, RING_TABLE + odd, sizeof(table), INDIRECT, 0);
        ring_offer(f, 0);
        assert_int_equal(ring_pop(f), 1);
        assert_int_equal(f->chain.out_bytes, 16);
        assert_int_equal(f->chain.in_bytes, 32);
        assert_ptr_equal(f->iov[1].iov_base, ring_at(f, RING_DATA + 64));
        virtqueue_push(&f->vq, &f->chain, 0);
    }
}

static void an_indirect_table_may_be_longer_than_the_queue_and_end_a_chain(void **state)
{
    struct ring_bench *f = *state;
    struct vring_desc *table = ring_at(f, RING_TABLE);

    for (uint16_t i = 0; i < RING_SIZE + 3; i++)
        table[i] = (struct vring_desc){RING_DATA, 4, WRITE | (i < RING_SIZE + 2 ? NEXT : 0),
                                       (uint16_t)(i + 1)};
    ring_set(f, 0, RING_DATA, 16, NEXT, 1);
    ring_set(f, 1, RING_TABLE, (RING_SIZE + 3) * 16, INDIRECT, 0);
    ring_offer(f, 0);
    assert_int_equal(ring_pop(f), 1);
    assert_int_equal(f->chain.out, 1);
    assert_int_equal(f->chain.in, RING_SIZE + 3);
}

static void requests_are_popped_in_the_order_they_were_offered_for_ever(void **state)
{
    struct ring_bench *f = *state;

    for (unsigned i = 0; i < 3 * 65536; i++) {
        uint16_t head = (uint16_t)(i * 3 % RING_SIZE);

        ring_offer_buffer(f, head);
        assert_int_equal(ring_pop(f), 1);
        assert_int_equal(f->chain.head, head);
        virtqueue_push(&f->vq, &f->chain, i);
        assert_int_equal(f->used->ring[i % RING_SIZE].id, head);
        assert_int_equal(f->used->ring[i % RING_SIZE].len, i);
        assert_int_equal(f->used->idx, (uint16_t)(i + 1));
    }
    assert_int_equal(f->vq.requests, 3 * 65536);
}

static void a_request_that_is_put_back_comes_again(void **state)
{
    struct ring_bench *f = *state;

    ring_offer_buffer(f, 3);
    ring_offer_buffer(f, 4);
    assert_int_equal(ring_pop(f), 1);
    assert_int_equal(ring_pop(f), 1);
    uint64_t bytes_out = f->vq.bytes_out;
    virtqueue_unpop(&f->vq, &f->chain);
    assert_int_equal(f->vq.bytes_out, bytes_out - f->chain.out_bytes);
    assert_int_equal(ring_pop(f), 1);
    assert_int_equal(f->chain.head, 4);
    assert_int_equal(f->vq.bytes_out, bytes_out);
    assert_int_equal(ring_pop(f), 0);
}

static void all_entries_may_be_in_flight_and_come_back_in_any_order(void **state)
{
    struct ring_bench *f = *state;

    for (uint16_t i = 0; i < RING_SIZE; i++)
        ring_offer_buffer(f, i);
    for (unsigned i = 0; i < RING_SIZE; i++)
        assert_int_equal(ring_pop(f), 1);
    for (uint16_t i = 0; i < RING_SIZE; i++)
        virtqueue_push_head(&f->vq, (uint16_t)(i ^ 5), i);
    assert_int_equal(f->used->idx, RING_SIZE);
    for (unsigned i = 0; i < RING_SIZE; i++)
        assert_int_equal(f->used->ring[i].id, i ^ 5);
    assert_int_equal(ring_pop(f), 0);
}

/* Breaking it; the hostile suite does that to whole devices */

static void assert_breaks(struct ring_bench *f)
{
    assert_int_equal(ring_pop(f), -EPROTO);
    assert_true(f->vq.broken);
    ring_offer_buffer(f, 1);
    assert_int_equal(ring_pop(f), -EPROTO); /* until reset */
    assert_false(virtqueue_needs_interrupt(&f->vq));
    assert_int_equal(ring_dirty_pages(f), 0);
}

static void a_head_that_is_still_in_flight_breaks_it(void **state)
{
    struct ring_bench *f = *state;

    ring_offer_buffer(f, 0);
    ring_offer(f, 0);
    assert_int_equal(ring_pop(f), 1);
    assert_breaks(f);
}

static void more_requests_than_entries_break_it(void **state)
{
    struct ring_bench *f = *state;

    for (uint16_t i = 0; i < RING_SIZE; i++)
        ring_offer_buffer(f, i);
    for (unsigned i = 0; i < RING_SIZE; i++)
        assert_int_equal(ring_pop(f), 1);
    ring_offer(f, 0);
    assert_breaks(f);
}

static void more_buffers_than_the_caller_has_room_for_break_it(void **state)
{
    struct ring_bench *f = *state;

    f->chain.room = 2;
    for (uint16_t i = 0; i < 3; i++)
        ring_set(f, i, RING_DATA, 8, i < 2 ? NEXT : 0, (uint16_t)(i + 1));
    ring_offer(f, 0);
    assert_breaks(f);
}

static void an_indirect_table_without_the_feature_breaks_it(void **state)
{
    struct ring_bench *f = *state;

    f->vq.indirect = false;
    memcpy(ring_at(f, RING_TABLE), &(struct vring_desc){RING_DATA, 16, WRITE, 0}, 16);
    ring_set(f, 0, RING_TABLE, 16, INDIRECT, 0);
    ring_offer(f, 0);
    assert_breaks(f);
}

static void buffers_of_4_gib_in_all_break_it_and_one_byte_less_does_not(void **state)
{
    struct ring_bench *f = *state;
    const uint32_t most = RING_LOW; /* the largest that fits into RAM */
    struct vring_desc *table = ring_at(f, RING_TABLE);
    unsigned count = (unsigned)((UINT64_C(1) << 32) / most);
    struct iovec *iov = calloc(count, sizeof(*iov));
    struct virtq_chain chain = {.iov = iov, .room = count};

    assert_non_null(iov);
    for (unsigned i = 0; i < count; i++)
        table[i] =
            (struct vring_desc){0, most - (i == 0), i + 1 < count ? NEXT : 0, (uint16_t)(i + 1)};
    ring_set(f, 0, RING_TABLE, count * 16, INDIRECT, 0);
    ring_offer(f, 0);
    assert_int_equal(virtqueue_pop(&f->vq, &chain), 1);
    assert_int_equal(chain.out_bytes, UINT32_MAX);
    virtqueue_push(&f->vq, &chain, 0);
    table[0].len = most;
    ring_offer(f, 0);
    assert_int_equal(virtqueue_pop(&f->vq, &chain), -EPROTO);
    free(iov);
}

static void a_reset_mends_it_and_keeps_the_counts(void **state)
{
    struct ring_bench *f = *state;

    ring_offer_buffer(f, 1);
    assert_int_equal(ring_pop(f), 1);
    virtqueue_push(&f->vq, &f->chain, 0);
    ring_offer(f, 99);
    assert_int_equal(ring_pop(f), -EPROTO);
    virtqueue_reset(&f->vq);
    assert_false(f->vq.broken || f->vq.enabled);
    assert_int_equal(f->vq.size, 256);
    assert_int_equal(f->vq.next_avail, 0);
    assert_int_equal(f->vq.requests, 1);
    assert_int_equal(ring_pop(f), 0);
}

static void a_queue_starts_only_where_it_can_be(void **state)
{
    struct ring_bench *f = *state;
    const struct {
        unsigned size;
        uint64_t desc, avail, used;
        bool good;
    } cases[] = {
        {RING_SIZE, RING_DESC, RING_AVAIL, RING_USED, true},
        {1, RING_DESC, RING_AVAIL, RING_USED, true},
        {256, RING_DESC, RING_AVAIL, RING_USED, true},
        {0, RING_DESC, RING_AVAIL, RING_USED, false},
        {3, RING_DESC, RING_AVAIL, RING_USED, false},
        {512, RING_DESC, RING_AVAIL, RING_USED, false},
        {0x8000, RING_DESC, RING_AVAIL, RING_USED, false},
        {RING_SIZE, RING_DESC + 8, RING_AVAIL, RING_USED, false},
        {RING_SIZE, RING_DESC, RING_AVAIL + 1, RING_USED, false},
        {RING_SIZE, RING_DESC, RING_AVAIL, RING_USED + 2, false},
        {RING_SIZE, RING_DESC, RING_AVAIL + 2, RING_USED + 4, true},
        {RING_SIZE, RING_LOW - RING_SIZE * 16, RING_AVAIL, RING_USED, true},
        {RING_SIZE, RING_LOW - RING_SIZE * 16 + 16, RING_AVAIL, RING_USED, false},
        {RING_SIZE, RING_DESC, RING_LOW - (6 + RING_SIZE * 2), RING_USED, true},
        {RING_SIZE, RING_DESC, RING_LOW - (6 + RING_SIZE * 2) + 2, RING_USED, false},
        {RING_SIZE, RING_DESC, RING_AVAIL, RING_HIGH_AT + RING_HIGH - (6 + RING_SIZE * 8) - 2,
         true},
        {RING_SIZE, RING_DESC, RING_AVAIL, RING_HIGH_AT + RING_HIGH - (6 + RING_SIZE * 8) + 2,
         false},
        {RING_SIZE, RING_HOLE_AT, RING_AVAIL, RING_USED, false},
        {RING_SIZE, RING_DESC, RING_HOLE_AT, RING_USED, false},
        {RING_SIZE, RING_DESC, RING_AVAIL, RING_HOLE_AT, false},
        {RING_SIZE, UINT64_MAX - 15, RING_AVAIL, RING_USED, false},
        {RING_SIZE, RING_DESC, UINT64_MAX - 1, RING_USED, false},
        {RING_SIZE, RING_DESC, RING_AVAIL, UINT64_MAX - 3, false},
    };

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        virtqueue_reset(&f->vq);
        f->vq.event_idx = true;
        f->vq.size = (uint16_t)cases[i].size;
        f->vq.desc = cases[i].desc;
        f->vq.avail = cases[i].avail;
        f->vq.used = cases[i].used;
        assert_int_equal(virtqueue_start(&f->vq), cases[i].good ? 0 : -EPROTO);
        assert_int_equal(f->vq.broken, !cases[i].good);
        assert_int_equal(ring_pop(f), cases[i].good ? 0 : -EPROTO);
    }
}

static void a_saved_place_with_requests_in_flight_is_refused(void **state)
{
    struct ring_bench *f = *state;

    f->vq.next_avail = f->vq.next_used = 77;
    assert_int_equal(virtqueue_start(&f->vq), 0);
    f->vq.next_avail = 78;
    assert_int_equal(virtqueue_start(&f->vq), -EPROTO);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, ring_setup, ring_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_empty_ring_has_no_request),
        TEST(a_queue_that_was_not_started_has_no_request),
        TEST(a_chain_is_popped_with_its_buffers_in_order),
        TEST(a_chain_of_the_whole_table_is_popped),
        TEST(an_indirect_table_is_followed_also_from_an_odd_address),
        TEST(an_indirect_table_may_be_longer_than_the_queue_and_end_a_chain),
        TEST(requests_are_popped_in_the_order_they_were_offered_for_ever),
        TEST(a_request_that_is_put_back_comes_again),
        TEST(all_entries_may_be_in_flight_and_come_back_in_any_order),
        TEST(a_head_that_is_still_in_flight_breaks_it),
        TEST(more_requests_than_entries_break_it),
        TEST(more_buffers_than_the_caller_has_room_for_break_it),
        TEST(an_indirect_table_without_the_feature_breaks_it),
        TEST(buffers_of_4_gib_in_all_break_it_and_one_byte_less_does_not),
        TEST(a_reset_mends_it_and_keeps_the_counts),
        TEST(a_queue_starts_only_where_it_can_be),
        TEST(a_saved_place_with_requests_in_flight_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
