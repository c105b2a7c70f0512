/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz: a hostile guest against a balloon. The input is a program: each step names what to do (page
 * numbers, reports and statistics of any kind into a queue, a write of the configuration, a pause,
 * a move of the state into itself) and its operands; missing bytes read as zero. The balloon must
 * go on or ask to be reset, and must work again after a reset.
 */
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>

#include "program.h"
#include "virtio_driver.h"
#include "vmrun/log.h"
#include "vmrun/virtio_devices.h"

#define QUEUES 5
#define AREA_BYTES (128 << 10) /* where most buffers lie */
#define STEPS 200
#define HIGH VIRTIO_RAM_HIGH_AT

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct {
    struct virtio_machine m;
    struct device *dev;
    struct virtio_driver d;
    uint64_t area;
    uint16_t next_desc[QUEUES], avail_idx[QUEUES];
} guest;

static void build(void)
{
    struct error err;

    log_set_level(LOG_LEVEL_ERROR);
    virtio_machine_init(&guest.m, NULL);
    require(virtio_balloon_create(guest.m.platform, guest.m.host, guest.m.loop, true, &guest.dev,
                                  &err) == 0);
    virtio_driver_init(&guest.d, &guest.m, guest.dev);
}

static void start(uint64_t features)
{
    virtio_driver_start(&guest.d, features);
    guest.area = virtio_machine_alloc(&guest.m, AREA_BYTES);
    memset(guest.next_desc, 0, sizeof(guest.next_desc));
    memset(guest.avail_idx, 0, sizeof(guest.avail_idx));
}

/* A chain of up to eight descriptors: the area, or pages to report. */
static void add_chain(unsigned queue)
{
    const struct virtio_driver_queue *q = &guest.d.queues[queue];
    struct vring_desc *table = virtio_machine_at(&guest.m, q->desc, q->size * sizeof(*table));
    uint16_t *avail = virtio_machine_at(&guest.m, q->avail, 4 + q->size * 2u);
    unsigned shape = program_number(1), count = shape % 8 + 1;
    uint16_t head = guest.next_desc[queue];

    for (unsigned i = 0; i < count; i++) {
        struct vring_desc *desc = &table[guest.next_desc[queue]];
        unsigned at = program_number(2), len = program_number(2);

        *desc = (struct vring_desc){.addr = guest.area + at, .len = len};
        if (shape & 0x80) /* a report */
            *desc = (struct vring_desc){
                .addr = HIGH + at * 16u, .len = len * 16u % 0x100000, .flags = VRING_DESC_F_WRITE};
        if (shape & 0x40)
            desc->flags ^= (uint16_t)program_number(1) & 7;
        guest.next_desc[queue] = (uint16_t)((guest.next_desc[queue] + 1) % q->size);
        desc->next = guest.next_desc[queue];
        if (i + 1 < count)
            desc->flags |= VRING_DESC_F_NEXT;
    }
    avail[2 + guest.avail_idx[queue] % q->size] = head;
    __atomic_store_n(&avail[1], ++guest.avail_idx[queue], __ATOMIC_RELEASE);
}

/* Page numbers, most of them of pages that are there, or statistics. */
static void fill_area(void)
{
    uint16_t at = (uint16_t)program_number(2);
    uint32_t *words = virtio_machine_at(&guest.m, guest.area + at / 4 * 4, 64);

    program_next(words, 64);
    for (unsigned i = 0; i < 16; i++)
        if (words[i] & 1)
            words[i] = (uint32_t)(HIGH >> 12) + words[i] % 512;
}

/* The balloon's own state, into itself: never refused, whatever the guest broke. */
static void move(void)
{
    const struct state_desc *desc = guest.dev->ops->state;
    struct writer w = {0};
    struct error err;

    device_pause(guest.dev);
    require(state_save(desc, guest.dev, &w, &err) == 0);
    struct reader r = {.data = w.data, .len = w.len};
    require(state_load(desc, guest.dev, &r, &err) == 0);
    free(w.data);
    device_resume(guest.dev);
}

static void step(void)
{
    struct virtio_balloon_stats stats;
    unsigned op = program_number(1), queue = op / 16 % QUEUES;

    switch (op % 16) {
    case 0:
    case 1:
    case 2:
    case 3: add_chain(queue); return;
    case 4:
    case 5:
    case 6: virtio_driver_kick(&guest.d, queue); break;
    case 7:
    case 8:
    case 9: fill_area(); return;
    case 10:
        virtio_driver_config_write(&guest.d, program_number(1) % 13, 4, program_number(4));
        break;
    case 11: virtio_balloon_set_target(guest.dev, (uint64_t)program_number(3) << 12); break;
    case 12: virtio_balloon_stats(guest.dev, &stats); break;
    case 13: device_pause(guest.dev); break;
    case 14: device_resume(guest.dev); break;
    default: move(); break;
    }
    virtio_machine_run(&guest.m);
}

static void require_works(void)
{
    const uint32_t pfn = (uint32_t)(HIGH >> 12);
    uint8_t *page = virtio_machine_at(&guest.m, HIGH, 4096);

    device_resume(guest.dev);
    start(UINT64_MAX);
    const struct virtio_buffer buffer = {guest.area, sizeof(pfn), false};

    memset(page, 1, 4096);
    memcpy(virtio_machine_at(&guest.m, guest.area, sizeof(pfn)), &pfn, sizeof(pfn));
    require(virtio_driver_request(&guest.d, 0, &buffer, 1) == 0);
    require(page[0] == 0 && page[4095] == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint64_t features[] = {UINT64_MAX, 0, ~(UINT64_C(1) << 1), ~(UINT64_C(1) << 4),
                                        ~(UINT64_C(1) << 29)};

    if (!guest.dev)
        build();
    program_begin(data, size);
    start(features[program_number(1) % 5]);
    for (unsigned i = 0; i < STEPS && program_goes_on(); i++)
        step();
    virtio_machine_run(&guest.m);
    require_works();
    return 0;
}
