/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_VIRTIO_DEVICES_H
#define VMRUN_VIRTIO_DEVICES_H

/*
 * The virtio devices, each in a file of its own. They plug into the PCI host
 * bridge and own what the host lends them (block, netdev, console's client side)
 * only as far as is said. Machine thread. Errors: -ENOMEM; as virtio_init().
 */

#include "vmrun/block.h"
#include "vmrun/console.h"
#include "vmrun/netdev.h"
#include "vmrun/vhost.h"
#include "vmrun/virtio.h"
#include "vmrun/vsock.h"

/*
 * What a device may do in a second, and at once after a rest: as of bucket_set(). Of the host, not
 * of the guest: no part of any state.
 */
struct virtio_rates {
    uint64_t ops, ops_burst; /* requests, frames */
    uint64_t bytes, bytes_burst;
};

/* virtio-blk, VIRTIO 1.2 "Block Device". Serves on the iothread; opens and closes the block itself.
 */
struct virtio_blk_error {
    enum block_op op;
    uint64_t offset, bytes; /* of a flush 0 */
    int code;               /* errno */
    unsigned left_out;      /* errors before this one that were not told */
    char words[96];         /* for a person: "write of 512 bytes at 0 failed: Input/output error" */
};
struct virtio_blk_params {
    const char *id; /* "root" */
    const char *path;
    const char *serial; /* at most 20 bytes; NULL: the id */
    bool read_only;
    bool elsewhere; /* as of block_open() */
    enum block_cache cache;
    unsigned queues;
    struct iothread *thread;   /* one for each disk; outlives the device */
    struct virtio_rates rates; /* of all queues together */
    /*
     * Optional: a request has failed, and the guest was told. One in five seconds at most. On the
     * disk's thread, or on one that pauses or resets it; with the device's lock held.
     */
    void (*io_error)(void *opaque, const struct virtio_blk_error *error);
    void *io_error_opaque;
    int (*fault)(void *opaque, const struct block_request *request, uint64_t *delay_ns); /* tests */
    void *fault_opaque;
};
int virtio_blk_create(struct platform *platform, struct device *host,
                      const struct virtio_blk_params *params, struct device **ret_dev,
                      struct error *err);
struct virtio_blk_stats {
    /* What was done: */
    uint64_t reads, read_bytes, writes, written_bytes, discards, zeroings;
    uint64_t flushes;     /* also those that stand behind a write of a driver that never flushes */
    uint64_t errors;      /* what failed */
    uint64_t limit_waits; /* how often a queue had to wait for its rates */
};
/* Any thread; takes no lock. */
void virtio_blk_stats(const struct device *dev, struct virtio_blk_stats *ret_stats);
/*
 * How long requests took, from when they were taken from the ring to their completion. Of each
 * queue what histogram_tell() tells, as "latency_ns.N". Any thread; takes no lock.
 */
void virtio_blk_latency(const struct device *dev, virtio_stat_fn *fn, void *opaque);
/* Other rates, from now on: a flush or discard is a request, and only what is read or written has
 * bytes. Takes the lock; any thread. */
void virtio_blk_limit(struct device *dev, const struct virtio_rates *rates);
/*
 * All that was answered is in the ring, and all that was written is durable. For a machine that
 * stands still: requests that are under way are waited for, until then by loop_now_ns(). Takes the
 * lock; any thread. Errors: -ETIMEDOUT, some still are; what fdatasync(2) says.
 */
int virtio_blk_sync(struct device *dev, uint64_t until_ns, struct error *err);
/* Of the image as it is now. Takes the lock. Errors: of fstat(2). */
int virtio_blk_identity(struct device *dev, struct block_identity *ret_identity, struct error *err);
/* What it serves; only with the lock of the device held. */
struct block *virtio_blk_block(struct device *dev);
/* The image may have grown: look, and tell the driver. Takes the lock. */
void virtio_blk_refresh(struct device *dev);

/*
 * virtio-net, "Network Device". netdev outlives the device, which alone uses it; it has at least
 * as many pairs.
 */
struct virtio_net_params {
    const char *id;
    uint8_t mac[6];
    unsigned queues; /* pairs, 1 to NETDEV_MAX_QUEUES */
    uint16_t mtu;    /* 0: not offered */
    bool finished;   /* nothing is left to others: no checksum, no segmentation */
    struct netdev *netdev;
    struct vhost *const *vhosts; /* of each pair; outlive the device. NULL: none. Without rates */
    struct loop *loop;           /* the machine's thread runs it; or NULL, and: */
    struct iothread *thread;     /* runs already; outlives the device */
    struct virtio_rates rx_rates, tx_rates; /* to the guest, from it; of all pairs together */
};
int virtio_net_create(struct platform *platform, struct device *host,
                      const struct virtio_net_params *params, struct device **ret_dev,
                      struct error *err);
/* Pull the cable, or put it in again; the guest sees the link up when the netdev's is as well. */
void virtio_net_set_link(struct device *dev, bool up); /* takes the lock */
/* Have the guest say to its network where it is now (after a move). */
void virtio_net_announce(struct device *dev); /* takes the lock */
/*
 * Say it for the guest, whatever its driver can: one frame from its address to everybody, a request
 * of RFC 903, from which bridges and switches learn where it is. Takes the lock; any thread.
 */
