/* SPDX-License-Identifier: Apache-2.0 */
/* The terminal of a client, and who puts a terminal back when vmrun itself crashes. */
#ifndef CLI_TTY_H
#define CLI_TTY_H

#include "vmrun/error.h"

/* Every key as a byte, until tty_restore(), which is safe in signal handlers. One at a time. */
int tty_make_raw(int fd, struct error *err);
void tty_restore(void);

/* Have restore() called when a fatal signal (SIGSEGV, SIGABRT …) ends the process. */
void tty_guard(void (*restore)(void));

#endif
