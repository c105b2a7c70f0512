/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_BLOCK_H
#define VMRUN_BLOCK_H

/*
 * The host's side of a disk: a raw image file or a block device, by libaio.
 *
 * Requests are the caller's (embedded in its own), no memory is taken per
 * request. A block is guarded by the lock of its owner: every call is made with
 * it held, on whichever thread, and so are the calls back. Only opening and
 * closing belong to the thread of the loop (or are made while it does not run),
 * because they put up and take down watches there.
 */

#include <libaio.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "vmrun/error.h"
#include "vmrun/loop.h"

#define SECTOR_SIZE 512u /* bytes, whatever the host's block size */
#define BLOCK_DEPTH 1024 /* requests in flight at most */

struct block;

enum block_cache {
    BLOCK_CACHE_NONE,      /* O_DIRECT: what is completed is on the device, or in its own cache */
    BLOCK_CACHE_WRITEBACK, /* the host's page cache; a flush makes it durable */
};

enum block_op { BLOCK_READ, BLOCK_WRITE, BLOCK_FLUSH, BLOCK_DISCARD, BLOCK_WRITE_ZEROES };

struct block_request {
    enum block_op op;
    uint64_t offset, bytes;  /* multiples of SECTOR_SIZE; inside the disk */
    const struct iovec *iov; /* READ, WRITE: exactly `bytes` in all; stays until done */
    unsigned iov_count;      /* at most 1024 */
    bool unmap;              /* WRITE_ZEROES: holes will do */
    /* result: 0 or a negative errno. It may queue requests, this one too. */
    void (*done)(struct block_request *request, int result);

    /* the block's own */
    struct iocb iocb;
    struct block_request *next;
    struct iovec bounced; /* what the kernel gets instead of iov; iov_base NULL: iov itself */
    uint64_t skip;        /* bytes at the beginning that are done */
    uint64_t due_ns;      /* a fault that was injected: when, and which */
    int result;
    bool slow; /* not through libaio */
};

/* What a fault may also be: half of the bytes, as from a kernel that does not do all at once. */
#define BLOCK_FAULT_SHORT (-1)

struct block_params {
    const char *path;
    bool read_only;
    /*
     * Another process has the locks and passes them on later (block_handover.h): open it without.
     * Until then all requests fail with -ENOLCK. No effect on one that is only read.
     */
    bool elsewhere;
    enum block_cache cache;
    struct loop *loop;
    pthread_mutex_t *lock; /* held around done() and batch_done() */
    /* Optional: all that was completed for now has been told. It may queue and submit. */
    void (*batch_done)(void *opaque);
    void *opaque;
    /*
     * Tests only: asked before each request; a positive errno fails it, BLOCK_FAULT_SHORT
     * cuts a read or write short, delay_ns defers it.
     */
    int (*fault)(void *opaque, const struct block_request *request, uint64_t *delay_ns);
    void *fault_opaque;
};

/*
 * Open and lock the image, byte for byte where QEMU locks it, so that neither
 * another vmrun nor QEMU nor qemu-img writes it meanwhile.
 *
 * Errors: -EBUSY   another process holds it (named where /proc shows it)
 *         -EINVAL  not a file or block device; empty, or no whole number of sectors;
 *                  O_DIRECT refused by the file system (says: use "cache": "writeback")
 *         -EAGAIN  the host's limit of asynchronous I/O (fs.aio-max-nr)
 *         or what open(2) says.
 */
int block_open(const struct block_params *params, struct block **ret_block, struct error *err);
void block_close(struct block *block); /* nothing may be in flight; NULL is fine */

uint64_t block_size_sectors(const struct block *block);
unsigned block_size_alignment(const struct block *block); /* of O_DIRECT requests, bytes */
/* What the guest may be told: the smallest unit (of a file 512), and the one that pays, in bytes.
 */
unsigned block_size_logical(const struct block *block);
unsigned block_size_physical(const struct block *block);
bool block_can_discard(const struct block *block);
/* Look again: an image may have grown. Returns whether the size changed. */
bool block_refresh_size(struct block *block);

/* Queue a request; nothing reaches the kernel before block_submit(). Errors: -EAGAIN, BLOCK_DEPTH.
 */
int block_queue(struct block *block, struct block_request *request);
/*
 * Hand all queued requests to the kernel in one call. What completes at once is told from
 * here. From inside done() and batch_done() it may be called, and does its work later.
 */
void block_submit(struct block *block);
/* Requests queued or in flight. */
unsigned block_in_flight(const struct block *block);
/* Wait until all are done (their done() is called from here). */
void block_drain(struct block *block);
/* The same, but no longer than that by loop_now_ns(): false, and some are still in flight. */
bool block_drain_until(struct block *block, uint64_t until_ns);
/*
 * The same, and then all that was written is durable. Errors: -ETIMEDOUT, something, perhaps the
 * flush itself, is still in flight; what fdatasync(2) says.
 */
int block_sync_until(struct block *block, uint64_t until_ns);

/* What tells an image from another, and from itself after somebody has written to it. */
struct block_identity {
    uint64_t bytes;
    uint64_t mtime_ns; /* of a file; 0: a block device has none that says anything */
};
/* Of an image that is open, whatever has its name now. Errors: of fstat(2). */
int block_identity(const struct block *block, struct block_identity *ret_identity);
/*
 * Of whatever would be opened under this name; no lock is taken. Errors, without the path before
 * the message: -EINVAL, not a file or block device; what open(2) says.
 */
int block_identify(const char *path, struct block_identity *ret_identity, struct error *err);

#endif
