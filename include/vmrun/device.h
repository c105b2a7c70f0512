/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_DEVICE_H
#define VMRUN_DEVICE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmrun/error.h"
#include "vmrun/irq.h"
#include "vmrun/state.h"

#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

struct device;
struct loop;
struct guest_memory;

/*
 * The one interface every device implements.
 *
 * The bus and the event loop take the device's lock before they call in, so
 * no two of these ever run at once for one device, and device code itself
 * never locks. Only `destroy` may be called on a half-built device.
 */
struct device_ops {
    const char *type; /* as in the specification or the configuration: "16550a" */

    /* size is 1, 2, 4 or 8; offset + size lies within the mapped region. */
    uint64_t (*read)(struct device *dev, unsigned region, uint64_t offset, unsigned size);
    void (*write)(struct device *dev, unsigned region, uint64_t offset, unsigned size,
                  uint64_t value);

    void (*reset)(struct device *dev); /* to the state after power-on; idempotent */
    /* Get ready to be paused until then by loop_now_ns(), or be as before: -ETIMEDOUT. Optional. */
    int (*settle)(struct device *dev, uint64_t until_ns, struct error *err);
    void (*pause)(struct device *dev);  /* then: no guest memory touched, no interrupt */
    void (*resume)(struct device *dev); /* undo pause; both optional and idempotent */
    void (*destroy)(struct device *dev);

    const struct state_desc *state; /* NULL: the device has no guest-visible state */
};

/* First member of every device's own struct: its state table counts from here. */
struct device {
    const struct device_ops *ops;
    pthread_mutex_t lock; /* taken by the bus and the loop, never by device code */
    char id[32];          /* unique in the machine: names its section in a snapshot */
};

/*
 * Counters for `vmrun stats`: whoever holds the device's lock adds, so one thread at a time; any
 * thread reads, without that lock. No counter is torn, and several are no snapshot of one moment.
 */
static inline void counter_add(uint64_t *counter, uint64_t by)
{
    __atomic_store_n(counter, *counter + by, __ATOMIC_RELAXED);
}

static inline uint64_t counter_read(const uint64_t *counter)
{
    return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

/* Set ops and id, make the lock. Errors: none. */
void device_init(struct device *dev, const struct device_ops *ops, const char *id);
/* For a device's destroy, before it frees its struct. */
void device_fini(struct device *dev);

/* These take the lock and skip an absent operation. Any thread. */
void device_reset(struct device *dev);
/*
 * Before a pause of a machine whose vCPUs stand still: what the device asked of the host comes to
 * its end, or -ETIMEDOUT, and the device goes on. A lock that somebody keeps is no reason to wait
 * for longer. device_resume() undoes it.
 */
int device_settle(struct device *dev, uint64_t until_ns, struct error *err);
void device_pause(struct device *dev);
void device_resume(struct device *dev);
void device_destroy(struct device *dev); /* NULL is fine; the machine must be paused */

enum bus_kind { BUS_PIO, BUS_MMIO };

/* What a guest, through a device, asks of the machine as a whole. */
enum guest_request {
    GUEST_POWEROFF, /* ACPI S5 */
    GUEST_RESET,    /* reset register, keyboard controller, triple fault */
    GUEST_EXIT,     /* debug-exit; the argument is the exit status */
};

/*
 * What a device may plug into: its whole view of the machine. Production code
 * backs it with KVM, unit tests with a fake.
 */
struct platform {
    const struct platform_ops *ops;
    struct guest_memory *memory; /* where devices with DMA find the guest's buffers */
};

/* A guest write that wakes an eventfd instead of a device: no exit to user space. */
struct doorbell {
    enum bus_kind bus;
    uint64_t addr;
    unsigned size; /* bytes; 0: any width, without match */
    bool match;    /* only writes of `value` */
    uint64_t value;
    int fd;
};

struct platform_ops {
    /* Errors: -EEXIST when the range overlaps one that is mapped; -ENOMEM. */
    int (*map)(struct platform *p, enum bus_kind bus, uint64_t base, uint64_t len,
               struct device *dev, unsigned region, struct error *err);
    void (*unmap)(struct platform *p, struct device *dev); /* every range of dev */
    /* The one range of dev that begins at base. */
    void (*unmap_range)(struct platform *p, enum bus_kind bus, uint64_t base, struct device *dev);

    /* The interrupt line of this GSI (legacy ISA IRQ n is GSI n). Errors: -EBUSY, taken; -EINVAL.
     */
    int (*irq)(struct platform *p, unsigned gsi, struct irq **ret_irq, struct error *err);

    /*
     * Ask the machine to act; returns at once, with the device's lock still
     * held. The calling vCPU executes no further guest instruction before the
     * machine has acted. Of several requests the first counts.
     */
    void (*request)(struct platform *p, enum guest_request what, int argument);

    /* A message-signalled interrupt, not routed yet: fired, it is lost. Errors: -ENOSPC, -EMFILE.
     */
    int (*msi)(struct platform *p, struct msi **ret_msi, struct error *err);

    /* Put a doorbell up (attach) or take it down. Errors: -EEXIST, there is one. */
    int (*doorbell)(struct platform *p, const struct doorbell *bell, bool attach,
                    struct error *err);
};

#endif
