/* SPDX-License-Identifier: Apache-2.0 */
/* virtqueue: giving requests back, notifications, and copying to and from buffers. */
#include "vmrun/virtqueue.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ring_bench.h"

/* Giving requests back */

static void a_push_marks_dirty_what_was_written_and_the_ring(void **state)
{
    struct ring_bench *f = *state;

    ring_set(f, 0, RING_DATA + 0x8000, 16, NEXT, 1);
    ring_set(f, 1, RING_DATA, 4096, WRITE | NEXT, 2);
    ring_set(f, 2, RING_HIGH_AT + 4096, 3 * 4096, WRITE, 0);
    ring_offer(f, 0);
    assert_int_equal(ring_pop(f), 1);
    virtqueue_push(&f->vq, &f->chain, 4096 + 4097);
    assert_true(guest_memory_test_dirty(f->memory, RING_USED, false));
    assert_true(guest_memory_test_dirty(f->memory, RING_DATA, false));
    assert_true(guest_memory_test_dirty(f->memory, RING_HIGH_AT + 4096, false));
    assert_true(guest_memory_test_dirty(f->memory, RING_HIGH_AT + 2 * 4096, false));
    assert_int_equal(ring_dirty_pages(f), 4);
    assert_int_equal(f->vq.bytes_out, 16);
    assert_int_equal(f->vq.bytes_in, 4096 + 4097);
}

static void a_push_of_nothing_marks_only_the_ring(void **state)
{
    struct ring_bench *f = *state;

    ring_offer_buffer(f, 0);
    assert_int_equal(ring_pop(f), 1);
    virtqueue_push(&f->vq, &f->chain, 0);
    assert_int_equal(ring_dirty_pages(f), 1);
    assert_true(guest_memory_test_dirty(f->memory, RING_USED, false));
}

static void the_page_of_each_used_entry_is_marked(void **state)
{
    struct ring_bench *f = *state;

    virtqueue_reset(&f->vq);
    f->vq.desc = RING_DESC;
    f->vq.avail = RING_AVAIL;
    f->vq.used = RING_USED + 4096 - 4 - 8 * 100; /* entry 100 begins a page */
    f->vq.size = 256;
    assert_int_equal(virtqueue_start(&f->vq), 0);
    for (uint16_t i = 0; i < 101; i++) {
        assert_false(guest_memory_test_dirty(f->memory, RING_USED + 4096, false));
        ring_set(f, 0, RING_DATA, 8, 0, 0);
        ring_offer(f, 0);
        assert_int_equal(ring_pop(f), 1);
        virtqueue_push(&f->vq, &f->chain, 0);
    }
    assert_true(guest_memory_test_dirty(f->memory, RING_USED + 4096, false));
}

static void a_head_that_is_not_in_flight_is_not_pushed(void **state)
{
    struct ring_bench *f = *state;

    virtqueue_push_head(&f->vq, 0, 0);
    virtqueue_push_head(&f->vq, 0xffff, 0);
    ring_offer_buffer(f, 1);
    assert_int_equal(ring_pop(f), 1);
    virtqueue_push_head(&f->vq, 1, 0);
    virtqueue_push_head(&f->vq, 1, 0);
    assert_int_equal(f->used->idx, 1);
}

static void nothing_is_pushed_to_a_broken_queue(void **state)
{
    struct ring_bench *f = *state;

    ring_offer_buffer(f, 1);
    assert_int_equal(ring_pop(f), 1);
    ring_offer(f, RING_SIZE);
    assert_int_equal(virtqueue_pop(&f->vq, &(struct virtq_chain){.iov = f->iov, .room = RING_ROOM}),
                     -EPROTO);
    virtqueue_push(&f->vq, &f->chain, 64);
    assert_int_equal(f->used->idx, 0);
    assert_int_equal(ring_dirty_pages(f), 0);
}

/* Notifications */

static void serve_one(struct ring_bench *f)
{
    ring_offer_buffer(f, 0);
    assert_int_equal(ring_pop(f), 1);
    virtqueue_push(&f->vq, &f->chain, 0);
}

static void the_driver_is_told_once_for_what_was_pushed(void **state)
{
    struct ring_bench *f = *state;

    assert_false(virtqueue_needs_interrupt(&f->vq));
    serve_one(f);
    serve_one(f);
    assert_true(virtqueue_needs_interrupt(&f->vq));
    assert_false(virtqueue_needs_interrupt(&f->vq));
}

static void a_driver_that_wants_no_interrupt_gets_none(void **state)
{
    struct ring_bench *f = *state;

    f->avail->flags = VRING_AVAIL_F_NO_INTERRUPT;
    serve_one(f);
    assert_false(virtqueue_needs_interrupt(&f->vq));
    f->avail->flags = 0;
    serve_one(f);
    assert_true(virtqueue_needs_interrupt(&f->vq));
}

static void with_event_idx_the_driver_is_told_when_its_event_is_passed(void **state)
{
    struct ring_bench *f = *state;

    f->avail->flags = VRING_AVAIL_F_NO_INTERRUPT; /* does not count here */
    *ring_used_event(f) = 2;                      /* when the third is there */
    for (unsigned i = 0; i < 2; i++) {
        serve_one(f);
        assert_false(virtqueue_needs_interrupt(&f->vq));
    }
    serve_one(f);
    assert_true(virtqueue_needs_interrupt(&f->vq));
    serve_one(f);
    assert_false(virtqueue_needs_interrupt(&f->vq));

    *ring_used_event(f) = 5; /* passed in the middle of a batch */
    for (unsigned i = 0; i < 4; i++)
        serve_one(f);
    assert_true(virtqueue_needs_interrupt(&f->vq));
}

