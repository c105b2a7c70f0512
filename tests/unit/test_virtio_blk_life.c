/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_blk over time: many requests at once, errors and delays of the host, pause, reset, an
 * image that grows, and the two suites of every virtio device.
 */
#include <errno.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "disk_bench.h"
#include "folder.h"
#include "virtio_hostile.h"

#define BIT(n) (UINT64_C(1) << (n))
#define OK VIRTIO_BLK_S_OK
#define IOERR VIRTIO_BLK_S_IOERR
#define MS UINT64_C(1000000)

/* Many at once */

#define QUEUES 4
#define DEPTH 128
#define SLOT 8 /* sectors that one request of a round may touch */

struct asked {
    uint64_t header, data, status;
    uint16_t head;
    bool busy;
    uint32_t type;
    uint64_t sector;
    unsigned sectors;
};

static void queue_random(struct disk_bench *b, unsigned queue, struct asked *r, uint64_t slot,
                         uint8_t *shadow)
{
    static const uint32_t types[] = {VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_OUT,
                                     VIRTIO_BLK_T_IN, VIRTIO_BLK_T_FLUSH};
    struct virtio_blk_outhdr header;
    uint8_t *data = disk_at(b, r->data, SLOT * 512);

    r->type = types[rand() % 5];
    r->sectors = r->type == VIRTIO_BLK_T_FLUSH ? 0 : 1 + (unsigned)rand() % SLOT;
    r->sector = r->sectors ? slot * SLOT + (unsigned)rand() % (SLOT - r->sectors + 1) : 0;
    header = (struct virtio_blk_outhdr){.type = r->type, .sector = r->sector};
    memcpy(disk_at(b, r->header, 16), &header, sizeof(header));
    *(uint8_t *)disk_at(b, r->status, 1) = 0xee;
    memset(data, 0x5a, SLOT * 512);
    if (r->type == VIRTIO_BLK_T_OUT) {
        for (unsigned i = 0; i < r->sectors * 512; i++)
            data[i] = (uint8_t)(1 + rand() % 255);
        memcpy(shadow + r->sector * 512, data, r->sectors * 512);
    }

    struct virtio_buffer buffers[4] = {{r->header, 16, false}};
    bool reads = r->type == VIRTIO_BLK_T_IN;
    uint32_t bytes = r->sectors * 512, part = bytes / 2 - bytes / 2 % (rand() % 2 ? 512 : 1);
    unsigned count = 1;
    if (part > 0)
        buffers[count++] = (struct virtio_buffer){r->data, part, reads};
    if (bytes > part)
        buffers[count++] = (struct virtio_buffer){r->data + part, bytes - part, reads};
    buffers[count++] = (struct virtio_buffer){r->status, 1, true};
    r->head = virtio_driver_add_indirect(&b->d, queue, buffers, count);
    r->busy = true;
}

/* Take every answer, in whatever order. */
static void take_all(struct disk_bench *b, unsigned queue, struct asked *requests,
                     const uint8_t *shadow)
{
    for (unsigned n = 0; n < DEPTH; n++) {
        struct asked *r = requests;
        uint16_t head;

        (void)virtio_driver_wait(&b->d, queue, &head);
        while (r < requests + DEPTH && (!r->busy || r->head != head))
            r++;
        assert_true(r < requests + DEPTH);
        r->busy = false;
        assert_int_equal(*(uint8_t *)disk_at(b, r->status, 1), OK);
        if (r->type == VIRTIO_BLK_T_IN)
            assert_memory_equal(disk_at(b, r->data, SLOT * 512), shadow + r->sector * 512,
                                r->sectors * 512);
    }
}

