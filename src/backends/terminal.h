/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TERMINAL_H
#define TERMINAL_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "vmrun/error.h"

/*
 * Raw mode for the terminal on fd: every key reaches the guest, output
 * processing stays as it was (so that our own lines end well). One terminal a
 * process: it is put back by terminal_restore(), which is safe in a signal handler.
 */
int terminal_make_raw(int fd, struct error *err);
void terminal_restore(void);

/*
 * A descriptor to write to without ever blocking and without making the open
 * file description that we share with the shell non-blocking.
 */
struct output {
    int fd;
    bool owned;   /* close fd */
    bool socket;  /* send(2) has a flag for it */
    bool careful; /* could not be opened anew: write only as much as fits for sure */
};
void output_share(struct output *out,
                  int fd);                   /* fd is stdout or the like, and stays the caller's */
void output_own(struct output *out, int fd); /* fd is ours and non-blocking, or a file */
void output_fini(struct output *out);
/* Bytes written, or -errno; -EAGAIN when it would block. */
ssize_t output_write(struct output *out, const void *data, size_t len);

#endif
