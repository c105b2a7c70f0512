/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz: a hostile guest, and a hostile network, against a network card of two pairs. The input is
 * a program: each step names what to do (buffers of any kind for a queue, a frame from the wire, a
 * command, a pause, a move of the state into itself) and its operands; missing bytes read as
 * zero. The card must go on or ask to be reset, and must work again after a reset.
 */
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fake_netdev.h"
#include "program.h"
#include "virtio_driver.h"
#include "vmrun/log.h"
#include "vmrun/virtio_devices.h"

#define PAIRS 2
#define CONTROL (2 * PAIRS)
#define AREA_BYTES (256 << 10) /* where most buffers lie */
#define STEPS 200

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct {
    struct virtio_machine m;
    struct fake_netdev wire;
    struct device *dev;
    struct virtio_driver d;
    uint64_t area;
    uint16_t next_desc[CONTROL + 1], avail_idx[CONTROL + 1];
} card;

static void build(void)
{
    struct virtio_net_params params = {.id = "net net0", .mac = {2}, .queues = PAIRS, .mtu = 1500};
    struct error err;

    log_set_level(LOG_LEVEL_ERROR);
    virtio_machine_init(&card.m, NULL);
    params.netdev = fake_netdev_init(&card.wire, PAIRS);
    params.loop = card.m.loop;
    require(virtio_net_create(card.m.platform, card.m.host, &params, &card.dev, &err) == 0);
    virtio_driver_init(&card.d, &card.m, card.dev);
}

static void start(uint64_t features)
{
    fake_netdev_drain(&card.wire);
    virtio_driver_start(&card.d, features);
    card.area = virtio_machine_alloc(&card.m, AREA_BYTES);
    memset(card.next_desc, 0, sizeof(card.next_desc));
    memset(card.avail_idx, 0, sizeof(card.avail_idx));
}

/* A chain of up to eight descriptors, most of which are good ones. */
static void add_chain(unsigned queue)
{
    const struct virtio_driver_queue *q = &card.d.queues[queue];
    struct vring_desc *table = virtio_machine_at(&card.m, q->desc, q->size * sizeof(*table));
    uint16_t *avail = virtio_machine_at(&card.m, q->avail, 4 + q->size * 2u);
    unsigned shape = program_number(1), count = shape % 8 + 1;
    uint16_t head = card.next_desc[queue];

    for (unsigned i = 0; i < count; i++) {
        struct vring_desc *desc = &table[card.next_desc[queue]];
        unsigned at = program_number(2), len = program_number(2);

        *desc = (struct vring_desc){.addr = card.area + at,
                                    .len = len,
                                    .flags = queue % 2 == 0 && queue != CONTROL ? VRING_DESC_F_WRITE
                                                                                : 0};
        if (queue == CONTROL && i + 1 == count)
            desc->flags = VRING_DESC_F_WRITE;
        if (shape & 0x80)
            desc->flags ^= (uint16_t)program_number(1) & 7;
        if (shape & 0x40)
            desc->addr = (uint64_t)program_number(4) << 12;
        card.next_desc[queue] = (uint16_t)((card.next_desc[queue] + 1) % q->size);
        desc->next = card.next_desc[queue];
        if (i + 1 < count)
            desc->flags |= VRING_DESC_F_NEXT;
    }
    avail[2 + card.avail_idx[queue] % q->size] = head;
    __atomic_store_n(&avail[1], ++card.avail_idx[queue], __ATOMIC_RELEASE);
}

static void fill_area(void)
{
    uint16_t at = (uint16_t)program_number(2);

    program_next(virtio_machine_at(&card.m, card.area + at, 64), 64);
}

/* From the wire. What it does not take any more is lost. */
static void give_frame(void)
{
    static uint8_t packet[NETDEV_MAX_FRAME + 64];
    size_t len = 1 + program_number(2) + (program_number(1) & 1 ? 100 : 0);
    unsigned pair = program_number(1) % PAIRS;

    program_next(packet, 32);
    if (len > sizeof(packet))
        len = sizeof(packet);
    (void)!write(card.wire.wire[pair], packet, len);
}

/* The card's own state, into itself: refused only when the guest broke something. */
static void move(void)
{
    const struct state_desc *desc = card.dev->ops->state;
    struct writer w = {0};
    struct error err;

    device_pause(card.dev);
    require(state_save(desc, card.dev, &w, &err) == 0);
    struct reader r = {.data = w.data, .len = w.len};
    require(state_load(desc, card.dev, &r, &err) == 0);
    free(w.data);
    device_resume(card.dev);
}

static void step(void)
{
    unsigned op = program_number(1), queue = op / 16 % (CONTROL + 1);

    switch (op % 16) {
    case 0:
    case 1:
    case 2: add_chain(queue); return;
    case 3:
    case 4: virtio_driver_kick(&card.d, queue); break;
    case 5:
    case 6: give_frame(); break;
    case 7:
    case 8: fill_area(); return;
    case 9: fake_netdev_drain(&card.wire); break;
    case 10: fake_netdev_set_up(&card.wire, op & 16); break;
    case 11: virtio_net_set_link(card.dev, op & 16); break;
    case 12: virtio_net_announce(card.dev); break;
    case 13: device_pause(card.dev); break;
    case 14: device_resume(card.dev); break;
    default: move(); break;
    }
    virtio_machine_run(&card.m);
}

static void require_works(void)
{
    uint8_t packet[12 + 60] = {0}, got[256];

    device_resume(card.dev);
    virtio_net_set_link(card.dev, true);
    fake_netdev_set_up(&card.wire, true);
    start(UINT64_MAX);
    const struct virtio_buffer tx = {card.area, sizeof(packet), false};
    const struct virtio_buffer rx = {card.area + 4096, 2048, true};

    require(virtio_driver_request(&card.d, 1, &tx, 1) == 0);
    require(fake_netdev_take(&card.wire, 0, got, sizeof(got)) == sizeof(packet));
    fake_netdev_give(&card.wire, 0, packet, sizeof(packet));
    require(virtio_driver_request(&card.d, 0, &rx, 1) == sizeof(packet));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint64_t features[] = {UINT64_MAX, 0, ~(UINT64_C(1) << 15), ~(UINT64_C(1) << 22),
                                        ~(UINT64_C(1) << 29)};

    if (!card.dev)
        build();
    program_begin(data, size);
    start(features[program_number(1) % 5]);
    for (unsigned i = 0; i < STEPS && program_goes_on(); i++)
        step();
    virtio_machine_run(&card.m);
    require_works();
    return 0;
}
