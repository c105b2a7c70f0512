/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_SRC_BACKENDS_BLOCK_AIO_H
#define VMRUN_SRC_BACKENDS_BLOCK_AIO_H

#include <libaio.h>
#include <stdbool.h>
#include <stdint.h>

#include "vmrun/error.h"

/* A context of the kernel's asynchronous I/O, and the eventfd that tells of completions. */
struct block_aio {
    io_context_t context;
    int event_fd;       /* -1: not there */
    unsigned in_kernel; /* submitted, not reaped yet */
};

/* Errors: -EAGAIN, the host's limit, with the cure; -EMFILE; -ENOSYS. */
int block_aio_create(struct block_aio *aio, unsigned depth, struct error *err);
void block_aio_destroy(struct block_aio *aio); /* all zeros or half-built is fine */

/* Returns how many the kernel took, at least 1; or a negative errno about the first. */
int block_aio_submit(struct block_aio *aio, struct iocb **iocbs, unsigned count);

/* Take what is completed, at most max; wait so long for the first, UINT64_MAX: for ever. Returns
 * how many. */
unsigned block_aio_reap(struct block_aio *aio, struct io_event *events, unsigned max,
                        uint64_t wait_ns);

#endif
