/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_net_ctrl: what the driver commands, and the filters that follow.
 * VIRTIO 1.2, "Network Device", "Control Virtqueue".
 *
 * The one thing to know: a command is either done whole and answered OK, or changes
 * nothing. A tap delivers all frames of its wire, so the filters are ours to apply.
 */
#include "virtio_net.h"

#include <string.h>

#include "vmrun/log.h"

#define ETHERTYPE_VLAN 0x8100

unsigned net_ctrl_queue(const struct virtio_net *net)
{
    return virtio_has(&net->vdev, VIRTIO_NET_F_MQ) ? 2u * net->max_pairs : 2;
}

void net_ctrl_reset(struct virtio_net *net)
{
    memcpy(net->mac, net->own_mac, sizeof(net->mac));
    net->pairs_used = 1;
    /* Until a driver says otherwise, all frames: one without CTRL_RX expects multicast. */
    net->promisc = true;
    net->allmulti = net->uni_overflow = net->multi_overflow = false;
    net->uni_count = net->multi_count = 0;
    memset(net->table, 0, sizeof(net->table));
    memset(net->vlans, 0, sizeof(net->vlans));
    net->announce = false;
    net->guest_offloads = 0;
}

bool net_ctrl_apply(struct virtio_net *net)
{
    const struct netdev_offload offload = {
        .csum = net->guest_offloads >> VIRTIO_NET_F_GUEST_CSUM & 1,
        .tso4 = net->guest_offloads >> VIRTIO_NET_F_GUEST_TSO4 & 1,
        .tso6 = net->guest_offloads >> VIRTIO_NET_F_GUEST_TSO6 & 1,
        .ecn = net->guest_offloads >> VIRTIO_NET_F_GUEST_ECN & 1,
    };
    struct error err;

    net_vhost_let_go(net, net->pairs_used); /* a queue that is detached is not to be read */
    if (netdev_set_offload(net->netdev, &offload, &err) == 0 &&
        netdev_set_queues(net->netdev, net->pairs_used, &err) == 0)
        return true;
    log_warn_limited(&net->vdev.complaints, "%s: %s", net->vdev.pci.dev.id, err.msg);
    return false;
}

/* Filters */

static bool in_table(const struct virtio_net *net, unsigned from, unsigned count,
                     const uint8_t mac[6])
{
    for (unsigned i = from; i < from + count; i++)
        if (memcmp(net->table + (size_t)i * 6, mac, 6) == 0)
            return true;
    return false;
}

bool net_ctrl_accepts(const struct virtio_net *net, const uint8_t ethernet[NET_ETHERNET_BYTES])
{
    static const uint8_t broadcast[6] = {255, 255, 255, 255, 255, 255};
    unsigned vlan = (unsigned)(ethernet[14] << 8 | ethernet[15]) & (NET_VLANS - 1);

    if (net->unplugged)
        return false;
    if (net->promisc)
        return true;
    /* VLAN 0 is a priority without a VLAN. */
    if ((ethernet[12] << 8 | ethernet[13]) == ETHERTYPE_VLAN && vlan &&
        virtio_has(&net->vdev, VIRTIO_NET_F_CTRL_VLAN) && !(net->vlans[vlan / 64] >> vlan % 64 & 1))
        return false;
    if (ethernet[0] & 1)
        return net->allmulti || net->multi_overflow || memcmp(ethernet, broadcast, 6) == 0 ||
               in_table(net, net->uni_count, net->multi_count, ethernet);
    return net->uni_overflow || memcmp(ethernet, net->mac, 6) == 0 ||
           in_table(net, 0, net->uni_count, ethernet);
}

/* Commands */

struct command {
    uint8_t class, command;
    const struct virtq_chain *chain;
    uint64_t bytes; /* that follow the two above */
};

/* The command's data from byte `at` on; false when they are not there. */
static bool fetch(const struct command *c, uint64_t at, void *data, uint64_t len)
{
    return iov_to_buf(c->chain->iov, c->chain->out, 2 + at, data, len) == len;
}

static bool set_rx(struct virtio_net *net, const struct command *c)
{
    uint8_t on;

    if (!virtio_has(&net->vdev, VIRTIO_NET_F_CTRL_RX) || c->bytes != 1 || !fetch(c, 0, &on, 1))
        return false;
    if (c->command == VIRTIO_NET_CTRL_RX_PROMISC)
        net->promisc = on != 0;
    else if (c->command == VIRTIO_NET_CTRL_RX_ALLMULTI)
        net->allmulti = on != 0;
    else
        return false;
    return true;
}

/* One of the two lists: le32 count, then the addresses; those that fit go to `ret_macs`. */
static bool fetch_list(const struct command *c, uint64_t *at, unsigned room, uint8_t *ret_macs,
                       uint32_t *ret_count)
{
    uint32_t count;

    if (!fetch(c, *at, &count, sizeof(count)))
        return false;
    *at += sizeof(count);
    if (count > (c->bytes - *at) / 6)
        return false;
    if (count <= room && !fetch(c, *at, ret_macs, (uint64_t)count * 6))
        return false;
    *at += (uint64_t)count * 6;
    *ret_count = count;
    return true;
}

