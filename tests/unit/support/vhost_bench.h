/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VHOST_BENCH_H
#define VHOST_BENCH_H

/* A network card whose rings a fake of the host's kernel serves (fake_vhost.h), on its bench. */

#include "fake_vhost.h"
#include "nic_bench.h"

struct vnic_bench {
    struct nic_bench nic;
    struct fake_vhost kernel[PAIRS];
    struct vhost *vhosts[PAIRS];
    unsigned pairs;
    /* From the tap, while the kernel served it, which says then that the ring makes no sense. */
    bool detached_too_early;
};

/* Fixtures of cmocka: a card with one pair, or with PAIRS. */
int vnic_setup(void **state);
int vnic_setup_pairs(void **state);
int vnic_teardown(void **state);
/* The device alone, with vhost or without, on a new wire. */
void vnic_create(struct vnic_bench *b, bool vhost);

/* A driver, with buffers to receive. */
void vnic_start(struct vnic_bench *b, uint64_t features);
/* A driver that has one queue only, and does not look what becomes of it. */
void vnic_begin(struct virtio_driver *d, unsigned queue);
/* Whether the kernel serves both rings of the pair, and not just one. */
bool vnic_serves(const struct vnic_bench *b, unsigned pair);
void vnic_run(struct vnic_bench *b);
/* A frame, which must arrive. seed: what is in it. */
void vnic_send(struct vnic_bench *b, uint8_t seed);
void vnic_receive(struct vnic_bench *b, uint8_t seed);
void vnic_pass_both_ways(struct vnic_bench *b, uint8_t seed);

#endif
