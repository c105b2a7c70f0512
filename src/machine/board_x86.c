/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The x86-64 board, version 1, top to bottom: where RAM and every device lie, and
 * what the firmware tables say of them. What stands here is what a guest sees:
 * within a board version it never changes, so that a machine can move between
 * versions of vmrun.
 */
#include "internal.h"

#include "vmrun/acpi.h"
#include "vmrun/acpi_pm.h"
#include "vmrun/debug_exit.h"
#include "vmrun/i8042.h"
#include "vmrun/pci.h"
#include "vmrun/rtc.h"
#include "vmrun/serial.h"
#include "vmrun/virtio_devices.h"
#include "vmrun/vmgenid.h"

/*
 * Guest-physical addresses. RAM lies below the hole and from 4 GiB up. In the hole: the
 * window for PCI memory, PCI configuration space, and what x86 has always here.
 */
#define HOLE_START UINT64_C(0xc0000000)
#define PCI_MMIO32_BASE HOLE_START
#define PCI_MMIO32_SIZE (UINT64_C(512) << 20)
#define PCI_ECAM_BASE UINT64_C(0xe0000000)
#define VMGENID_BASE UINT64_C(0xfeb00000)
#define IOAPIC_BASE UINT64_C(0xfec00000)
#define LAPIC_BASE UINT64_C(0xfee00000)
#define HOLE_END UINT64_C(0x100000000)

/*
 * The window for 64-bit PCI memory begins at the first multiple of its size above RAM: a
 * machine's description alone says where. With little RAM it ends at 64 GiB, which is as
 * far as a CPU with 36 address bits reaches; a fixed place above any RAM would not.
 */
#define PCI_MMIO64_SIZE (UINT64_C(32) << 30)

/* The first MiB, as a PC's: no RAM to use from 640 KiB up; ACPI tables where firmware has them. */
#define LEGACY_START 0xa0000
#define ACPI_START 0xe0000
#define ACPI_SIZE 0x20000

/* I/O ports. 0x20, 0x40, 0x61, 0xa0 are KVM's own PIC and PIT; 0xcf8 to 0xcff the PCI bridge's. */
#define I8042_DATA 0x60 /* and 0x64 */
#define RTC_PORT 0x70
#define SERIAL0_PORT 0x3f8
#define DEBUG_EXIT_PORT 0x501
#define PM1_EVENT_PORT 0x600
#define PM1_CONTROL_PORT 0x604
#define RESET_PORT 0x608
#define GPE0_PORT 0x60a

/* Interrupts: legacy ISA lines, which are the IOAPIC's inputs of the same number; PCI's above. */
#define SERIAL0_IRQ 4
#define RTC_IRQ 8
#define SCI_IRQ 9
#define PCI_INTX_GSI 16 /* to 19: INTA to INTD */

/* General-purpose events */
#define VMGENID_GPE 0

#define S5_TYPE 5
#define RESET_VALUE 1

void board_memory_layout(const struct vm_config *config, struct memory_layout *ret_layout)
{
    static const enum memory_pages pages[] = {
        [CONFIG_PAGES_NORMAL] = MEMORY_PAGES_NORMAL,
        [CONFIG_PAGES_TRANSPARENT] = MEMORY_PAGES_TRANSPARENT,
        [CONFIG_PAGES_HUGE] = MEMORY_PAGES_HUGE,
    };

    *ret_layout = (struct memory_layout){
        .size = config->memory,
        .hole_start = HOLE_START,
        .hole_end = HOLE_END,
        .backing = config->memory_options.backing == CONFIG_BACKING_MEMFD ? MEMORY_MEMFD
                                                                          : MEMORY_ANONYMOUS,
        .pages = pages[config->memory_options.pages],
    };
}

static struct pci_host_params pci_layout(const struct machine *m)
{
    const struct memory_region *top = &m->memory->regions[m->memory->count - 1];
    uint64_t ram_end = top->gpa + top->size;

    return (struct pci_host_params){
        .ecam_base = PCI_ECAM_BASE,
        .mmio32_base = PCI_MMIO32_BASE,
        .mmio32_size = PCI_MMIO32_SIZE,
        .mmio64_base = (ram_end + PCI_MMIO64_SIZE - 1) / PCI_MMIO64_SIZE * PCI_MMIO64_SIZE,
        .mmio64_size = PCI_MMIO64_SIZE,
        .intx_gsi = {PCI_INTX_GSI, PCI_INTX_GSI + 1, PCI_INTX_GSI + 2, PCI_INTX_GSI + 3},
    };
}

/* Where the next device goes, and its coming into the list: in order of creation. */
static struct device **next(struct machine *m)
{
    return &m->devices[m->device_count];
}

static int added(struct machine *m, int r)
{
    if (r == 0)
        m->device_count++;
    return r;
}

static void vmgenid_changed(void *opaque)
{
    const struct machine *m = opaque;

    acpi_pm_raise_gpe(m->power_button, VMGENID_GPE);
}

static int create_vmgenid(struct machine *m, struct error *err)
{
    const struct vmgenid_params params = {
        .gpa = VMGENID_BASE, .changed = vmgenid_changed, .opaque = m};

    if (added(m, vmgenid_create(&m->platform, &params, next(m), err)) < 0)
        return -err->code;
    m->vmgenid = m->devices[m->device_count - 1];
    return 0;
}

