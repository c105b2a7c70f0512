/* SPDX-License-Identifier: Apache-2.0 */
/* What the operator hears of a disk: counters, and errors as events; and the guest meanwhile. */
#include <errno.h>
#include <linux/virtio_blk.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "disk_bench.h"
#include "folder.h"
#include "vmrun/loop.h"

#define OK VIRTIO_BLK_S_OK
#define IOERR VIRTIO_BLK_S_IOERR
#define MS UINT64_C(1000000)

static void *at(struct disk_bench *b, uint64_t gpa, uint64_t bytes)
{
    return virtio_machine_at(&b->m, gpa, bytes);
}

static struct virtio_blk_stats stats(struct disk_bench *b)
{
    struct virtio_blk_stats s;

    virtio_blk_stats(b->dev, &s);
    return s;
}

struct wanted {
    const char *queue, *name;
    uint64_t value;
    bool found;
};

static void look_at(void *opaque, const char *queue, const char *name, uint64_t value)
{
    struct wanted *w = opaque;

    if (strcmp(queue, w->queue) != 0 || strcmp(name, w->name) != 0)
        return;
    assert_false(w->found);
    w->value = value;
    w->found = true;
}

static uint64_t queue_stat(struct disk_bench *b, const char *queue, const char *name)
{
    struct wanted w = {.queue = queue, .name = name};

    virtio_stats(b->dev, look_at, &w);
    if (!w.found)
        fail_msg("%s has no counter %s", queue, name);
    return w.value;
}

/* Counters */

static void a_disk_counts_what_it_did_and_each_queue_its_traffic(void **state)
{
    struct disk_bench b;

    (void)state;
    disk_bench_prepare(&b);
    b.params.queues = 2;
    disk_bench_create(&b);
    disk_bench_start(&b, UINT64_MAX);
    uint64_t data = virtio_machine_alloc(&b.m, 8192);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(disk_request(&b, VIRTIO_BLK_T_IN, i, data, 4096, NULL), OK);
    assert_int_equal(disk_request(&b, VIRTIO_BLK_T_OUT, 5, data, 512, NULL), OK);
    assert_int_equal(disk_request(&b, VIRTIO_BLK_T_FLUSH, 0, 0, 0, NULL), OK);
    assert_int_equal(disk_range(&b, VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, 0), OK);
    assert_int_equal(disk_request(&b, VIRTIO_BLK_T_GET_ID, 0, data, 20, NULL), OK);
    assert_int_equal(disk_request(&b, VIRTIO_BLK_T_IN, DISK_SECTORS, data, 512, NULL), IOERR);

    struct virtio_blk_stats s = stats(&b);
    assert_int_equal(s.reads, 3);
    assert_int_equal(s.read_bytes, 3 * 4096);
    assert_int_equal(s.writes, 1);
    assert_int_equal(s.written_bytes, 512);
    assert_int_equal(s.flushes, 1);
    assert_int_equal(s.zeroings, 1);
    assert_int_equal(s.discards, 0);
    assert_int_equal(s.errors, 0); /* what the guest did wrong is not the host's error */

    assert_int_equal(queue_stat(&b, "q0", "requests"), 8);
    /* Headers, and what was written; statuses, and what was read. */
    assert_int_equal(queue_stat(&b, "q0", "bytes_out"),
                     8 * 16 + 512 + sizeof(struct virtio_blk_discard_write_zeroes));
    assert_int_equal(queue_stat(&b, "q0", "bytes_in"), 8 + 3 * 4096 + 20 + 512);
    assert_in_range(queue_stat(&b, "q0", "kicks"), 8, 9); /* one may be for the start */
    assert_int_equal(queue_stat(&b, "q0", "interrupts"), 8);
    assert_int_equal(queue_stat(&b, "q1", "requests"), 0);
    assert_int_equal(queue_stat(&b, "q1", "interrupts"), 0);

    device_reset(b.dev);
    assert_int_equal(queue_stat(&b, "q0", "requests"), 8);
    assert_int_equal(stats(&b).reads, 3);
    disk_bench_fini(&b);
}

/* Errors */

struct told {
    _Atomic unsigned count;
    struct virtio_blk_error last;
};

static void hear(void *opaque, const struct virtio_blk_error *error)
{
    struct told *told = opaque;

    told->last = *error;
    told->count++;
}

static void open_with_listener(struct disk_bench *b, struct told *told)
{
    disk_bench_prepare(b);
    b->params.io_error = hear;
    b->params.io_error_opaque = told;
    disk_bench_create(b);
    disk_bench_start(b, UINT64_MAX);
}

static void an_error_of_the_host_is_told_with_all_that_is_known(void **state)
{
    static const struct {
        uint32_t type;
        enum block_op op;
        int code;
        uint64_t sector;
        uint32_t bytes;
        const char *words;
    } cases[] = {
        {VIRTIO_BLK_T_IN, BLOCK_READ, EIO, 8, 4096,
         "read of 4096 bytes at 4096 failed: Input/output error"},
        {VIRTIO_BLK_T_OUT, BLOCK_WRITE, ENOSPC, 3, 512,
         "write of 512 bytes at 1536 failed: No space left on device"},
        {VIRTIO_BLK_T_FLUSH, BLOCK_FLUSH, EIO, 0, 0, "flush failed: Input/output error"},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct told told = {0};
        struct disk_bench b;

        open_with_listener(&b, &told);
        uint64_t data = virtio_machine_alloc(&b.m, 4096);
        b.faulty_op = cases[i].op;
        b.fault = cases[i].code;
        assert_int_equal(disk_request(&b, cases[i].type, cases[i].sector, cases[i].bytes ? data : 0,
                                      cases[i].bytes, NULL),
                         IOERR);
        assert_int_equal(told.count, 1);
        assert_int_equal(told.last.op, cases[i].op);
        assert_int_equal(told.last.code, cases[i].code);
        assert_int_equal(told.last.offset, cases[i].sector * 512);
        assert_int_equal(told.last.bytes, cases[i].bytes);
        assert_int_equal(told.last.left_out, 0);
        assert_string_equal(told.last.words, cases[i].words);
        assert_int_equal(stats(&b).errors, 1);
        disk_bench_fini(&b);
    }
}

