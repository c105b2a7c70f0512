/* SPDX-License-Identifier: Apache-2.0 */
/*
 * acpi: the tables that tell a guest its board: processors, interrupts, how to
 * switch off, and the few devices that cannot be found by asking.
 *
 * What a guest reads here belongs to the machine's version: a change here is a
 * change of the board. The hardware model is the full one ("not reduced"), with
 * a fixed power button, no PM timer, one general-purpose event and no firmware
 * to hand over from (no SMI): a guest finds itself in ACPI mode from the start.
 */
#include "vmrun/acpi.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "acpi_pci.h"

#define OEM_ID "VMRUN " /* 6 and 8 characters */
#define OEM_TABLE_ID "VMRUNPC "
#define CREATOR_ID "VMRN"
#define HEADER_SIZE 36u
#define LENGTH_AT 4u
#define CHECKSUM_AT 9u
#define FACS_SIZE 64u
#define RSDP_SIZE 36u
#define MAX_XAPIC_ID 254u /* 255 is the broadcast; from there on it takes x2APIC entries */
#define ISA_IRQS 16u
#define GPES 8u

/* All tables in one stretch, at the guest-physical address base. */
struct tables {
    struct writer w;
    uint64_t base;
    size_t start; /* of the table being written */
};

static uint64_t align_to(struct tables *t, size_t align)
{
    while (t->w.len % align && !t->w.failed)
        put_uint(&t->w, 0, 1);
    return t->base + t->w.len;
}

static uint64_t begin(struct tables *t, const char *signature, uint8_t revision)
{
    uint64_t gpa = align_to(t, 16);

    t->start = t->w.len;
    put_bytes(&t->w, signature, 4);
    put_uint(&t->w, 0, 4); /* length and checksum: end() */
    put_uint(&t->w, revision, 1);
    put_uint(&t->w, 0, 1);
    put_bytes(&t->w, OEM_ID, 6);
    put_bytes(&t->w, OEM_TABLE_ID, 8);
    put_uint(&t->w, 1, 4); /* OEM revision */
    put_bytes(&t->w, CREATOR_ID, 4);
    put_uint(&t->w, 1, 4);
    return gpa;
}

static uint8_t checksum(const uint8_t *data, size_t len)
{
    uint8_t sum = 0;

    while (len--)
        sum = (uint8_t)(sum + *data++);
    return (uint8_t)-sum;
}

static void end(struct tables *t)
{
    size_t len = t->w.len - t->start;

    if (t->w.failed)
        return;
    uint8_t *table = t->w.data + t->start;
    for (unsigned i = 0; i < 4; i++)
        table[LENGTH_AT + i] = (uint8_t)(len >> (8 * i));
    table[CHECKSUM_AT] = checksum(table, len);
}

static void put_zeros(struct writer *w, unsigned count)
{
    while (count--)
        put_uint(w, 0, 1);
}

/* "Generic Address Structure" for I/O ports. access: 1 byte, 2 word. */
static void put_io_address(struct writer *w, uint16_t port, uint8_t bits, uint8_t access)
{
    put_uint(w, 1, 1); /* system I/O */
    put_uint(w, bits, 1);
    put_uint(w, 0, 1);
    put_uint(w, access, 1);
    put_uint(w, port, 8);
}

static void add_processors(struct aml *a, const struct acpi_board *board)
{
    for (unsigned i = 0; i < board->cpus; i++) {
        char name[8];

        snprintf(name, sizeof(name), "C%03X", i & 0xfff);
        aml_begin_device(a, name);
        aml_name(a, "_HID");
        aml_string(a, "ACPI0007");
        aml_name(a, "_UID");
        aml_integer(a, i);
        aml_end(a);
    }
}

static void add_device(struct aml *a, const char *name, const char *id, unsigned uid, uint16_t port,
                       uint8_t ports, uint8_t irq)
{
    aml_begin_device(a, name);
    aml_name(a, "_HID");
    aml_eisa_id(a, id);
    aml_name(a, "_UID");
    aml_integer(a, uid);
    aml_name(a, "_CRS");
    aml_begin_resources(a);
    aml_resource_io(a, port, ports);
    aml_resource_irq(a, irq);
    aml_end(a);
    aml_end(a);
}

