/* SPDX-License-Identifier: Apache-2.0 */
/* The ACPI tables: their sums and links, and what ACPICA's own compiler thinks of them. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <spawn.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "folder.h"
#include "kernel_file.h"
#include "vmrun/acpi.h"

#define TABLES 0xe0000u
#define ROOM 0x20000u

static const struct acpi_serial serials[] = {{0x3f8, 8, 4}, {0x2f8, 8, 3}};

static const struct acpi_pci pci = {
    .ecam_base = 0xe0000000,
    .mmio32_base = 0xc0000000,
    .mmio32_size = 0x20000000,
    .mmio64_base = UINT64_C(0x800000000),
    .mmio64_size = UINT64_C(0x800000000),
    .intx_gsi = {16, 17, 18, 19},
};

static const struct acpi_vmgenid vmgenid = {.gpa = 0xfeb00000, .gpe = 2};

static struct acpi_board board_of(unsigned cpus)
{
    return (struct acpi_board){
        .cpus = cpus,
        .lapic_base = 0xfee00000,
        .ioapic_base = 0xfec00000,
        .pm1_event = 0x600,
        .pm1_control = 0x604,
        .gpe0 = 0x60a,
        .reset_port = 0x608,
        .reset_value = 1,
        .s5_type = 5,
        .sci_irq = 9,
        .rtc_port = 0x70,
        .rtc_irq = 8,
        .serials = serials,
        .serial_count = 2,
        .pci = &pci,
        .vmgenid = &vmgenid,
    };
}

struct fixture {
    struct guest_memory *mem;
    uint64_t rsdp;
};

static void build(struct fixture *f, unsigned cpus)
{
    struct acpi_board board = board_of(cpus);
    struct error err = {.msg = ""};

    f->mem = kernel_memory(2 << 20);
    assert_int_equal(acpi_build(&board, f->mem, TABLES, ROOM, &f->rsdp, &err), 0);
}

static uint64_t number(const struct fixture *f, uint64_t gpa, unsigned size)
{
    const uint8_t *bytes = guest_memory_at(f->mem, gpa, size);
    struct reader r = {.data = bytes, .len = size};

    assert_non_null(bytes);
    return get_uint(&r, size);
}

static void assert_sums_to_zero(const struct fixture *f, uint64_t gpa, uint64_t len)
{
    uint8_t sum = 0;

    for (uint64_t i = 0; i < len; i++)
        sum = (uint8_t)(sum + number(f, gpa + i, 1));
    assert_int_equal(sum, 0);
}

/* The table with this signature, by the links that a guest follows. */
static uint64_t find_table(const struct fixture *f, const char *signature)
{
    uint64_t xsdt = number(f, f->rsdp + 24, 8);
    uint64_t end = xsdt + number(f, xsdt + 4, 4);

    for (uint64_t at = xsdt + 36; at < end; at += 8) {
        uint64_t table = number(f, at, 8);

        if (memcmp(guest_memory_at(f->mem, table, 4), signature, 4) == 0)
            return table;
        if (memcmp(guest_memory_at(f->mem, table, 4), "FACP", 4) == 0) {
            uint64_t dsdt = number(f, table + 140, 8), facs = number(f, table + 36, 4);

            if (memcmp(guest_memory_at(f->mem, dsdt, 4), signature, 4) == 0)
                return dsdt;
            if (memcmp(guest_memory_at(f->mem, facs, 4), signature, 4) == 0)
                return facs;
        }
    }
    fail_msg("no table %s", signature);
    return 0;
}