void virtio_net_send_rarp(struct device *dev);

struct virtio_net_stats {
    uint64_t rx_frames, rx_bytes, tx_frames, tx_bytes; /* headers not counted */
    uint64_t rx_filtered;                              /* not for this guest, by its own filters */
    uint64_t rx_dropped;                     /* longer than the buffers that the guest gave */
    uint64_t tx_dropped;                     /* no frame, or the link was down */
    uint64_t tx_waits;                       /* the host was full: sent later, not lost */
    uint64_t rx_limit_waits, tx_limit_waits; /* how often a queue had to wait for its rates */
    uint64_t vhost_starts, vhost_stops; /* rings that the host's kernel was given, and gave back */
};
/*
 * Any thread; takes no lock. A card with vhost is not counted: what the host's kernel does for it
 * nobody here sees.
 */
bool virtio_net_is_counted(const struct device *dev);
void virtio_net_stats(struct device *dev, struct virtio_net_stats *ret_stats);
/*
 * Whether what the host's kernel writes for the card is marked in the guest memory's dirty map, as
 * what is written here always is. Takes the lock; any thread. Errors: of vhost_set_log().
 */
int virtio_net_log(struct device *dev, bool on, struct error *err);
/*
 * Other rates, from now on. A frame counts when it was sent, or was received and is for this guest,
 * without its header. Takes the lock; any thread.
 */
void virtio_net_limit(struct device *dev, const struct virtio_rates *rx,
                      const struct virtio_rates *tx);

/* virtio-rng, "Entropy Device": getrandom(2). */
int virtio_rng_create(struct platform *platform, struct device *host, struct loop *loop,
                      struct device **ret_dev, struct error *err);

/*
 * virtio-vsock, "Socket Device": stream sockets. host outlives the device, which alone uses it.
 * Connections do not travel: a guest that comes from elsewhere is told that they are reset.
 */
struct virtio_vsock_params {
    uint64_t cid;
    struct vsock_host *host;
    struct loop *loop;       /* the machine's thread runs it; or NULL, and: */
    struct iothread *thread; /* runs already; outlives the device */
    uint64_t patience_ns;    /* how long each side may take to say who it is or to part; 0: 5 s */
};
int virtio_vsock_create(struct platform *platform, struct device *host,
                        const struct virtio_vsock_params *params, struct device **ret_dev,
                        struct error *err);
struct virtio_vsock_stats {
    uint64_t opened, closed;       /* connections; the difference is how many there are */
    uint64_t refused;              /* of the others, in either direction */
    uint64_t resets;               /* that were sent to the guest */
    uint64_t rx_packets, rx_bytes; /* to the guest; of data alone */
    uint64_t tx_packets, tx_bytes;
    uint64_t tx_waits; /* the host's program was slow: kept, and sent later */
    uint64_t dropped;  /* packets of the guest that make no sense */
};
/* Any thread; takes no lock. */
void virtio_vsock_stats(const struct device *dev, struct virtio_vsock_stats *ret_stats);

/*
 * virtio-balloon, "Traditional Memory Balloon Device". What the guest gives up, by the balloon or
 * by reporting what it has free, goes back to the host as far as guest_memory_give_back() can.
 */
int virtio_balloon_create(struct platform *platform, struct device *host, struct loop *loop,
                          bool deflate_on_oom, struct device **ret_dev, struct error *err);
/*
 * The guest is to give up that many bytes (rounded down to 4 KiB), all in all; it does so when and
 * as far as it likes. It stays so over resets. Takes the lock.
 */
void virtio_balloon_set_target(struct device *dev, uint64_t bytes);

/* What a guest says of its memory: VIRTIO_BALLOON_S_*, which are as many. */
#define VIRTIO_BALLOON_STATS 10
struct virtio_balloon_stats {
    uint64_t target_bytes, actual_bytes; /* as it is; actual: what the guest says */
    uint64_t inflated_bytes, reported_bytes, returned_bytes; /* in all; returned: to the host */
    bool asked;                           /* the guest was asked, and has not answered yet */
    bool answered;                        /* it did at least once: */
    uint64_t age_ns;                      /* since then */
    uint32_t known;                       /* bit n: of guest[n] */
    uint64_t guest[VIRTIO_BALLOON_STATS]; /* bytes, or numbers of times */
};
/* Asks the guest as well, once a second at most, for who reads this again. Takes the lock. */
void virtio_balloon_stats(struct device *dev, struct virtio_balloon_stats *ret_stats);

/*
 * virtio-console, "Console Device": hvc0 on a console of its own. One port. Nothing that the guest
 * prints is lost while the console is slow.
 */
int virtio_console_create(struct platform *platform, struct device *host, struct loop *loop,
                          struct console *console, struct device **ret_dev, struct error *err);
/* The terminal has this size now; 0 and 0: not known, as at first. Takes the lock. */
void virtio_console_resize(struct device *dev, uint16_t columns, uint16_t rows);

#endif
