/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_SERIAL_H
#define VMRUN_SERIAL_H

/*
 * A serial port: the 16550A UART of a PC, on a console of the host.
 *
 * Source: National Semiconductor PC16550D data sheet, "Registers" and "FIFO
 * Interrupt Mode Operation".
 *
 * What the guest may rely on beyond the data sheet:
 *  - The line is infinitely fast. A byte written to THR is offered to the
 *    console at once; while the console takes none it waits in the transmit
 *    FIFO and THRE and TEMT stay clear, so a guest that minds THRE loses no
 *    byte to a slow reader. Four character times pass in no time: a FIFO
 *    below its trigger level is a character timeout at once.
 *  - The peer honours RTS. Input stays in the console until the guest raises
 *    MCR.RTS, so what was typed or piped in before its driver has opened the
 *    port (and has reset the FIFOs, as drivers do) is not lost. A guest that
 *    has not written MCR since reset gets input when it polls LSR.
 *  - Input comes no faster than the guest can bear: after each FIFO that took
 *    it T to read the line is quiet for T / 2, at most 5 ms.
 *  - The interrupt reaches the machine while MCR.OUT2 is set and MCR.LOOP is
 *    not, as the wiring of a PC has it. In FIFO mode the THR writes that follow
 *    one another with no register read between them raise one edge, not
 *    one each.
 *  - Frames carry 8 bits whatever LCR says; sending a break is accepted and
 *    has no effect; DCD, DSR and CTS are always on.
 *  - Each register is one byte: a wider access is one to its low byte, and a
 *    wider read has zeros above.
 */

#include <stdint.h>

#include "vmrun/console.h"
#include "vmrun/device.h"
#include "vmrun/loop.h"

#define SERIAL_PORTS 8 /* I/O ports from the base */

/*
 * Map ports [port, port + SERIAL_PORTS) and become the console's device.
 * console and loop outlive the device. id names the device in the machine ("serial0").
 * Machine thread. Errors: -ENOMEM; -EEXIST a port is taken; -EBUSY, -EINVAL as
 * platform_ops.irq.
 */
int serial_create(struct platform *platform, struct console *console, struct loop *loop,
                  uint16_t port, unsigned irq, const char *id, struct device **ret_dev,
                  struct error *err);

/* Counted since creation; no part of the guest's state. */
struct serial_stats {
    uint64_t tx_bytes, rx_bytes; /* that went to, and came from, the console */
    uint64_t tx_lost;            /* written to a full FIFO, or in it when it was reset */
};
/* Takes the device's lock. Any thread. */
void serial_stats(struct device *dev, struct serial_stats *ret_stats);

#endif
