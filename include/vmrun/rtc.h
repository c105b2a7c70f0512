/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_RTC_H
#define VMRUN_RTC_H

/*
 * The real-time clock and CMOS RAM of a PC: an MC146818 behind an index port
 * (`port`; bit 7, the NMI mask, is ignored) and a data port (`port` + 1).
 *
 * Source: Motorola MC146818A data sheet, "Address Map", "Interrupts", "Update
 * Cycle", "Registers"; register 0x32 is the century, as ACPI's FADT may say.
 *
 * The guest sees the host's UTC plus the difference it made when it set the
 * clock. That difference and the CMOS RAM survive a reset (there is a battery)
 * and travel; the host's clock does not. UIP is on in the last 244 us of a
 * second only: the update itself takes no time. The day of the week follows
 * from the date. Timers run only while an interrupt is enabled whose flag is
 * clear, so an idle guest wakes nobody. A periodic interrupt that was not
 * serviced in time is merged with the next.
 *
 * Each port is one byte wide: a wider access is one to its low byte.
 */

#include <stdint.h>

#include "vmrun/device.h"
#include "vmrun/loop.h"

/* The host's time: ns since 1970-01-01 UTC. Any thread. */
typedef uint64_t rtc_clock_fn(void *opaque);

/*
 * Map port and port + 1, on the host's CLOCK_REALTIME. loop outlives the
 * device. Machine thread. Errors: -ENOMEM; -EEXIST a port is taken; -EBUSY,
 * -EINVAL as platform_ops.irq; what loop_timer_create() says.
 */
int rtc_create(struct platform *platform, struct loop *loop, uint16_t port, unsigned irq,
               struct device **ret_dev, struct error *err);

/* As rtc_create(), on another clock. */
int rtc_create_with_clock(struct platform *platform, struct loop *loop, uint16_t port, unsigned irq,
                          rtc_clock_fn *clock, void *clock_opaque, struct device **ret_dev,
                          struct error *err);

#endif
