/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DISK_BENCH_H
#define DISK_BENCH_H

/*
 * A virtio-blk device on an image in the working folder (folder.h), with a thread of its own, and
 * a driver. What goes wrong fails the running test.
 */

#include "virtio_driver.h"
#include "vmrun/virtio_devices.h"

#define DISK_IMAGE "disk.img"
#define DISK_SECTORS 4096u

struct disk_bench {
    struct virtio_machine m;
    struct iothread *thread;
    struct virtio_blk_params params; /* change them between prepare and create */
    struct device *dev;
    struct virtio_driver d;
    uint64_t header, status; /* guest memory that disk_request() uses */
    /* What the injected fault does, and how often it was asked about which operation. */
    int fault;
    enum block_op faulty_op;
    uint64_t delay_ns; /* of every operation */
    _Atomic unsigned asked[BLOCK_WRITE_ZEROES + 1];
};

/* An image of DISK_SECTORS with no zero in it; byte i of sector n is disk_byte(n, i). */
void disk_image_create(const char *path);
uint8_t disk_byte(uint64_t sector, unsigned i);
void disk_image_read(void *data, uint64_t sector, unsigned sectors);

void disk_bench_prepare(struct disk_bench *b); /* image, machine, thread; params with defaults */
void disk_bench_create(struct disk_bench *b);  /* the device, and a driver that has found it */
void disk_bench_start(struct disk_bench *b, uint64_t features); /* driver, memory for requests */
void disk_bench_open(struct disk_bench *b);                     /* all three, every feature */
void disk_bench_fini(struct disk_bench *b);

/* A request's header in guest memory; returns where. */
uint64_t disk_header(struct disk_bench *b, uint32_t type, uint64_t sector);
/*
 * One whole request: header, data (written by the device for reads and the id), status. Returns
 * the status; *ret_written (may be NULL) what the device says it wrote.
 */
uint8_t disk_request(struct disk_bench *b, uint32_t type, uint64_t sector, uint64_t data,
                     uint32_t bytes, uint32_t *ret_written);
/* DISCARD or WRITE_ZEROES of a range. */
uint8_t disk_range(struct disk_bench *b, uint32_t type, uint64_t sector, uint32_t sectors,
                   uint32_t flags);

/* These bytes of guest memory; and data is sector n as disk_image_create() made it. */
void *disk_at(struct disk_bench *b, uint64_t gpa, uint64_t bytes);
void disk_assert_sector(const uint8_t *data, uint64_t sector);

/* So many reads of sector 0, not kicked. All share their buffers. */
void disk_add_reads(struct disk_bench *b, unsigned queue, unsigned count, uint64_t data);
/* Until the image was asked for the first operation of this kind: it is in flight, or done. */
void disk_wait_asked(struct disk_bench *b, enum block_op op);

#endif
