/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_blk, request by request: what each type does to the image and to the guest's memory, and
 * how what makes no sense is answered. The image is a real file.
 */
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "disk_bench.h"
#include "folder.h"

#define BIT(n) (UINT64_C(1) << (n))
#define OK VIRTIO_BLK_S_OK
#define IOERR VIRTIO_BLK_S_IOERR
#define UNSUPP VIRTIO_BLK_S_UNSUPP

static uint64_t config(struct disk_bench *b, size_t offset, unsigned size)
{
    return virtio_driver_config_read(&b->d, (unsigned)offset, size);
}

#define CONFIG(b, member) \
    config(b, offsetof(struct virtio_blk_config, member), \
           sizeof(((struct virtio_blk_config *)0)->member))

static void assert_zero(const uint8_t *data, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        assert_int_equal(data[i], 0);
}

/* The image is as it was made. */
static void assert_untouched(void)
{
    uint8_t *seen = malloc(DISK_SECTORS * 512);

    disk_image_read(seen, 0, DISK_SECTORS);
    for (unsigned sector = 0; sector < DISK_SECTORS; sector++)
        disk_assert_sector(seen + sector * 512, sector);
    free(seen);
}

static void it_is_a_disk_of_this_size_and_shape(void **state)
{
    struct disk_bench b;

    (void)state;
    disk_bench_prepare(&b);
    b.params.queues = 4;
    disk_bench_create(&b);
    assert_int_equal(virtio_driver_pci_read(&b.d, 2, 2), 0x1040 + VIRTIO_ID_BLOCK);
    assert_int_equal(b.d.queue_count, 4);
    uint64_t offered = virtio_driver_offered(&b.d);
    assert_true(offered & BIT(VIRTIO_BLK_F_SEG_MAX) && offered & BIT(VIRTIO_BLK_F_BLK_SIZE));
    assert_true(offered & BIT(VIRTIO_BLK_F_FLUSH) && offered & BIT(VIRTIO_BLK_F_TOPOLOGY));
    assert_true(offered & BIT(VIRTIO_BLK_F_MQ) && offered & BIT(VIRTIO_BLK_F_WRITE_ZEROES));
    assert_false(offered & (BIT(VIRTIO_BLK_F_RO) | BIT(VIRTIO_BLK_F_SIZE_MAX) |
                            BIT(VIRTIO_BLK_F_CONFIG_WCE) | BIT(VIRTIO_BLK_F_SCSI)));
    disk_bench_start(&b, UINT64_MAX);
    assert_int_equal(CONFIG(&b, capacity), DISK_SECTORS);
    assert_int_equal(CONFIG(&b, seg_max), 254);
    assert_int_equal(CONFIG(&b, blk_size), 512);
    assert_in_range(512u << CONFIG(&b, physical_block_exp), 512, 4096);
    assert_int_equal(CONFIG(&b, num_queues), 4);
    assert_int_equal(CONFIG(&b, max_write_zeroes_sectors), 65536);
    assert_int_equal(CONFIG(&b, max_write_zeroes_seg), 1);
    if (offered & BIT(VIRTIO_BLK_F_DISCARD)) {
        assert_int_equal(CONFIG(&b, max_discard_sectors), 1 << 21);
        assert_int_equal(CONFIG(&b, max_discard_seg), 1);
    }
    /* The second half of a 64-bit field can be read by itself. */
    assert_int_equal(config(&b, 4, 4), 0);
    disk_bench_fini(&b);
}