static void every_table_is_linked_and_sums_to_zero(void **state)
{
    static const char *const names[] = {"FACP", "APIC", "DSDT", "MCFG"};
    struct fixture f;

    (void)state;
    build(&f, 2);

    assert_memory_equal(guest_memory_at(f.mem, f.rsdp, 8), "RSD PTR ", 8);
    assert_sums_to_zero(&f, f.rsdp, 20);
    assert_sums_to_zero(&f, f.rsdp, 36);
    for (unsigned i = 0; i < 4; i++) {
        uint64_t table = find_table(&f, names[i]);

        assert_sums_to_zero(&f, table, number(&f, table + 4, 4));
        assert_true(guest_memory_test_dirty(f.mem, table, false));
    }
    assert_int_equal(find_table(&f, "FACS") % 64, 0);
    guest_memory_destroy(f.mem);
}

static void the_fadt_describes_the_board(void **state)
{
    struct fixture f;

    (void)state;
    build(&f, 1);

    uint64_t fadt = find_table(&f, "FACP");
    assert_int_equal(number(&f, fadt + 4, 4), 276);
    assert_int_equal(number(&f, fadt + 46, 2), 9);     /* SCI */
    assert_int_equal(number(&f, fadt + 48, 4), 0);     /* no SMI */
    assert_int_equal(number(&f, fadt + 56, 4), 0x600); /* PM1a event */
    assert_int_equal(number(&f, fadt + 64, 4), 0x604); /* PM1a control */
    assert_int_equal(number(&f, fadt + 88, 4),
                     0x00000204);                      /* lengths: event, control, none, none */
    assert_int_equal(number(&f, fadt + 108, 1), 0x32); /* century */
    assert_int_equal(number(&f, fadt + 109, 2), 5);    /* legacy devices, no VGA, no 8042 */
    assert_int_equal(number(&f, fadt + 112, 4), 0x465);
    assert_int_equal(number(&f, fadt + 120, 8), 0x608); /* reset */
    assert_int_equal(number(&f, fadt + 128, 1), 1);
    assert_int_equal(number(&f, fadt + 152, 8), 0x600); /* X_PM1a event, behind its 4 bytes */
    assert_int_equal(number(&f, fadt + 176, 8), 0x604);
    assert_int_equal(number(&f, fadt + 80, 4), 0x60a); /* GPE0, its 2 bytes, and the 64-bit one */
    assert_int_equal(number(&f, fadt + 84, 4), 0);
    assert_int_equal(number(&f, fadt + 92, 4), 2);
    assert_int_equal(number(&f, fadt + 220, 4), 0x01001001);
    assert_int_equal(number(&f, fadt + 224, 8), 0x60a);
    assert_int_equal(number(&f, fadt + 236, 8), 0); /* no GPE1 */
    guest_memory_destroy(f.mem);
}

/* Entries of a type in the MADT. */
static unsigned count_entries(const struct fixture *f, uint8_t type)
{
    uint64_t madt = find_table(f, "APIC");
    uint64_t end = madt + number(f, madt + 4, 4);
    unsigned count = 0;

    for (uint64_t at = madt + 44; at < end; at += number(f, at + 1, 1))
        count += number(f, at, 1) == type;
    return count;
}

static void the_madt_lists_every_processor(void **state)
{
    static const unsigned cpus[] = {1, 2, 8, 255, 300};

    (void)state;
    for (unsigned i = 0; i < sizeof(cpus) / sizeof(cpus[0]); i++) {
        struct fixture f;

        build(&f, cpus[i]);
        assert_int_equal(count_entries(&f, 0), cpus[i] < 255 ? cpus[i] : 255);
        assert_int_equal(count_entries(&f, 9), cpus[i] < 255 ? 0 : cpus[i] - 255);
        assert_int_equal(count_entries(&f, 1), 1);
        assert_int_equal(count_entries(&f, 2), 2);
        guest_memory_destroy(f.mem);
    }
}

static void the_mcfg_has_the_configuration_space_of_one_bus(void **state)
{
    struct fixture f;

    (void)state;
    build(&f, 1);
    uint64_t mcfg = find_table(&f, "MCFG");
    assert_int_equal(number(&f, mcfg + 4, 4), 60);
    assert_int_equal(number(&f, mcfg + 44, 8), 0xe0000000);
    assert_int_equal(number(&f, mcfg + 52, 8), 0); /* segment, first and last bus */
    guest_memory_destroy(f.mem);
}

