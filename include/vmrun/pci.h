/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_PCI_H
#define VMRUN_PCI_H

/*
 * PCI as devices see it: a type 0 function with BARs, capabilities, MSI-X and
 * an INTx pin, and the host bridge whose bus 0 they sit on.
 *
 * Sources: PCI Local Bus Specification 3.0, "Configuration Space"; PCI Express
 * Base Specification, "Enhanced Configuration Access Mechanism"; MSI-X in
 * "Message Signalled Interrupts".
 *
 * Locking: the host bridge is a bus of its own. It takes the function's lock around
 * every call into it, with the bridge's held; a function never calls the bridge
 * but for its INTx line, which has a lock that is held for nothing else. So the
 * order is bridge, function, line.
 *
 * There is no firmware: vmrun itself gives every BAR an address when the function is
 * plugged, out of the share of its slot, so that a slot's addresses depend on
 * nothing but the slot. A reset brings them back. Decoding is off then, as after a
 * reset of any PCI function, until the guest's driver enables it.
 */

#include <stdbool.h>
#include <stdint.h>

#include "vmrun/device.h"
#include "vmrun/log.h"

struct pci_device;

#define PCI_CONFIG_BYTES 256 /* conventional functions: nothing answers above, in ECAM */
#define PCI_SLOTS 32
#define PCI_BARS 6
#define PCI_MSIX_MAX 64 /* vectors a function may have */

struct pci_host_params {
    uint64_t ecam_base; /* bus 0 only: 1 MiB */
    /* The windows that BARs lie in; one 32nd of each is a slot's. A BAR elsewhere is not decoded.
     */
    uint64_t mmio32_base, mmio32_size;
    uint64_t mmio64_base, mmio64_size;
    unsigned intx_gsi[4]; /* INTA..INTD of slot 0; slot n pin p uses [(n + p) % 4] */
};

/*
 * The bridge is itself device 0 on its bus. CF8/CFC and ECAM. Destroy it after its
 * functions. Errors: as platform_ops.map, irq; -ENOMEM.
 */
int pci_host_create(struct platform *platform, const struct pci_host_params *params,
                    struct device **ret_dev, struct error *err);

struct pci_id {
    uint16_t vendor, device, subsystem_vendor, subsystem;
    uint32_t class_code; /* 24 bits: class, subclass, interface */
    uint8_t revision;
};

struct pci_bar {
    uint64_t size; /* a power of two, at least 4096; 0: no such BAR */
    bool is_64, prefetchable;
};

/*
 * What a function adds to `struct device_ops`: read and write of device_ops get
 * accesses to its BARs (region: the BAR's number).
 */
struct pci_ops {
    /*
     * Optional. The BAR is mapped at base now (0: it will no longer be): put doorbells
     * up, or take them down. One that moves is told of both. Lock held, but in
     * pci_device_fini() and pci_host_unplug().
     */
    void (*bar_moved)(struct pci_device *pci, unsigned bar, uint64_t base);
    /*
     * Optional: device-specific capability registers with side effects (virtio's cfg
     * access). The access lies within one aligned dword. False: treat it as plain bytes.
     */
    bool (*config_read)(struct pci_device *pci, unsigned offset, unsigned size,
                        uint32_t *ret_value);
    bool (*config_write)(struct pci_device *pci, unsigned offset, unsigned size, uint32_t value);
    /* Optional: what pci_msix_fd() says may be another now. Lock held. */
    void (*msix_changed)(struct pci_device *pci);
};

struct pci_msix_vector {
    struct msi *msi;
    uint64_t address;
    uint32_t data;
    bool masked, pending;
    bool routed; /* msi leads to this address and data */
};

/* Begins the struct of every PCI function. Its state table lists what of it travels. */
struct pci_device {
    struct device dev;
    const struct pci_ops *pci_ops;
    struct platform *platform;
    struct device *host;
    uint8_t slot;
    uint8_t config[PCI_CONFIG_BYTES];
    uint8_t initial[PCI_CONFIG_BYTES];  /* after plug or reset */
    uint8_t writable[PCI_CONFIG_BYTES]; /* mask of the bits that the guest may change */
    struct pci_bar bars[PCI_BARS];
    uint64_t mapped[PCI_BARS]; /* where, or 0 */
    uint8_t next_capability;   /* offset where the next one goes */
    uint8_t msix_at;           /* offset of the MSI-X capability; 0: none */
    uint8_t msix_bar;
    uint16_t msix_count;
    struct pci_msix_vector msix[PCI_MSIX_MAX];
    bool intx_level;      /* what the function wants, before any gate */
    struct log_limit log; /* of BARs that cannot be mapped */
};

