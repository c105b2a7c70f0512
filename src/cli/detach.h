/* SPDX-License-Identifier: Apache-2.0 */
/* Going into the background, and telling the one who waits in front how it went. */
#ifndef CLI_DETACH_H
#define CLI_DETACH_H

#include "vmrun/error.h"

/*
 * Fork, before there are threads. In the child: CLI_OK with *ret_fd, which goes
 * to detach_ready() or detach_failed(). In the parent: *ret_fd is -1, the child
 * has reported, and the status is what vmrun exits with; on success the
 * machine's name was printed.
 */
int detach_fork(int *ret_fd, struct error *err);

/*
 * The machine runs: stderr goes to the log from now on, and the parent may go.
 * Errors: what open(2) says of the log; -EPIPE, the parent was interrupted and
 * nobody knows of us.
 */
int detach_ready(int fd, const char *name, const char *log_path, struct error *err);

/* It does not, and why. Closes fd. */
void detach_failed(int fd, int status, const struct error *err);

#endif
