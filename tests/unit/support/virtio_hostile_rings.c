/* SPDX-License-Identifier: Apache-2.0 */
/* virtio_hostile_rings: requests that a driver must not make. */
#include "virtio_hostile_case.h"

#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define HOLE_AT UINT64_C(0x80000000)
#define NEXT VRING_DESC_F_NEXT
#define WRITE VRING_DESC_F_WRITE
#define INDIRECT VRING_DESC_F_INDIRECT

/* Building blocks */

static struct vring_desc *desc_at(struct hostile_bench *b, unsigned i)
{
    return virtio_machine_at(&b->m, b->q->desc + i * sizeof(struct vring_desc),
                             sizeof(struct vring_desc));
}

static void set(struct hostile_bench *b, unsigned i, uint64_t gpa, uint32_t bytes, unsigned flags,
                unsigned next)
{
    *desc_at(b, i) = (struct vring_desc){gpa, bytes, (uint16_t)flags, (uint16_t)next};
}

/* The header, if the kind has one, in descriptor 0. Returns the index of what comes after. */
static unsigned begin(struct hostile_bench *b)
{
    if (!b->header_bytes)
        return 0;
    set(b, 0, b->header, b->header_bytes, NEXT, 1);
    return 1;
}

static uint16_t *avail(struct hostile_bench *b)
{
    return virtio_machine_at(&b->m, b->q->avail, 6 + b->q->size * 2u);
}

static void make_available(struct hostile_bench *b, uint16_t head)
{
    avail(b)[2 + b->q->avail_idx++ % b->q->size] = head;
    __atomic_store_n(&avail(b)[1], b->q->avail_idx, __ATOMIC_RELEASE);
}

/* A request that begins in descriptor 0. */
static void submit(struct hostile_bench *b)
{
    make_available(b, 0);
    hostile_kick(b);
}

/* One bad buffer for the device to write to. */
static void submit_buffer(struct hostile_bench *b, uint64_t gpa, uint32_t bytes)
{
    set(b, begin(b), gpa, bytes, WRITE, 0);
    submit(b);
}

/* Chains */

static void a_descriptor_that_names_itself(struct hostile_bench *b)
{
    unsigned i = begin(b);

    set(b, i, b->data, 16, WRITE | NEXT, i);
    submit(b);
}

static void two_descriptors_that_name_each_other(struct hostile_bench *b)
{
    unsigned i = begin(b);

    set(b, i, b->data, 16, WRITE | NEXT, i + 1);
    set(b, i + 1, b->data, 16, WRITE | NEXT, i);
    submit(b);
}

static void a_chain_of_the_whole_table_that_goes_on(struct hostile_bench *b)
{
    for (unsigned i = begin(b); i < b->q->size; i++)
        set(b, i, b->data, 1, WRITE | NEXT, (i + 1u) % b->q->size);
    submit(b);
}

static void a_next_index_just_outside_the_table(struct hostile_bench *b)
{
    set(b, begin(b), b->data, 16, WRITE | NEXT, b->q->size);
    submit(b);
}

static void a_next_index_of_65535(struct hostile_bench *b)
{
    set(b, begin(b), b->data, 16, WRITE | NEXT, 0xffff);
    submit(b);
}

static void a_head_just_outside_the_table(struct hostile_bench *b)
{
    make_available(b, b->q->size);
    hostile_kick(b);
}

static void a_head_of_65535(struct hostile_bench *b)
{
    make_available(b, 0xffff);
    hostile_kick(b);
}

static void an_available_index_that_jumps_over_the_queue_size(struct hostile_bench *b)
{
    set(b, 0, b->data, 16, WRITE, 0);
    __atomic_store_n(&avail(b)[1], (uint16_t)(b->q->size + 1), __ATOMIC_RELEASE);
    hostile_kick(b);
}

static void an_available_index_that_goes_back(struct hostile_bench *b)
{
    __atomic_store_n(&avail(b)[1], 0xffff, __ATOMIC_RELEASE);
    hostile_kick(b);
}

