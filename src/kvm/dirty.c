/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dirty: the log of pages that the guest writes.
 *
 * Where KVM can (Linux 5.7), reading the log protects nothing: a page is protected just before it
 * is copied, in small pieces, and all pages count as written at first. Elsewhere reading protects
 * and forgets at once; a bitmap of our own keeps what was read until it is cleared, so that callers
 * see one behaviour.
 */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#define MANUAL (KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET)

static uint64_t pages_of(const struct kvm_vm *vm, unsigned region)
{
    return vm->params.memory->regions[region].size / GUEST_PAGE_SIZE;
}

/* Both or none: one without the other would have to be told apart in each call. */
static void probe(struct kvm_vm *vm)
{
    struct kvm_enable_cap cap = {.cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, .args = {MANUAL}};
    int has = ioctl(vm->fd, KVM_CHECK_EXTENSION, cap.cap);

    if (vm->dirty_probed)
        return;
    vm->dirty_manual =
        has > 0 && (has & MANUAL) == MANUAL && ioctl(vm->fd, KVM_ENABLE_CAP, &cap) == 0;
    vm->dirty_probed = true;
}

static int make_pending(struct kvm_vm *vm, unsigned region, struct error *err)
{
    uint64_t pages = pages_of(vm, region);
    uint64_t *bits = calloc((pages + 63) / 64, sizeof(*bits));

    if (!bits)
        return error_set(err, ENOMEM, "log of writes: out of memory");
    memset(bits, 0xff, pages / 64 * sizeof(*bits));
    if (pages % 64)
        bits[pages / 64] = (UINT64_C(1) << pages % 64) - 1;
    vm->dirty_pending[region] = bits;
    return 0;
}

void dirty_fini(struct kvm_vm *vm)
{
    for (unsigned i = 0; i < MEMORY_MAX_REGIONS; i++) {
        free(vm->dirty_pending[i]);
        vm->dirty_pending[i] = NULL;
    }
}

/* All of it, whatever one region says: half a log is none, and costs the guest as much. */
static int give_up(struct kvm_vm *vm, struct error *err)
{
    int r = 0;

    for (unsigned i = 0; i < vm->params.memory->count; i++) {
        struct error failed;

        if (vm_set_slot(vm, i, false, &failed) < 0 && r == 0) {
            *err = failed;
            r = error_prefix(err, "log of writes");
        }
    }
    dirty_fini(vm);
    vm->dirty_on = false;
    return r;
}

int kvm_vm_dirty_log(struct kvm_vm *vm, bool on, struct error *err)
{
    struct error ignored;
    int r = 0;

    /* One that is on already begins anew, or not all pages would count as written. */
    if (!on || vm->dirty_on)
        r = give_up(vm, err);
    if (!on || r < 0)
        return r;

    probe(vm);
    for (unsigned i = 0; r == 0 && i < vm->params.memory->count; i++) {
        if (!vm->dirty_manual)
            r = make_pending(vm, i, err);
        if (r == 0)
            r = vm_set_slot(vm, i, true, err);
    }
    vm->dirty_on = r == 0;
    if (r == 0)
        return 0;
    (void)give_up(vm, &ignored);
    return error_prefix(err, "log of writes");
}

int kvm_vm_dirty_harvest(struct kvm_vm *vm, unsigned region, uint64_t *bitmap, struct error *err)
{
    struct kvm_dirty_log log = {.slot = region, .dirty_bitmap = bitmap};
    uint64_t *pending = vm->dirty_pending[region];

    if (ioctl(vm->fd, KVM_GET_DIRTY_LOG, &log) < 0)
        return error_errno(err, errno, "KVM_GET_DIRTY_LOG of region %u", region);
    for (uint64_t i = 0; pending && i < (pages_of(vm, region) + 63) / 64; i++)
        bitmap[i] = pending[i] |= bitmap[i];
    return 0;
}

int kvm_vm_dirty_clear(struct kvm_vm *vm, unsigned region, uint64_t first_page, uint64_t pages,
                       const uint64_t *bitmap, struct error *err)
{
    struct kvm_clear_dirty_log log = {
        .slot = region,
        .first_page = first_page,
        .num_pages = (uint32_t)pages,
        .dirty_bitmap = (void *)bitmap, /* only read */
    };
    uint64_t *pending = vm->dirty_pending[region];

    if (pending) {
        for (uint64_t i = 0; i < (pages + 63) / 64; i++)
            pending[first_page / 64 + i] &= ~bitmap[i];
        return 0;
    }
    if (ioctl(vm->fd, KVM_CLEAR_DIRTY_LOG, &log) < 0)
        return error_errno(err, errno, "KVM_CLEAR_DIRTY_LOG of region %u", region);
    return 0;
}
