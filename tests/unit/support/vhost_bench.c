/* SPDX-License-Identifier: Apache-2.0 */
/* vhost_bench: see there; frames pass through both, the card's loop and the fake kernel. */
#include "vhost_bench.h"

#include <linux/virtio_config.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void look_who_serves(void *opaque, unsigned pair)
{
    struct vnic_bench *b = opaque;

    for (unsigned i = 0; i < VHOST_RINGS; i++)
        b->detached_too_early |= b->kernel[pair].rings[i].on;
}

void vnic_create(struct vnic_bench *b, bool vhost)
{
    struct nic_bench *f = &b->nic;
    struct error err = {.msg = ""};

    for (unsigned i = 0; i < b->pairs; i++)
        b->vhosts[i] = fake_vhost_init(&b->kernel[i], f->m.memory, NULL);
    nic_create_vhost(&f->m, fake_netdev_init(&f->wire, b->pairs), b->pairs,
                     vhost ? b->vhosts : NULL, &f->dev, &err);
    assert_string_equal(err.msg, "");
    f->wire.detaches = look_who_serves;
    f->wire.opaque = b;
}

static int build(void **state, unsigned pairs)
{
    static struct vnic_bench b;

    b.pairs = pairs;
    b.detached_too_early = false;
    virtio_machine_init(&b.nic.m, NULL);
    vnic_create(&b, true);
    virtio_driver_init(&b.nic.d, &b.nic.m, b.nic.dev);
    *state = &b;
    return 0;
}

int vnic_setup(void **state)
{
    return build(state, 1);
}

int vnic_setup_pairs(void **state)
{
    return build(state, PAIRS);
}

int vnic_teardown(void **state)
{
    struct vnic_bench *b = *state;

    device_destroy(b->nic.dev);
    assert_false(b->detached_too_early);
    for (unsigned i = 0; i < b->pairs; i++)
        for (unsigned k = 0; k < VHOST_RINGS; k++)
            assert_false(b->kernel[i].rings[k].on);
    fake_netdev_fini(&b->nic.wire);
    virtio_machine_fini(&b->nic.m);
    return 0;
}

bool vnic_serves(const struct vnic_bench *b, unsigned pair)
{
    const struct fake_vhost_ring *rings = b->kernel[pair].rings;

    assert_int_equal(rings[VHOST_RX].on, rings[VHOST_TX].on);
    return rings[VHOST_RX].on;
}

void vnic_run(struct vnic_bench *b)
{
    nic_run(&b->nic);
    for (unsigned i = 0; i < b->pairs; i++)
        fake_vhost_run(&b->kernel[i]);
    nic_run(&b->nic);
}

void vnic_send(struct vnic_bench *b, uint8_t seed)
{
    uint8_t packet[HEADER + 60];

    nic_fill_packet(packet, sizeof(packet), nic_other, seed);
    nic_add_tx(&b->nic, TX, packet, sizeof(packet));
    virtio_driver_kick(&b->nic.d, TX);
    vnic_run(b);
    nic_assert_wire(&b->nic, 0, packet, sizeof(packet));
    assert_true(virtio_driver_take(&b->nic.d, TX, NULL, NULL));
}

void vnic_receive(struct vnic_bench *b, uint8_t seed)
{
    uint8_t packet[HEADER + 60];

    nic_fill_packet(packet, sizeof(packet), nic_mac, seed);
    fake_netdev_give(&b->nic.wire, 0, packet, sizeof(packet));
    vnic_run(b);
    nic_assert_arrives(&b->nic, RX, packet, sizeof(packet));
}

void vnic_pass_both_ways(struct vnic_bench *b, uint8_t seed)
{
    vnic_send(b, seed);
    vnic_receive(b, seed);
}

void vnic_start(struct vnic_bench *b, uint64_t features)
{
    virtio_driver_start(&b->nic.d, features);
    nic_give_rx(&b->nic, 64, 1536);
}

void vnic_begin(struct virtio_driver *d, unsigned queue)
{
    virtio_driver_reset(d);
    assert_true(virtio_driver_negotiate(d, virtio_driver_offered(d)));
    virtio_driver_setup_queue(d, queue, 0);
    virtio_driver_set_status(d, VIRTIO_CONFIG_S_DRIVER_OK);
}
