/* SPDX-License-Identifier: Apache-2.0 */
/* virtio_blk on the move: what is durable, what travels, and which image it is. */
#include <errno.h>
#include <linux/virtio_blk.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "disk_bench.h"
#include "folder.h"

#define OK VIRTIO_BLK_S_OK
#define MS UINT64_C(1000000)

/* The image after the disk was made durable, with requests under way when that was asked for. */
static void a_sync_waits_for_what_is_under_way_and_flushes(void **state)
{
    struct virtio_buffer buffers[3];
    uint8_t seen[512];
    struct disk_bench b;
    struct error err = {.msg = ""};

    (void)state;
    disk_bench_open(&b);
    uint64_t data = virtio_machine_alloc(&b.m, 512);
    memset(disk_at(&b, data, 512), 0xcc, 512);
    buffers[0] = (struct virtio_buffer){disk_header(&b, VIRTIO_BLK_T_OUT, 5), 16, false};
    buffers[1] = (struct virtio_buffer){data, 512, false};
    buffers[2] = (struct virtio_buffer){b.status, 1, true};
    b.delay_ns = 50 * MS;
    virtio_driver_add(&b.d, 0, buffers, 3);
    virtio_driver_kick(&b.d, 0);
    disk_wait_asked(&b, BLOCK_WRITE);
    assert_int_equal(virtio_blk_sync(b.dev, UINT64_MAX, &err), 0);
    assert_int_equal(b.asked[BLOCK_FLUSH], 1);
    assert_true(virtio_driver_take(&b.d, 0, NULL, NULL));
    disk_image_read(seen, 5, 1);
    assert_memory_equal(seen, disk_at(&b, data, 512), 512);

    device_pause(b.dev);
    assert_int_equal(virtio_blk_sync(b.dev, UINT64_MAX, &err), 0);
    assert_int_equal(b.asked[BLOCK_FLUSH], 2);
    device_resume(b.dev);
    disk_bench_fini(&b);
}

static void a_sync_that_does_not_end_in_time_is_given_up_and_the_disk_works_on(void **state)
{
    struct error err = {.msg = ""};
    struct disk_bench b;

    (void)state;
    disk_bench_open(&b);
    device_pause(b.dev);
    b.delay_ns = 400 * MS;
    assert_int_equal(virtio_blk_sync(b.dev, loop_now_ns() + 20 * MS, &err), -ETIMEDOUT);
    assert_string_equal(err.msg, "disk root: 1 request in flight that the host does not answer");
    assert_int_equal(virtio_blk_sync(b.dev, loop_now_ns() + 20 * MS, &err), -ETIMEDOUT);
    assert_int_equal(b.asked[BLOCK_FLUSH], 1); /* it waited for the first */
    b.delay_ns = 0;
    device_resume(b.dev);
    assert_int_equal(disk_request(&b, VIRTIO_BLK_T_FLUSH, 0, 0, 0, NULL), OK);
    device_pause(b.dev);
    assert_int_equal(virtio_blk_sync(b.dev, UINT64_MAX, &err), 0);
    assert_int_equal(b.asked[BLOCK_FLUSH], 3);
    device_resume(b.dev);
    disk_bench_fini(&b);
}

static void a_sync_that_fails_is_told_and_the_disk_works_on(void **state)
{
    struct disk_bench b;
    struct error err = {.msg = ""};

    (void)state;
    disk_bench_open(&b);
    device_pause(b.dev);
    b.faulty_op = BLOCK_FLUSH;
    b.fault = EIO;
    assert_int_equal(virtio_blk_sync(b.dev, UINT64_MAX, &err), -EIO);
    assert_string_equal(err.msg,
                        "disk root: what was written may not be durable: Input/output error");
    b.fault = 0;
    assert_int_equal(virtio_blk_sync(b.dev, UINT64_MAX, &err), 0);
    device_resume(b.dev);
    assert_int_equal(disk_request(&b, VIRTIO_BLK_T_FLUSH, 0, 0, 0, NULL), OK);
    disk_bench_fini(&b);
}

