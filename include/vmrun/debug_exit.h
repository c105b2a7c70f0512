/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_DEBUG_EXIT_H
#define VMRUN_DEBUG_EXIT_H

/*
 * An I/O port through which a test guest ends the VM with a status.
 *
 * A write of V requests GUEST_EXIT with (V << 1 | 1) & 0xff, as QEMU's
 * isa-debug-exit does, so that one payload runs under both. Only the low byte
 * of V counts, whatever the width of the access. A read gives the last V, 0
 * after a reset.
 */

#include <stdint.h>

#include "vmrun/device.h"

#define DEBUG_EXIT_PORTS 4 /* I/O ports from the base, all alike: an outl hits one device */

/* Machine thread. Errors: -ENOMEM; -EEXIST a port is taken. */
int debug_exit_create(struct platform *platform, uint16_t port, struct device **ret_dev,
                      struct error *err);

#endif