static void random_requests_on_all_queues_leave_what_a_shadow_copy_says(void **state)
{
    static struct asked requests[QUEUES][DEPTH];

    (void)state;
    srand(4);
    for (int cache = BLOCK_CACHE_NONE; cache <= BLOCK_CACHE_WRITEBACK; cache++) {
        uint8_t *shadow = malloc(DISK_SECTORS * 512), *seen = malloc(DISK_SECTORS * 512);
        struct disk_bench b;

        disk_bench_prepare(&b);
        b.params.cache = (enum block_cache)cache;
        b.params.queues = QUEUES;
        disk_bench_create(&b);
        disk_image_read(shadow, 0, DISK_SECTORS);
        for (unsigned round = 0; round < 12; round++) {
            disk_bench_start(&b, round % 2 ? UINT64_MAX : ~BIT(VIRTIO_F_EVENT_IDX));
            uint64_t data = virtio_machine_alloc(&b.m, QUEUES * DEPTH * SLOT * 512 + 512);
            data = (data + 511) & ~UINT64_C(511);
            for (unsigned i = 0; i < QUEUES * DEPTH; i++) {
                struct asked *r = &requests[i % QUEUES][i / QUEUES];

                r->header = virtio_machine_alloc(&b.m, 16);
                r->status = virtio_machine_alloc(&b.m, 1);
                r->data = data + (uint64_t)i * SLOT * 512;
                queue_random(&b, i % QUEUES, r, i, shadow);
                if (rand() % 8 == 0)
                    virtio_driver_kick(&b.d, i % QUEUES);
            }
            for (unsigned q = 0; q < QUEUES; q++)
                virtio_driver_kick(&b.d, q);
            for (unsigned q = 0; q < QUEUES; q++)
                take_all(&b, q, requests[q], shadow);
        }
        disk_bench_fini(&b);
        disk_image_read(seen, 0, DISK_SECTORS);
        assert_memory_equal(seen, shadow, DISK_SECTORS * 512);
        free(shadow);
        free(seen);
    }
}

static void one_interrupt_tells_of_a_whole_batch(void **state)
{
    struct disk_bench b;

    (void)state;
    disk_bench_prepare(&b);
    b.params.cache = BLOCK_CACHE_WRITEBACK; /* reads complete when they are submitted */
    disk_bench_create(&b);
    disk_bench_start(&b, ~BIT(VIRTIO_F_EVENT_IDX));
    disk_add_reads(&b, 0, 200, virtio_machine_alloc(&b.m, 512));
    virtio_driver_kick(&b.d, 0);
    for (unsigned i = 0; i < 200; i++)
        assert_int_equal(virtio_driver_wait(&b.d, 0, NULL), 513);
    device_pause(b.dev); /* what it does after the last push is done then */
    assert_int_equal(virtio_driver_interrupts(&b.d, 1), 1);
    assert_true(virtio_driver_wants_kick(&b.d, 0, b.d.queues[0].avail_idx));
    disk_bench_fini(&b);
}

static void more_requests_than_the_disk_takes_at_once_wait_their_turn(void **state)
{
    struct disk_bench b;

    (void)state;
    disk_bench_prepare(&b);
    b.params.queues = 8; /* of 256 each; the block takes 1024 */
    b.delay_ns = 20 * MS;
    disk_bench_create(&b);
    disk_bench_start(&b, UINT64_MAX);
    uint64_t data = virtio_machine_alloc(&b.m, 512);
    for (unsigned q = 0; q < 8; q++) {
        disk_add_reads(&b, q, 256, data);
        virtio_driver_kick(&b.d, q);
    }
    for (unsigned q = 0; q < 8; q++)
        for (unsigned i = 0; i < 256; i++)
            assert_int_equal(virtio_driver_wait(&b.d, q, NULL), 513);
    assert_int_equal(b.asked[BLOCK_READ], 2048);
    disk_assert_sector(disk_at(&b, data, 512), 0);
    disk_bench_fini(&b);
}

/* Errors of the host */