/* The disk is taken away and another one, on the same image and memory, goes on from its state. */
static void move(struct disk_bench *b)
{
    const struct state_desc *desc = b->dev->ops->state;
    struct writer w = {0};
    struct error err = {.msg = ""};

    device_pause(b->dev);
    state_save(desc, b->dev, &w, &err);
    device_destroy(b->dev);
    virtio_blk_create(b->m.platform, b->m.host, &b->params, &b->dev, &err);
    assert_string_equal(err.msg, "");
    device_pause(b->dev);
    struct reader r = {.data = w.data, .len = w.len};
    pthread_mutex_lock(&b->dev->lock); /* as the registry does */
    state_load(desc, b->dev, &r, &err);
    pthread_mutex_unlock(&b->dev->lock);
    assert_string_equal(err.msg, "");
    free(w.data);
    b->d.dev = b->dev;
}

static void requests_under_way_are_answered_before_the_state_is_taken(void **state)
{
    struct disk_bench b;

    (void)state;
    disk_bench_open(&b);
    uint64_t data = virtio_machine_alloc(&b.m, 512);
    b.delay_ns = 50 * MS;
    disk_add_reads(&b, 0, 10, data);
    virtio_driver_kick(&b.d, 0);
    for (int i = 0; i < 5000 && b.asked[BLOCK_READ] < 10; i++)
        usleep(1000);
    assert_false(virtio_driver_take(&b.d, 0, NULL, NULL));
    move(&b);
    for (unsigned i = 0; i < 10; i++)
        assert_true(virtio_driver_take(&b.d, 0, NULL, NULL));
    assert_false(virtio_driver_take(&b.d, 0, NULL, NULL));
    disk_assert_sector(disk_at(&b, data, 512), 0);
    assert_int_equal(virtio_driver_interrupts(&b.d, 1), 0);
    device_resume(b.dev); /* and now the driver hears of it */
    assert_true(virtio_driver_interrupts(&b.d, 1) > 0);
    assert_int_equal(b.asked[BLOCK_READ], 10); /* none was done twice */
    b.delay_ns = 0;
    assert_int_equal(disk_request(&b, VIRTIO_BLK_T_FLUSH, 0, 0, 0, NULL), OK);
    disk_bench_fini(&b);
}

static void requests_that_nobody_has_served_yet_travel_in_the_ring(void **state)
{
    struct disk_bench b;

    (void)state;
    disk_bench_open(&b);
    uint64_t data = virtio_machine_alloc(&b.m, 512);
    device_pause(b.dev);
    disk_add_reads(&b, 0, 10, data);
    virtio_driver_kick(&b.d, 0);
    move(&b);
    assert_int_equal(b.asked[BLOCK_READ], 0);
    device_resume(b.dev);
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(virtio_driver_wait(&b.d, 0, NULL), 513);
    disk_assert_sector(disk_at(&b, data, 512), 0);
    disk_bench_fini(&b);
}

static void it_knows_its_image_whatever_has_its_name_now(void **state)
{
    struct block_identity at_first, now, named;
    struct disk_bench b;
    struct error err = {.msg = ""};

    (void)state;
    disk_bench_open(&b);
    assert_int_equal(virtio_blk_identity(b.dev, &at_first, &err), 0);
    assert_int_equal(block_identify(DISK_IMAGE, &named, &err), 0);
    assert_int_equal(at_first.bytes, DISK_SECTORS * 512);
    assert_memory_equal(&at_first, &named, sizeof(named));
    assert_int_equal(rename(DISK_IMAGE, "moved.img"), 0);
    folder_write(DISK_IMAGE, "another", 7);
    assert_int_equal(virtio_blk_identity(b.dev, &now, &err), 0);
    assert_memory_equal(&now, &at_first, sizeof(now));
    usleep(20000); /* the host's clock of files ticks */
    assert_int_equal(
        disk_request(&b, VIRTIO_BLK_T_OUT, 0, virtio_machine_alloc(&b.m, 512), 512, NULL), OK);
    assert_int_equal(virtio_blk_identity(b.dev, &now, &err), 0);
    assert_true(now.mtime_ns > at_first.mtime_ns);
    disk_bench_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sync_waits_for_what_is_under_way_and_flushes),
        cmocka_unit_test(a_sync_that_does_not_end_in_time_is_given_up_and_the_disk_works_on),
        cmocka_unit_test(a_sync_that_fails_is_told_and_the_disk_works_on),
        cmocka_unit_test(requests_under_way_are_answered_before_the_state_is_taken),
        cmocka_unit_test(requests_that_nobody_has_served_yet_travel_in_the_ring),
        cmocka_unit_test(it_knows_its_image_whatever_has_its_name_now),
    };

    return cmocka_run_group_tests_name("virtio-blk's move", tests, folder_enter, folder_leave);
}