/* "Virtual Machine Generation ID": where it lies, and what the event of its change means. */
static void add_vmgenid(struct aml *a, const struct acpi_vmgenid *vmgenid)
{
    const unsigned changed = 0x80;
    char event[8];

    aml_begin_scope(a, "\\_SB");
    aml_begin_device(a, "VGEN");
    aml_name(a, "_HID");
    aml_string(a, "VMRN0001");
    aml_name(a, "_CID");
    aml_string(a, "VM_Gen_Counter");
    aml_name(a, "_DDN");
    aml_string(a, "VM_Gen_Counter");
    aml_name(a, "ADDR");
    aml_begin_package(a, 2);
    aml_integer(a, vmgenid->gpa & UINT32_MAX);
    aml_integer(a, vmgenid->gpa >> 32);
    aml_end(a);
    aml_end(a);
    aml_end(a);

    snprintf(event, sizeof(event), "_E%02X", vmgenid->gpe);
    aml_begin_scope(a, "\\_GPE");
    aml_begin_method(a, event, 0);
    aml_notify(a, "\\_SB.VGEN", changed);
    aml_end(a);
    aml_end(a);
}

static uint64_t add_dsdt(struct tables *t, const struct acpi_board *board)
{
    struct aml a = {0};
    uint64_t gpa = begin(t, "DSDT", 2);

    aml_name(&a, "\\_S5");
    aml_begin_package(&a, 4);
    aml_integer(&a, board->s5_type);
    aml_integer(&a, 0);
    aml_integer(&a, 0);
    aml_integer(&a, 0);
    aml_end(&a);

    aml_begin_scope(&a, "\\_SB");
    add_processors(&a, board);
    for (unsigned i = 0; i < board->serial_count; i++) {
        const struct acpi_serial *serial = &board->serials[i];
        char name[8];

        snprintf(name, sizeof(name), "COM%X", (i + 1) & 0xf);
        add_device(&a, name, "PNP0501", i + 1, serial->port, (uint8_t)serial->ports, serial->irq);
    }
    add_device(&a, "RTC", "PNP0B00", 0, board->rtc_port, 2, board->rtc_irq);
    if (board->pci)
        acpi_add_pci(&a, board->pci);
    aml_end(&a);
    if (board->vmgenid)
        add_vmgenid(&a, board->vmgenid);

    if (a.w.failed)
        t->w.failed = true;
    else
        put_bytes(&t->w, a.w.data, a.w.len);
    free(a.w.data);
    end(t);
    return gpa;
}

static uint64_t add_facs(struct tables *t)
{
    uint64_t gpa = align_to(t, FACS_SIZE);

    put_bytes(&t->w, "FACS", 4);
    put_uint(&t->w, FACS_SIZE, 4);
    put_zeros(&t->w, 24);  /* signature of the hardware, waking vectors, global lock, flags */
    put_uint(&t->w, 2, 1); /* version */
    put_zeros(&t->w, FACS_SIZE - 33);
    return gpa;
}

static uint64_t add_fadt(struct tables *t, const struct acpi_board *board, uint64_t facs,
                         uint64_t dsdt)
{
    enum {
        WBINVD = 1 << 0,
        PROC_C1 = 1 << 2,
        NO_SLEEP_BUTTON = 1 << 5,
        RTC_WAKE_NOT_FIXED = 1 << 6,
        RESET_REG_SUPPORTED = 1 << 10,
    };
    enum { LEGACY_DEVICES = 1 << 0, NO_VGA = 1 << 2 }; /* and no 8042: so nobody probes it */
    struct writer *w = &t->w;
    uint64_t gpa = begin(t, "FACP", 6);

    put_uint(w, facs, 4);
    put_uint(w, dsdt, 4);
    put_uint(w, 0, 1);
    put_uint(w, 4, 1); /* preferred profile: enterprise server */
    put_uint(w, board->sci_irq, 2);
    put_zeros(w, 8); /* SMI command port, and what to write there */
    put_uint(w, board->pm1_event, 4);
    put_uint(w, 0, 4); /* PM1b event */
    put_uint(w, board->pm1_control, 4);
    put_zeros(w, 12); /* PM1b control, PM2 control, PM timer */
    put_uint(w, board->gpe0, 4);
    put_uint(w, 0, 4); /* GPE1 */
    put_uint(w, 4, 1); /* lengths: of PM1 event and control, PM2 control, PM timer, GPE0 and GPE1 */
    put_uint(w, 2, 1);
    put_zeros(w, 2);
    put_uint(w, board->gpe0 ? 2 : 0, 1);
    put_uint(w, 0, 1);
    put_zeros(w, 2);     /* first event of GPE1, processor control */
    put_uint(w, 101, 2); /* C2 and C3 latencies in us, above what counts as supported */
    put_uint(w, 1001, 2);
    put_zeros(w, 6);   /* cache flush, duty cycle */
    put_uint(w, 0, 1); /* RTC day alarm, month alarm: none */
    put_uint(w, 0, 1);
    put_uint(w, 0x32, 1); /* RTC century */
    put_uint(w, LEGACY_DEVICES | NO_VGA, 2);
    put_uint(w, 0, 1);
    put_uint(w, WBINVD | PROC_C1 | NO_SLEEP_BUTTON | RTC_WAKE_NOT_FIXED | RESET_REG_SUPPORTED, 4);
    put_io_address(w, board->reset_port, 8, 1);
    put_uint(w, board->reset_value, 1);
    put_uint(w, 0, 2); /* ARM */
    put_uint(w, 4, 1); /* minor version: 6.4 */
    put_uint(w, 0, 8); /* FACS: above */
    put_uint(w, dsdt, 8);
    put_io_address(w, board->pm1_event, 32, 2);
    put_zeros(w, 12);
    put_io_address(w, board->pm1_control, 16, 2);
    put_zeros(w, 12 * 3); /* PM1b control, PM2 control, PM timer */
    if (board->gpe0)
        put_io_address(w, board->gpe0, 16, 1);
    else
        put_zeros(w, 12);
    put_zeros(w, 12 + 12 * 2);    /* GPE1; sleep control and status */
    put_bytes(w, "VMRUN\0\0", 8); /* hypervisor vendor identity */
    end(t);
    return gpa;
}

