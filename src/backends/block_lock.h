/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_SRC_BACKENDS_BLOCK_LOCK_H
#define VMRUN_SRC_BACKENDS_BLOCK_LOCK_H

#include <stdbool.h>
#include <sys/types.h>

#include "vmrun/error.h"

/*
 * Lock the open image fd against programs that would write what we read, or read what we
 * write; programs that only read share it. The lock goes with the descriptor. On failure some of
 * it may be there. Errors: -EBUSY, another process holds it; -ENOLCK, the file system has no locks.
 */
int block_lock(int fd, bool read_only, struct error *err);
void block_unlock(int fd);
/* Whether somebody else has the lock that a writer has. */
bool block_is_written_by_another(int fd);

/* A byte of one's own, where no other program looks. Errors: -EAGAIN, denied; of fcntl(2). */
int block_lock_byte(int fd, off_t at, bool exclusive);
void block_unlock_bytes(int fd, off_t at, off_t len);
bool block_is_byte_locked(int fd, off_t at); /* by somebody else */

#endif
