/* SPDX-License-Identifier: Apache-2.0 */
/*
 * set: what of a machine can be changed while it is there, by the path of its key.
 *
 * Each row checks first and sets later, so that of several pairs all are set or none, as far as the
 * kernel does what it is told. A new one is a row here, and in docs/control.md and vmrun(1).
 */
#include "internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmrun/text.h"
#include "vmrun/virtio_devices.h"

#define KEY_MAX 80

struct virtio_rates machine_rates(const struct config_rate *ops, const struct config_rate *bytes)
{
    return (struct virtio_rates){.ops = ops->rate,
                                 .ops_burst = ops->burst,
                                 .bytes = bytes->rate,
                                 .bytes_burst = bytes->burst};
}

int machine_enter_cgroup(struct machine *m, struct error *err)
{
    const struct cgroup_params params = {
        .name = m->config->name,
        .cpu_percent = m->config->limits.cpu,
        .memory_bytes = m->config->limits.memory,
    };

    if (!params.cpu_percent && !params.memory_bytes)
        return 0;
    return cgroup_enter(&params, &m->cgroup, err);
}

/* Whether the configuration would be good with it. It has only numbers that may change. */
static int check_config(const struct machine *m, const struct machine_pair *pair, struct error *err)
{
    struct vm_config changed = *m->config;

    if (config_set(&changed, pair->key, pair->key, pair->value, err) < 0)
        return -err->code;
    return config_validate(&changed, err);
}

static int check_limits(const struct machine *m, const struct machine_pair *pair, struct error *err)
{
    if (!m->cgroup)
        return error_set(err, ENODEV,
                         "%s: the machine has no cgroup of its own, into which its memory would "
                         "count; start it with \"limits\", or --limit-cpu or --limit-memory",
                         pair->key);
    return check_config(m, pair, err);
}

/* The configuration is as it is told now. */
static int set_config(struct machine *m, const struct machine_pair *pair, struct error *err)
{
    return config_set(&m->effective, pair->key, pair->key, pair->value, err);
}

static unsigned index_of(const struct machine_pair *pair)
{
    return (unsigned)strtoul(strchr(pair->key, '[') + 1, NULL, 10);
}

static int set_disk(struct machine *m, const struct machine_pair *pair, struct error *err)
{
    const struct config_disk *disk = &m->config->disks[index_of(pair)];
    int r = set_config(m, pair, err);

    if (r < 0)
        return r;
    const struct virtio_rates rates = machine_rates(&disk->iops, &disk->bandwidth);
    virtio_blk_limit(m->disks[index_of(pair)], &rates);
    return 0;
}

static int set_net(struct machine *m, const struct machine_pair *pair, struct error *err)
{
    const struct config_net *net = &m->config->nets[index_of(pair)];
    int r = set_config(m, pair, err);

    if (r < 0)
        return r;
    const struct virtio_rates rx = machine_rates(&net->rx_packets, &net->rx_bandwidth);
    const struct virtio_rates tx = machine_rates(&net->tx_packets, &net->tx_bandwidth);
    virtio_net_limit(m->nets[index_of(pair)].dev, &rx, &tx);
    return 0;
}

static int set_limits(struct machine *m, const struct machine_pair *pair, struct error *err)
{
    struct vm_config changed = *m->config;
    int r = config_set(&changed, pair->key, pair->key, pair->value, err);

    if (r == 0 && changed.limits.cpu != m->config->limits.cpu)
        r = cgroup_set_cpu(m->cgroup, changed.limits.cpu, err);
    if (r == 0 && changed.limits.memory != m->config->limits.memory)
        r = cgroup_set_memory(m->cgroup, changed.limits.memory, err);
    if (r == 0)
        m->effective.limits = changed.limits;
    return r;
}

static int check_balloon(const struct machine *m, const struct machine_pair *pair,
                         struct error *err)
{
    char memory[24];
    uint64_t bytes;

    if (!m->balloon)
        return error_set(
            err, ENODEV,
            "balloon: the machine has none; start it with --balloon or \"balloon\": {}");
    if (text_parse_size(pair->value, &bytes) < 0)
        return error_set(err, EINVAL, "balloon: \"%.40s\" is not a size; write 256M, or 0",
                         pair->value);
    if (bytes >= m->config->memory)
        return error_set(err, EINVAL,
                         "balloon: \"%.40s\" is not less than the guest's memory, %s; the guest "
                         "gives up that much, and keeps the rest",
                         pair->value, text_format_size(m->config->memory, memory, sizeof(memory)));
    if (bytes % GUEST_PAGE_SIZE)
        return error_set(err, EINVAL, "balloon: \"%.40s\" is not a multiple of 4K", pair->value);
    return 0;
}

