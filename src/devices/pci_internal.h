/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DEVICES_PCI_INTERNAL_H
#define DEVICES_PCI_INTERNAL_H

/* What the host bridge, a function and its MSI-X table do for each other. */

#include "vmrun/pci.h"

/* pci_host.c, for functions. */
bool pci_host_decodes(const struct device *host, uint64_t base, uint64_t size);
void pci_host_drive_intx(struct device *host, unsigned slot, bool level);

/* pci_device.c, for the bridge. An access lies within one aligned dword; the function is locked. */
uint32_t pci_config_read(struct pci_device *pci, unsigned offset, unsigned size);
void pci_config_write(struct pci_device *pci, unsigned offset, unsigned size, uint32_t value);
/* Give each BAR an address out of the slot's share of the windows. Errors: -ENOSPC. */
int pci_device_assign(struct pci_device *pci, const struct pci_host_params *windows,
                      struct error *err);
/* What stands in the configuration now is what a reset brings back. */
void pci_device_settle(struct pci_device *pci);
void pci_device_unmap(struct pci_device *pci);
/* Read-only bits of a configuration that was loaded. Errors: -EPROTO. */
int pci_config_check(const struct pci_device *pci, struct error *err);
uint32_t pci_config_get(const struct pci_device *pci, unsigned offset, unsigned size);
void pci_config_set(struct pci_device *pci, unsigned offset, unsigned size, uint32_t value);

/* pci_msix.c, for pci_device.c. */
void pci_msix_reset(struct pci_device *pci);
void pci_msix_update(struct pci_device *pci); /* the message control changed */
int pci_msix_check(const struct pci_device *pci, struct error *err);
void pci_msix_fini(struct pci_device *pci);

#endif
