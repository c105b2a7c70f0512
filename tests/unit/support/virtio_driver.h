/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIO_DRIVER_H
#define VIRTIO_DRIVER_H

/*
 * A small guest: RAM, a PCI host bridge on the fake platform, and a virtio driver
 * that reaches a device as a guest does, by its capabilities and BARs.
 *
 * Each call that cannot do what it says fails the running test. A test of a
 * device: virtio_machine_init(), create the device on m.platform and m.host,
 * virtio_driver_init(), virtio_driver_start(), then virtio_driver_request()
 * or the smaller steps; device_destroy(), virtio_machine_fini().
 */

#include <stdbool.h>
#include <stdint.h>

#include "fake_platform.h"
#include "vmrun/loop.h"
#include "vmrun/memory.h"
#include "vmrun/virtio.h"

/* RAM lies in two pieces, with nothing between them. */
#define VIRTIO_RAM_LOW UINT64_C(0x400000)
#define VIRTIO_RAM_HIGH_AT UINT64_C(0x100000000)
#define VIRTIO_RAM_HIGH UINT64_C(0x200000)

struct virtio_machine {
    struct fake_platform own;   /* used unless the test brings its own */
    struct fake_platform *fake; /* the one in use */
    struct platform *platform;  /* of it; its memory is the RAM below */
    struct guest_memory *memory;
    bool memory_is_lent;
    struct loop *loop; /* a real one; runs in virtio_machine_run() and nowhere else */
    struct device *host;
    uint64_t next_gpa; /* of what virtio_machine_alloc() gives out */
};

/*
 * fake: NULL for the machine's own, else one that is initialised. If its platform.memory is
 * set, that is the RAM (of the same layout), and stays the caller's.
 */
void virtio_machine_init(struct virtio_machine *m, struct fake_platform *fake);
/* As above, but tells of failure (the fake's calls_until_failure): everything is gone then. */
int virtio_machine_try(struct virtio_machine *m, struct fake_platform *fake, struct error *err);
void virtio_machine_fini(struct virtio_machine *m); /* devices must be gone */
/* Dispatch what is ready on m->loop; returns at once. */
void virtio_machine_run(struct virtio_machine *m);

/* Guest memory below 4 MiB: zeroed, 16-byte aligned. All of it is taken back by rewind. */
uint64_t virtio_machine_alloc(struct virtio_machine *m, uint64_t bytes);
void virtio_machine_rewind(struct virtio_machine *m);
void *virtio_machine_at(struct virtio_machine *m, uint64_t gpa, uint64_t bytes);

struct virtio_driver_queue {
    uint16_t size; /* 0: not set up */
    uint64_t desc, avail, used;
    uint16_t free_head, free_count; /* descriptors, chained through `next` */
    uint16_t avail_idx, used_idx;   /* the driver's own place */
    uint64_t notify;                /* address of the doorbell */
};

/* One buffer of a request. */
struct virtio_buffer {
    uint64_t gpa;
    uint32_t bytes;
    bool write; /* by the device */
};

struct virtio_driver {
    struct virtio_machine *m;
    struct device *dev;
    unsigned slot;
    uint64_t common, notify, isr, config; /* guest-physical addresses of the structures; 0: none */
    uint32_t notify_multiplier, config_bytes;
    unsigned window;     /* offset of the capability that is a window into the BARs */
    unsigned msix_cap;   /* offset of MSI-X */
    uint64_t msix_table; /* guest-physical */
    unsigned msix_vectors;
    bool msix;         /* switched on */
    uint64_t features; /* negotiated */
    unsigned queue_count;
    struct virtio_driver_queue queues[VIRTIO_MAX_QUEUES];
};

/* Find the device's function, switch its BARs on, walk its capabilities. Does not touch status. */
void virtio_driver_init(struct virtio_driver *d, struct virtio_machine *m, struct device *dev);
/* Switch the BARs on, which virtio_driver_init() did and device_reset() undid. */
void virtio_driver_decode(struct virtio_driver *d);

/*
 * The whole initialisation: reset, features (VERSION_1 is added; only what is
 * offered), MSI-X with vector 0 for configuration and q + 1 for queue q, all
 * queues at the device's size, DRIVER_OK.
 */
void virtio_driver_start(struct virtio_driver *d, uint64_t features);
void virtio_driver_start_intx(struct virtio_driver *d, uint64_t features); /* without MSI-X */

/* The steps of it. */
void virtio_driver_reset(struct virtio_driver *d); /* and rewinds the machine's memory */
uint64_t virtio_driver_offered(struct virtio_driver *d);
bool virtio_driver_negotiate(struct virtio_driver *d, uint64_t features); /* FEATURES_OK stayed? */
void virtio_driver_enable_msix(struct virtio_driver *d);
void virtio_driver_setup_queue(struct virtio_driver *d, unsigned queue, uint16_t size); /* 0: max */
void virtio_driver_set_status(struct virtio_driver *d, uint8_t bits); /* on top of what is set */
uint8_t virtio_driver_status(struct virtio_driver *d);

/* Registers. Offsets of the common structure: <linux/virtio_pci.h>, VIRTIO_PCI_COMMON_*. */
uint64_t virtio_driver_read(struct virtio_driver *d, uint64_t address, unsigned size);
void virtio_driver_write(struct virtio_driver *d, uint64_t address, unsigned size, uint64_t value);
uint64_t virtio_driver_config_read(struct virtio_driver *d, unsigned offset, unsigned size);
void virtio_driver_config_write(struct virtio_driver *d, unsigned offset, unsigned size,
                                uint64_t value);
/* PCI configuration space, through ECAM. */
uint32_t virtio_driver_pci_read(struct virtio_driver *d, unsigned offset, unsigned size);
void virtio_driver_pci_write(struct virtio_driver *d, unsigned offset, unsigned size,
                             uint32_t value);

/* Put a request into the ring. Returns its head. The indirect one takes one descriptor. */
uint16_t virtio_driver_add(struct virtio_driver *d, unsigned queue,
                           const struct virtio_buffer *buffers, unsigned count);
uint16_t virtio_driver_add_indirect(struct virtio_driver *d, unsigned queue,
                                    const struct virtio_buffer *buffers, unsigned count);
/* Ring the doorbell, whatever the device said about wanting it. */
void virtio_driver_kick(struct virtio_driver *d, unsigned queue);
/* Whether the device asked for a doorbell for what was added since `since` (an avail_idx). */
bool virtio_driver_wants_kick(struct virtio_driver *d, unsigned queue, uint16_t since);
/* Take the next used request, if there is one. NULL: not wanted. */
bool virtio_driver_take(struct virtio_driver *d, unsigned queue, uint16_t *ret_head,
                        uint32_t *ret_written);
/*
 * Wait for a used request, at most five seconds: m->loop is run here, a device
 * on an iothread of its own works by itself. Returns what was written.
 */
uint32_t virtio_driver_wait(struct virtio_driver *d, unsigned queue, uint16_t *ret_head);
/* add, kick, wait. */
uint32_t virtio_driver_request(struct virtio_driver *d, unsigned queue,
                               const struct virtio_buffer *buffers, unsigned count);

/* How often a vector was raised (0: configuration, q + 1: queue q) since virtio_driver_init(). */
unsigned virtio_driver_interrupts(struct virtio_driver *d, unsigned vector);

#endif
