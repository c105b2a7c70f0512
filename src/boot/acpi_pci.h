/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_BOOT_ACPI_PCI_H
#define VMRUN_BOOT_ACPI_PCI_H

#include "aml.h"
#include "vmrun/acpi.h"

/* The host bridge and the memory its configuration space takes; inside \_SB. */
void acpi_add_pci(struct aml *a, const struct acpi_pci *pci);

#endif