/* A list that is too long lets all of its kind pass: too much, rather than too little. */
static bool set_table(struct virtio_net *net, const struct command *c)
{
    uint8_t table[NET_TABLE * 6] = {0};
    uint32_t uni, multi;
    uint64_t at = 0;

    if (!fetch_list(c, &at, NET_TABLE, table, &uni))
        return false;
    unsigned kept = uni <= NET_TABLE ? uni : 0;
    if (!fetch_list(c, &at, NET_TABLE - kept, table + (size_t)kept * 6, &multi) || at != c->bytes)
        return false;
    net->uni_overflow = uni > NET_TABLE;
    net->multi_overflow = multi > NET_TABLE - kept;
    net->uni_count = (uint8_t)kept;
    net->multi_count = net->multi_overflow ? 0 : (uint8_t)multi;
    memcpy(net->table, table, sizeof(table));
    return true;
}

static bool set_mac(struct virtio_net *net, const struct command *c)
{
    if (c->command == VIRTIO_NET_CTRL_MAC_TABLE_SET)
        return virtio_has(&net->vdev, VIRTIO_NET_F_CTRL_RX) && set_table(net, c);
    if (c->command != VIRTIO_NET_CTRL_MAC_ADDR_SET ||
        !virtio_has(&net->vdev, VIRTIO_NET_F_CTRL_MAC_ADDR) || c->bytes != 6)
        return false;
    return fetch(c, 0, net->mac, 6);
}

static bool set_vlan(struct virtio_net *net, const struct command *c)
{
    uint16_t vlan;

    if (!virtio_has(&net->vdev, VIRTIO_NET_F_CTRL_VLAN) || c->bytes != sizeof(vlan) ||
        !fetch(c, 0, &vlan, sizeof(vlan)) || vlan >= NET_VLANS)
        return false;
    if (c->command == VIRTIO_NET_CTRL_VLAN_ADD)
        net->vlans[vlan / 64] |= UINT64_C(1) << vlan % 64;
    else if (c->command == VIRTIO_NET_CTRL_VLAN_DEL)
        net->vlans[vlan / 64] &= ~(UINT64_C(1) << vlan % 64);
    else
        return false;
    return true;
}

static bool acknowledge(struct virtio_net *net, const struct command *c)
{
    if (!virtio_has(&net->vdev, VIRTIO_NET_F_GUEST_ANNOUNCE) ||
        c->command != VIRTIO_NET_CTRL_ANNOUNCE_ACK || !net->announce)
        return false;
    net->announce = false;
    return true;
}

static bool set_pairs(struct virtio_net *net, const struct command *c)
{
    uint16_t before = net->pairs_used, pairs;

    if (!virtio_has(&net->vdev, VIRTIO_NET_F_MQ) || c->command != VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET ||
        c->bytes != sizeof(pairs) || !fetch(c, 0, &pairs, sizeof(pairs)) || pairs == 0 ||
        pairs > net->max_pairs)
        return false;
    net->pairs_used = pairs;
    if (net_ctrl_apply(net))
        return true;
    net->pairs_used = before;
    return false;
}

static bool set_offloads(struct virtio_net *net, const struct command *c)
{
    uint64_t before = net->guest_offloads, offloads;

    if (!virtio_has(&net->vdev, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) ||
        c->command != VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET || c->bytes != sizeof(offloads) ||
        !fetch(c, 0, &offloads, sizeof(offloads)) ||
        offloads & ~(net->vdev.negotiated & NET_GUEST_OFFLOADS))
        return false;
    net->guest_offloads = offloads;
    if (net_ctrl_apply(net))
        return true;
    net->guest_offloads = before;
    return false;
}

static bool execute(struct virtio_net *net, const struct command *c)
{
    switch (c->class) {
    case VIRTIO_NET_CTRL_RX: return set_rx(net, c);
    case VIRTIO_NET_CTRL_MAC: return set_mac(net, c);
    case VIRTIO_NET_CTRL_VLAN: return set_vlan(net, c);
    case VIRTIO_NET_CTRL_ANNOUNCE: return acknowledge(net, c);
    case VIRTIO_NET_CTRL_MQ: return set_pairs(net, c);
    case VIRTIO_NET_CTRL_GUEST_OFFLOADS: return set_offloads(net, c);
    default: return false;
    }
}

void net_ctrl_run(struct virtio_net *net)
{
    unsigned queue = net_ctrl_queue(net);
    struct virtqueue *vq = &net->vdev.queues[queue];
    /* Nobody else on this thread uses these iovecs meanwhile. */
    struct virtq_chain chain = {.iov = net->pairs[0].tx_iov, .room = VIRTQ_MAX_CHAIN};
    uint16_t pairs = net->pairs_used;
    int r;

    while ((r = virtqueue_pop(vq, &chain)) > 0) {
        struct command c = {.chain = &chain};
        uint8_t id[2], answer;

        if (chain.in_bytes < 1 || iov_to_buf(chain.iov, chain.out, 0, id, 2) < 2) {
            virtio_broken(&net->vdev, "a command without a head, or without room for the answer");
            return;
        }
        c.class = id[0], c.command = id[1];
        c.bytes = chain.out_bytes - 2;
        answer = execute(net, &c) ? VIRTIO_NET_OK : VIRTIO_NET_ERR;
        iov_from_buf(chain.iov + chain.out, chain.in, 0, &answer, 1);
        virtqueue_push(vq, &chain, 1);
    }
    if (r < 0) {
        virtio_broken(&net->vdev, "control queue");
        return;
    }
    virtio_notify(&net->vdev, queue);
    if (net->pairs_used != pairs)
        net_run_pairs(net);
    net_vhost_settle(net);
}
