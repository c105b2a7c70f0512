/* SPDX-License-Identifier: Apache-2.0 */
/*
 * move: what the engine that saves and moves machines needs of one: its memory and dirty log, its
 * state as a whole, and a stop that nobody else notices.
 *
 * The one thing to know: the state of KVM comes first in the registry and is given to the kernel
 * when all tables are loaded; devices have put up their interrupt lines by then.
 */
#include "internal.h"

#include <errno.h>
#include <string.h>

#include "vmrun/virtio_devices.h"
#include "vmrun/vmgenid.h"

/* "disk root" is "disk.root" there, as in its counters. */
static int register_device(struct machine *m, struct device *dev, struct error *err)
{
    char id[sizeof(dev->id)];

    memcpy(id, dev->id, sizeof(id));
    for (char *c = id; *c; c++)
        if (*c == ' ')
            *c = '.';
    return state_registry_add(m->registry, id, dev->ops->state, dev, &dev->lock, err);
}

int machine_register_state(struct machine *m, struct error *err)
{
    int r = state_registry_create(&m->registry, err);

    if (r == 0)
        r = kvm_vm_add_state(m->vm, m->registry, err);
    for (unsigned i = 0; r == 0 && i < m->device_count; i++) {
        struct device *dev = m->devices[i];

        if (dev->ops->state)
            r = register_device(m, dev, err);
    }
    return r;
}

struct guest_memory *machine_memory(struct machine *m)
{
    return m->memory;
}

/*
 * What a vCPU asked for before it stopped is in no table, so it is served first: the machine may
 * have ended then, or restarted and run on.
 */
int machine_hold(struct machine *m, struct error *err)
{
    do {
        bool runs = m->state == MACHINE_RUNNING && !m->held;
        int r = runs ? machine_try_stop_running(m, err) : 0;

        if (r < 0)
            return r;
    } while (machine_serve_request(m));
    if (m->state == MACHINE_ENDED)
        return error_set(err, EBUSY, "the machine has ended");
    if (m->state == MACHINE_UNCERTAIN)
        return machine_refuse(m, "save or move it", err);
    m->held = true;
    return 0;
}

void machine_leave(struct machine *m, enum machine_leaving leaving)
{
    m->leaving = leaving;
}

void machine_release(struct machine *m)
{
    m->leaving = MACHINE_STAYS;
    if (m->held && m->state == MACHINE_RUNNING)
        machine_start_running(m);
    m->held = false;
}

int machine_save_state(struct machine *m, struct writer *w, struct error *err)
{
    return state_registry_save(m->registry, w, err);
}

int machine_save_cpuid(const struct machine *m, struct writer *w, struct error *err)
{
    return kvm_vm_save_cpuid(m->vm, w, err);
}

int machine_load_state(struct machine *m, const void *state, size_t len,
                       machine_advance_fn *advance, void *opaque, struct error *err)
{
    struct reader r = {.data = state, .len = len};

    /* As after a pause: what a device would start at once waits for the start of the machine. */
    for (unsigned i = m->device_count; i-- > 0;)
        device_pause(m->devices[i]);
    if (state_registry_load(m->registry, &r, err) < 0)
        return -err->code;
    return kvm_vm_apply_state(m->vm, advance(opaque, kvm_vm_saved_realtime_ns(m->vm)), err);
}

int machine_tell_restored(struct machine *m, struct error *err)
{
    int r = vmgenid_change(m->vmgenid, err);

    if (r == 0)
        machine_announce(m);
    return r;
}

void machine_tell_moved(struct machine *m)
{
    machine_announce(m);
}

int machine_sync_disks(struct machine *m, struct error *err)
{
    uint64_t until_ns = loop_now_ns() + MACHINE_SETTLE_NS;

    for (unsigned i = 0; i < m->config->disk_count; i++) {
        int r = virtio_blk_sync(m->disks[i], until_ns, err);

        if (r < 0)
            return r;
    }
    return 0;
}

int machine_dirty_log(struct machine *m, bool on, struct error *err)
{
    struct error ignored;
    int r = on ? machine_log_nets(m, true, err) : 0;

    if (r == 0)
        r = kvm_vm_dirty_log(m->vm, on, err);
    if (!on || r < 0)
        (void)machine_log_nets(m, false, &ignored); /* too much would be marked, at worst */
    return r;
}

int machine_dirty_harvest(struct machine *m, unsigned region, uint64_t *bitmap, struct error *err)
{
    int r = kvm_vm_dirty_harvest(m->vm, region, bitmap, err);

    if (r == 0)
        guest_memory_harvest_dirty(m->memory, region, bitmap);
    return r;
}

int machine_dirty_clear(struct machine *m, unsigned region, uint64_t first_page, uint64_t pages,
                        const uint64_t *bitmap, struct error *err)
{
    return kvm_vm_dirty_clear(m->vm, region, first_page, pages, bitmap, err);
}

int machine_throttle(struct machine *m, unsigned percent, struct error *err)
{
    return kvm_vm_throttle(m->vm, percent, err);
}

static const char *const extra_names[MACHINE_MAX_EXTRAS] = {"console", "console.hvc0"};

static struct console *extra(struct machine *m, unsigned index)
{
    return index == 0 ? m->console : m->virtio_console;
}

bool machine_save_extra(struct machine *m, unsigned index, const char **ret_name, uint64_t *from,
                        struct writer *w)
{
    if (index >= MACHINE_MAX_EXTRAS)
        return false;
    *ret_name = extra_names[index];
    if (extra(m, index))
        console_scrollback_get(extra(m, index), from, w);
    return true;
}

bool machine_load_extra(struct machine *m, const char *name, const void *data, size_t len)
{
    for (unsigned i = 0; i < MACHINE_MAX_EXTRAS; i++)
        if (strcmp(name, extra_names[i]) == 0 && extra(m, i)) {
            console_scrollback_put(extra(m, i), data, len);
            return true;
        }
    return false;
}

int machine_needs(const struct machine *m, char **ret_text, struct error *err)
{
    return kvm_vm_needs(m->vm, ret_text, err);
}

int machine_check_needs(const char *needs, const void *cpuid, size_t cpuid_len,
                        char missing[MACHINE_LACKS_BYTES], char doubts[MACHINE_LACKS_BYTES],
                        struct error *err)
{
    struct kvm_lacks lacks;
    int r = kvm_host_lacks(needs, cpuid, cpuid_len, &lacks, err);

    _Static_assert(sizeof(lacks.missing) == MACHINE_LACKS_BYTES &&
                       sizeof(lacks.doubts) == MACHINE_LACKS_BYTES,
                   "both fit");
    if (r < 0)
        return r;
    memcpy(missing, lacks.missing, sizeof(lacks.missing));
    memcpy(doubts, lacks.doubts, sizeof(lacks.doubts));
    return 0;
}