static void an_error_of_the_host_reaches_the_guest_and_is_over_then(void **state)
{
    static const int errors[] = {EIO, ENOSPC};
    uint8_t seen[512];
    struct disk_bench b;

    (void)state;
    disk_bench_open(&b);
    uint64_t data = virtio_machine_alloc(&b.m, 512);
    for (unsigned i = 0; i < 2; i++) {
        b.faulty_op = BLOCK_WRITE;
        b.fault = errors[i];
        memset(disk_at(&b, data, 512), 0xcc, 512);
        assert_int_equal(disk_request(&b, VIRTIO_BLK_T_OUT, 3, data, 512, NULL), IOERR);
        b.faulty_op = BLOCK_READ;
        assert_int_equal(disk_request(&b, VIRTIO_BLK_T_IN, 3, data, 512, NULL), IOERR);
        assert_int_equal(((uint8_t *)disk_at(&b, data, 512))[511], 0); /* of the image, nothing */
        b.faulty_op = BLOCK_FLUSH;
        assert_int_equal(disk_request(&b, VIRTIO_BLK_T_FLUSH, 0, 0, 0, NULL), IOERR);
        b.faulty_op = BLOCK_WRITE_ZEROES;
        assert_int_equal(disk_range(&b, VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, 0), IOERR);
        b.faulty_op = BLOCK_DISCARD;
        if (virtio_driver_offered(&b.d) & BIT(VIRTIO_BLK_F_DISCARD))
            assert_int_equal(disk_range(&b, VIRTIO_BLK_T_DISCARD, 0, 8, 0), IOERR);
    }
    b.fault = 0;
    disk_image_read(seen, 3, 1);
    disk_assert_sector(seen, 3); /* what was refused was not written */
    assert_int_equal(disk_request(&b, VIRTIO_BLK_T_IN, 3, data, 512, NULL), OK);
    disk_assert_sector(disk_at(&b, data, 512), 3);
    disk_bench_fini(&b);
}

static void a_read_that_comes_back_short_is_whole_for_the_guest(void **state)
{
    struct disk_bench b;

    (void)state;
    disk_bench_open(&b);
    uint64_t data = (virtio_machine_alloc(&b.m, 65536 + 511) + 511) & ~UINT64_C(511);
    b.faulty_op = BLOCK_READ;
    b.fault = BLOCK_FAULT_SHORT;
    assert_int_equal(disk_request(&b, VIRTIO_BLK_T_IN, 64, data, 65536, NULL), OK);
    for (unsigned i = 0; i < 128; i++)
        disk_assert_sector(disk_at(&b, data + i * 512, 512), 64 + i);
    disk_bench_fini(&b);
}

static void an_image_that_was_cut_is_an_error_for_the_guest(void **state)
{
    struct disk_bench b;

    (void)state;
    disk_bench_open(&b);
    uint64_t data = virtio_machine_alloc(&b.m, 8192);
    assert_int_equal(truncate(DISK_IMAGE, 4096), 0);
    assert_int_equal(disk_request(&b, VIRTIO_BLK_T_IN, 0, data, 4096, NULL), OK);
    assert_int_equal(disk_request(&b, VIRTIO_BLK_T_IN, 4, data, 4096, NULL), IOERR);
    assert_int_equal(disk_request(&b, VIRTIO_BLK_T_IN, 100, data, 512, NULL), IOERR);
    disk_bench_fini(&b);
}

/* Life */

static void a_pause_ends_when_nothing_is_in_flight(void **state)
{
    struct disk_bench b;
    unsigned taken = 0;

    (void)state;
    disk_bench_prepare(&b);
    disk_bench_create(&b);
    disk_bench_start(&b, ~BIT(VIRTIO_F_EVENT_IDX));
    uint64_t data = virtio_machine_alloc(&b.m, 512);
    b.delay_ns = 50 * MS;
    disk_add_reads(&b, 0, 10, data);
    virtio_driver_kick(&b.d, 0);
    disk_wait_asked(&b, BLOCK_READ);
    device_pause(b.dev);
    device_pause(b.dev);
    while (virtio_driver_take(&b.d, 0, NULL, NULL))
        taken++;
    assert_int_equal(taken, 10); /* the driver's to see, without an interrupt */
    assert_int_equal(virtio_driver_interrupts(&b.d, 1), 0);

    b.delay_ns = 0;
    memset(disk_at(&b, data, 512), 0xee, 512);
    disk_add_reads(&b, 0, 1, data);
    virtio_driver_kick(&b.d, 0);
    usleep(30000);
    assert_false(virtio_driver_take(&b.d, 0, NULL, NULL));
    assert_int_equal(b.asked[BLOCK_READ], 10);
    device_resume(b.dev);
    assert_int_equal(virtio_driver_wait(&b.d, 0, NULL), 513);
    disk_assert_sector(disk_at(&b, data, 512), 0);
    assert_true(virtio_driver_interrupts(&b.d, 1) > 0);
    disk_bench_fini(&b);
}

