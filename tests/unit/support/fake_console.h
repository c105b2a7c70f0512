/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FAKE_CONSOLE_H
#define FAKE_CONSOLE_H

/*
 * A console for a serial port under test: the test says how much of the output it
 * takes, and what input it has.
 *
 * It stands in for console_set_device(), console_write() and console_read() in a
 * program that calls fake_console_init(). They are weak, so a program that
 * creates real consoles gets the real ones.
 */

#include "vmrun/console.h"

struct fake_console {
    struct console_device device;
    size_t room; /* how many bytes it still takes; SIZE_MAX never ends */
    uint8_t out[65536];
    size_t out_len; /* that it took; those beyond sizeof(out) are forgotten */
    const uint8_t *in;
    size_t in_len, in_at;
    unsigned writes, reads; /* calls */
    bool device_waits, device_hungry;
};

/* Takes everything, has no input. */
struct console *fake_console_init(struct fake_console *fake);

/* Take so many bytes more; tells a device that waits for room. */
void fake_console_make_room(struct fake_console *fake, size_t room);

/* Have this input, which stays the caller's, instead of what is left; tells a hungry device. */
void fake_console_type(struct fake_console *fake, const void *data, size_t len);

#endif
