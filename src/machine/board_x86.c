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
#include "vmrun/rtc.h"
#include "vmrun/serial.h"

/* Guest-physical addresses. RAM lies below the hole and from 4 GiB up. */
#define HOLE_START \
    UINT64_C(0xc0000000) /* 3 GiB: room for PCI, and for what x86 has always here: \
                          */
#define IOAPIC_BASE UINT64_C(0xfec00000)
#define LAPIC_BASE UINT64_C(0xfee00000)
#define HOLE_END UINT64_C(0x100000000)

/* The first MiB, as a PC's: no RAM to use from 640 KiB up; ACPI tables where firmware has them. */
#define LEGACY_START 0xa0000
#define ACPI_START 0xe0000
#define ACPI_SIZE 0x20000

/* I/O ports. 0x20, 0x40, 0x61, 0xa0 are KVM's own PIC and PIT. */
#define I8042_DATA 0x60 /* and 0x64 */
#define RTC_PORT 0x70
#define SERIAL0_PORT 0x3f8
#define DEBUG_EXIT_PORT 0x501
#define PM1_EVENT_PORT 0x600
#define PM1_CONTROL_PORT 0x604
#define RESET_PORT 0x608

/* Interrupts: legacy ISA lines, which are the IOAPIC's inputs of the same number. */
#define SERIAL0_IRQ 4
#define RTC_IRQ 8
#define SCI_IRQ 9

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

int board_create_devices(struct machine *m, struct error *err)
{
    const struct acpi_pm_params pm = {
        .pm1_event = PM1_EVENT_PORT,
        .pm1_control = PM1_CONTROL_PORT,
        .reset_port = RESET_PORT,
        .reset_value = RESET_VALUE,
        .s5_type = S5_TYPE,
        .sci = SCI_IRQ,
    };
    struct platform *p = &m->platform;

    if (added(m, serial_create(p, m->console, m->loop, SERIAL0_PORT, SERIAL0_IRQ, "serial0",
                               next(m), err)) < 0)
        return -err->code;
    m->serial = m->devices[m->device_count - 1];
    if (added(m, rtc_create(p, m->loop, RTC_PORT, RTC_IRQ, next(m), err)) < 0 ||
        added(m, i8042_create(p, next(m), err)) < 0 ||
        added(m, acpi_pm_create(p, &pm, next(m), err)) < 0)
        return -err->code;
    m->power_button = m->devices[m->device_count - 1];

    if (m->config->debug_exit && added(m, debug_exit_create(p, DEBUG_EXIT_PORT, next(m), err)) < 0)
        return -err->code;
    return 0;
}

static int build_tables(struct machine *m, uint64_t *ret_rsdp, struct error *err)
{
    const struct acpi_serial serials[] = {
        {.port = SERIAL0_PORT, .ports = 8, .irq = SERIAL0_IRQ},
    };
    const struct acpi_board board = {
        .cpus = (unsigned)m->config->cpus,
        .lapic_base = LAPIC_BASE,
        .ioapic_base = IOAPIC_BASE,
        .pm1_event = PM1_EVENT_PORT,
        .pm1_control = PM1_CONTROL_PORT,
        .reset_port = RESET_PORT,
        .reset_value = RESET_VALUE,
        .s5_type = S5_TYPE,
        .sci_irq = SCI_IRQ,
        .rtc_port = RTC_PORT,
        .rtc_irq = RTC_IRQ,
        .serials = serials,
        .serial_count = 1,
    };

    return acpi_build(&board, m->memory, ACPI_START, ACPI_SIZE, ret_rsdp, err);
}

int board_load(struct machine *m, struct error *err)
{
    static const struct boot_reserved reserved[] = {
        {.gpa = LEGACY_START, .size = ACPI_START - LEGACY_START, .e820_type = 2},
        {.gpa = ACPI_START, .size = ACPI_SIZE, .e820_type = 3},
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