static void a_disk_that_does_not_answer_in_time_is_not_settled_and_works_on(void **state)
{
    struct error err = {.msg = ""};
    struct disk_bench b;

    (void)state;
    disk_bench_prepare(&b);
    disk_bench_create(&b);
    disk_bench_start(&b, ~BIT(VIRTIO_F_EVENT_IDX));
    uint64_t data = virtio_machine_alloc(&b.m, 512);
    b.delay_ns = 400 * MS;
    disk_add_reads(&b, 0, 3, data);
    virtio_driver_kick(&b.d, 0);
    disk_wait_asked(&b, BLOCK_READ);
    assert_int_equal(device_settle(b.dev, loop_now_ns() + 20 * MS, &err), -ETIMEDOUT);
    assert_string_equal(err.msg, "disk root: 3 requests in flight that the host does not answer");
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(virtio_driver_wait(&b.d, 0, NULL), 513);
    disk_assert_sector(disk_at(&b, data, 512), 0);
    b.delay_ns = 0;
    assert_int_equal(disk_request(&b, VIRTIO_BLK_T_FLUSH, 0, 0, 0, NULL), OK);

    assert_int_equal(device_settle(b.dev, loop_now_ns() + 10000 * MS, &err), 0);
    disk_add_reads(&b, 0, 1, data);
    virtio_driver_kick(&b.d, 0);
    usleep(30000);
    assert_false(virtio_driver_take(&b.d, 0, NULL, NULL)); /* nothing more is begun */
    device_pause(b.dev);
    device_resume(b.dev);
    assert_int_equal(virtio_driver_wait(&b.d, 0, NULL), 513);
    disk_bench_fini(&b);
}

static void a_lock_that_is_kept_is_not_waited_for_for_ever(void **state)
{
    struct error err = {.msg = ""};
    struct disk_bench b;

    (void)state;
    disk_bench_open(&b);
    pthread_mutex_lock(&b.dev->lock); /* as the disk's thread in a system call that hangs */
    assert_int_equal(device_settle(b.dev, loop_now_ns() + 20 * MS, &err), -ETIMEDOUT);
    pthread_mutex_unlock(&b.dev->lock);
    assert_string_equal(err.msg, "disk root: a request that the host does not end");
    assert_int_equal(disk_request(&b, VIRTIO_BLK_T_FLUSH, 0, 0, 0, NULL), OK);
    disk_bench_fini(&b);
}

static void after_a_reset_nothing_more_is_written_to_the_guest(void **state)
{
    static uint8_t before[VIRTIO_RAM_LOW];
    struct disk_bench b;

    (void)state;
    disk_bench_open(&b);
    b.delay_ns = 30 * MS;
    disk_add_reads(&b, 0, 20, virtio_machine_alloc(&b.m, 512));
    virtio_driver_kick(&b.d, 0);
    disk_wait_asked(&b, BLOCK_READ);
    virtio_driver_set_status(&b.d, VIRTIO_CONFIG_S_FAILED);
    virtio_driver_reset(&b.d);
    memcpy(before, disk_at(&b, 0, VIRTIO_RAM_LOW), VIRTIO_RAM_LOW);
    usleep(60000);
    assert_memory_equal(disk_at(&b, 0, VIRTIO_RAM_LOW), before, VIRTIO_RAM_LOW);
    b.delay_ns = 0;
    disk_bench_start(&b, UINT64_MAX);
    assert_int_equal(disk_request(&b, VIRTIO_BLK_T_FLUSH, 0, 0, 0, NULL), OK);
    disk_bench_fini(&b);
}