/* Where these bytes lie in the DSDT, from `from` on; fails when they do not. */
static uint64_t find_bytes(const struct fixture *f, uint64_t from, const void *bytes, size_t len)
{
    uint64_t dsdt = find_table(f, "DSDT"), size = number(f, dsdt + 4, 4);
    const uint8_t *start = guest_memory_at(f->mem, dsdt, size);
    const uint8_t *at = memmem(start + from, size - from, bytes, len);

    assert_non_null(at);
    return (uint64_t)(at - start);
}

static void the_bridge_passes_on_what_the_board_says(void **state)
{
    /* Types, flags, then granularity, first, last, offset, length: of 2, 4 and 8 bytes. */
    static const uint8_t ports[] = {0x88, 13, 0, 1, 12, 3, 0, 0, 0, 13, 255, 255, 0, 0, 0, 0xf3};
    static const uint8_t low[] = {0x87, 23,  0,   0,   12,   1, 0, 0, 0, 0, 0, 0, 0,
                                  0xc0, 255, 255, 255, 0xdf, 0, 0, 0, 0, 0, 0, 0, 0x20};
    static const uint8_t high[] = {0x8a, 43, 0, 0, 12, 1, 0, 0, 0,   0,   0,   0,   0, 0,
                                   0,    0,  0, 0, 8,  0, 0, 0, 255, 255, 255, 255, 15};
    struct fixture f;

    (void)state;
    build(&f, 1);
    find_bytes(&f, find_bytes(&f, find_bytes(&f, 0, ports, sizeof(ports)), low, sizeof(low)), high,
               sizeof(high));
    guest_memory_destroy(f.mem);
}

static void the_routing_table_has_every_pin_of_every_slot(void **state)
{
    struct fixture f;
    uint64_t at = 0;

    (void)state;
    build(&f, 1);
    for (unsigned slot = 1; slot < 32; slot++) { /* slot 0's addresses are shorter numbers */
        for (unsigned pin = 0; pin < 4; pin++) {
            uint8_t head[] = {4, 0x0c, 0xff, 0xff, (uint8_t)slot, 0};
            uint8_t tail[] = {0, 0x0a, (uint8_t)(16 + (slot + pin) % 4)};
            size_t pin_bytes = pin < 2 ? 1 : 2; /* ZeroOp, OneOp, or a prefix and a byte */

            at = find_bytes(&f, at, head, sizeof(head)) + sizeof(head);
            uint64_t dsdt = find_table(&f, "DSDT");
            assert_int_equal(number(&f, dsdt + at + pin_bytes - 1, 1), pin);
            assert_memory_equal(guest_memory_at(f.mem, dsdt + at + pin_bytes, sizeof(tail)), tail,
                                sizeof(tail));
        }
    }
    guest_memory_destroy(f.mem);
}

static void a_board_without_pci_says_nothing_of_it(void **state)
{
    struct acpi_board board = board_of(1);
    struct fixture f = {.mem = kernel_memory(2 << 20)};
    struct error err;

    (void)state;
    board.pci = NULL;
    assert_int_equal(acpi_build(&board, f.mem, TABLES, ROOM, &f.rsdp, &err), 0);
    uint64_t xsdt = number(&f, f.rsdp + 24, 8), dsdt = find_table(&f, "DSDT");
    uint64_t size = number(&f, dsdt + 4, 4);
    assert_int_equal(number(&f, xsdt + 4, 4), 36 + 2 * 8);
    assert_null(memmem(guest_memory_at(f.mem, dsdt, size), size, "PCI0", 4));
    guest_memory_destroy(f.mem);
}

