/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz: a hostile guest's requests against a disk. The input is guest memory: a page that requests
 * point into, and a table of descriptors, each of which may be moved into that page. The disk must
 * answer, or ask to be reset, and must work again after a reset; its image keeps its size.
 */
#include <linux/virtio_blk.h>
#include <linux/virtio_ring.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "program.h"
#include "virtio_driver.h"
#include "vmrun/log.h"
#include "vmrun/virtio_devices.h"

#define IMAGE_BYTES (64 << 10)
#define HEADS 16            /* requests in one go */
#define PAGE_INPUT 128      /* bytes of the input that fill the page's beginning */
#define INTO_THE_PAGE 0x100 /* in a descriptor's flags, which give it no meaning */
#define PAGE_BYTES 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct {
    struct virtio_machine m;
    struct iothread *thread;
    struct device *dev;
    struct virtio_driver d;
    int image;
} disk;

static void open_disk(void)
{
    struct error err;
    char path[40];

    log_set_level(LOG_LEVEL_ERROR);
    disk.image = memfd_create("disk", MFD_CLOEXEC);
    require(disk.image >= 0 && ftruncate(disk.image, IMAGE_BYTES) == 0);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", disk.image);
    virtio_machine_init(&disk.m, NULL);
    require(iothread_create("disk", &disk.thread, &err) == 0);
    const struct virtio_blk_params params = {
        .id = "root",
        .path = path,
        .cache = BLOCK_CACHE_WRITEBACK,
        .queues = 1,
        .thread = disk.thread,
    };
    require(virtio_blk_create(disk.m.platform, disk.m.host, &params, &disk.dev, &err) == 0);
    virtio_driver_init(&disk.d, &disk.m, disk.dev);
}

static void nothing(void *opaque)
{
    (void)opaque;
}

/* Everything that was rung for is served, and nothing is in flight. */
static void settle(void)
{
    iothread_call(disk.thread, nothing, NULL);
    iothread_call(disk.thread, nothing, NULL);
    device_pause(disk.dev);
    device_resume(disk.dev);
    iothread_call(disk.thread, nothing, NULL);
}

/* Copy the next `want` bytes of the input, or what is left. */
static size_t next(const uint8_t **data, size_t *size, void *to, size_t want)
{
    size_t len = want < *size ? want : *size;

    memcpy(to, *data, len);
    *data += len;
    *size -= len;
    return len;
}

static void require_works(void)
{
    const struct virtio_blk_outhdr header = {.type = VIRTIO_BLK_T_GET_ID};

    virtio_driver_start(&disk.d, UINT64_MAX);
    uint64_t out = virtio_machine_alloc(&disk.m, 16), in = virtio_machine_alloc(&disk.m, 21);
    const struct virtio_buffer buffers[] = {{out, 16, false}, {in, 21, true}};

    memcpy(virtio_machine_at(&disk.m, out, 16), &header, sizeof(header));
    require(virtio_driver_request(&disk.d, 0, buffers, 2) == 21);
    require(memcmp(virtio_machine_at(&disk.m, in, 5), "root", 5) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t options = 0, heads[HEADS] = {0};
    struct vring_desc desc;
    struct stat st;

    if (!disk.dev)
        open_disk();
    next(&data, &size, &options, 1);
    virtio_driver_start(&disk.d, options & 1 ? UINT64_MAX : 0);
    uint64_t page = virtio_machine_alloc(&disk.m, PAGE_BYTES);
    const struct virtio_driver_queue *q = &disk.d.queues[0];
    struct vring_desc *table =
        virtio_machine_at(&disk.m, q->desc, (uint64_t)q->size * sizeof(*table));
    uint16_t *avail = virtio_machine_at(&disk.m, q->avail, 4 + 2 * (uint64_t)HEADS);

    next(&data, &size, heads, HEADS);
    next(&data, &size, virtio_machine_at(&disk.m, page, PAGE_INPUT), PAGE_INPUT);
    for (unsigned i = 0; i < q->size && next(&data, &size, &desc, sizeof(desc)) == sizeof(desc);
         i++) {
        if (desc.flags & INTO_THE_PAGE) {
            desc.addr = page + desc.addr % PAGE_BYTES;
            desc.len %= PAGE_BYTES;
        }
        table[i] = desc;
    }
    for (unsigned i = 0; i < HEADS; i++)
        avail[2 + i] = heads[i];
    __atomic_store_n(&avail[1], (uint16_t)(options >> 1), __ATOMIC_RELEASE);
    virtio_driver_kick(&disk.d, 0);
    settle();

    require(fstat(disk.image, &st) == 0 && st.st_size == IMAGE_BYTES);
    require_works();
    return 0;
}
