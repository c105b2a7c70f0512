/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_CONSOLE_H
#define VMRUN_CONSOLE_H

/*
 * The host's side of a character device: where a serial port's bytes go to and
 * come from. Bytes that the guest sends go to one sink (the terminal, a
 * pseudo-terminal, a file, nothing), into the scrollback, and to every client
 * that is attached. Nothing is lost while a reader is slow: the queue fills, the
 * device is told to wait, the guest sees a busy line.
 */

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmrun/bytes.h"
#include "vmrun/error.h"
#include "vmrun/loop.h"

struct console;
struct console_client;

enum console_kind { CONSOLE_STDIO, CONSOLE_PTY, CONSOLE_FILE, CONSOLE_NONE };

#define CONSOLE_SCROLLBACK_BYTES ((size_t)1 << 20)

struct console_params {
    enum console_kind kind;
    const char *path; /* CONSOLE_FILE: created or truncated */
    /* Ctrl-A x on the terminal. Called on the loop's thread. */
    void (*quit)(void *opaque);
    void *opaque;
    bool terminal_later; /* Ctrl-C ends the process until console_take_terminal() */
};

/*
 * CONSOLE_STDIO on a terminal puts it into raw mode (Ctrl-A is the escape
 * key, Ctrl-A h helps) until console_destroy(), which restores it; so does
 * console_restore_terminal(). End of file on stdin that is no terminal ends input only.
 * Errors: what open(2), posix_openpt(3) or tcsetattr(3) say.
 */
int console_create(const struct console_params *params, struct loop *loop,
                   struct console **ret_console, struct error *err);
/* The terminal becomes raw now. Errors: as above. */
int console_take_terminal(struct console *console, struct error *err);
void console_destroy(
    struct console *console); /* flushes what the sink takes within 1 s; NULL is fine */

/* Restore the terminal if this process made it raw. Async-signal-safe: for fatal signals. */
void console_restore_terminal(void);

/* "stdio", "pty /dev/pts/3", "file boot.log", "none": for status. */
const char *console_describe(const struct console *console);

/*
 * The device's side. Its callbacks run on the loop's thread with `lock` held.
 * writable: room after a console_write() that took less than it was given.
 * readable: input is there after console_read() gave less than was asked for.
 */
struct console_device {
    void (*writable)(void *opaque);
    void (*readable)(void *opaque);
    void *opaque;
    pthread_mutex_t *lock;
};
void console_set_device(struct console *console, const struct console_device *device);

/* Take up to len bytes from the guest; returns how many were taken. Never blocks. Any thread. */
size_t console_write(struct console *console, const uint8_t *data, size_t len);
/* Give up to len bytes to the guest; returns how many. Never blocks. Any thread. */
size_t console_read(struct console *console, uint8_t *data, size_t len);

/*
 * A client: a socket that gets the scrollback and then all output, and whose
 * bytes are input. Owned by the console from now on, which closes it when the
 * peer does, or when it is destroyed. pending: bytes that the peer had sent
 * already. Loop thread only.
 */
int console_attach(struct console *console, int fd, const void *pending, size_t pending_len,
                   struct error *err);

/*
 * The scrollback of one console goes on in another, as bytes, whatever the guest wrote. get: any
 * thread; from the byte *from on, of all that were ever printed, or the oldest that there is; *from
 * is set behind the last; w says whether it failed. put: what comes next, before the guest writes;
 * of more than fits the end, of what there is no memory for the beginning. Clients are shown it
 * when they attach; the sink is not.
 */
void console_scrollback_get(struct console *console, uint64_t *from, struct writer *w);
void console_scrollback_put(struct console *console, const void *data, size_t len);

#endif