static void the_generation_id_has_a_place_and_an_event(void **state)
{
    /* Package of two numbers, the second zero; then in \\_GPE a method that notifies. */
    static const uint8_t place[] = {'A', 'D', 'D', 'R', 0x12, 8, 2, 0x0c, 0, 0, 0xb0, 0xfe, 0};
    static const uint8_t event[] = {'\\', '_', 'G', 'P',  'E',  0x14, 19,  '_', 'E',
                                    '0',  '2', 8,   0x86, '\\', 0x2e, '_', 'S', 'B',
                                    '_',  'V', 'G', 'E',  'N',  0x0a, 0x80};
    struct fixture f;

    (void)state;
    build(&f, 1);
    find_bytes(&f, find_bytes(&f, 0, place, sizeof(place)), event, sizeof(event));
    guest_memory_destroy(f.mem);
}

static void a_board_without_a_generation_id_says_nothing_of_it(void **state)
{
    struct acpi_board board = board_of(1);
    struct fixture f = {.mem = kernel_memory(2 << 20)};
    struct error err;

    (void)state;
    board.vmgenid = NULL;
    board.gpe0 = 0;
    assert_int_equal(acpi_build(&board, f.mem, TABLES, ROOM, &f.rsdp, &err), 0);
    uint64_t fadt = find_table(&f, "FACP"), dsdt = find_table(&f, "DSDT");
    uint64_t size = number(&f, dsdt + 4, 4);
    assert_int_equal(number(&f, fadt + 80, 4), 0);
    assert_int_equal(number(&f, fadt + 92, 4), 0);
    assert_int_equal(number(&f, fadt + 220, 8), 0);
    assert_int_equal(number(&f, fadt + 4, 4), 276);
    assert_null(memmem(guest_memory_at(f.mem, dsdt, size), size, "_GPE", 4));
    guest_memory_destroy(f.mem);
}

static void windows_that_cannot_be_are_refused(void **state)
{
    struct acpi_pci bad[] = {pci, pci, pci, pci, pci, pci};
    struct guest_memory *mem = kernel_memory(2 << 20);
    uint64_t rsdp;
    struct error err;

    (void)state;
    bad[0].ecam_base += 0x1000;
    bad[1].ecam_base = UINT64_C(1) << 32;
    bad[2].mmio32_size = 0;
    bad[3].mmio32_size = 0x40000001;
    bad[4].mmio64_base = 0xd0000000;
    bad[5].mmio64_size = UINT64_MAX;
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct acpi_board board = board_of(1);

        board.pci = &bad[i];
        assert_int_equal(acpi_build(&board, mem, TABLES, ROOM, &rsdp, &err), -EINVAL);
    }
    guest_memory_destroy(mem);
}

static void too_little_room_is_refused_and_nothing_is_written(void **state)
{
    struct acpi_board board = board_of(255);
    struct guest_memory *mem = kernel_memory(2 << 20);
    uint64_t rsdp = 1;
    struct error err;

    (void)state;
    assert_int_equal(acpi_build(&board, mem, TABLES, 4096, &rsdp, &err), -ENOSPC);
    assert_int_equal(acpi_build(&board, mem, 8 << 20, ROOM, &rsdp, &err), -EFAULT);
    assert_int_equal(rsdp, 1);
    assert_false(guest_memory_test_dirty(mem, TABLES, false));
    guest_memory_destroy(mem);
}

static void a_board_that_the_tables_cannot_say_is_refused(void **state)
{
    const struct acpi_serial odd = {0x3f8, 8, 16};
    const struct acpi_vmgenid crooked = {.gpa = 0xfeb00004}, late = {.gpa = 0xfeb00000, .gpe = 8};
    struct acpi_board boards[] = {board_of(0), board_of(1), board_of(1), board_of(1),
                                  board_of(1), board_of(1), board_of(1)};
    struct guest_memory *mem = kernel_memory(2 << 20);
    uint64_t rsdp;
    struct error err;

    (void)state;
    boards[1].sci_irq = 16;
    boards[2].lapic_base = UINT64_C(1) << 32;
    boards[3].serials = &odd;
    boards[4].vmgenid = &crooked;
    boards[5].vmgenid = &late;
    boards[6].gpe0 = 0;
    for (unsigned i = 0; i < sizeof(boards) / sizeof(boards[0]); i++)
        assert_int_equal(acpi_build(&boards[i], mem, TABLES, ROOM, &rsdp, &err), -EINVAL);
    assert_int_equal(acpi_build(&boards[1], mem, TABLES + 8, ROOM, &rsdp, &err), -EINVAL);
    guest_memory_destroy(mem);
}