static void add_override(struct writer *w, uint8_t irq, uint32_t gsi, uint16_t flags)
{
    put_uint(w, 2, 1);
    put_uint(w, 10, 1);
    put_uint(w, 0, 1); /* ISA */
    put_uint(w, irq, 1);
    put_uint(w, gsi, 4);
    put_uint(w, flags, 2);
}

static void add_local_apic(struct writer *w, unsigned id)
{
    const uint32_t enabled = 1;

    if (id <= MAX_XAPIC_ID) {
        put_uint(w, 0, 1);
        put_uint(w, 8, 1);
        put_uint(w, id, 1); /* processor */
        put_uint(w, id, 1); /* APIC */
        put_uint(w, enabled, 4);
    } else {
        put_uint(w, 9, 1); /* x2APIC */
        put_uint(w, 16, 1);
        put_uint(w, 0, 2);
        put_uint(w, id, 4);
        put_uint(w, enabled, 4);
        put_uint(w, id, 4);
    }
}

static uint64_t add_madt(struct tables *t, const struct acpi_board *board)
{
    const uint16_t level_active_high = 0xd, as_the_bus = 0;
    struct writer *w = &t->w;
    uint64_t gpa = begin(t, "APIC", 5);

    put_uint(w, board->lapic_base, 4);
    put_uint(w, 1, 4); /* two 8259s are there too */
    for (unsigned i = 0; i < board->cpus; i++)
        add_local_apic(w, i);

    put_uint(w, 1, 1); /* I/O APIC */
    put_uint(w, 12, 1);
    put_uint(w, 0, 2);
    put_uint(w, board->ioapic_base, 4);
    put_uint(w, 0, 4); /* its first GSI */

    add_override(w, 0, 2, as_the_bus); /* the timer's line, as on every PC */
    add_override(w, board->sci_irq, board->sci_irq, level_active_high);

    put_uint(w, 4, 1); /* NMI on LINT1 of all */
    put_uint(w, 6, 1);
    put_uint(w, 0xff, 1);
    put_uint(w, 0, 2);
    put_uint(w, 1, 1);
    if (board->cpus > MAX_XAPIC_ID + 1) {
        put_uint(w, 10, 1);
        put_uint(w, 12, 1);
        put_uint(w, 0, 2);
        put_uint(w, UINT32_MAX, 4);
        put_uint(w, 1, 1);
        put_zeros(w, 3);
    }
    end(t);
    return gpa;
}

/* Where the configuration space lies in memory: PCI Firmware Specification 3.3, "MCFG Table". */
static uint64_t add_mcfg(struct tables *t, const struct acpi_pci *pci)
{
    struct writer *w = &t->w;
    uint64_t gpa = begin(t, "MCFG", 1);

    put_zeros(w, 8);
    put_uint(w, pci->ecam_base, 8);
    put_uint(w, 0, 2); /* segment group */
    put_uint(w, 0, 1); /* first and last bus */
    put_uint(w, 0, 1);
    put_zeros(w, 4);
    end(t);
    return gpa;
}

