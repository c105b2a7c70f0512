/* SPDX-License-Identifier: Apache-2.0 */
/* nets: the configuration's network cards, each a virtio-net function with a thread of its own. */
#include "internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "vmrun/text.h"
#include "vmrun/virtio_devices.h"

#define THREAD_NAME_BYTES 16 /* with the NUL: the kernel's limit */
#define RARP_TIMES 5
#define DEFAULT_PAIRS 4 /* at most, where nobody says how many */

/* FNV-1a over the text and its NUL. */
static uint64_t hash_text(uint64_t hash, const char *text)
{
    do
        hash = (hash ^ (uint8_t)*text) * UINT64_C(0x100000001b3);
    while (*text++);
    return hash;
}

/* Stable, so that a guest finds its card again; of the locally administered, of one station. */
static void make_mac(const char *machine, const char *id, uint8_t ret_mac[6])
{
    uint64_t hash = hash_text(hash_text(UINT64_C(0xcbf29ce484222325), machine), id);

    for (unsigned i = 0; i < 6; i++)
        ret_mac[i] = (uint8_t)(hash >> 8 * (i + 2));
    ret_mac[0] = (uint8_t)((ret_mac[0] & 0xfc) | 2);
}

int machine_net_mac(const struct vm_config *config, unsigned index, uint8_t ret_mac[6])
{
    const struct config_net *net = &config->nets[index];

    if (net->mac)
        return text_parse_mac(net->mac, ret_mac);
    make_mac(config->name ? config->name : "", net->id, ret_mac);
    return 0;
}

/* What the guest is told, or 0: nothing. */
static uint16_t card_mtu(const struct config_net *net)
{
    if (net->backend == CONFIG_NET_USER && !net->mtu)
        return USER_NET_MTU;
    return (uint16_t)net->mtu;
}

static int create_card(struct machine *m, unsigned index, struct error *err)
{
    const struct config_net *net = &m->config->nets[index];
    struct machine_net *card = &m->nets[index];
    struct virtio_net_params params = {
        .queues = (unsigned)net->queues,
        .mtu = card_mtu(net),
        .finished = net->offload == CONFIG_OFFLOAD_OFF,
        .netdev = card->netdev,
        .vhosts = net->vhost ? card->vhosts : NULL,
        .thread = card->thread,
        .rx_rates = machine_rates(&net->rx_packets, &net->rx_bandwidth),
        .tx_rates = machine_rates(&net->tx_packets, &net->tx_bandwidth),
    };
    char id[32];

    snprintf(id, sizeof(id), "net %s", net->id);
    params.id = id;
    if (machine_net_mac(m->config, index, params.mac) < 0)
        return error_set(err, EINVAL, "%s: %s is no address", id, net->mac);
    return virtio_net_create(&m->platform, m->pci_host, &params, &card->dev, err);
}

/* check: only try. A tap is tried by opening it: what is said then would be said later. */
static int open_netdev(const struct vm_config *config, unsigned index, bool check,
                       struct netdev **ret_netdev, struct error *err)
{
    const struct config_net *net = &config->nets[index];
    const struct tap_params tap = {
        .ifname = net->ifname,
        .bridge = net->bridge,
        .queues = net->queues ? (unsigned)net->queues : 1,
        .mtu = (unsigned)net->mtu,
    };
    char id[32];
    const struct user_net_params user = {
        .id = id,
        .forwards = net->hostfwd,
        .mtu = card_mtu(net),
    };
    int r;

    snprintf(id, sizeof(id), "net %s", net->id);
    if (net->backend == CONFIG_NET_TAP)
        r = tap_open(&tap, ret_netdev, err);
    else if (check)
        r = user_net_check(&user, err);
    else
        r = user_net_open(&user, ret_netdev, err);
    return r < 0 ? error_prefix(err, "nets[%u]", index) : 0;
}

int machine_check_net(const struct vm_config *config, unsigned index, struct error *err)
{
    struct netdev *netdev = NULL;
    int r = open_netdev(config, index, true, &netdev, err);

    netdev_close(netdev);
    if (r == 0 && config->nets[index].vhost)
        r = vhost_check(err) < 0 ? error_prefix(err, "nets[%u]", index) : 0;
    return r;
}