static void what_is_written_is_read_again_and_lies_in_the_image(void **state)
{
    (void)state;
    for (int cache = BLOCK_CACHE_NONE; cache <= BLOCK_CACHE_WRITEBACK; cache++) {
        struct disk_bench b;
        uint8_t seen[8192];
        uint32_t written;

        disk_bench_prepare(&b);
        b.params.cache = (enum block_cache)cache;
        disk_bench_create(&b);
        disk_bench_start(&b, ~BIT(VIRTIO_F_EVENT_IDX));
        uint64_t data = virtio_machine_alloc(&b.m, 8192 + 512);
        data = (data + 511) & ~UINT64_C(511);
        assert_int_equal(disk_request(&b, VIRTIO_BLK_T_IN, 100, data, 8192, &written), OK);
        assert_int_equal(written, 8193);
        for (unsigned i = 0; i < 16; i++)
            disk_assert_sector((uint8_t *)disk_at(&b, data, 8192) + i * 512, 100 + i);

        assert_int_equal(disk_request(&b, VIRTIO_BLK_T_OUT, 4080, data, 8192, &written), OK);
        assert_int_equal(written, 1);
        assert_int_equal(disk_request(&b, VIRTIO_BLK_T_FLUSH, 0, 0, 0, &written), OK);
        assert_int_equal(written, 1);
        disk_image_read(seen, 4080, 16);
        assert_memory_equal(seen, disk_at(&b, data, 8192), 8192);
        assert_int_equal(virtio_driver_interrupts(&b.d, 1), 3);
        disk_bench_fini(&b);
    }
}

static void header_data_and_status_may_be_cut_anywhere(void **state)
{
    struct disk_bench b;

    (void)state;
    disk_bench_open(&b);
    for (uint32_t cut = 1; cut < 16; cut += 7) {
        /* Header and data of a write in buffers that know nothing of each other. */
        uint64_t out = virtio_machine_alloc(&b.m, 16 + 1024), in = virtio_machine_alloc(&b.m, 4);
        const struct virtio_blk_outhdr header = {.type = VIRTIO_BLK_T_OUT, .sector = 7};
        uint8_t *bytes = disk_at(&b, out, 16 + 1024), seen[1024];

        memcpy(bytes, &header, sizeof(header));
        memset(bytes + 16, (int)cut, 1024);
        const struct virtio_buffer write[] = {
            {out, cut, false},
            {out + cut, 16, false},
            {out + cut + 16, 1024 - cut, false},
            {in, 1, true},
        };
        assert_int_equal(virtio_driver_request(&b.d, 0, write, 4), 1);
        assert_int_equal(*(uint8_t *)disk_at(&b, in, 1), OK);
        disk_image_read(seen, 7, 2);
        assert_memory_equal(seen, bytes + 16, 1024);

        /* The status of a read behind its data, in one buffer; a sector in odd pieces. */
        uint64_t data = virtio_machine_alloc(&b.m, 513);
        const struct virtio_buffer read[] = {
            {disk_header(&b, VIRTIO_BLK_T_IN, 8), 16, false},
            {data, cut, true},
            {data + cut, 513 - cut, true},
        };
        memset(disk_at(&b, data, 513), 0xee, 513);
        assert_int_equal(virtio_driver_request(&b.d, 0, read, 3), 513);
        assert_int_equal(((uint8_t *)disk_at(&b, data, 513))[512], OK);
        assert_memory_equal(disk_at(&b, data, 513), seen + 512, 512);
    }
    disk_bench_fini(&b);
}

static void a_request_of_all_segments_is_one_request(void **state)
{
    struct virtio_buffer buffers[256];
    struct disk_bench b;
    uint8_t seen[512];

    (void)state;
    disk_bench_open(&b);
    uint64_t data = (virtio_machine_alloc(&b.m, 255 * 1024) + 511) & ~UINT64_C(511);
    buffers[0] = (struct virtio_buffer){disk_header(&b, VIRTIO_BLK_T_IN, 1000), 16, false};
    for (unsigned i = 0; i < 254; i++) /* with gaps: they cannot be joined */
        buffers[1 + i] = (struct virtio_buffer){data + i * UINT64_C(1024), 512, true};
    buffers[255] = (struct virtio_buffer){b.status, 1, true};
    assert_int_equal(virtio_driver_request(&b.d, 0, buffers, 256), 254 * 512 + 1);
    for (unsigned i = 0; i < 254; i++)
        disk_assert_sector(disk_at(&b, data + i * UINT64_C(1024), 512), 1000 + i);

    buffers[0] = (struct virtio_buffer){disk_header(&b, VIRTIO_BLK_T_OUT, 2000), 16, false};
    for (unsigned i = 0; i < 254; i++)
        buffers[1 + i].write = false;
    (void)virtio_driver_add_indirect(&b.d, 0, buffers, 256);
    virtio_driver_kick(&b.d, 0);
    assert_int_equal(virtio_driver_wait(&b.d, 0, NULL), 1);
    for (unsigned i = 0; i < 254; i++) {
        disk_image_read(seen, 2000 + i, 1);
        disk_assert_sector(seen, 1000 + i);
    }
    disk_bench_fini(&b);
}

