/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_VIRTIO_H
#define VMRUN_VIRTIO_H

/*
 * A virtio device, whatever the transport: what it offers, its configuration
 * space, its queues. The one transport is virtio over PCI, modern (no legacy).
 * VIRTIO 1.2, "Basic Facilities of a Virtio Device", "Virtio Over PCI Bus".
 *
 * A device of a kind begins with struct virtio_device, which begins with struct
 * pci_device, which begins with struct device.
 */

#include "vmrun/iothread.h"
#include "vmrun/log.h"
#include "vmrun/pci.h"
#include "vmrun/virtqueue.h"

#define VIRTIO_F_INDIRECT_DESC 28
#define VIRTIO_F_EVENT_IDX 29
#define VIRTIO_F_VERSION_1 32

#define VIRTIO_MAX_QUEUES 33

struct virtio_device;

struct virtio_ops {
    const char *type;   /* "virtio-blk" */
    uint16_t device_id; /* VIRTIO 1.2, "Device Types": 2 for a block device */
    uint32_t class_code;

    /*
     * All of these with the device's lock held. Configuration space: offset +
     * size lies inside config_size; write may be NULL.
     */
    uint64_t (*config_read)(struct virtio_device *vdev, uint64_t offset, unsigned size);
    void (*config_write)(struct virtio_device *vdev, uint64_t offset, unsigned size,
                         uint64_t value);
    /*
     * Optional. The driver set DRIVER_OK: features are settled, queues are started. Or a saved
     * device in which it had was loaded. On a vCPU's or the machine's thread, not the loop's.
     * Touches no guest memory: the device may be paused.
     */
    void (*start)(struct virtio_device *vdev);
    /*
     * Optional. Reset by the driver, or of the machine: nothing may be in flight when it returns.
     * Only after start; on any thread. The loop's thread may be waiting for the device's lock:
     * to wait for the loop here (iothread_call) would never end.
     */
    void (*stop)(struct virtio_device *vdev);
    /*
     * The doorbell of a started queue rang (or is rung by the transport after resume). On the
     * device's loop. It may ring without a request, and once for many: pop until 0.
     */
    void (*kick)(struct virtio_device *vdev, unsigned queue);
    /* Optional: the driver broke a ring, and nothing may be done before it resets the device. */
    void (*broken)(struct virtio_device *vdev);
    /* Optional: virtio_interrupt_fd() of some queue may be another now. */
    void (*interrupts_moved)(struct virtio_device *vdev);
    /* Optional; without it they are q0, q1 … Any thread, without the lock. */
    void (*queue_name)(const struct virtio_device *vdev, unsigned queue, char *buf, size_t len);
};

struct virtio_device {
    struct pci_device pci;
    const struct virtio_ops *ops;
    struct loop *loop;            /* where doorbells are served */
    struct iothread *thread;      /* that runs it, or NULL: the machine's own */
    uint64_t offered, negotiated; /* feature bits */
    uint32_t config_size;
    unsigned queue_count;
    struct virtqueue queues[VIRTIO_MAX_QUEUES];
    uint16_t queue_vector[VIRTIO_MAX_QUEUES], config_vector; /* 0xffff: none */
    uint8_t status, isr, config_generation;
    uint32_t device_feature_select, driver_feature_select;
    uint16_t queue_select;
    uint8_t pci_cfg_at; /* offset of the capability that is a window into the BAR */
    struct virtio_kick {
        struct virtio_device *vdev;
        int fd;               /* eventfd, or -1 */
        uint64_t doorbell_at; /* where it is up, or 0 */
        struct loop_watch *watch;
    } kicks[VIRTIO_MAX_QUEUES];
    struct virtio_pace {
        bool gives_way;
        unsigned kicks, found; /* since a trial began */
        unsigned wait, rest;   /* kicks until the next trial, and after the one that fails next */
    } pace;
    struct log_limit complaints;
    uint64_t uncounted; /* bit n: nobody here can count for queue n. Set before it is used */
    bool started;       /* DRIVER_OK, and the driver has broken nothing: kicks are served */
    bool running;       /* the kind's start was called, and stop not yet */
    bool paused;
    bool config_pending; /* a configuration interrupt that waits for resume */
    bool loaded;         /* from a saved state, and not resumed since */
};

struct virtio_params {
    struct platform *platform;
    struct device *host;     /* the PCI host bridge to plug into */
    struct loop *loop;       /* the machine's thread runs it; or NULL, and: */
    struct iothread *thread; /* runs already; outlives the device */
    const char *id;          /* of the device in the machine: "disk root" */
    uint64_t features;       /* besides VERSION_1, INDIRECT_DESC, EVENT_IDX */
    unsigned queues;         /* 1 to VIRTIO_MAX_QUEUES */
    uint16_t queue_size;     /* each; a power of two, at most VIRTQ_MAX_SIZE */
    uint32_t config_size;
};

