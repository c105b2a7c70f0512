/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_SRC_BACKENDS_BLOCK_SYNC_H
#define VMRUN_SRC_BACKENDS_BLOCK_SYNC_H

#include <stdbool.h>
#include <stdint.h>

#include "vmrun/block.h"

/*
 * What libaio cannot do, at once and in full. Nothing may be in flight on fd.
 * direct: fd is open with O_DIRECT, which is taken away for as long as needed.
 * All return 0 or a negative errno; -EIO when a read meets the end of the file.
 */

/* READ or WRITE from byte request->skip on, of any alignment. */
int block_sync_transfer(int fd, bool direct, const struct block_request *request);
int block_sync_flush(int fd);
/* A hint: 0 as well when the host cannot. */
int block_sync_discard(int fd, bool is_device, uint64_t offset, uint64_t bytes);
/* unmap: the range may become a hole. */
int block_sync_zeroes(int fd, bool direct, uint64_t offset, uint64_t bytes, bool unmap);

#endif