static void a_readable_buffer_after_a_writable_one(struct hostile_bench *b)
{
    unsigned i = begin(b);

    set(b, i, b->data, 16, WRITE | NEXT, i + 1);
    set(b, i + 1, b->data + 16, 16, 0, 0);
    submit(b);
}

static void one_head_in_all_entries(struct hostile_bench *b)
{
    set(b, begin(b), b->data, 16, WRITE, 0);
    hostile_allow(b, b->data, 16);
    for (unsigned i = 0; i < b->q->size; i++)
        make_available(b, 0);
    hostile_kick(b);
}

static void flags_that_do_not_exist(struct hostile_bench *b)
{
    set(b, begin(b), b->data, 16, WRITE | 0xfff8, 0);
    hostile_allow(b, b->data, 16);
    submit(b);
}

/* Addresses and lengths */

static void a_buffer_in_the_hole(struct hostile_bench *b)
{
    submit_buffer(b, HOLE_AT, 16);
}

static void a_readable_buffer_in_the_hole(struct hostile_bench *b)
{
    set(b, begin(b), HOLE_AT, 16, 0, 0);
    submit(b);
}

static void a_buffer_after_the_end_of_ram(struct hostile_bench *b)
{
    submit_buffer(b, VIRTIO_RAM_HIGH_AT + VIRTIO_RAM_HIGH, 16);
}

static void a_buffer_over_the_end_of_low_ram(struct hostile_bench *b)
{
    submit_buffer(b, VIRTIO_RAM_LOW - 8, 16);
}

static void a_buffer_over_the_end_of_high_ram(struct hostile_bench *b)
{
    submit_buffer(b, VIRTIO_RAM_HIGH_AT + VIRTIO_RAM_HIGH - 8, 16);
}

static void a_buffer_that_begins_before_high_ram(struct hostile_bench *b)
{
    submit_buffer(b, VIRTIO_RAM_HIGH_AT - 8, 16);
}

static void a_buffer_that_wraps_around_2_to_64(struct hostile_bench *b)
{
    submit_buffer(b, UINT64_MAX - 7, 16);
}

static void a_buffer_that_ends_at_2_to_64(struct hostile_bench *b)
{
    submit_buffer(b, UINT64_MAX - 15, 16);
}

static void a_buffer_of_no_bytes(struct hostile_bench *b)
{
    submit_buffer(b, b->data, 0);
}

static void a_buffer_of_almost_4_gib(struct hostile_bench *b)
{
    submit_buffer(b, b->data, UINT32_MAX);
}

static void a_buffer_of_almost_4_gib_over_the_gap(struct hostile_bench *b)
{
    submit_buffer(b, 0x1000, UINT32_MAX);
}

static void a_buffer_that_is_the_used_ring(struct hostile_bench *b)
{
    submit_buffer(b, b->q->used, 64);
}

static void a_buffer_that_is_the_descriptor_table(struct hostile_bench *b)
{
    hostile_allow(b, b->q->desc, 64);
    submit_buffer(b, b->q->desc, 64);
}

static void a_buffer_that_is_the_available_ring(struct hostile_bench *b)
{
    hostile_allow(b, b->q->avail, 16);
    submit_buffer(b, b->q->avail, 16);
}

/* Indirect tables: `entries` of them at data, described by one descriptor after the header. */

static struct vring_desc *table_at(struct hostile_bench *b, uint64_t gpa, unsigned entries)
{
    return virtio_machine_at(&b->m, gpa, entries * sizeof(struct vring_desc));
}

static void submit_table(struct hostile_bench *b, uint64_t gpa, uint32_t bytes, unsigned flags)
{
    set(b, begin(b), gpa, bytes, INDIRECT | flags, 0);
    submit(b);
}

static void an_indirect_table_in_an_indirect_table(struct hostile_bench *b)
{
    struct vring_desc *table = table_at(b, b->data, 2);

    table[0] = (struct vring_desc){b->data + 16, 16, INDIRECT, 0};
    table[1] = (struct vring_desc){b->data + 64, 16, WRITE, 0};
    submit_table(b, b->data, 32, 0);
}

static void an_indirect_table_that_names_itself(struct hostile_bench *b)
{
    *table_at(b, b->data, 1) = (struct vring_desc){b->data, 16, INDIRECT, 0};
    submit_table(b, b->data, 16, 0);
}