static void a_disk_goes_while_requests_are_in_flight(void **state)
{
    struct disk_bench b;

    (void)state;
    disk_bench_open(&b);
    b.delay_ns = 10 * MS;
    disk_add_reads(&b, 0, 100, virtio_machine_alloc(&b.m, 512));
    virtio_driver_kick(&b.d, 0);
    disk_bench_fini(&b);
}

static void a_grown_image_is_told_to_the_driver(void **state)
{
    struct disk_bench b;

    (void)state;
    disk_bench_open(&b);
    uint64_t data = virtio_machine_alloc(&b.m, 512);
    uint64_t generation = virtio_driver_read(&b.d, b.d.common + 21, 1);

    virtio_blk_refresh(b.dev);
    assert_int_equal(virtio_driver_interrupts(&b.d, 0), 0);
    assert_int_equal(truncate(DISK_IMAGE, 2 * DISK_SECTORS * 512), 0);
    assert_int_equal(disk_request(&b, VIRTIO_BLK_T_IN, DISK_SECTORS, data, 512, NULL), IOERR);
    virtio_blk_refresh(b.dev);
    assert_int_equal(virtio_driver_interrupts(&b.d, 0), 1);
    assert_int_not_equal(virtio_driver_read(&b.d, b.d.common + 21, 1), generation);
    assert_int_equal(virtio_driver_config_read(&b.d, 0, 8), 2 * DISK_SECTORS);
    assert_int_equal(disk_request(&b, VIRTIO_BLK_T_OUT, 2 * DISK_SECTORS - 1, data, 512, NULL), OK);
    disk_bench_fini(&b);
}

static void a_disk_that_cannot_be_is_refused_in_words(void **state)
{
    struct error err = {.msg = ""};
    struct disk_bench b;
    struct device *other;

    (void)state;
    disk_bench_prepare(&b);
    b.params.path = "nowhere.img";
    assert_int_equal(virtio_blk_create(b.m.platform, b.m.host, &b.params, &b.dev, &err), -ENOENT);
    assert_string_equal(err.msg, "disk root: nowhere.img: cannot open: No such file or directory");
    b.params.path = DISK_IMAGE;
    disk_bench_create(&b);
    b.params.id = "data";
    assert_int_equal(virtio_blk_create(b.m.platform, b.m.host, &b.params, &other, &err), -EBUSY);
    assert_memory_equal(err.msg, "disk data: disk.img: in use: ", 29);
    disk_bench_fini(&b);
}

/* The suites */

#define SUBJECTS 4

static struct {
    struct virtio_machine *m; /* NULL: free */
    struct iothread *thread;
} subjects[SUBJECTS];

static int create(void *opaque, struct virtio_machine *m, struct device **ret_dev,
                  struct error *err)
{
    char path[24];
    unsigned i = 0;

    (void)opaque;
    while (subjects[i].m)
        assert_true(++i < SUBJECTS);
    subjects[i].m = m;
    subjects[i].thread = NULL;
    snprintf(path, sizeof(path), "subject%u.img", i);
    disk_image_create(path);
    int r = iothread_create("disk root", &subjects[i].thread, err);
    if (r < 0)
        return r;

    const struct virtio_blk_params params = {
        .id = "root",
        .path = path,
        .cache = BLOCK_CACHE_WRITEBACK,
        .queues = 2,
        .thread = subjects[i].thread,
    };
    return virtio_blk_create(m->platform, m->host, &params, ret_dev, err);
}

static void gone(void *opaque, struct virtio_machine *m)
{
    unsigned i = 0;

    (void)opaque;
    while (subjects[i].m != m)
        assert_true(++i < SUBJECTS);
    iothread_destroy(subjects[i].thread);
    subjects[i].m = NULL;
}

