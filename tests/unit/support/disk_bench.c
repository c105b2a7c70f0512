/* SPDX-License-Identifier: Apache-2.0 */
#include "disk_bench.h"

#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "folder.h"

#define STATUS_NOT_WRITTEN 0xee

uint8_t disk_byte(uint64_t sector, unsigned i)
{
    return (uint8_t)(1 + (sector * 37 + i * 11 + i / 256) % 255);
}

void disk_image_create(const char *path)
{
    uint8_t *data = malloc(DISK_SECTORS * 512);

    assert_non_null(data);
    for (unsigned sector = 0; sector < DISK_SECTORS; sector++)
        for (unsigned i = 0; i < 512; i++)
            data[sector * 512 + i] = disk_byte(sector, i);
    unlink(path); /* one that a test which failed has left open is another file */
    folder_write(path, data, DISK_SECTORS * 512);
    free(data);
}

void disk_image_read(void *data, uint64_t sector, unsigned sectors)
{
    int fd = open(DISK_IMAGE, O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(pread(fd, data, sectors * 512, (off_t)sector * 512), sectors * 512);
    close(fd);
}

static int inject(void *opaque, const struct block_request *request, uint64_t *delay_ns)
{
    struct disk_bench *b = opaque;

    b->asked[request->op]++;
    *delay_ns = b->delay_ns;
    return request->op == b->faulty_op ? b->fault : 0;
}

void disk_bench_prepare(struct disk_bench *b)
{
    struct error err;

    memset(b, 0, sizeof(*b));
    disk_image_create(DISK_IMAGE);
    virtio_machine_init(&b->m, NULL);
    assert_int_equal(iothread_create("disk root", &b->thread, &err), 0);
    b->params = (struct virtio_blk_params){
        .id = "root",
        .path = DISK_IMAGE,
        .queues = 1,
        .thread = b->thread,
        .fault = inject,
        .fault_opaque = b,
    };
}

void disk_bench_create(struct disk_bench *b)
{
    struct error err = {.msg = ""};

    virtio_blk_create(b->m.platform, b->m.host, &b->params, &b->dev, &err);
    assert_string_equal(err.msg, "");
    virtio_driver_init(&b->d, &b->m, b->dev);
}

void disk_bench_start(struct disk_bench *b, uint64_t features)
{
    virtio_driver_start(&b->d, features);
    b->header = virtio_machine_alloc(&b->m, 16);
    b->status = virtio_machine_alloc(&b->m, 1);
}

void disk_bench_open(struct disk_bench *b)
{
    disk_bench_prepare(b);
    disk_bench_create(b);
    disk_bench_start(b, UINT64_MAX);
}

void disk_bench_fini(struct disk_bench *b)
{
    device_destroy(b->dev);
    iothread_destroy(b->thread);
    virtio_machine_fini(&b->m);
}

static void put_header(struct disk_bench *b, uint64_t gpa, uint32_t type, uint64_t sector)
{
    const struct virtio_blk_outhdr header = {.type = type, .sector = sector};

    memcpy(virtio_machine_at(&b->m, gpa, sizeof(header)), &header, sizeof(header));
}

uint64_t disk_header(struct disk_bench *b, uint32_t type, uint64_t sector)
{
    uint64_t gpa = virtio_machine_alloc(&b->m, 16);

    put_header(b, gpa, type, sector);
    return gpa;
}

uint8_t disk_request(struct disk_bench *b, uint32_t type, uint64_t sector, uint64_t data,
                     uint32_t bytes, uint32_t *ret_written)
{
    bool reads = type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID;
    struct virtio_buffer buffers[3] = {{b->header, 16, false}};
    uint8_t *status = virtio_machine_at(&b->m, b->status, 1);
    unsigned count = 1;
    uint32_t written;

    put_header(b, b->header, type, sector);
    *status = STATUS_NOT_WRITTEN;
    if (bytes > 0)
        buffers[count++] = (struct virtio_buffer){data, bytes, reads};
    buffers[count++] = (struct virtio_buffer){b->status, 1, true};
    written = virtio_driver_request(&b->d, 0, buffers, count);
    if (ret_written)
        *ret_written = written;
    return *status;
}

uint8_t disk_range(struct disk_bench *b, uint32_t type, uint64_t sector, uint32_t sectors,
                   uint32_t flags)
{
    const struct virtio_blk_discard_write_zeroes range = {
        .sector = sector, .num_sectors = sectors, .flags = flags};
    uint64_t gpa = virtio_machine_alloc(&b->m, sizeof(range));

    memcpy(virtio_machine_at(&b->m, gpa, sizeof(range)), &range, sizeof(range));
    return disk_request(b, type, 0, gpa, sizeof(range), NULL);
}

void *disk_at(struct disk_bench *b, uint64_t gpa, uint64_t bytes)
{
    return virtio_machine_at(&b->m, gpa, bytes);
}

void disk_assert_sector(const uint8_t *data, uint64_t sector)
{
    for (unsigned i = 0; i < 512; i++)
        assert_int_equal(data[i], disk_byte(sector, i));
}

void disk_add_reads(struct disk_bench *b, unsigned queue, unsigned count, uint64_t data)
{
    const struct virtio_buffer buffers[] = {
        {disk_header(b, VIRTIO_BLK_T_IN, 0), 16, false}, {data, 512, true}, {b->status, 1, true}};

    for (unsigned i = 0; i < count; i++)
        (void)virtio_driver_add_indirect(&b->d, queue, buffers, 3);
}

void disk_wait_asked(struct disk_bench *b, enum block_op op)
{
    for (int i = 0; i < 5000 && b->asked[op] == 0; i++)
        usleep(1000);
}