/*
 * For a kind's create, on a zeroed struct: sets up everything below it, plugs it in. Of dev_ops,
 * read and write are virtio_read and virtio_write; reset, pause and resume these here, or the
 * kind's own that call them. Lock not held. Errors: -ENOMEM, -EMFILE, as pci_host_plug(); call the
 * kind's destroy then.
 */
int virtio_init(struct virtio_device *vdev, const struct device_ops *dev_ops,
                const struct virtio_ops *ops, const struct virtio_params *params,
                struct error *err);
/*
 * For destroy, first thing; half-built is fine, but not before virtio_init(). Stops the
 * device: after it no callback runs. Lock not held. The kind frees its struct.
 */
void virtio_fini(struct virtio_device *vdev);

/* The transport's part of device_ops, called by a kind's own or used as they are. */
uint64_t virtio_read(struct device *dev, unsigned region, uint64_t offset, unsigned size);
void virtio_write(struct device *dev, unsigned region, uint64_t offset, unsigned size,
                  uint64_t value);
void virtio_reset(struct device *dev);
void virtio_pause(struct device *dev);  /* doorbells are no longer served */
void virtio_resume(struct device *dev); /* and every started queue is kicked once */

/* What a kind does after it has pushed: interrupt the driver if it wants it. */
void virtio_notify(struct virtio_device *vdev, unsigned queue);
/*
 * For a queue that the host's kernel serves. lend: its doorbell wakes nobody here until it is given
 * back, and then kick is called. interrupt: whatever the ring says. fd: for the kernel to raise the
 * interrupt itself, or -1: it cannot at the moment.
 */
void virtio_lend_doorbell(struct virtio_device *vdev, unsigned queue, bool lent);
void virtio_interrupt(struct virtio_device *vdev, unsigned queue);
int virtio_interrupt_fd(const struct virtio_device *vdev, unsigned queue);
/* Configuration changed: new generation, and an interrupt. Lock held. */
void virtio_config_changed(struct virtio_device *vdev);
/* The driver broke a ring: DEVICE_NEEDS_RESET, queues are left alone until reset. Logged, limited.
 */
void virtio_broken(struct virtio_device *vdev, const char *what);
/*
 * Have kick called (again) soon: for a kind that stops before the ring is empty, lest a guest
 * that never stops adding holds the loop. Any thread.
 */
void virtio_ring(struct virtio_device *vdev, unsigned queue);
/*
 * For kick, of a device with a thread of its own: so many requests were found. Where it pays, the
 * thread gives way to the CPU that rings, so that it finds several at a time. See virtio.c.
 */
void virtio_pace(struct virtio_device *vdev, unsigned found);
bool virtio_has(const struct virtio_device *vdev, unsigned feature_bit);

/*
 * The counters of each queue that is counted: requests given back, bytes_out from the driver,
 * bytes_in to it, kicks served, interrupts asked for. They outlive resets. Any thread; takes no
 * lock.
 */
typedef void virtio_stat_fn(void *opaque, const char *queue, const char *name, uint64_t value);
void virtio_stats(const struct device *dev, virtio_stat_fn *fn, void *opaque);

/*
 * What of it travels, for a kind's own table; `vdev` is the member's name:
 *     VIRTIO_STATE_FIELDS(struct virtio_rng, vdev), STATE_END
 * and virtio_post_load() is its post_load, or called by it first.
 */
/* NOLINTBEGIN(bugprone-macro-parentheses): offsetof() takes none around a member */
#define VIRTIO_STATE_FIELDS(T, vdev) \
    PCI_STATE_FIELDS(T, vdev.pci), STATE(T, vdev.offered, .match = true), \
        STATE(T, vdev.negotiated), STATE(T, vdev.status), STATE(T, vdev.isr, .max = 3), \
        STATE(T, vdev.config_generation), STATE(T, vdev.config_pending), \
        STATE(T, vdev.device_feature_select), STATE(T, vdev.driver_feature_select), \
        STATE(T, vdev.queue_select), STATE(T, vdev.config_vector), \
        STATE_ARRAY(T, vdev.queue_vector), STATE_EACH(T, vdev.queues, max_size, .match = true), \
        STATE_EACH(T, vdev.queues, size), STATE_EACH(T, vdev.queues, desc), \
        STATE_EACH(T, vdev.queues, avail), STATE_EACH(T, vdev.queues, used), \
        STATE_EACH(T, vdev.queues, enabled), STATE_EACH(T, vdev.queues, next_avail), \
        STATE_EACH(T, vdev.queues, next_used), STATE_EACH(T, vdev.queues, signalled_used), \
        STATE_EACH(T, vdev.queues, quiet), STATE_EACH(T, vdev.queues, broken)
/* NOLINTEND(bugprone-macro-parentheses) */

/* Errors: -EPROTO, a state that no driver can bring about. Lock held, or nobody else there. */
int virtio_post_load(struct virtio_device *vdev, struct error *err);

#endif