static void an_indirect_descriptor_with_a_next_one(struct hostile_bench *b)
{
    *table_at(b, b->data, 1) = (struct vring_desc){b->data + 64, 16, WRITE, 0};
    submit_table(b, b->data, 16, NEXT);
}

static void an_indirect_table_of_no_bytes(struct hostile_bench *b)
{
    submit_table(b, b->data, 0, 0);
}

static void an_indirect_table_of_15_bytes(struct hostile_bench *b)
{
    submit_table(b, b->data, 15, 0);
}

static void an_indirect_table_of_17_bytes(struct hostile_bench *b)
{
    *table_at(b, b->data, 1) = (struct vring_desc){b->data + 64, 16, WRITE, 0};
    submit_table(b, b->data, 17, 0);
}

static void an_indirect_table_of_almost_4_gib(struct hostile_bench *b)
{
    submit_table(b, b->data, UINT32_MAX - 15, 0);
}

static void an_indirect_table_in_the_hole(struct hostile_bench *b)
{
    submit_table(b, HOLE_AT, 16, 0);
}

static void an_indirect_table_over_the_end_of_ram(struct hostile_bench *b)
{
    *table_at(b, VIRTIO_RAM_LOW - 16, 1) = (struct vring_desc){b->data, 16, WRITE | NEXT, 1};
    submit_table(b, VIRTIO_RAM_LOW - 16, 32, 0);
}

static void an_indirect_table_whose_next_is_outside(struct hostile_bench *b)
{
    struct vring_desc *table = table_at(b, b->data, 3);

    table[0] = (struct vring_desc){b->data + 64, 16, WRITE | NEXT, 2};
    table[2] = (struct vring_desc){b->data + 64, 16, WRITE, 0};
    submit_table(b, b->data, 32, 0);
}

static void an_indirect_table_with_a_loop(struct hostile_bench *b)
{
    struct vring_desc *table = table_at(b, b->data, 2);

    table[0] = (struct vring_desc){b->data + 64, 16, WRITE | NEXT, 1};
    table[1] = (struct vring_desc){b->data + 64, 16, WRITE | NEXT, 0};
    submit_table(b, b->data, 32, 0);
}

static void fill_table(struct hostile_bench *b, uint64_t buffer, uint32_t bytes, unsigned entries)
{
    struct vring_desc *table = table_at(b, b->data, entries);

    for (unsigned i = 0; i < entries; i++)
        table[i] = (struct vring_desc){
            buffer, bytes, (uint16_t)(WRITE | (i + 1 < entries ? NEXT : 0)), (uint16_t)(i + 1)};
    submit_table(b, b->data, (uint32_t)(entries * sizeof(*table)), 0);
}

static void more_buffers_than_a_request_may_have(struct hostile_bench *b)
{
    fill_table(b, b->header, 1, VIRTQ_MAX_CHAIN + 1);
}

static void buffers_of_4_gib_in_all(struct hostile_bench *b)
{
    fill_table(b, 0, (uint32_t)VIRTIO_RAM_LOW, VIRTQ_MAX_CHAIN);
}

/* No rule asks for an alignment: it is a request like another (and refused without the feature). */
static void an_indirect_table_at_an_odd_address(struct hostile_bench *b)
{
    struct vring_desc desc = {b->data + 64, 16, WRITE, 0};

    hostile_allow(b, b->data + 64, 16);
    memcpy(virtio_machine_at(&b->m, b->data + 1, sizeof(desc)), &desc, sizeof(desc));
    submit_table(b, b->data + 1, 16, 0);
    assert_true(hostile_is_broken(b) || !b->plain);
}

/* Notifications */

static void a_thousand_kicks_for_nothing(struct hostile_bench *b)
{
    for (unsigned i = 0; i < 1000; i++)
        virtio_driver_kick(&b->d, b->kind->queue);
    hostile_kick(b);
}

static void flags_and_events_of_ones(struct hostile_bench *b)
{
    set(b, begin(b), b->data, 16, WRITE, 0);
    hostile_allow(b, b->data, 16);
    avail(b)[0] = 0xffff;
    avail(b)[2 + b->q->size] = 0xffff;
    submit(b);
}