/* One for each pair, and all of the guest's memory. */
static int open_vhosts(struct machine *m, unsigned index, struct error *err)
{
    struct machine_net *card = &m->nets[index];
    struct vhost_region regions[MEMORY_MAX_REGIONS];
    int r = 0;

    for (unsigned i = 0; i < m->memory->count; i++)
        regions[i] = (struct vhost_region){.gpa = m->memory->regions[i].gpa,
                                           .bytes = m->memory->regions[i].size,
                                           .host = m->memory->regions[i].host};
    for (unsigned i = 0; r == 0 && i < m->config->nets[index].queues; i++)
        r = vhost_open(regions, m->memory->count, m->memory->dirty, &card->vhosts[i], err);
    return r;
}

/* What nobody has said is settled now, and travels with the machine's description. */
static void settle(struct machine *m, unsigned index)
{
    struct config_net *net = &m->effective.nets[index];
    unsigned cpus = (unsigned)m->config->cpus;

    if (net->queues == 0)
        net->queues = net->backend == CONFIG_NET_TAP
                          ? tap_queues(net->ifname, cpus < DEFAULT_PAIRS ? cpus : DEFAULT_PAIRS)
                          : 1;
    if (net->backend != CONFIG_NET_USER)
        return; /* the rest is what it always was there, and need not be said */
    if (net->mtu == 0)
        net->mtu = USER_NET_MTU;
    if (net->offload == CONFIG_OFFLOAD_AUTO)
        net->offload = CONFIG_OFFLOAD_ON;
}

static int create_net(struct machine *m, unsigned index, struct error *err)
{
    struct machine_net *card = &m->nets[index];
    char name[THREAD_NAME_BYTES];
    int r;

    settle(m, index);
    r = open_netdev(m->config, index, false, &card->netdev, err);
    if (r < 0)
        return r;
    snprintf(name, sizeof(name), "net %.11s", m->config->nets[index].id);
    r = iothread_create(name, &card->thread, err);
    if (r == 0 && m->config->nets[index].vhost)
        r = open_vhosts(m, index, err);
    if (r == 0)
        r = create_card(m, index, err);
    if (r < 0)
        return error_prefix(err, "nets[%u]", index);
    m->devices[m->device_count++] = card->dev;
    return 0;
}

/*
 * The first may be lost where a port of a bridge or switch is not ready yet: after 50, 150, 350 and
 * 750 ms it is said again.
 */
static void say_where(void *opaque)
{
    struct machine *m = opaque;
    uint64_t distance_ns = UINT64_C(50000000) << (RARP_TIMES - m->rarp_left);

    for (unsigned i = 0; i < m->config->net_count; i++)
        virtio_net_send_rarp(m->nets[i].dev);
    m->rarp_left--;
    if (m->rarp_left)
        loop_timer_arm(m->rarp_timer, loop_now_ns() + distance_ns);
}

void machine_announce(struct machine *m)
{
    for (unsigned i = 0; i < m->config->net_count; i++)
        virtio_net_announce(m->nets[i].dev);
    m->rarp_left = RARP_TIMES;
}

void machine_announce_start(struct machine *m)
{
    if (m->rarp_timer && m->rarp_left)
        say_where(m);
}

/* It may go somewhere else now, and then nothing from here must call its frames back. */
void machine_announce_stop(struct machine *m)
{
    if (m->rarp_timer)
        loop_timer_arm(m->rarp_timer, 0);
}

int machine_create_nets(struct machine *m, struct error *err)
{
    int r = 0;

    if (m->config->net_count > 0)
        r = loop_timer_create(m->loop, NULL, say_where, m, &m->rarp_timer, err);
    for (unsigned i = 0; r == 0 && i < m->config->net_count; i++)
        r = create_net(m, i, err);
    return r;
}

void machine_close_nets(struct machine *m)
{
    loop_timer_destroy(m->rarp_timer);
    for (unsigned i = 0; i < CONFIG_MAX_NETS; i++) {
        iothread_destroy(m->nets[i].thread);
        for (unsigned k = 0; k < NETDEV_MAX_QUEUES; k++)
            vhost_close(m->nets[i].vhosts[k]);
        netdev_close(m->nets[i].netdev);
    }
}

int machine_log_nets(struct machine *m, bool on, struct error *err)
{
    int r = 0;

    for (unsigned i = 0; r == 0 && i < m->config->net_count; i++)
        r = virtio_net_log(m->nets[i].dev, on, err);
    return r;
}

int machine_set_link(struct machine *m, const char *id, bool up, struct error *err)
{
    for (unsigned i = 0; i < m->config->net_count; i++)
        if (strcmp(m->config->nets[i].id, id) == 0) {
            if (machine_refuse_leaving(m, "change the link", err) < 0)
                return -err->code;
            virtio_net_set_link(m->nets[i].dev, up);
            return 0;
        }
    return error_set(err, ENODEV, "no network card has the id \"%.64s\"", id);
}
