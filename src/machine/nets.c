/* SPDX-License-Identifier: Apache-2.0 */
/* nets: the configuration's network cards, each a virtio-net function with a thread of its own. */
#include "internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "vmrun/text.h"
#include "vmrun/virtio_devices.h"

#define THREAD_NAME_BYTES 16 /* with the NUL: the kernel's limit */

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

static int create_card(struct machine *m, const struct config_net *net, struct machine_net *card,
                       struct error *err)
{
    struct virtio_net_params params = {
        .queues = (unsigned)net->queues,
        .mtu = (uint16_t)net->mtu,
        .netdev = card->netdev,
        .thread = card->thread,
    };
    char id[32];

    snprintf(id, sizeof(id), "net %s", net->id);
    params.id = id;
    if (!net->mac)
        make_mac(m->config->name ? m->config->name : "", net->id, params.mac);
    else if (text_parse_mac(net->mac, params.mac) < 0)
        return error_set(err, EINVAL, "%s: %s is no address", id, net->mac);
    return virtio_net_create(&m->platform, m->pci_host, &params, &card->dev, err);
}

static int create_net(struct machine *m, unsigned index, struct error *err)
{
    const struct config_net *net = &m->config->nets[index];
    struct machine_net *card = &m->nets[index];
    const struct tap_params tap = {
        .ifname = net->ifname,
        .bridge = net->bridge,
        .queues = (unsigned)net->queues,
        .mtu = (unsigned)net->mtu,
    };
    char name[THREAD_NAME_BYTES];
    int r;

    snprintf(name, sizeof(name), "net %.11s", net->id);
    r = tap_open(&tap, &card->netdev, err);
    if (r == 0)
        r = iothread_create(name, &card->thread, err);
    if (r == 0)
        r = create_card(m, net, card, err);
    if (r < 0)
        return error_prefix(err, "nets[%u]", index);
    m->devices[m->device_count++] = card->dev;
    return 0;
}

int machine_create_nets(struct machine *m, struct error *err)
{
    int r = 0;

    for (unsigned i = 0; r == 0 && i < m->config->net_count; i++)
        r = create_net(m, i, err);
    return r;
}

void machine_close_nets(struct machine *m)
{
    for (unsigned i = 0; i < CONFIG_MAX_NETS; i++) {
        iothread_destroy(m->nets[i].thread);
        netdev_close(m->nets[i].netdev);
    }
}

void machine_net_stats(const struct machine *m, machine_stat_fn *fn, void *opaque)
{
    for (unsigned i = 0; i < m->config->net_count; i++) {
        struct virtio_net_stats s;
        char name[64];

        virtio_net_stats(m->nets[i].dev, &s);
        const struct {
            const char *name;
            uint64_t value;
        } rows[] = {
            {"rx_frames", s.rx_frames},     {"rx_bytes", s.rx_bytes},
            {"rx_filtered", s.rx_filtered}, {"rx_dropped", s.rx_dropped},
            {"tx_frames", s.tx_frames},     {"tx_bytes", s.tx_bytes},
            {"tx_dropped", s.tx_dropped},   {"tx_waits", s.tx_waits},
        };

        for (unsigned j = 0; j < sizeof(rows) / sizeof(rows[0]); j++) {
            snprintf(name, sizeof(name), "net.%s.%s", m->config->nets[i].id, rows[j].name);
            fn(opaque, name, rows[j].value);
        }
    }
}