static void an_unfinished_request_is_cut_off_by_a_reset(struct hostile_bench *b)
{
    for (unsigned i = 0; i < b->q->size / 2u; i++) {
        unsigned first = 2 * i;

        if (b->header_bytes)
            set(b, first, b->header, b->header_bytes, NEXT, first + 1);
        set(b, first + !!b->header_bytes, b->data, 4096, WRITE, 0);
        make_available(b, (uint16_t)first);
    }
    virtio_driver_kick(&b->d, b->kind->queue);
    virtio_machine_run(&b->m);
    virtio_driver_reset(&b->d);
    hostile_watch(b); /* not one byte more */
}

static void a_request_while_paused_waits(struct hostile_bench *b)
{
    set(b, begin(b), HOLE_AT, 16, WRITE, 0);
    make_available(b, 0);
    device_pause(b->dev);
    hostile_kick(b);
    assert_false(hostile_is_broken(b));
    hostile_check(b);
    device_resume(b->dev);
}

/* A second vCPU that changes the ring while it is read */

struct flipper {
    struct hostile_bench *b;
    pthread_t thread;
    bool stop, also_index;
};

static uint64_t flip_random(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

/*
 * What moves a payload reads or writes what flip() writes, as it must be: nothing is decided by
 * bytes still in guest memory. A race between flip() and anything else is a finding.
 */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
    return "race:^copy$\nrace:^netdev_send$\nrace:^netdev_receive$\n"
           "race:^console_read$\nrace:^console_write$\n";
}

static void *flip(void *opaque)
{
    struct flipper *f = opaque;
    struct hostile_bench *b = f->b;
    /* The second one is the nested table: a payload that changes as well. */
    const uint64_t addresses[] = {b->data, b->data + 8192, b->header, HOLE_AT, UINT64_MAX - 7};
    const uint32_t lengths[] = {0, 16, 4096, UINT32_MAX};
    uint64_t *table = virtio_machine_at(&b->m, b->q->desc, 4 * sizeof(struct vring_desc));
    uint64_t *nested = virtio_machine_at(&b->m, b->data + 8192, 4 * sizeof(struct vring_desc));
    uint64_t seed = 1;

    while (!__atomic_load_n(&f->stop, __ATOMIC_RELAXED)) {
        uint64_t r = flip_random(&seed);
        uint64_t *desc = (r & 1 ? table : nested) + 2 * (r >> 1 & 3);
        bool indirect = (r >> 3 & 3) == 0;
        uint64_t bytes = indirect ? 64 : lengths[r >> 5 & 3];
        uint64_t flags = indirect ? INDIRECT : r >> 7 & 3;

        __atomic_store_n(desc, indirect ? b->data + 8192 : addresses[(r >> 16) % 5],
                         __ATOMIC_RELAXED);
        __atomic_store_n(desc + 1, bytes | flags << 32 | (r >> 24 & 7) << 48, __ATOMIC_RELAXED);
        if (f->also_index && r % 256 == 0)
            __atomic_store_n(&avail(b)[1], (uint16_t)(r >> 32), __ATOMIC_RELAXED);
    }
    return NULL;
}

static void flip_while_requests_run(struct hostile_bench *b, bool also_index)
{
    for (unsigned round = 0; round < 12; round++) {
        struct flipper f = {.b = b, .also_index = also_index};

        hostile_start(b);
        hostile_allow(b, b->data, HOSTILE_DATA_BYTES);
        hostile_allow(b, b->header, 4096); /* a buffer that begins there */
        hostile_allow(b, b->q->desc, 4 * sizeof(struct vring_desc));
        hostile_allow(b, b->q->avail, 6 + b->q->size * 2u);
        set(b, begin(b), b->data, 16, WRITE, 0);
        hostile_watch(b);
        assert_int_equal(pthread_create(&f.thread, NULL, flip, &f), 0);
        for (unsigned i = 0; i < 300 && !hostile_is_broken(b); i++) {
            uint16_t *ring = avail(b);

            __atomic_store_n(&ring[2 + b->q->avail_idx++ % b->q->size], 0, __ATOMIC_RELAXED);
            __atomic_store_n(&ring[1], b->q->avail_idx, __ATOMIC_RELEASE);
            virtio_driver_kick(&b->d, b->kind->queue);
            virtio_machine_run(&b->m);
        }
        __atomic_store_n(&f.stop, true, __ATOMIC_RELAXED);
        pthread_join(f.thread, NULL);
        hostile_settle(b);
        hostile_check(b);
    }
}