static void the_serial_is_the_one_that_was_given(void **state)
{
    static const char *const serials[][2] = {
        {NULL, "root"},
        {"S-1", "S-1"},
        {"12345678901234567890", "12345678901234567890"},
        {"12345678901234567890123", "12345678901234567890"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(serials) / sizeof(serials[0]); i++) {
        struct disk_bench b;
        char meant[20] = {0};
        uint32_t written;

        disk_bench_prepare(&b);
        b.params.serial = serials[i][0];
        disk_bench_create(&b);
        disk_bench_start(&b, UINT64_MAX);
        memcpy(meant, serials[i][1], strlen(serials[i][1]));
        uint64_t data = virtio_machine_alloc(&b.m, 32);
        memset(disk_at(&b, data, 32), 0xee, 32);
        assert_int_equal(disk_request(&b, VIRTIO_BLK_T_GET_ID, 0, data, 20, &written), OK);
        assert_int_equal(written, 21);
        assert_memory_equal(disk_at(&b, data, 20), meant, 20);
        assert_int_equal(*(uint8_t *)disk_at(&b, data + 20, 1), 0xee);
        /* Less room than it needs, or more. */
        assert_int_equal(disk_request(&b, VIRTIO_BLK_T_GET_ID, 0, data, 2, NULL), OK);
        assert_memory_equal(disk_at(&b, data, 20), meant, 20);
        assert_int_equal(disk_request(&b, VIRTIO_BLK_T_GET_ID, 0, data, 32, &written), OK);
        assert_int_equal(written, 33);
        assert_zero(disk_at(&b, data + 20, 12), 12);
        disk_bench_fini(&b);
    }
}

static void discarded_and_zeroed_sectors_read_as_zeros(void **state)
{
    struct disk_bench b;
    uint8_t *seen = malloc(4096 * 3);
    struct stat before, after;

    (void)state;
    disk_bench_open(&b);
    assert_int_equal(disk_range(&b, VIRTIO_BLK_T_WRITE_ZEROES, 9, 6, 0), OK);
    disk_image_read(seen, 8, 8);
    disk_assert_sector(seen, 8);
    assert_zero(seen + 512, 6 * 512);
    disk_assert_sector(seen + 7 * 512, 15);

    assert_int_equal(stat(DISK_IMAGE, &before), 0);
    assert_int_equal(
        disk_range(&b, VIRTIO_BLK_T_WRITE_ZEROES, 1024, 1024, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP),
        OK);
    disk_image_read(seen, 2040, 16);
    assert_zero(seen, 8 * 512);
    disk_assert_sector(seen + 8 * 512, 2048);
    if (virtio_driver_offered(&b.d) & BIT(VIRTIO_BLK_F_DISCARD)) {
        assert_int_equal(disk_range(&b, VIRTIO_BLK_T_DISCARD, 2048, 1024, 0), OK);
        disk_image_read(seen, 3064, 16);
        assert_zero(seen, 8 * 512);
        disk_assert_sector(seen + 8 * 512, 3072);
        assert_int_equal(stat(DISK_IMAGE, &after), 0);
        assert_int_equal(before.st_blocks - after.st_blocks, 2048);
    }
    free(seen);
    disk_bench_fini(&b);
}

static const struct {
    uint32_t type;
    uint64_t sector;
    uint32_t bytes; /* of data */
    uint8_t status;
} wrong_requests[] = {
    {VIRTIO_BLK_T_IN, DISK_SECTORS, 512, IOERR},
    {VIRTIO_BLK_T_IN, DISK_SECTORS - 1, 1024, IOERR},
    {VIRTIO_BLK_T_IN, UINT64_MAX, 512, IOERR},
    {VIRTIO_BLK_T_IN, UINT64_MAX / 512, 512, IOERR},
    {VIRTIO_BLK_T_IN, UINT64_C(1) << 55, 512, IOERR}, /* times 512 it would be sector 0 */
    {VIRTIO_BLK_T_IN, UINT64_MAX - 1, 1024, IOERR},
    {VIRTIO_BLK_T_IN, 0, 511, IOERR},
    {VIRTIO_BLK_T_IN, 0, 513, IOERR},
    {VIRTIO_BLK_T_OUT, DISK_SECTORS, 512, IOERR},
    {VIRTIO_BLK_T_OUT, DISK_SECTORS - 1, 1024, IOERR},
    {VIRTIO_BLK_T_OUT, UINT64_MAX, 512, IOERR},
    {VIRTIO_BLK_T_OUT, UINT64_C(1) << 55, 512, IOERR},
    {VIRTIO_BLK_T_OUT, 0, 100, IOERR},
    {VIRTIO_BLK_T_OUT, 0, 1000, IOERR},
    {VIRTIO_BLK_T_SCSI_CMD, 0, 512, UNSUPP},
    {VIRTIO_BLK_T_SECURE_ERASE, 0, 16, UNSUPP},
    {VIRTIO_BLK_T_BARRIER | VIRTIO_BLK_T_OUT, 0, 512, UNSUPP},
    {3, 0, 512, UNSUPP},
    {UINT32_MAX, 0, 512, UNSUPP},
    {VIRTIO_BLK_T_DISCARD, 0, 0, IOERR},
    {VIRTIO_BLK_T_DISCARD, 0, 15, IOERR},
    {VIRTIO_BLK_T_DISCARD, 0, 32, IOERR},
    {VIRTIO_BLK_T_WRITE_ZEROES, 0, 0, IOERR},
    {VIRTIO_BLK_T_WRITE_ZEROES, 0, 17, IOERR},
};

static const struct {
    uint32_t type;
    uint64_t sector;
    uint32_t sectors, flags;
    uint8_t status;
} wrong_ranges[] = {
    {VIRTIO_BLK_T_DISCARD, 0, 8, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP, UNSUPP},
    {VIRTIO_BLK_T_DISCARD, 0, 8, 2, UNSUPP},
    {VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, 2, UNSUPP},
    {VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, UINT32_MAX, UNSUPP},
    {VIRTIO_BLK_T_DISCARD, DISK_SECTORS, 1, 0, IOERR},
    {VIRTIO_BLK_T_DISCARD, DISK_SECTORS - 1, 2, 0, IOERR},
    {VIRTIO_BLK_T_DISCARD, UINT64_MAX, UINT32_MAX, 0, IOERR},
    {VIRTIO_BLK_T_DISCARD, UINT64_C(1) << 55, 1, 0, IOERR},
    {VIRTIO_BLK_T_WRITE_ZEROES, DISK_SECTORS, 1, 0, IOERR},
    {VIRTIO_BLK_T_WRITE_ZEROES, DISK_SECTORS - 1, 2, 1, IOERR},
    {VIRTIO_BLK_T_WRITE_ZEROES, UINT64_MAX - 1, 2, 0, IOERR},
    {VIRTIO_BLK_T_WRITE_ZEROES, 0, UINT32_MAX, 0, IOERR},
    {VIRTIO_BLK_T_DISCARD, 0, 0, 0, OK},
    {VIRTIO_BLK_T_WRITE_ZEROES, DISK_SECTORS, 0, 1, OK},
};

static void what_makes_no_sense_is_refused_and_does_nothing(void **state)
{
    struct disk_bench b;
    uint32_t written;

    (void)state;
    disk_bench_open(&b);
    uint64_t data = virtio_machine_alloc(&b.m, 1024);
    bool discards = virtio_driver_offered(&b.d) & BIT(VIRTIO_BLK_F_DISCARD);
    for (size_t i = 0; i < sizeof(wrong_requests) / sizeof(wrong_requests[0]); i++) {
        memset(disk_at(&b, data, 1024), 0xcc, 1024);
        uint8_t status = disk_request(&b, wrong_requests[i].type, wrong_requests[i].sector, data,
                                      wrong_requests[i].bytes, &written);
        if (wrong_requests[i].type == VIRTIO_BLK_T_DISCARD && !discards)
            assert_int_equal(status, UNSUPP);
        else
            assert_int_equal(status, wrong_requests[i].status);
        if (wrong_requests[i].type != VIRTIO_BLK_T_IN)
            continue;
        /* What it says it wrote it wrote: nothing of the host's or the image's. */
        assert_int_equal(written, wrong_requests[i].bytes + 1);
        assert_zero(disk_at(&b, data, wrong_requests[i].bytes), wrong_requests[i].bytes);
    }
    for (size_t i = 0; i < sizeof(wrong_ranges) / sizeof(wrong_ranges[0]); i++) {
        if (wrong_ranges[i].type == VIRTIO_BLK_T_DISCARD && !discards)
            continue;
        assert_int_equal(disk_range(&b, wrong_ranges[i].type, wrong_ranges[i].sector,
                                    wrong_ranges[i].sectors, wrong_ranges[i].flags),
                         wrong_ranges[i].status);
    }
    assert_false(virtio_driver_status(&b.d) & VIRTIO_CONFIG_S_NEEDS_RESET);
    assert_untouched();
    assert_int_equal(disk_request(&b, VIRTIO_BLK_T_IN, 0, data, 1024, NULL), OK);
    assert_int_equal(disk_request(&b, VIRTIO_BLK_T_IN, DISK_SECTORS, data, 0, NULL), OK);
    disk_bench_fini(&b);
}

static void a_request_without_a_whole_header_is_refused(void **state)
{
    struct disk_bench b;

    (void)state;
    disk_bench_open(&b);
    uint64_t data = virtio_machine_alloc(&b.m, 513);
    const struct virtio_buffer nothing[] = {{data, 513, true}};
    const struct virtio_buffer less[] = {{disk_header(&b, VIRTIO_BLK_T_IN, 0), 15, false},
                                         {data, 513, true}};

    memset(disk_at(&b, data, 513), 0xee, 513);
    assert_int_equal(virtio_driver_request(&b.d, 0, nothing, 1), 513);
    assert_zero(disk_at(&b, data, 512), 512);
    assert_int_equal(*(uint8_t *)disk_at(&b, data + 512, 1), IOERR);
    memset(disk_at(&b, data, 513), 0xee, 513);
    assert_int_equal(virtio_driver_request(&b.d, 0, less, 2), 513);
    assert_int_equal(*(uint8_t *)disk_at(&b, data + 512, 1), IOERR);
    disk_bench_fini(&b);
}

static void a_request_that_cannot_be_answered_breaks_the_device(void **state)
{
    struct disk_bench b;

    (void)state;
    disk_bench_open(&b);
    const struct virtio_buffer deaf[] = {{disk_header(&b, VIRTIO_BLK_T_FLUSH, 0), 16, false}};

    (void)virtio_driver_add(&b.d, 0, deaf, 1);
    virtio_driver_kick(&b.d, 0);
    for (int i = 0; i < 5000 && !(virtio_driver_status(&b.d) & VIRTIO_CONFIG_S_NEEDS_RESET); i++)
        usleep(1000);
    assert_true(virtio_driver_status(&b.d) & VIRTIO_CONFIG_S_NEEDS_RESET);
    disk_bench_start(&b, UINT64_MAX);
    assert_int_equal(disk_request(&b, VIRTIO_BLK_T_FLUSH, 0, 0, 0, NULL), OK);
    disk_bench_fini(&b);
}

static void a_disk_to_read_is_not_written(void **state)
{
    struct disk_bench b;

    (void)state;
    disk_bench_prepare(&b);
    b.params.read_only = true;
    disk_bench_create(&b);
    assert_true(virtio_driver_offered(&b.d) & BIT(VIRTIO_BLK_F_RO));
    assert_false(virtio_driver_offered(&b.d) &
                 (BIT(VIRTIO_BLK_F_DISCARD) | BIT(VIRTIO_BLK_F_WRITE_ZEROES)));
    for (unsigned accepted = 0; accepted < 2; accepted++) { /* whether or not the driver knows */
        disk_bench_start(&b, accepted ? UINT64_MAX : 0);
        uint64_t data = virtio_machine_alloc(&b.m, 512);
        assert_int_equal(disk_request(&b, VIRTIO_BLK_T_OUT, 5, data, 512, NULL), IOERR);
        assert_int_equal(disk_range(&b, VIRTIO_BLK_T_DISCARD, 0, 8, 0), IOERR);
        assert_int_equal(disk_range(&b, VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, 0), IOERR);
        assert_int_equal(disk_request(&b, VIRTIO_BLK_T_FLUSH, 0, 0, 0, NULL), OK);
        assert_int_equal(disk_request(&b, VIRTIO_BLK_T_IN, 5, data, 512, NULL), OK);
        disk_assert_sector(disk_at(&b, data, 512), 5);
    }
    assert_untouched();
    disk_bench_fini(&b);
}

static void what_was_not_negotiated_is_not_there(void **state)
{
    struct disk_bench b;

    (void)state;
    disk_bench_prepare(&b);
    disk_bench_create(&b);
    disk_bench_start(&b, 0);
    assert_int_equal(disk_range(&b, VIRTIO_BLK_T_DISCARD, 0, 8, 0), UNSUPP);
    assert_int_equal(disk_range(&b, VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, 0), UNSUPP);
    assert_untouched();
    disk_bench_fini(&b);
}

static void writes_of_a_driver_that_never_flushes_are_durable(void **state)
{
    struct disk_bench b;

    (void)state;
    disk_bench_prepare(&b);
    disk_bench_create(&b);
    disk_bench_start(&b, ~BIT(VIRTIO_BLK_F_FLUSH));
    uint64_t data = virtio_machine_alloc(&b.m, 512);
    assert_int_equal(disk_request(&b, VIRTIO_BLK_T_OUT, 0, data, 512, NULL), OK);
    assert_int_equal(disk_range(&b, VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, 0), OK);
    assert_int_equal(b.asked[BLOCK_FLUSH], 2);
    b.faulty_op = BLOCK_FLUSH;
    b.fault = 5; /* EIO */
    assert_int_equal(disk_request(&b, VIRTIO_BLK_T_OUT, 0, data, 512, NULL), IOERR);
    assert_int_equal(disk_request(&b, VIRTIO_BLK_T_IN, 0, data, 512, NULL), OK);
    assert_int_equal(b.asked[BLOCK_FLUSH], 3);

    disk_bench_start(&b, UINT64_MAX);
    assert_int_equal(disk_request(&b, VIRTIO_BLK_T_OUT, 0, data, 512, NULL), OK);
    assert_int_equal(b.asked[BLOCK_FLUSH], 3);
    disk_bench_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_a_disk_of_this_size_and_shape),
        cmocka_unit_test(what_is_written_is_read_again_and_lies_in_the_image),
        cmocka_unit_test(header_data_and_status_may_be_cut_anywhere),
        cmocka_unit_test(a_request_of_all_segments_is_one_request),
        cmocka_unit_test(the_serial_is_the_one_that_was_given),
        cmocka_unit_test(discarded_and_zeroed_sectors_read_as_zeros),
        cmocka_unit_test(what_makes_no_sense_is_refused_and_does_nothing),
        cmocka_unit_test(a_request_without_a_whole_header_is_refused),
        cmocka_unit_test(a_request_that_cannot_be_answered_breaks_the_device),
        cmocka_unit_test(a_disk_to_read_is_not_written),
        cmocka_unit_test(what_was_not_negotiated_is_not_there),
        cmocka_unit_test(writes_of_a_driver_that_never_flushes_are_durable),
    };
    return cmocka_run_group_tests_name("virtio-blk", tests, folder_enter, folder_leave);
}
