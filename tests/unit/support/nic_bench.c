/* SPDX-License-Identifier: Apache-2.0 */
/* nic_bench: a card, its guest's driver and its wire. What cannot be done fails the test. */
#include "nic_bench.h"

#include <linux/virtio_config.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

const uint8_t nic_mac[6] = {0x52, 0x54, 0, 1, 2, 3};
const uint8_t nic_other[6] = {0x52, 0x54, 0, 9, 9, 9};
const uint8_t nic_group[6] = {0x01, 0, 0x5e, 1, 2, 3};
const uint8_t nic_everybody[6] = {255, 255, 255, 255, 255, 255};

static int create(struct virtio_machine *m, struct netdev *netdev, unsigned pairs,
                  struct vhost *const *vhosts, struct iothread *thread, struct device **ret_dev,
                  struct error *err)
{
    struct virtio_net_params params = {.id = "net net0",
                                       .queues = pairs,
                                       .mtu = 1400,
                                       .netdev = netdev,
                                       .vhosts = vhosts,
                                       .loop = thread ? NULL : m->loop,
                                       .thread = thread};

    memcpy(params.mac, nic_mac, sizeof(nic_mac));
    return virtio_net_create(m->platform, m->host, &params, ret_dev, err);
}

int nic_create(struct virtio_machine *m, struct netdev *netdev, unsigned pairs,
               struct iothread *thread, struct device **ret_dev, struct error *err)
{
    return create(m, netdev, pairs, NULL, thread, ret_dev, err);
}

void nic_build_finished(struct nic_bench *f)
{
    const struct virtio_net_params params = {.id = "net net0",
                                             .queues = 1,
                                             .mtu = 1400,
                                             .finished = true,
                                             .netdev = (struct netdev *)&f->wire,
                                             .loop = f->m.loop};
    struct error err = {.msg = ""};

    device_destroy(f->dev);
    virtio_net_create(f->m.platform, f->m.host, &params, &f->dev, &err);
    assert_string_equal(err.msg, "");
    virtio_driver_init(&f->d, &f->m, f->dev);
}

int nic_create_vhost(struct virtio_machine *m, struct netdev *netdev, unsigned pairs,
                     struct vhost *const *vhosts, struct device **ret_dev, struct error *err)
{
    return create(m, netdev, pairs, vhosts, NULL, ret_dev, err);
}

void nic_build(struct nic_bench *f, unsigned pairs)
{
    struct error err = {.msg = ""};

    virtio_machine_init(&f->m, NULL);
    nic_create(&f->m, fake_netdev_init(&f->wire, pairs), pairs, NULL, &f->dev, &err);
    assert_string_equal(err.msg, "");
    virtio_driver_init(&f->d, &f->m, f->dev);
}

int nic_setup(void **state)
{
    static struct nic_bench f;

    nic_build(&f, 1);
    *state = &f;
    return 0;
}

int nic_setup_pairs(void **state)
{
    static struct nic_bench f;

    nic_build(&f, PAIRS);
    *state = &f;
    return 0;
}

int nic_teardown(void **state)
{
    struct nic_bench *f = *state;

    device_destroy(f->dev);
    fake_netdev_fini(&f->wire);
    virtio_machine_fini(&f->m);
    return 0;
}

void nic_leave(struct nic_bench *f, struct writer *ret_saved)
{
    struct error err = {.msg = ""};

    device_pause(f->dev);
    state_save(f->dev->ops->state, f->dev, ret_saved, &err);
    assert_string_equal(err.msg, "");
    device_destroy(f->dev);
    fake_netdev_fini(&f->wire);
}

void nic_arrive(struct nic_bench *f, struct writer *saved)
{
    struct reader r = {.data = saved->data, .len = saved->len};
    struct error err = {.msg = ""};

    device_pause(f->dev);
    state_load(f->dev->ops->state, f->dev, &r, &err);
    assert_string_equal(err.msg, "");
    free(saved->data);
    f->d.dev = f->dev;
}

void nic_run(struct nic_bench *f)
{
    virtio_machine_run(&f->m);
}

struct virtio_net_stats nic_stats(struct nic_bench *f)
{
    struct virtio_net_stats s;

    virtio_net_stats(f->dev, &s);
    return s;
}

bool nic_broken(struct nic_bench *f)
{
    return virtio_driver_status(&f->d) & VIRTIO_CONFIG_S_NEEDS_RESET;
}

/* Header, addresses, and a pattern: a packet of so many bytes in all. */
void nic_fill_packet(uint8_t *packet, size_t len, const uint8_t to[6], uint8_t seed)
{
    memset(packet, 0, HEADER);
    for (size_t i = HEADER; i < len; i++)
        packet[i] = (uint8_t)(seed + i * 7);
    memcpy(packet + HEADER, to, len < HEADER + 6 ? len - HEADER : 6);
    if (len > HEADER + 13) {
        packet[HEADER + 12] = 0x88;
        packet[HEADER + 13] = 0xb5;
    }
}

/* One packet from the guest in one buffer; not kicked. */
void nic_add_tx(struct nic_bench *f, unsigned queue, const void *packet, uint32_t len)
{
    const struct virtio_buffer buffer = {virtio_machine_alloc(&f->m, len), len, false};

    memcpy(virtio_machine_at(&f->m, buffer.gpa, len), packet, len);
    virtio_driver_add(&f->d, queue, &buffer, 1);
}

