/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BACKENDS_PASST_H
#define BACKENDS_PASST_H

/* The process passt(1): started, heard, and ended. One thread at a time. */

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "vmrun/error.h"

#define PASST_SAID 320

struct passt {
    pid_t pid;    /* 0: there is none */
    int pid_fd;   /* readable when it has ended; -1 */
    int words_fd; /* what it writes to stderr; non-blocking; -1 */
    bool ready;   /* it has said so: its ports are bound */
    char line[160];
    size_t line_len;
    char said[PASST_SAID]; /* since the last passt_forget(), lines put together */
    size_t said_len;
};

/*
 * Its arguments from a list of forwards, or NULL, and an MTU: NULL-ended, to be freed in one
 * piece. Errors: -EINVAL, -ENOMEM.
 */
int passt_arguments(const char *forwards, unsigned mtu, char ***ret_argv, struct error *err);

/* Errors: -ENOENT, it is nowhere in PATH. */
int passt_check_installed(struct error *err);
/* Whether the ports can be had now. Errors: -EADDRINUSE, -EACCES, -EADDRNOTAVAIL, -EINVAL. */
int passt_check_ports(const char *forwards, struct error *err);

/*
 * Start it with one end of a socket pair, which stays the caller's. p is all zeros, or one that
 * has ended. Errors: -ENOENT passt is not there; -EAGAIN, -ENOMEM, -EMFILE, -ENFILE; -errno.
 */
int passt_start(struct passt *p, char *const *argv, int socket, struct error *err);
/* Read what it has said. */
void passt_hear(struct passt *p);
/* Then `said` is not empty: what it said, or else how it ended. */
bool passt_has_ended(struct passt *p);
void passt_forget_words(struct passt *p);
/* End it if it runs, and forget it; what it said stays. */
void passt_end(struct passt *p);

#endif