static uint64_t add_xsdt(struct tables *t, const uint64_t *tables, unsigned count)
{
    uint64_t gpa = begin(t, "XSDT", 1);

    for (unsigned i = 0; i < count; i++)
        put_uint(&t->w, tables[i], 8);
    end(t);
    return gpa;
}

/* At the very start, where room was left for it. */
static void write_rsdp(struct tables *t, uint64_t xsdt)
{
    struct writer w = {0};

    put_bytes(&w, "RSD PTR ", 8);
    put_uint(&w, 0, 1);
    put_bytes(&w, OEM_ID, 6);
    put_uint(&w, 2, 1); /* revision */
    put_uint(&w, 0, 4); /* no RSDT */
    put_uint(&w, RSDP_SIZE, 4);
    put_uint(&w, xsdt, 8);
    put_uint(&w, 0, 4);
    if (w.failed || t->w.failed) {
        t->w.failed = true;
    } else {
        w.data[8] = checksum(w.data, 20);
        w.data[32] = checksum(w.data, RSDP_SIZE);
        memcpy(t->w.data, w.data, RSDP_SIZE);
    }
    free(w.data);
}

static int check_pci(const struct acpi_pci *pci, struct error *err)
{
    uint64_t end32 = pci->mmio32_base + pci->mmio32_size;
    uint64_t end64 = pci->mmio64_base + pci->mmio64_size;

    if (pci->ecam_base % ACPI_PCI_ECAM_BYTES || pci->ecam_base > UINT32_MAX - ACPI_PCI_ECAM_BYTES ||
        end32 <= pci->mmio32_base || end32 > UINT64_C(1) << 32 || end64 <= pci->mmio64_base ||
        pci->mmio64_base < end32)
        return error_set(err, EINVAL, "acpi: PCI windows that cannot be");
    return 0;
}

static int check_board(const struct acpi_board *board, uint64_t gpa, uint64_t room,
                       struct error *err)
{
    if (board->cpus == 0 || board->cpus > 0x1000)
        return error_set(err, EINVAL, "acpi: %u processors", board->cpus);
    if (board->sci_irq >= ISA_IRQS || board->rtc_irq >= ISA_IRQS || board->serial_count > 15)
        return error_set(err, EINVAL, "acpi: an interrupt or serial port that ISA does not have");
    for (unsigned i = 0; i < board->serial_count; i++)
        if (board->serials[i].irq >= ISA_IRQS || board->serials[i].ports > UINT8_MAX)
            return error_set(err, EINVAL, "acpi: serial port %u has no ISA interrupt", i);
    /* The FADT and the MADT have 32-bit addresses in places. */
    if (gpa % FACS_SIZE || gpa > UINT32_MAX || room > UINT32_MAX - gpa ||
        board->lapic_base > UINT32_MAX || board->ioapic_base > UINT32_MAX)
        return error_set(err, EINVAL, "acpi: 0x%llx is no place for the tables",
                         (unsigned long long)gpa);
    if (board->vmgenid && (!board->gpe0 || board->vmgenid->gpe >= GPES || board->vmgenid->gpa % 8))
        return error_set(err, EINVAL, "acpi: a generation ID that cannot be, or without its event");
    return board->pci ? check_pci(board->pci, err) : 0;
}

int acpi_build(const struct acpi_board *board, struct guest_memory *mem, uint64_t gpa,
               uint64_t room, uint64_t *ret_rsdp, struct error *err)
{
    struct tables t = {.base = gpa};
    uint64_t listed[3];
    unsigned count = 2;
    int r = check_board(board, gpa, room, err);

    if (r < 0)
        return r;
    put_zeros(&t.w, RSDP_SIZE);
    uint64_t facs = add_facs(&t);
    uint64_t dsdt = add_dsdt(&t, board);
    listed[0] = add_fadt(&t, board, facs, dsdt);
    listed[1] = add_madt(&t, board);
    if (board->pci)
        listed[count++] = add_mcfg(&t, board->pci);
    write_rsdp(&t, add_xsdt(&t, listed, count));

    if (t.w.failed)
        r = error_set(err, ENOMEM, "acpi: out of memory");
    else if (t.w.len > room)
        r = error_set(err, ENOSPC, "acpi: the tables take %zu bytes, and there are %llu for them",
                      t.w.len, (unsigned long long)room);
    else if (guest_memory_write(mem, gpa, t.w.data, t.w.len) < 0)
        r = error_set(err, EFAULT, "acpi: no memory at 0x%llx for the tables",
                      (unsigned long long)gpa);
    else
        *ret_rsdp = gpa;
    free(t.w.data);
    return r;
}
