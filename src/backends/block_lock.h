/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_SRC_BACKENDS_BLOCK_LOCK_H
#define VMRUN_SRC_BACKENDS_BLOCK_LOCK_H

#include <stdbool.h>

#include "vmrun/error.h"

/*
 * Lock the open image fd against programs that would write what we read, or read what we
 * write; programs that only read share it. The lock goes with the descriptor. A file system
 * without locks is told in the log. Errors: -EBUSY, another process holds it.
 */
int block_lock(int fd, bool read_only, struct error *err);

#endif