/* Its exit status, or -1 when there is no iasl. What it says goes to iasl.log. */
static int run_iasl(const char *option, const char *file)
{
    char *argv[] = {(char *)"iasl", (char *)option, (char *)file, NULL};
    posix_spawn_file_actions_t actions;
    pid_t pid;
    int status;

    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 1, "iasl.log", O_WRONLY | O_CREAT | O_TRUNC, 0600);
    posix_spawn_file_actions_adddup2(&actions, 1, 2);
    int r = posix_spawnp(&pid, "iasl", &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (r != 0)
        return -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static void assert_log_is_clean(const char *table, unsigned cpus)
{
    FILE *log = fopen("iasl.log", "r");
    char line[512];

    assert_non_null(log);
    while (fgets(line, sizeof(line), log)) {
        if (strstr(line, "Error ") || strstr(line, "Warning ") || strstr(line, "Invalid") ||
            strstr(line, "ncorrect"))
            fail_msg("%s for %u processors: %s", table, cpus, line);
    }
    fclose(log);
}

static void iasl_takes_every_table_apart_and_puts_it_together_again(void **state)
{
    static const char *const names[] = {"FACP", "APIC", "DSDT", "FACS", "MCFG"};
    static const unsigned cpus[] = {1, 2, 8, 255};

    (void)state;
    if (run_iasl("-v", NULL) < 0) {
        print_message("iasl (package acpica-tools) is not installed: tables not checked with it\n");
        skip();
    }
    for (unsigned i = 0; i < sizeof(cpus) / sizeof(cpus[0]); i++) {
        struct fixture f;

        build(&f, cpus[i]);
        for (unsigned n = 0; n < sizeof(names) / sizeof(names[0]); n++) {
            uint64_t table = find_table(&f, names[n]);
            uint64_t len = number(&f, table + 4, 4);

            folder_write("table.dat", guest_memory_at(f.mem, table, len), len);
            assert_int_equal(run_iasl("-d", "table.dat"), 0);
            assert_log_is_clean(names[n], cpus[i]);
            assert_int_equal(run_iasl("-we", "table.dsl"), 0);
            assert_log_is_clean(names[n], cpus[i]);
        }
        guest_memory_destroy(f.mem);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_table_is_linked_and_sums_to_zero),
        cmocka_unit_test(the_fadt_describes_the_board),
        cmocka_unit_test(the_madt_lists_every_processor),
        cmocka_unit_test(the_mcfg_has_the_configuration_space_of_one_bus),
        cmocka_unit_test(the_bridge_passes_on_what_the_board_says),
        cmocka_unit_test(the_routing_table_has_every_pin_of_every_slot),
        cmocka_unit_test(a_board_without_pci_says_nothing_of_it),
        cmocka_unit_test(the_generation_id_has_a_place_and_an_event),
        cmocka_unit_test(a_board_without_a_generation_id_says_nothing_of_it),
        cmocka_unit_test(windows_that_cannot_be_are_refused),
        cmocka_unit_test(too_little_room_is_refused_and_nothing_is_written),
        cmocka_unit_test(a_board_that_the_tables_cannot_say_is_refused),
        cmocka_unit_test(iasl_takes_every_table_apart_and_puts_it_together_again),
    };
    return cmocka_run_group_tests_name("acpi", tests, folder_enter, folder_leave);
}
