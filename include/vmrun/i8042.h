/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_I8042_H
#define VMRUN_I8042_H

/*
 * The keyboard controller of a PC, for its reset line: an 8042 with nothing
 * attached, and the system control port A.
 *
 * Sources: IBM PS/2 Hardware Interface Technical Reference, "Keyboard and
 * Auxiliary Device Controller" (ports 0x60 and 0x64) and "System Control Port A"
 * (port 0x92).
 *
 * Every command that has an answer is answered at once, so a driver that
 * probes never waits. There is no auxiliary port: its test says so, and what
 * is sent to it vanishes. A byte for the keyboard is answered with 0xFE and the
 * timeout bit, as the controller does for a keyboard that is not there. It
 * raises no interrupt. A20 is remembered and has no effect.
 *
 * The reset request is GUEST_RESET: by commands 0xF0 to 0xFE with bit 0 clear,
 * by the output port's bit 0 (command 0xD1), by bit 0 of port 0x92.
 *
 * Each port is one byte wide: a wider access is one to its low byte.
 */

#include "vmrun/device.h"

/* Map ports 0x60, 0x64 and 0x92. Machine thread. Errors: -ENOMEM; -EEXIST a port is taken. */
int i8042_create(struct platform *platform, struct device **ret_dev, struct error *err);

#endif