/*
 * For a function's create, in this order: init (after device_init(), in zeroed memory),
 * then BARs, capabilities, MSI-X, then plug. The function's pin is INTA. What bits the
 * guest may change in a capability's body the function says in writable[], before it
 * plugs. Errors: -ENOSPC no room for a capability.
 */
void pci_device_init(struct pci_device *pci, struct platform *platform, const struct pci_ops *ops,
                     const struct pci_id *id);
void pci_device_add_bar(struct pci_device *pci, unsigned bar, const struct pci_bar *spec);
/* body: what follows the two bytes of id and next pointer. Returns its offset. */
int pci_device_add_capability(struct pci_device *pci, uint8_t id, const void *body, unsigned len,
                              struct error *err);
/*
 * Table and PBA lie in BAR `bar` at 0 and 2048; the BAR belongs to MSI-X alone, is 4 KiB and is
 * added here. Errors: as platform_ops.msi; -ENOSPC no room for the capability.
 */
int pci_device_add_msix(struct pci_device *pci, unsigned bar, unsigned vectors, struct error *err);
/*
 * Onto the bus, in the first free slot (or the given one; -1 for any). Plug and unplug
 * only while no vCPU runs. Errors: -EBUSY, the slot is taken; -EINVAL, no such slot; -ENOSPC, no
 * slot is free, or the BARs are larger than a slot's share of the windows.
 */
int pci_host_plug(struct device *host, struct pci_device *pci, int slot, struct error *err);
void pci_host_unplug(struct pci_device *pci); /* one that is not plugged: nothing happens */
/*
 * For destroy; half-built is fine, and without pci_device_init() too. First thing there:
 * it takes the BARs down (bar_moved). Then it unplugs and frees the MSI-X interrupts; device_fini()
 * is left to the caller.
 */
void pci_device_fini(struct pci_device *pci);
/* For the function's reset: configuration as plugged, MSI-X off, INTx low. Lock held. */
void pci_device_reset(struct pci_device *pci);
/*
 * For the function's post_load: check what came in, map the BARs, route the
 * interrupts, drive INTx. Errors: -EPROTO.
 */
int pci_device_post_load(struct pci_device *pci, struct error *err);

/* BAR accesses that belong to MSI-X; false when they are the function's own. Lock held. */
bool pci_msix_read(struct pci_device *pci, unsigned bar, uint64_t offset, unsigned size,
                   uint64_t *ret_value);
bool pci_msix_write(struct pci_device *pci, unsigned bar, uint64_t offset, unsigned size,
                    uint64_t value);

/* Whether the driver has switched MSI-X on. Lock held. */
bool pci_msix_enabled(const struct pci_device *pci);
/*
 * Raise a vector: at once, or when it is unmasked. One that does not exist (virtio's
 * "none"), or any while MSI-X is off: nothing happens. Lock held.
 */
void pci_msix_fire(struct pci_device *pci, unsigned vector);
/*
 * The eventfd that raises this vector as long as it may be delivered, for somebody else to write
 * to; -1: it is masked, leads nowhere, or does not exist. Lock held.
 */
int pci_msix_fd(const struct pci_device *pci, unsigned vector);
/* Once more what may have been lost: a vector that is masked, or not there, is left alone. */
void pci_msix_repeat(struct pci_device *pci, unsigned vector);
/* Drive INTx (gated by the command register's disable bit, and by MSI-X being on). Lock held. */
void pci_intx_set(struct pci_device *pci, bool level);

/*
 * The state fields that every function has, for use in its own table:
 * PCI_STATE_FIELDS(struct nic, pci). Its post_load calls pci_device_post_load().
 */
/* NOLINTBEGIN(bugprone-macro-parentheses): offsetof() takes none around a member */
#define PCI_STATE_FIELDS(T, pci) \
    STATE_ARRAY(T, pci.config), STATE(T, pci.intx_level), STATE_EACH(T, pci.msix, address), \
        STATE_EACH(T, pci.msix, data), STATE_EACH(T, pci.msix, masked), \
        STATE_EACH(T, pci.msix, pending)
/* NOLINTEND(bugprone-macro-parentheses) */

#endif
