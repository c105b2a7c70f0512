/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FAKE_FUNCTION_H
#define FAKE_FUNCTION_H

/*
 * A PCI function for tests of the bridge, of BARs and of MSI-X, a bridge to plug it
 * into, and a guest's way to both.
 */

#include "fake_platform.h"
#include "vmrun/pci.h"

#define FAKE_ECAM UINT64_C(0xe0000000)
#define FAKE_WINDOW32 UINT64_C(0xc0000000)
#define FAKE_WINDOW32_SIZE (UINT64_C(512) << 20)
#define FAKE_WINDOW64 UINT64_C(0x800000000)
#define FAKE_WINDOW64_SIZE (UINT64_C(32) << 30)
#define FAKE_INTA 16 /* of slot 0; the other three follow */

/* Its BARs. */
#define FAKE_BAR_REGISTERS 0 /* 4 KiB below 4 GiB: 16 bytes of registers, zeros behind them */
#define FAKE_BAR_MSIX 1
#define FAKE_BAR_LARGE 2 /* 64 bits wide, prefetchable, 16 KiB; reads give the offset */
#define FAKE_BAR_LARGE_SIZE 0x4000
#define FAKE_VECTORS 4

#define FAKE_CAPABILITY 0x09       /* vendor-specific; its second dword can be written */
#define FAKE_CAPABILITY_HOOK 0x0c  /* offset in it of a dword that pci_ops serve themselves */
#define FAKE_CAPABILITY_BYTES 0x10 /* in all */

struct fake_function {
    struct pci_device pci;
    bool owns_host, paused;
    uint8_t capability; /* its offset */
    uint8_t registers[16];
    uint32_t hooked;           /* what was written to the dword of FAKE_CAPABILITY_HOOK */
    unsigned moves;            /* calls of bar_moved() */
    uint64_t bar_at[PCI_BARS]; /* as bar_moved() told it */
};

int fake_host_create(struct platform *platform, struct device **ret_dev, struct error *err);
/* host: NULL for a bridge of its own, which goes when it goes. slot as in pci_host_plug(). */
int fake_function_create(struct platform *platform, struct device *host, int slot,
                         struct device **ret_dev, struct error *err);
struct fake_function *fake_function_of(struct device *dev);

/* A guest's configuration access: through ECAM, and through CF8 and CFC. */
uint64_t fake_config_read(struct fake_platform *fake, unsigned slot, unsigned offset,
                          unsigned size);
void fake_config_write(struct fake_platform *fake, unsigned slot, unsigned offset, unsigned size,
                       uint64_t value);
uint32_t fake_port_read(struct fake_platform *fake, unsigned slot, unsigned offset, unsigned size);
void fake_port_write(struct fake_platform *fake, unsigned slot, unsigned offset, unsigned size,
                     uint32_t value);

/* Address that a BAR's registers hold. */
uint64_t fake_bar(struct fake_platform *fake, unsigned slot, unsigned bar);
void fake_set_bar(struct fake_platform *fake, unsigned slot, unsigned bar, uint64_t address);

/* With the lock that the function's own code would hold. */
void fake_function_fire(struct device *dev, unsigned vector);
void fake_function_intx(struct device *dev, bool level);

/* For the conformance suite: everything that a guest and the function itself may do. */
int fake_function_create_alone(void *opaque, struct platform *platform, struct device **ret_dev,
                               struct error *err);
void fake_function_disturb(void *opaque, struct device *dev, uint32_t random);
void fake_function_settle(void *opaque, struct device *dev);

#endif
