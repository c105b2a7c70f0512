/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_ACPI_H
#define VMRUN_ACPI_H

/*
 * ACPI tables for a small PC: RSDP, XSDT, FADT, FACS, MADT, MCFG and DSDT.
 * Source: ACPI Specification 6.4, "ACPI Software Programming Model".
 */

#include <stdint.h>

#include "vmrun/memory.h"

struct acpi_serial {
    uint16_t port, ports; /* first I/O port and how many */
    uint8_t irq;
};

#define ACPI_PCI_ECAM_BYTES 0x100000u /* configuration space of one bus */

/* A PCI host bridge with one bus: as struct pci_host_params of pci.h has it. */
struct acpi_pci {
    uint64_t ecam_base; /* below 4 GiB */
    uint64_t mmio32_base, mmio32_size;
    uint64_t mmio64_base, mmio64_size;
    unsigned intx_gsi[4]; /* of slot 0; slot n pin p has [(n + p) % 4] */
};

/* A VM Generation ID: as struct vmgenid_params of vmgenid.h has it. */
struct acpi_vmgenid {
    uint64_t gpa;
    uint8_t gpe; /* of GPE0: it has changed */
};

/* What of the board the tables describe; the board function fills it in from its address map. */
struct acpi_board {
    unsigned cpus;
    uint64_t lapic_base, ioapic_base;
    uint16_t pm1_event, pm1_control; /* I/O ports: PM1a event block (4 bytes), control (2 bytes) */
    uint16_t gpe0;                   /* GPE0 block (2 bytes); 0: there is none */
    uint16_t reset_port;
    uint8_t reset_value;
    uint8_t s5_type; /* SLP_TYP that means S5 */
    uint8_t sci_irq;
    uint16_t rtc_port; /* 0x70 */
    uint8_t rtc_irq;
    const struct acpi_serial *serials;
    unsigned serial_count;
    const struct acpi_pci *pci;         /* NULL: there is none */
    const struct acpi_vmgenid *vmgenid; /* NULL: there is none */
};

/*
 * Write all tables into guest RAM at [gpa, gpa + room); gpa is a multiple of 64 and
 * below 4 GiB. IRQ 0 is said to arrive at GSI 2, and the SCI to be level-triggered and
 * active high: the interrupt routing has to agree.
 *
 * Errors (nothing is written then): -ENOSPC room is too small; -EFAULT not RAM; -EINVAL
 * a board that the tables cannot describe; -ENOMEM.
 */
int acpi_build(const struct acpi_board *board, struct guest_memory *mem, uint64_t gpa,
               uint64_t room, uint64_t *ret_rsdp, struct error *err);

#endif
