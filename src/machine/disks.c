/* SPDX-License-Identifier: Apache-2.0 */
/* disks: the configuration's disks, each a virtio-blk function with a thread of its own. */
#include "internal.h"

#include <stdio.h>
#include <string.h>

#include "vmrun/virtio_devices.h"

#define THREAD_NAME_BYTES 16 /* with the NUL: the kernel's limit */

static const char *const op_names[] = {
    [BLOCK_READ] = "read",
    [BLOCK_WRITE] = "write",
    [BLOCK_FLUSH] = "flush",
    [BLOCK_DISCARD] = "discard",
    [BLOCK_WRITE_ZEROES] = "write_zeroes",
};

static void tell_io_error(void *opaque)
{
    struct machine_disk_error *last = opaque;
    struct machine *m = last->machine;
    char device[32];

    pthread_mutex_lock(&last->lock);
    struct virtio_blk_error error = last->error;
    pthread_mutex_unlock(&last->lock);

    snprintf(device, sizeof(device), "disk.%s", m->config->disks[last - m->disk_errors].id);
    const struct machine_io_error io_error = {
        .device = device,
        .op = op_names[error.op],
        .offset = error.offset,
        .bytes = error.bytes,
        .code = error.code,
        .left_out = error.left_out,
    };
    machine_tell(m, &(struct machine_news){.event = MACHINE_EVENT_IO_ERROR,
                                           .detail = error.words,
                                           .io_error = &io_error});
}

/* On the disk's thread: listeners are told on the machine's. */
static void pass_on_io_error(void *opaque, const struct virtio_blk_error *error)
{
    struct machine_disk_error *last = opaque;

    pthread_mutex_lock(&last->lock);
    last->error = *error;
    pthread_mutex_unlock(&last->lock);
    /* Out of memory, it is a line in the log and a counter all the same. */
    (void)loop_post(last->machine->loop, tell_io_error, last);
}

static int create_disk(struct machine *m, unsigned index, struct error *err)
{
    static const enum block_cache caches[] = {
        [CONFIG_CACHE_NONE] = BLOCK_CACHE_NONE,
        [CONFIG_CACHE_WRITEBACK] = BLOCK_CACHE_WRITEBACK,
    };
    const struct config_disk *disk = &m->config->disks[index];
    uint64_t queues = disk->queues ? disk->queues : m->config->cpus;
    char name[THREAD_NAME_BYTES];
    int r;

    snprintf(name, sizeof(name), "disk %.10s", disk->id);
    m->disk_errors[index].machine = m;
    pthread_mutex_init(&m->disk_errors[index].lock, NULL);
    r = iothread_create(name, &m->disk_threads[index], err);
    if (r < 0)
        return error_prefix(err, "disk %s", disk->id);

    const struct virtio_blk_params params = {
        .id = disk->id,
        .path = disk->path,
        .serial = disk->serial,
        .read_only = disk->readonly,
        .elsewhere = m->image && m->image->disks_elsewhere,
        .cache = caches[disk->cache],
        .queues = (unsigned)(queues < DISK_MAX_QUEUES ? queues : DISK_MAX_QUEUES),
        .thread = m->disk_threads[index],
        .rates = machine_rates(&disk->iops, &disk->bandwidth),
        .io_error = pass_on_io_error,
        .io_error_opaque = &m->disk_errors[index],
    };
    r = virtio_blk_create(&m->platform, m->pci_host, &params, &m->disks[index], err);
    if (r < 0)
        return r;
    m->devices[m->device_count++] = m->disks[index];
    return 0;
}

int machine_create_disks(struct machine *m, struct error *err)
{
    int r = 0;

    for (unsigned i = 0; r == 0 && i < m->config->disk_count; i++)
        r = create_disk(m, i, err);
    return r;
}

void machine_destroy_disk_threads(struct machine *m)
{
    for (unsigned i = 0; i < CONFIG_MAX_DISKS; i++) {
        iothread_destroy(m->disk_threads[i]);
        if (m->disk_errors[i].machine)
            pthread_mutex_destroy(&m->disk_errors[i].lock);
    }
}

void machine_refresh_disks(struct machine *m)
{
    for (unsigned i = 0; i < m->config->disk_count; i++)
        virtio_blk_refresh(m->disks[i]);
}
