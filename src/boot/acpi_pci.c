/* SPDX-License-Identifier: Apache-2.0 */
/*
 * acpi_pci: the PCI host bridge as ACPI has it: its bus, what it passes on, and
 * where each slot's interrupt pin leads.
 *
 * Sources: PCI Firmware Specification 3.3, "ACPI Name Space" and "_OSC"; ACPI
 * Specification 6.4, "_PRT (PCI Routing Table)".
 */
#include "acpi_pci.h"

#define CONFIG_PORTS 0xcf8u /* the bridge's own: it passes on all ports but these 8 */
#define SLOTS 32u
#define PINS 4u

/* Every slot's four pins, as the bridge wires them. "Function" 0xffff: any of that slot. */
static void add_routing(struct aml *a, const struct acpi_pci *pci)
{
    aml_name(a, "_PRT");
    aml_begin_package(a, SLOTS * PINS);
    for (unsigned slot = 0; slot < SLOTS; slot++) {
        for (unsigned pin = 0; pin < PINS; pin++) {
            aml_begin_package(a, 4);
            aml_integer(a, slot << 16 | 0xffff);
            aml_integer(a, pin);
            aml_integer(a, 0); /* no link device: the number that follows is a GSI */
            aml_integer(a, pci->intx_gsi[(slot + pin) % PINS]);
            aml_end(a);
        }
    }
    aml_end(a);
}

static void add_resources(struct aml *a, const struct acpi_pci *pci)
{
    aml_name(a, "_CRS");
    aml_begin_resources(a);
    aml_resource_bus_window(a, 0, 0);
    aml_resource_io(a, CONFIG_PORTS, 8);
    aml_resource_io_window(a, 0, CONFIG_PORTS - 1);
    aml_resource_io_window(a, CONFIG_PORTS + 8, UINT16_MAX);
    aml_resource_memory_window(a, pci->mmio32_base, pci->mmio32_base + pci->mmio32_size - 1);
    aml_resource_memory_window(a, pci->mmio64_base, pci->mmio64_base + pci->mmio64_size - 1);
    aml_end(a);
}

/*
 * A guest asks here whether it may use what PCI Express adds; the answer is what it
 * asked for, since there is no firmware that would want to keep any of it. Without the
 * method Linux says that the platform retains control.
 */
static void add_control(struct aml *a)
{
    /* 33DB4D5B-1FF7-401C-9657-7441C03DD766, "PCI Host Bridge Device" */
    static const uint8_t uuid[] = {0x5b, 0x4d, 0xdb, 0x33, 0xf7, 0x1f, 0x1c, 0x40,
                                   0x96, 0x57, 0x74, 0x41, 0xc0, 0x3d, 0xd7, 0x66};
    const unsigned unrecognized_uuid = 1 << 2, unrecognized_revision = 1 << 3;

    aml_begin_method(a, "_OSC", 4);
    aml_dword_field(a, 3, 0, "STAT");
    aml_begin_if_not_equal(a);
    aml_argument(a, 0);
    aml_buffer(a, uuid, sizeof(uuid));
    aml_or(a, "STAT", unrecognized_uuid);
    aml_end(a);
    aml_begin_if_not_equal(a);
    aml_argument(a, 1);
    aml_integer(a, 1);
    aml_or(a, "STAT", unrecognized_revision);
    aml_end(a);
    aml_return_argument(a, 3);
    aml_end(a);
}

void acpi_add_pci(struct aml *a, const struct acpi_pci *pci)
{
    aml_begin_device(a, "PCI0");
    aml_name(a, "_HID");
    aml_eisa_id(a, "PNP0A08");
    aml_name(a, "_CID");
    aml_eisa_id(a, "PNP0A03");
    aml_name(a, "_UID");
    aml_integer(a, 0);
    aml_name(a, "_SEG");
    aml_integer(a, 0);
    aml_name(a, "_BBN");
    aml_integer(a, 0);
    aml_name(a, "_CBA");
    aml_integer(a, pci->ecam_base);
    add_resources(a, pci);
    add_routing(a, pci);
    add_control(a);
    aml_end(a);

    /* A guest believes the MCFG only if the range is said to be taken elsewhere too. */
    aml_begin_device(a, "ECAM");
    aml_name(a, "_HID");
    aml_eisa_id(a, "PNP0C02");
    aml_name(a, "_UID");
    aml_integer(a, 0);
    aml_name(a, "_CRS");
    aml_begin_resources(a);
    aml_resource_memory32(a, (uint32_t)pci->ecam_base, ACPI_PCI_ECAM_BYTES);
    aml_end(a);
    aml_end(a);
}
