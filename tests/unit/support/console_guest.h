/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONSOLE_GUEST_H
#define CONSOLE_GUEST_H

/*
 * A guest for a real console: it sends a stream whose byte n is
 * console_guest_byte(n), waits while the console has no room, and reads its
 * input sixteen bytes at a time. A thread of its own may drive it.
 */
#include <stdatomic.h>
#include <stdbool.h>

#include "vmrun/console.h"

struct console_guest {
    struct console *console;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool may_write, may_read;
    atomic_size_t sent;
};

uint8_t console_guest_byte(uint64_t at);

/* Plug in. The console must outlive the guest's last call. */
void console_guest_init(struct console_guest *g, struct console *console);

/* Send the next len bytes of the stream; false when the console took nothing for 20 s. */
bool console_guest_send(struct console_guest *g, size_t len);
/* Read until there are len bytes, or nothing came for wait_ms. Returns how many. */
size_t console_guest_receive(struct console_guest *g, uint8_t *data, size_t len, unsigned wait_ms);

#endif
