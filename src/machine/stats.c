/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stats: the counters of a machine by their names, which docs/control.md promises.
 *
 * Those of disks and network cards are read while their threads add to them: no lock is taken
 * that a thread with requests to serve might hold.
 */
#include "internal.h"

#include <stdio.h>

#include "vmrun/serial.h"
#include "vmrun/virtio_devices.h"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

struct sink {
    machine_stat_fn *fn;
    void *opaque;
    char device[48]; /* how the names of its counters begin: "disk.root" */
};

struct row {
    const char *name;
    uint64_t value;
};

static void add(const struct sink *sink, const char *name, uint64_t value)
{
    char full[96];

    snprintf(full, sizeof(full), "%s.%s", sink->device, name);
    sink->fn(sink->opaque, full, value);
}

static void add_rows(const struct sink *sink, const struct row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++)
        add(sink, rows[i].name, rows[i].value);
}

static void add_queue(void *opaque, const char *queue, const char *name, uint64_t value)
{
    char full[48];

    snprintf(full, sizeof(full), "%s.%s", queue, name);
    add(opaque, full, value);
}

static void add_disk(struct sink *sink, const char *id, const struct device *dev)
{
    struct virtio_blk_stats s;

    virtio_blk_stats(dev, &s);
    const struct row rows[] = {
        {"reads", s.reads},
        {"read_bytes", s.read_bytes},
        {"writes", s.writes},
        {"written_bytes", s.written_bytes},
        {"flushes", s.flushes},
        {"discards", s.discards},
        {"zeroings", s.zeroings},
        {"errors", s.errors},
        {"limit_waits", s.limit_waits},
    };

    snprintf(sink->device, sizeof(sink->device), "disk.%s", id);
    add_rows(sink, rows, COUNT_OF(rows));
    virtio_stats(dev, add_queue, sink);
    virtio_blk_latency(dev, add_queue, sink);
}

static void add_net(struct sink *sink, const char *id, struct device *dev)
{
    struct virtio_net_stats s;

    virtio_net_stats(dev, &s);
    const struct row rows[] = {
        {"rx_frames", s.rx_frames},           {"rx_bytes", s.rx_bytes},
        {"rx_filtered", s.rx_filtered},       {"rx_dropped", s.rx_dropped},
        {"tx_frames", s.tx_frames},           {"tx_bytes", s.tx_bytes},
        {"tx_dropped", s.tx_dropped},         {"tx_waits", s.tx_waits},
        {"rx_limit_waits", s.rx_limit_waits}, {"tx_limit_waits", s.tx_limit_waits},
    };
    const struct row uncounted[] = {
        {"vhost_starts", s.vhost_starts},
        {"vhost_stops", s.vhost_stops},
    };

    snprintf(sink->device, sizeof(sink->device), "net.%s", id);
    if (virtio_net_is_counted(dev))
        add_rows(sink, rows, COUNT_OF(rows));
    else
        add_rows(sink, uncounted, COUNT_OF(uncounted));
    virtio_stats(dev, add_queue, sink);
}

static void add_vsock(struct sink *sink, const struct device *dev)
{
    struct virtio_vsock_stats s;

    virtio_vsock_stats(dev, &s);
    const struct row rows[] = {
        {"opened", s.opened},         {"closed", s.closed},         {"refused", s.refused},
        {"resets", s.resets},         {"rx_packets", s.rx_packets}, {"rx_bytes", s.rx_bytes},
        {"tx_packets", s.tx_packets}, {"tx_bytes", s.tx_bytes},     {"tx_waits", s.tx_waits},
        {"dropped", s.dropped},
    };

    snprintf(sink->device, sizeof(sink->device), "vsock");
    add_rows(sink, rows, COUNT_OF(rows));
    virtio_stats(dev, add_queue, sink);
}

/* What a guest says of its memory, by VIRTIO_BALLOON_S_*; each is as it is now, but for counts. */
static const char *const guest_stats[VIRTIO_BALLOON_STATS] = {
    "swap_in_bytes", "swap_out_bytes",  "major_faults", "minor_faults",        "free_bytes",
    "total_bytes",   "available_bytes", "caches_bytes", "hugetlb_allocations", "hugetlb_failures",
};

static void add_balloon(struct sink *sink, struct device *dev)
{
    struct virtio_balloon_stats s;

    virtio_balloon_stats(dev, &s);
    const struct row rows[] = {
        {"target_bytes", s.target_bytes},     {"actual_bytes", s.actual_bytes},
        {"inflated_bytes", s.inflated_bytes}, {"reported_bytes", s.reported_bytes},
        {"returned_bytes", s.returned_bytes}, {"guest.asked", s.asked},
    };

    snprintf(sink->device, sizeof(sink->device), "balloon");
    add_rows(sink, rows, COUNT_OF(rows));
    virtio_stats(dev, add_queue, sink);
    if (s.answered)
        add(sink, "guest.age_ms", s.age_ns / 1000000u);
    snprintf(sink->device, sizeof(sink->device), "balloon.guest");
    for (unsigned i = 0; i < COUNT_OF(guest_stats); i++)
        if (s.answered && s.known >> i & 1)
            add(sink, guest_stats[i], s.guest[i]);
}

static void add_virtio(const struct machine *m, struct sink *sink)
{
    for (unsigned i = 0; i < m->config->disk_count; i++)
        add_disk(sink, m->config->disks[i].id, m->disks[i]);
    for (unsigned i = 0; i < m->config->net_count; i++)
        add_net(sink, m->config->nets[i].id, m->nets[i].dev);
    for (unsigned i = 0; i < 2; i++) {
        const struct device *dev = i == 0 ? m->rng : m->hvc0;

        if (!dev)
            continue;
        snprintf(sink->device, sizeof(sink->device), "%s", dev->id);
        virtio_stats(dev, add_queue, sink);
    }
    if (m->balloon)
        add_balloon(sink, m->balloon);
    if (m->vsock.dev)
        add_vsock(sink, m->vsock.dev);
}

void machine_stats(const struct machine *m, machine_stat_fn *fn, void *opaque)
{
    struct sink sink = {.fn = fn, .opaque = opaque};
    uint64_t exits[KVM_EXIT_KINDS];
    struct serial_stats serial;

    kvm_vm_exit_counts(m->vm, exits);
    snprintf(sink.device, sizeof(sink.device), "exits");
    for (unsigned i = 0; i < KVM_EXIT_KINDS; i++)
        add(&sink, kvm_exit_kind_name(i), exits[i]);
    serial_stats(m->serial, &serial);
    fn(opaque, "serial0.tx_bytes", serial.tx_bytes);
    fn(opaque, "serial0.rx_bytes", serial.rx_bytes);
    fn(opaque, "serial0.tx_lost", serial.tx_lost);
    add_virtio(m, &sink);
    fn(opaque, "bus.pio.unmapped", bus_unmapped_count(m->pio));
    fn(opaque, "bus.mmio.unmapped", bus_unmapped_count(m->mmio));
    fn(opaque, "resets", m->resets);
}