static void with_event_idx_events_are_right_where_indices_wrap(void **state)
{
    struct ring_bench *f = *state;

    f->vq.next_avail = f->vq.next_used = f->vq.signalled_used = f->avail->idx = 0xffff;
    f->used->idx = 0xffff;
    assert_int_equal(virtqueue_start(&f->vq), 0);
    *ring_used_event(f) = 0;
    serve_one(f);
    assert_int_equal(f->used->idx, 0);
    assert_false(virtqueue_needs_interrupt(&f->vq));
    serve_one(f);
    assert_true(virtqueue_needs_interrupt(&f->vq));
}

static void with_event_idx_an_empty_ring_arms_the_doorbell(void **state)
{
    struct ring_bench *f = *state;

    for (uint16_t i = 1; i < 4; i++) {
        serve_one(f);
        assert_int_equal(ring_pop(f), 0);
        assert_int_equal(ring_avail_event(f), i);
    }
}

static void with_event_idx_disabled_doorbells_stay_unarmed(void **state)
{
    struct ring_bench *f = *state;

    virtqueue_disable_kicks(&f->vq);
    serve_one(f);
    assert_int_equal(ring_pop(f), 0);
    assert_int_equal(ring_avail_event(f), 0);
    assert_int_equal(f->used->flags, 0);
    assert_false(virtqueue_enable_kicks(&f->vq));
    assert_int_equal(ring_avail_event(f), 1);
}

static void without_event_idx_doorbells_are_disabled_by_a_flag(void **state)
{
    struct ring_bench *f = *state;

    virtqueue_disable_kicks(&f->vq);
    assert_int_equal(f->used->flags, VRING_USED_F_NO_NOTIFY);
    assert_true(guest_memory_test_dirty(f->memory, RING_USED, true));
    assert_int_equal(ring_pop(f), 0);
    assert_int_equal(f->used->flags, VRING_USED_F_NO_NOTIFY);
    assert_false(virtqueue_enable_kicks(&f->vq));
    assert_int_equal(f->used->flags, 0);
    assert_true(guest_memory_test_dirty(f->memory, RING_USED, true));
}

static void what_came_while_doorbells_were_off_is_told_when_they_are_on_again(void **state)
{
    struct ring_bench *f = *state;

    virtqueue_disable_kicks(&f->vq);
    assert_int_equal(ring_pop(f), 0);
    ring_offer_buffer(f, 2);
    assert_true(virtqueue_enable_kicks(&f->vq));
    assert_int_equal(ring_pop(f), 1);
    assert_int_equal(ring_pop(f), 0);
    assert_int_equal(f->used->flags, 0); /* armed by the last pop at the latest */
}

/* Copying */

static void bytes_are_copied_across_buffers_from_anywhere(void **state)
{
    const char all[] = "abcdefg";
    char a[3] = "abc", b[4] = "defg", out[8];
    const struct iovec iov[] = {{a, 3}, {NULL, 0}, {b, 4}};

    (void)state;
    for (unsigned skip = 0; skip < 9; skip++) {
        for (unsigned len = 0; len < 9; len++) {
            unsigned there = skip > 7 ? 0 : 7 - skip, want = len < there ? len : there;

            memset(out, '-', sizeof(out));
            assert_int_equal(iov_to_buf(iov, 3, skip, out, len < 8 ? len : 8), want);
            assert_memory_equal(out, &all[skip > 7 ? 0 : skip], want);
            for (unsigned i = want; i < 8; i++)
                assert_int_equal(out[i], '-');
        }
    }
    assert_int_equal(iov_from_buf(iov, 3, 2, "XYZ", 3), 3);
    assert_memory_equal(a, "abX", 3);
    assert_memory_equal(b, "YZfg", 4);
    assert_int_equal(iov_from_buf(iov, 3, 6, "XYZ", 3), 1);
    assert_memory_equal(b, "YZfX", 4);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, ring_setup, ring_teardown)
#define EVENT_IDX(fn) cmocka_unit_test_setup_teardown(fn, ring_setup_event_idx, ring_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_push_marks_dirty_what_was_written_and_the_ring),
        TEST(a_push_of_nothing_marks_only_the_ring),
        TEST(the_page_of_each_used_entry_is_marked),
        TEST(a_head_that_is_not_in_flight_is_not_pushed),
        TEST(nothing_is_pushed_to_a_broken_queue),
        TEST(the_driver_is_told_once_for_what_was_pushed),
        TEST(a_driver_that_wants_no_interrupt_gets_none),
        EVENT_IDX(with_event_idx_the_driver_is_told_when_its_event_is_passed),
        EVENT_IDX(with_event_idx_events_are_right_where_indices_wrap),
        EVENT_IDX(with_event_idx_an_empty_ring_arms_the_doorbell),
        EVENT_IDX(with_event_idx_disabled_doorbells_stay_unarmed),
        TEST(without_event_idx_doorbells_are_disabled_by_a_flag),
        TEST(what_came_while_doorbells_were_off_is_told_when_they_are_on_again),
        EVENT_IDX(what_came_while_doorbells_were_off_is_told_when_they_are_on_again),
        cmocka_unit_test(bytes_are_copied_across_buffers_from_anywhere),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