void nic_assert_wire(struct nic_bench *f, unsigned pair, const uint8_t *packet, size_t len)
{
    static uint8_t got[80000];

    assert_int_equal(fake_netdev_take(&f->wire, pair, got, sizeof(got)), len);
    assert_memory_equal(got, packet, len);
}

void nic_add_rx(struct nic_bench *f, unsigned queue, unsigned count, uint32_t len)
{
    for (unsigned i = 0; i < count; i++) {
        const struct virtio_buffer buffer = {virtio_machine_alloc(&f->m, len), len, true};

        f->rx_gpa[virtio_driver_add(&f->d, queue, &buffer, 1)] = buffer.gpa;
    }
}

void nic_give_rx(struct nic_bench *f, unsigned count, uint32_t len)
{
    nic_add_rx(f, RX, count, len);
    virtio_driver_kick(&f->d, RX);
    nic_run(f);
}

/* A frame that came: the buffers, put together. Returns bytes; checks num_buffers. */
size_t nic_take_rx(struct nic_bench *f, unsigned queue, uint8_t *packet)
{
    size_t len = 0;
    unsigned buffers = 0, expected = 1;

    while (buffers < expected) {
        uint16_t head;
        uint32_t written;

        if (!virtio_driver_take(&f->d, queue, &head, &written)) {
            assert_int_equal(buffers, 0);
            return 0;
        }
        memcpy(packet + len, virtio_machine_at(&f->m, f->rx_gpa[head], written), written);
        if (buffers++ == 0)
            expected = (unsigned)(packet[10] | packet[11] << 8);
        len += written;
    }
    return len;
}

void nic_assert_arrives(struct nic_bench *f, unsigned queue, const uint8_t *packet, size_t len)
{
    static uint8_t got[80000];

    assert_int_equal(nic_take_rx(f, queue, got), len);
    assert_memory_equal(got, packet, HEADER - 2);
    assert_memory_equal(got + HEADER, packet + HEADER, len - HEADER);
}

/* Whether a small frame to this address gets through. */
bool nic_hears(struct nic_bench *f, const uint8_t to[6], int vlan)
{
    uint8_t packet[HEADER + 60], got[2048];
    size_t len;

    nic_fill_packet(packet, sizeof(packet), to, 3);
    if (vlan >= 0) {
        packet[HEADER + 12] = 0x81;
        packet[HEADER + 13] = 0x00;
        packet[HEADER + 14] = (uint8_t)(0xe0 | vlan >> 8); /* with a priority */
        packet[HEADER + 15] = (uint8_t)vlan;
    }
    fake_netdev_give(&f->wire, 0, packet, sizeof(packet));
    nic_run(f);
    len = nic_take_rx(f, RX, got);
    assert_true(len == 0 || len == sizeof(packet));
    if (len)
        nic_give_rx(f, 1, 1536);
    return len != 0;
}

static unsigned ctrl_queue(const struct nic_bench *f)
{
    return f->d.features >> VIRTIO_NET_F_MQ & 1 ? 2 * PAIRS : 2; /* else not offered */
}

const uint8_t *nic_ask(struct nic_bench *f, uint8_t class, uint8_t cmd, const void *data,
                       uint32_t len)
{
    uint64_t gpa = virtio_machine_alloc(&f->m, 16), at = virtio_machine_alloc(&f->m, len + 1);
    const struct virtio_buffer buffers[] = {
        {gpa, 2, false}, {len ? at : gpa + 8, len ? len : 1, !len}, {gpa + 8, 1, true}};
    uint8_t *bytes = virtio_machine_at(&f->m, gpa, 16);

    bytes[0] = class;
    bytes[1] = cmd;
    bytes[8] = 0xee;
    if (len)
        memcpy(virtio_machine_at(&f->m, at, len), data, len);
    virtio_driver_add(&f->d, ctrl_queue(f), buffers, len ? 3 : 2);
    virtio_driver_kick(&f->d, ctrl_queue(f));
    return bytes + 8;
}

uint8_t nic_command(struct nic_bench *f, uint8_t class, uint8_t cmd, const void *data, uint32_t len)
{
    const uint8_t *answer = nic_ask(f, class, cmd, data, len);

    assert_int_equal(virtio_driver_wait(&f->d, ctrl_queue(f), NULL), 1);
    return *answer;
}

void nic_start_filtered(struct nic_bench *f, uint64_t features)
{
    static const uint8_t off = 0;

    virtio_driver_start(&f->d, features);
    nic_give_rx(f, 64, 1536);
    nic_assert_done(f, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, &off, 1);
}

uint32_t nic_make_table(uint8_t *table, uint32_t uni, const uint8_t first_uni[6], uint32_t multi,
                        const uint8_t first_multi[6])
{
    uint32_t at = 4 + uni * 6, len = at + 4 + multi * 6;

    memset(table, 2, len);
    memcpy(table, &uni, 4);
    if (uni)
        memcpy(table + 4, first_uni, 6);
    memcpy(table + at, &multi, 4);
    if (multi)
        memcpy(table + at + 4, first_multi, 6);
    return len;
}

void nic_set_pairs(struct nic_bench *f, uint16_t pairs, uint8_t answer)
{
    assert_int_equal(
        nic_command(f, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, &pairs, sizeof(pairs)),
        answer);
}

unsigned nic_news(struct nic_bench *f)
{
    return virtio_driver_interrupts(&f->d, 0);
}