static int set_balloon(struct machine *m, const struct machine_pair *pair, struct error *err)
{
    uint64_t bytes = 0;

    (void)err;
    (void)text_parse_size(pair->value, &bytes); /* it was checked */
    virtio_balloon_set_target(m->balloon, bytes);
    return 0;
}

/* "[]" stands for any item of an array. */
static const struct setting {
    const char *key;
    int (*check)(const struct machine *m, const struct machine_pair *pair, struct error *err);
    int (*set)(struct machine *m, const struct machine_pair *pair, struct error *err);
} settings[] = {
    {"balloon", check_balloon, set_balloon},
    {"disks[].iops", check_config, set_disk},
    {"disks[].iops_burst", check_config, set_disk},
    {"disks[].bandwidth", check_config, set_disk},
    {"disks[].bandwidth_burst", check_config, set_disk},
    {"nets[].rx_packets", check_config, set_net},
    {"nets[].rx_packets_burst", check_config, set_net},
    {"nets[].rx_bandwidth", check_config, set_net},
    {"nets[].rx_bandwidth_burst", check_config, set_net},
    {"nets[].tx_packets", check_config, set_net},
    {"nets[].tx_packets_burst", check_config, set_net},
    {"nets[].tx_bandwidth", check_config, set_net},
    {"nets[].tx_bandwidth_burst", check_config, set_net},
    {"limits.cpu", check_limits, set_limits},
    {"limits.memory", check_limits, set_limits},
};
#define SETTINGS (sizeof(settings) / sizeof(settings[0]))

/* "disks[0].iops" as "disks[].iops". */
static void without_index(const char *key, char plain[KEY_MAX])
{
    size_t before = strcspn(key, "[");
    size_t digits = key[before] ? strspn(key + before + 1, "0123456789") : 0;

    snprintf(plain, KEY_MAX, "%.*s%s", (int)(before + (digits > 0)), key,
             key + before + (digits > 0) + digits);
}

static const struct setting *find(const char *key)
{
    char plain[KEY_MAX];

    without_index(key, plain);
    for (size_t i = 0; i < SETTINGS; i++)
        if (strcmp(settings[i].key, plain) == 0 && (!strchr(plain, '[') || strcmp(key, plain) != 0))
            return &settings[i];
    return NULL;
}

static int refuse_key(const char *key, struct error *err)
{
    const char *names[SETTINGS + 1] = {0};
    char plain[KEY_MAX], cure[KEY_MAX];

    for (size_t i = 0; i < SETTINGS; i++)
        names[i] = settings[i].key;
    without_index(key, plain);
    const char *near = text_nearest(plain, names);
    size_t before = near ? strcspn(near, "[") : 0;

    if (!near)
        return error_set(
            err, EINVAL,
            "\"%.64s\" cannot be set while a machine is there; what can: balloon, "
            "limits.cpu and .memory, disks[N].iops and .bandwidth, nets[N].rx_packets, "
            ".rx_bandwidth, .tx_packets and .tx_bandwidth, and these of both with _burst",
            key);
    snprintf(cure, sizeof(cure), "%.*s%s%s", (int)before, near, near[before] ? "[0" : "",
             near + before + (near[before] != '\0'));
    return error_set(err, EINVAL,
                     "\"%.64s\" cannot be set while a machine is there; did you mean \"%s\"", key,
                     cure);
}

int machine_set(struct machine *m, const struct machine_pair *pairs, size_t count,
                struct error *err)
{
    int r = 0;

    if (m->state == MACHINE_ENDED || m->state == MACHINE_UNCERTAIN)
        return machine_refuse(m, "set anything", err);
    if (m->held)
        return error_set(err, EBUSY, "cannot set anything: the machine stands still to be saved");
    for (size_t i = 0; r == 0 && i < count; i++) {
        const struct setting *setting = find(pairs[i].key);

        r = setting ? setting->check(m, &pairs[i], err) : refuse_key(pairs[i].key, err);
    }
    for (size_t i = 0; r == 0 && i < count; i++)
        r = find(pairs[i].key)->set(m, &pairs[i], err);
    return r;
}
