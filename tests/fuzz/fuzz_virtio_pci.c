/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz: a hostile driver against a virtio device (the entropy source) behind its PCI function, by
 * registers, configuration space, doorbells, memory, and by a hostile stream.
 *
 * The input is a program; missing bytes read as zero. It begins with the device at DRIVER_OK
 * unless it says otherwise, so that little input goes a long way.
 */
#include <linux/pci_regs.h>
#include <stdlib.h>
#include <string.h>

#include "device_load.h"
#include "virtio_driver.h"
#include "vmrun/bytes.h"
#include "vmrun/log.h"
#include "vmrun/virtio_devices.h"

#define BAR_BYTES 0x4000u

struct world {
    struct virtio_machine m;
    struct device *dev;
    struct virtio_driver d;
    bool paused;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int r)
{
    if (r < 0)
        abort();
}

/* Its own state, with a few bytes changed: gets further than a stream from nowhere. */
static void load_changed(struct world *w, struct reader *in)
{
    struct writer out = {0};
    struct error err;
    unsigned changes = (unsigned)get_uint(in, 1) % 4;

    must(state_save(w->dev->ops->state, w->dev, &out, &err));
    for (unsigned i = 0; i < changes; i++) {
        size_t at = get_uint(in, 2) % out.len;

        out.data[at] = (uint8_t)get_uint(in, 1);
    }
    struct reader r = {.data = out.data, .len = out.len};
    if (state_load(w->dev->ops->state, w->dev, &r, &err) < 0)
        device_reset(w->dev);
    free(out.data);
}

static void access_bar(struct world *w, struct reader *in, bool write)
{
    unsigned size = 1u << get_uint(in, 1) % 4;
    uint64_t at = w->d.common + get_uint(in, 2) % (BAR_BYTES - size + 1);

    if (!fake_is_mapped(w->m.fake, BUS_MMIO, at, size))
        return;
    if (write)
        virtio_driver_write(&w->d, at, size, get_uint(in, size));
    else
        (void)virtio_driver_read(&w->d, at, size);
}

/* A field of the common structure, in its width: what random offsets seldom hit. */
static void write_common(struct world *w, struct reader *in)
{
    static const uint8_t fields[][2] = {{0, 4},  {8, 4},  {12, 4}, {16, 2}, {20, 1}, {22, 2},
                                        {24, 2}, {26, 2}, {28, 2}, {32, 4}, {36, 4}, {40, 4},
                                        {44, 4}, {48, 4}, {52, 4}, {20, 1}};
    const uint8_t *field = fields[get_uint(in, 1) % 16];

    if (fake_is_mapped(w->m.fake, BUS_MMIO, w->d.common, 60))
        virtio_driver_write(&w->d, w->d.common + field[0], field[1], get_uint(in, field[1]));
}

static void write_memory(struct world *w, struct reader *in)
{
    uint64_t gpa = get_uint(in, 2);
    size_t len = get_uint(in, 1);
    const void *bytes = get_bytes(in, len);

    if (bytes)
        (void)guest_memory_write(w->m.memory, gpa, bytes, len);
}

static void step(struct world *w, struct reader *in)
{
    switch (get_uint(in, 1) % 14) {
    case 0: device_load_bytes(w->dev, in); break;
    case 1: load_changed(w, in); break;
    case 2: device_reset(w->dev); break;
    case 3:
        w->paused = !w->paused;
        (w->paused ? device_pause : device_resume)(w->dev);
        break;
    case 4: access_bar(w, in, false); break;
    case 5: access_bar(w, in, true); break;
    case 6: write_common(w, in); break;
    case 7:
        virtio_driver_pci_write(&w->d, get_uint(in, 1) & ~3u, 4, (uint32_t)get_uint(in, 4));
        break;
    case 8: (void)virtio_driver_pci_read(&w->d, get_uint(in, 1) & ~3u, 4); break;
    case 9: virtio_driver_decode(&w->d); break;
    case 10: write_memory(w, in); break;
    case 11:
        if (fake_is_mapped(w->m.fake, BUS_MMIO, w->d.notify, 2))
            virtio_driver_write(&w->d, w->d.notify, 2, 0);
        break;
    default: virtio_machine_run(&w->m); break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct world w;
    struct reader in = {.data = data, .len = size};
    struct error err;

    log_set_level(LOG_LEVEL_ERROR);
    w.paused = false;
    virtio_machine_init(&w.m, NULL);
    must(virtio_rng_create(w.m.platform, w.m.host, w.m.loop, &w.dev, &err));
    virtio_driver_init(&w.d, &w.m, w.dev);
    switch (get_uint(&in, 1) % 4) {
    case 0: break;
    case 1: virtio_driver_start(&w.d, 0); break;
    case 2: virtio_driver_start_intx(&w.d, UINT64_MAX); break;
    default: virtio_driver_start(&w.d, UINT64_MAX); break;
    }
    while (!in.failed && in.at < size)
        step(&w, &in);
    device_destroy(w.dev);
    virtio_machine_fini(&w.m);
    return 0;
}