static void works(void *opaque, struct virtio_driver *d)
{
    const struct virtio_blk_outhdr header = {.type = VIRTIO_BLK_T_IN, .sector = 9};
    uint64_t out = virtio_machine_alloc(d->m, 16), in = virtio_machine_alloc(d->m, 513);
    const struct virtio_buffer buffers[] = {{out, 16, false}, {in, 513, true}};
    uint8_t *data = virtio_machine_at(d->m, in, 513);

    (void)opaque;
    memcpy(virtio_machine_at(d->m, out, 16), &header, sizeof(header));
    data[512] = 0xee;
    assert_int_equal(virtio_driver_request(d, 0, buffers, 2), 513);
    assert_int_equal(data[512], OK);
    disk_assert_sector(data, 9);
}

static unsigned read_header(void *opaque, uint8_t header[64])
{
    const struct virtio_blk_outhdr read = {.type = VIRTIO_BLK_T_IN, .sector = 1};

    (void)opaque;
    memcpy(header, &read, sizeof(read));
    return sizeof(read);
}

static void nothing(void *opaque)
{
    (void)opaque;
}

/* No request is unanswered. */
static bool is_idle(struct virtio_device *vdev)
{
    bool idle = true;

    pthread_mutex_lock(&vdev->pci.dev.lock);
    for (unsigned i = 0; i < vdev->queue_count; i++) {
        const struct virtqueue *vq = &vdev->queues[i];

        for (unsigned w = 0; w < VIRTQ_MAX_SIZE / 64; w++)
            idle = idle && (vq->broken || !vq->in_flight[w]);
    }
    pthread_mutex_unlock(&vdev->pci.dev.lock);
    return idle;
}

static uint64_t kicks(const struct virtio_device *vdev)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < vdev->queue_count; i++)
        sum += counter_read(&vdev->queues[i].kicks);
    return sum;
}

/* Its thread has heard each doorbell before it takes the call, and the disk answered. */
static void settle(void *opaque, struct device *dev)
{
    struct virtio_device *vdev = container_of(dev, struct virtio_device, pci.dev);
    uint64_t before;

    (void)opaque;
    do {
        before = kicks(vdev);
        iothread_call(vdev->thread, nothing, NULL);
    } while (kicks(vdev) != before || !is_idle(vdev));
}

static const struct virtio_kind kind = {
    .create = create,
    .works = works,
    .header = read_header,
    .settle = settle,
    .gone = gone,
};

/*
 * A hostile guest writes what a device reads, and the suites save a device that runs: for
 * ThreadSanitizer both are races, and they are meant.
 */
static void not_under_thread_sanitizer(void)
{
#ifdef __SANITIZE_THREAD__
    print_message("skipped: these races are meant\n");
    skip();
#endif
}

static void no_guest_harms_it(void **state)
{
    (void)state;
    not_under_thread_sanitizer();
    hostile_run(&kind);
}

static void it_does_what_every_device_does(void **state)
{
    (void)state;
    not_under_thread_sanitizer();
    virtio_conformance_run(&kind);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_requests_on_all_queues_leave_what_a_shadow_copy_says),
        cmocka_unit_test(one_interrupt_tells_of_a_whole_batch),
        cmocka_unit_test(more_requests_than_the_disk_takes_at_once_wait_their_turn),
        cmocka_unit_test(an_error_of_the_host_reaches_the_guest_and_is_over_then),
        cmocka_unit_test(a_read_that_comes_back_short_is_whole_for_the_guest),
        cmocka_unit_test(an_image_that_was_cut_is_an_error_for_the_guest),
        cmocka_unit_test(a_pause_ends_when_nothing_is_in_flight),
        cmocka_unit_test(a_disk_that_does_not_answer_in_time_is_not_settled_and_works_on),
        cmocka_unit_test(a_lock_that_is_kept_is_not_waited_for_for_ever),
        cmocka_unit_test(after_a_reset_nothing_more_is_written_to_the_guest),
        cmocka_unit_test(a_disk_goes_while_requests_are_in_flight),
        cmocka_unit_test(a_grown_image_is_told_to_the_driver),
        cmocka_unit_test(a_disk_that_cannot_be_is_refused_in_words),
        cmocka_unit_test(no_guest_harms_it),
        cmocka_unit_test(it_does_what_every_device_does),
    };
    return cmocka_run_group_tests_name("virtio-blk's life", tests, folder_enter, folder_leave);
}