static void a_flood_of_errors_is_told_once_and_counted_whole(void **state)
{
    struct told told = {0};
    struct disk_bench b;

    (void)state;
    open_with_listener(&b, &told);
    uint64_t data = virtio_machine_alloc(&b.m, 512), start = loop_now_ns();
    b.faulty_op = BLOCK_WRITE;
    b.fault = ENOSPC;
    for (unsigned i = 0; i < 500; i++)
        assert_int_equal(disk_request(&b, VIRTIO_BLK_T_OUT, 1, data, 512, NULL), IOERR);
    /* One in five seconds, however long this machine took. */
    assert_in_range(told.count, 1, 1 + (loop_now_ns() - start) / (5000 * MS));
    assert_int_equal(stats(&b).errors, 500);
    assert_int_equal(stats(&b).writes, 0);
    b.fault = 0;
    assert_int_equal(disk_request(&b, VIRTIO_BLK_T_OUT, 1, data, 512, NULL), OK);
    disk_bench_fini(&b);
}

static void what_the_guest_did_wrong_is_no_news(void **state)
{
    struct told told = {0};
    struct disk_bench b;

    (void)state;
    open_with_listener(&b, &told);
    uint64_t data = virtio_machine_alloc(&b.m, 512);
    assert_int_equal(disk_request(&b, VIRTIO_BLK_T_OUT, DISK_SECTORS, data, 512, NULL), IOERR);
    assert_int_equal(told.count, 0);
    disk_bench_fini(&b);
}

/* A host that is slow, or does things by halves, as the guest sees it */

static void a_write_that_comes_back_short_is_whole_for_the_guest(void **state)
{
    uint8_t written[128 * 512];
    struct disk_bench b;

    (void)state;
    disk_bench_open(&b);
    uint64_t data = (virtio_machine_alloc(&b.m, 65536 + 511) + 511) & ~UINT64_C(511);
    for (unsigned i = 0; i < sizeof(written); i++)
        ((uint8_t *)at(&b, data, 65536))[i] = disk_byte(7 + i / 512, i % 512);
    b.faulty_op = BLOCK_WRITE;
    b.fault = BLOCK_FAULT_SHORT;
    assert_int_equal(disk_request(&b, VIRTIO_BLK_T_OUT, 64, data, 65536, NULL), OK);
    disk_image_read(written, 64, 128);
    assert_memory_equal(written, at(&b, data, 65536), sizeof(written));
    assert_int_equal(stats(&b).writes, 1);
    assert_int_equal(stats(&b).written_bytes, 65536);
    disk_bench_fini(&b);
}

static int delay_reads(void *opaque, const struct block_request *request, uint64_t *delay_ns)
{
    (void)opaque;
    *delay_ns = request->op == BLOCK_READ ? 300 * MS : 0;
    return 0;
}

static uint16_t add(struct disk_bench *b, uint32_t type, uint64_t data, uint64_t status)
{
    bool reads = type == VIRTIO_BLK_T_IN;
    const struct virtio_buffer buffers[] = {
        {disk_header(b, type, 1), 16, false}, {data, 512, reads}, {status, 1, true}};

    return virtio_driver_add(&b->d, 0, buffers, 3);
}

static void a_slow_read_is_answered_late_and_a_write_after_it_meanwhile(void **state)
{
    struct disk_bench b;
    uint16_t head;

    (void)state;
    disk_bench_prepare(&b);
    b.params.fault = delay_reads;
    disk_bench_create(&b);
    disk_bench_start(&b, UINT64_MAX);
    uint64_t slow = virtio_machine_alloc(&b.m, 512), quick = virtio_machine_alloc(&b.m, 512);
    uint64_t status = virtio_machine_alloc(&b.m, 2), start = loop_now_ns();
    uint8_t *statuses = at(&b, status, 2);
    memset(statuses, 0xee, 2);
    uint16_t read = add(&b, VIRTIO_BLK_T_IN, slow, status);
    uint16_t write = add(&b, VIRTIO_BLK_T_OUT, quick, status + 1);
    virtio_driver_kick(&b.d, 0);

    assert_int_equal(virtio_driver_wait(&b.d, 0, &head), 1);
    assert_int_equal(head, write);
    assert_int_equal(statuses[1], OK);
    assert_int_equal(statuses[0], 0xee);
    assert_int_equal(virtio_driver_wait(&b.d, 0, &head), 513);
    assert_int_equal(head, read);
    assert_true(loop_now_ns() - start >= 300 * MS);
    assert_int_equal(statuses[0], OK);
    disk_bench_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_disk_counts_what_it_did_and_each_queue_its_traffic),
        cmocka_unit_test(an_error_of_the_host_is_told_with_all_that_is_known),
        cmocka_unit_test(a_flood_of_errors_is_told_once_and_counted_whole),
        cmocka_unit_test(what_the_guest_did_wrong_is_no_news),
        cmocka_unit_test(a_write_that_comes_back_short_is_whole_for_the_guest),
        cmocka_unit_test(a_slow_read_is_answered_late_and_a_write_after_it_meanwhile),
    };
    return cmocka_run_group_tests_name("what is heard of a disk", tests, folder_enter,
                                       folder_leave);
}
