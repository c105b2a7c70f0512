/* SPDX-License-Identifier: Apache-2.0 */
/* disks: the configuration's disks, each a virtio-blk function with a thread of its own. */
#include "internal.h"

#include <stdio.h>
#include <string.h>

#include "vmrun/virtio_devices.h"

#define THREAD_NAME_BYTES 16 /* with the NUL: the kernel's limit */

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
    r = iothread_create(name, &m->disk_threads[index], err);
    if (r < 0)
        return error_prefix(err, "disk %s", disk->id);

    const struct virtio_blk_params params = {
        .id = disk->id,
        .path = disk->path,
        .serial = disk->serial,
        .read_only = disk->readonly,
        .cache = caches[disk->cache],
        .queues = (unsigned)(queues < DISK_MAX_QUEUES ? queues : DISK_MAX_QUEUES),
        .thread = m->disk_threads[index],
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
    for (unsigned i = 0; i < CONFIG_MAX_DISKS; i++)
        iothread_destroy(m->disk_threads[i]);
}

void machine_refresh_disks(struct machine *m)
{
    for (unsigned i = 0; i < m->config->disk_count; i++)
        virtio_blk_refresh(m->disks[i]);
}
