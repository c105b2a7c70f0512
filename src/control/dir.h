/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of this folder share: the folder of sockets, opened and locked,
 * and the one way to tell a live socket from a dead one.
 */
#ifndef CONTROL_DIR_H
#define CONTROL_DIR_H

#include <stdbool.h>
#include <sys/types.h>

#include "vmrun/control.h"

bool control_name_is_valid(const char *name);

/* "$VMRUN_DIR/NAME.sock" in a buffer of CONTROL_PATH_MAX. Errors: -ENAMETOOLONG, -EINVAL; as
 * control_dir(). */
int control_socket_path(const char *name, bool create, char *buf, struct error *err);

/*
 * Open the folder and take its lock: names are claimed, released and swept only
 * with it held. Closing the descriptor gives it back. Errors: what open(2) says.
 */
int control_dir_lock(const char *dir, int *ret_fd, struct error *err);

/*
 * A connection to the socket at path, non-blocking, or why there is none:
 * -ECONNREFUSED nobody listens any more, -EAGAIN a listener with a full queue,
 * -ENOENT, and what else connect(2) says. ret_pid may be NULL.
 */
int control_connect(const char *path, pid_t *ret_pid);

#endif