static void descriptors_that_change_while_they_are_read(struct hostile_bench *b)
{
    flip_while_requests_run(b, false);
}

static void an_index_that_changes_while_it_is_read(struct hostile_bench *b)
{
    flip_while_requests_run(b, true);
}

#define CASE(end, fn) \
    { \
#fn, HOSTILE_##end, fn \
    }

const struct hostile_case hostile_ring_cases[] = {
    CASE(BROKEN, a_descriptor_that_names_itself),
    CASE(BROKEN, two_descriptors_that_name_each_other),
    CASE(BROKEN, a_chain_of_the_whole_table_that_goes_on),
    CASE(BROKEN, a_next_index_just_outside_the_table),
    CASE(BROKEN, a_next_index_of_65535),
    CASE(BROKEN, a_head_just_outside_the_table),
    CASE(BROKEN, a_head_of_65535),
    CASE(BROKEN, an_available_index_that_jumps_over_the_queue_size),
    CASE(BROKEN, an_available_index_that_goes_back),
    CASE(BROKEN, a_readable_buffer_after_a_writable_one),
    CASE(EITHER, one_head_in_all_entries),
    CASE(EITHER, flags_that_do_not_exist),
    CASE(BROKEN, a_buffer_in_the_hole),
    CASE(BROKEN, a_readable_buffer_in_the_hole),
    CASE(BROKEN, a_buffer_after_the_end_of_ram),
    CASE(BROKEN, a_buffer_over_the_end_of_low_ram),
    CASE(BROKEN, a_buffer_over_the_end_of_high_ram),
    CASE(BROKEN, a_buffer_that_begins_before_high_ram),
    CASE(BROKEN, a_buffer_that_wraps_around_2_to_64),
    CASE(BROKEN, a_buffer_that_ends_at_2_to_64),
    CASE(BROKEN, a_buffer_of_no_bytes),
    CASE(BROKEN, a_buffer_of_almost_4_gib),
    CASE(BROKEN, a_buffer_of_almost_4_gib_over_the_gap),
    CASE(EITHER, a_buffer_that_is_the_used_ring),
    CASE(EITHER, a_buffer_that_is_the_descriptor_table),
    CASE(EITHER, a_buffer_that_is_the_available_ring),
    CASE(BROKEN, an_indirect_table_in_an_indirect_table),
    CASE(BROKEN, an_indirect_table_that_names_itself),
    CASE(BROKEN, an_indirect_descriptor_with_a_next_one),
    CASE(BROKEN, an_indirect_table_of_no_bytes),
    CASE(BROKEN, an_indirect_table_of_15_bytes),
    CASE(BROKEN, an_indirect_table_of_17_bytes),
    CASE(BROKEN, an_indirect_table_of_almost_4_gib),
    CASE(BROKEN, an_indirect_table_in_the_hole),
    CASE(BROKEN, an_indirect_table_over_the_end_of_ram),
    CASE(BROKEN, an_indirect_table_whose_next_is_outside),
    CASE(BROKEN, an_indirect_table_with_a_loop),
    CASE(BROKEN, more_buffers_than_a_request_may_have),
    CASE(BROKEN, buffers_of_4_gib_in_all),
    CASE(EITHER, an_indirect_table_at_an_odd_address),
    CASE(UNHARMED, a_thousand_kicks_for_nothing),
    CASE(EITHER, flags_and_events_of_ones),
    CASE(UNHARMED, an_unfinished_request_is_cut_off_by_a_reset),
    CASE(BROKEN, a_request_while_paused_waits),
    CASE(EITHER, descriptors_that_change_while_they_are_read),
    CASE(EITHER, an_index_that_changes_while_it_is_read),
    {0},
};
