/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NIC_BENCH_H
#define NIC_BENCH_H

/*
 * A network card on a bench: its guest with a driver, and a fake wire. Packets begin with their
 * header. What cannot be done fails the test.
 */

#include <linux/virtio_net.h>

#include "fake_netdev.h"
#include "virtio_driver.h"
#include "vmrun/state.h"
#include "vmrun/virtio_devices.h"

#define ALL UINT64_MAX
#define HEADER NETDEV_HEADER_BYTES
#define BIT(f) (UINT64_C(1) << (f))
#define PLAIN BIT(VIRTIO_NET_F_MAC) /* one buffer a frame, no offloads */
#define MERGED (PLAIN | BIT(VIRTIO_NET_F_MRG_RXBUF))
#define CONTROL (MERGED | BIT(VIRTIO_NET_F_CTRL_VQ))
#define PAIRS 4

enum { RX = 0, TX = 1 };

extern const uint8_t nic_mac[6], nic_other[6], nic_group[6], nic_everybody[6];

struct nic_bench {
    struct virtio_machine m;
    struct fake_netdev wire;
    struct device *dev;
    struct virtio_driver d;
    uint64_t rx_gpa[300]; /* of the buffer with this head */
};

/* The device alone. thread: NULL for the machine's loop. */
int nic_create(struct virtio_machine *m, struct netdev *netdev, unsigned pairs,
               struct iothread *thread, struct device **ret_dev, struct error *err);
void nic_build_finished(struct nic_bench *f); /* instead of the device that there is */
int nic_create_vhost(struct virtio_machine *m, struct netdev *netdev, unsigned pairs,
                     struct vhost *const *vhosts, struct device **ret_dev, struct error *err);
void nic_build(struct nic_bench *f, unsigned pairs);
/* Fixtures of cmocka: a bench with one pair, or with PAIRS. */
int nic_setup(void **state);
int nic_setup_pairs(void **state);
int nic_teardown(void **state);

/* A move: the card is paused, saved, and gone with its wire; the new one is loaded with that. */
void nic_leave(struct nic_bench *f, struct writer *ret_saved);
void nic_arrive(struct nic_bench *f, struct writer *saved); /* paused as yet; frees it */

void nic_run(struct nic_bench *f); /* dispatch what is ready */
struct virtio_net_stats nic_stats(struct nic_bench *f);
bool nic_broken(struct nic_bench *f);
unsigned nic_news(struct nic_bench *f); /* interrupts for the configuration */

/* Header, addresses, and a pattern: a packet of so many bytes in all. */
void nic_fill_packet(uint8_t *packet, size_t len, const uint8_t to[6], uint8_t seed);
void nic_add_tx(struct nic_bench *f, unsigned queue, const void *packet, uint32_t len);
void nic_assert_wire(struct nic_bench *f, unsigned pair, const uint8_t *packet, size_t len);

void nic_add_rx(struct nic_bench *f, unsigned queue, unsigned count, uint32_t len);
void nic_give_rx(struct nic_bench *f, unsigned count, uint32_t len); /* to RX, kicked and run */
/* A frame that came: the buffers put together as num_buffers says. Returns bytes; 0: none. */
size_t nic_take_rx(struct nic_bench *f, unsigned queue, uint8_t *packet);
void nic_assert_arrives(struct nic_bench *f, unsigned queue, const uint8_t *packet, size_t len);
/* Whether a small frame to this address, in this VLAN (-1: none), gets through. */
bool nic_hears(struct nic_bench *f, const uint8_t to[6], int vlan);

/* A command; data may be NULL. Returns where the answer will be: nothing runs yet. */
const uint8_t *nic_ask(struct nic_bench *f, uint8_t class, uint8_t cmd, const void *data,
                       uint32_t len);
/* The same, and wait; returns the answer. */
uint8_t nic_command(struct nic_bench *f, uint8_t class, uint8_t cmd, const void *data,
                    uint32_t len);
#define nic_assert_done(...) assert_int_equal(nic_command(__VA_ARGS__), VIRTIO_NET_OK)
#define nic_assert_not_done(...) assert_int_equal(nic_command(__VA_ARGS__), VIRTIO_NET_ERR)
/* Start with 64 buffers, and promiscuity off. */
void nic_start_filtered(struct nic_bench *f, uint64_t features);
/* The data of MAC_TABLE_SET; all addresses but the first ones are strange. Returns bytes. */
uint32_t nic_make_table(uint8_t *table, uint32_t uni, const uint8_t first_uni[6], uint32_t multi,
                        const uint8_t first_multi[6]);
void nic_set_pairs(struct nic_bench *f, uint16_t pairs, uint8_t answer);

#endif