/* Entropy, hvc0 and the balloon, served by the machine's own thread. */
static int create_small_virtio(struct machine *m, struct error *err)
{
    struct platform *p = &m->platform;

    if (m->config->rng) {
        if (added(m, virtio_rng_create(p, m->pci_host, m->loop, next(m), err)) < 0)
            return -err->code;
        m->rng = m->devices[m->device_count - 1];
    }
    if (m->virtio_console) {
        if (added(m, virtio_console_create(p, m->pci_host, m->loop, m->virtio_console, next(m),
                                           err)) < 0)
            return -err->code;
        m->hvc0 = m->devices[m->device_count - 1];
    }
    if (!m->config->balloon.wanted)
        return 0;
    if (added(m, virtio_balloon_create(p, m->pci_host, m->loop, m->config->balloon.deflate_on_oom,
                                       next(m), err)) < 0)
        return -err->code;
    m->balloon = m->devices[m->device_count - 1];
    return 0;
}

int board_create_devices(struct machine *m, struct error *err)
{
    const struct acpi_pm_params pm = {
        .pm1_event = PM1_EVENT_PORT,
        .pm1_control = PM1_CONTROL_PORT,
        .gpe0 = GPE0_PORT,
        .reset_port = RESET_PORT,
        .reset_value = RESET_VALUE,
        .s5_type = S5_TYPE,
        .sci = SCI_IRQ,
    };
    const struct pci_host_params pci = pci_layout(m);
    struct platform *p = &m->platform;

    p->memory = m->memory;
    if (added(m, serial_create(p, m->console, m->loop, SERIAL0_PORT, SERIAL0_IRQ, "serial0",
                               next(m), err)) < 0)
        return -err->code;
    m->serial = m->devices[m->device_count - 1];
    if (added(m, rtc_create(p, m->loop, RTC_PORT, RTC_IRQ, next(m), err)) < 0 ||
        added(m, i8042_create(p, next(m), err)) < 0 ||
        added(m, acpi_pm_create(p, &pm, next(m), err)) < 0)
        return -err->code;
    m->power_button = m->devices[m->device_count - 1];
    if (create_vmgenid(m, err) < 0 || added(m, pci_host_create(p, &pci, next(m), err)) < 0)
        return -err->code;
    m->pci_host = m->devices[m->device_count - 1];
    if (machine_create_disks(m, err) < 0 || machine_create_nets(m, err) < 0 ||
        create_small_virtio(m, err) < 0 || machine_create_vsock(m, err) < 0)
        return -err->code;

    if (m->config->debug_exit && added(m, debug_exit_create(p, DEBUG_EXIT_PORT, next(m), err)) < 0)
        return -err->code;
    return 0;
}

static int build_tables(struct machine *m, uint64_t *ret_rsdp, struct error *err)
{
    const struct acpi_serial serials[] = {
        {.port = SERIAL0_PORT, .ports = 8, .irq = SERIAL0_IRQ},
    };
    const struct pci_host_params layout = pci_layout(m);
    const struct acpi_pci pci = {
        .ecam_base = layout.ecam_base,
        .mmio32_base = layout.mmio32_base,
        .mmio32_size = layout.mmio32_size,
        .mmio64_base = layout.mmio64_base,
        .mmio64_size = layout.mmio64_size,
        .intx_gsi = {layout.intx_gsi[0], layout.intx_gsi[1], layout.intx_gsi[2],
                     layout.intx_gsi[3]},
    };
    const struct acpi_vmgenid vmgenid = {.gpa = VMGENID_BASE, .gpe = VMGENID_GPE};
    const struct acpi_board board = {
        .cpus = (unsigned)m->config->cpus,
        .lapic_base = LAPIC_BASE,
        .ioapic_base = IOAPIC_BASE,
        .pm1_event = PM1_EVENT_PORT,
        .pm1_control = PM1_CONTROL_PORT,
        .gpe0 = GPE0_PORT,
        .reset_port = RESET_PORT,
        .reset_value = RESET_VALUE,
        .s5_type = S5_TYPE,
        .sci_irq = SCI_IRQ,
        .rtc_port = RTC_PORT,
        .rtc_irq = RTC_IRQ,
        .serials = serials,
        .serial_count = 1,
        .pci = &pci,
        .vmgenid = &vmgenid,
    };

    return acpi_build(&board, m->memory, ACPI_START, ACPI_SIZE, ret_rsdp, err);
}

int board_load(struct machine *m, struct error *err)
{
    static const struct boot_reserved reserved[] = {
        {.gpa = LEGACY_START, .size = ACPI_START - LEGACY_START, .e820_type = 2},
        {.gpa = ACPI_START, .size = ACPI_SIZE, .e820_type = 3},
        {.gpa = PCI_ECAM_BASE, .size = ACPI_PCI_ECAM_BYTES, .e820_type = 2},
        {.gpa = VMGENID_BASE, .size = VMGENID_PAGE, .e820_type = 2},
    };
    struct cpu_entry entry;
    uint64_t rsdp;

    if (build_tables(m, &rsdp, err) < 0 ||
        boot_load(m->boot, m->memory, rsdp, reserved, sizeof(reserved) / sizeof(reserved[0]),
                  &entry, err) < 0 ||
        kvm_vm_set_entry(m->vm, &entry, err) < 0)
        return -err->code;
    return 0;
}
