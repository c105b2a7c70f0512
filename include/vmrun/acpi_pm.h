/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_ACPI_PM_H
#define VMRUN_ACPI_PM_H

/*
 * ACPI's fixed hardware: the PM1a event and control blocks, with the power
 * button, the general-purpose events of GPE0, and the reset register.
 *
 * Source: ACPI Specification 6.4, "ACPI Hardware Specification": "PM1 Event
 * Grouping", "PM1 Control Grouping", "Fixed Power Button", "General-Purpose Event Registers",
 * "Reset Register".
 *
 * The machine is always in ACPI mode: SCI_EN reads as one and there is no SMI
 * command port. There is no PM timer block: TMR_STS is never set. The SCI is
 * high while a status bit is set whose enable bit is. Any byte of a PM1 block or of GPE0
 * may be reached with any width. GPE0 has eight events, none of which wakes anything. The reset
 * register is one byte wide: a wider access is one to its low byte.
 */

#include <stdint.h>

#include "vmrun/device.h"

#define ACPI_PM1_EVENT_PORTS 4   /* status (16 bits), enable (16 bits) */
#define ACPI_PM1_CONTROL_PORTS 2 /* control (16 bits) */
#define ACPI_GPE0_PORTS 2        /* status (8 bits), enable (8 bits) */

struct acpi_pm_params {
    uint16_t pm1_event, pm1_control, gpe0, reset_port; /* I/O ports */
    uint8_t reset_value;                               /* which the reset register acts upon */
    uint8_t s5_type; /* SLP_TYP that means S5 (soft off); 0 to 7 */
    unsigned sci;    /* GSI, level-triggered, active high */
};

/*
 * The parameters are copied. Machine thread. Errors: -ENOMEM; -EEXIST a port
 * is taken; -EBUSY, -EINVAL as platform_ops.irq.
 */
int acpi_pm_create(struct platform *platform, const struct acpi_pm_params *params,
                   struct device **ret_dev, struct error *err);

/*
 * Tell the guest that its power button was pressed. In a paused machine it learns
 * of it on resume. Takes the device's lock. Any thread.
 */
void acpi_pm_press_power_button(struct device *dev);

/* Likewise that general-purpose event n, 0 to 7, has happened: tables say what it means. */
void acpi_pm_raise_gpe(struct device *dev, unsigned n);

#endif
