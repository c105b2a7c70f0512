/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SINK_H
#define SINK_H

#include <limits.h>
#include <stdbool.h>

#include "terminal.h"
#include "vmrun/console.h"

/* What the configuration names as a console: where output goes, and where input comes from. */
struct sink {
    struct output out; /* fd -1: output goes nowhere */
    int in_fd;         /* -1: there is no input */
    bool in_owned;     /* close in_fd */
    bool in_is_terminal;
    int pty_slave; /* kept open, so that the master never hangs up; else -1 */
    char description[PATH_MAX + 8];
};

/*
 * Open it; a terminal becomes raw, or not before sink_take_terminal(). A sink that failed to open,
 * too, is fit for sink_close(). Errors: as console_create().
 */
int sink_open(struct sink *sink, const struct console_params *params, struct error *err);
/* One that was opened with terminal_later. Errors: of the terminal. */
int sink_take_terminal(struct sink *sink, struct error *err);
/* Close all but out, which has an owner of its own by then; the terminal is restored. */
void sink_close(struct sink *sink);

#endif
