/* SPDX-License-Identifier: Apache-2.0 */
/* bzImages loaded as they are, and what the operator is told of one that will not do. */
#include <asm/bootparam.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernel_file.h"
#include "vmrun/boot.h"

#define MIB (UINT64_C(1) << 20)
#define MEMORY (64 * MIB)

#define VERSION_AT 0x206
#define XLOADFLAGS_AT 0x236
#define CMDLINE_SIZE_AT 0x238
#define PREF_ADDRESS_AT 0x258
#define INIT_SIZE_AT 0x260

static const struct boot_reserved tables[] = {{0xe0000, 0x10000, 3}};

static struct writer plain_bzimage(void)
{
    static const char payload[20000] = "none that anything could unpack";

    return bzimage_build(payload, sizeof(payload));
}

struct loaded {
    struct boot *boot;
    struct guest_memory *mem;
    struct cpu_entry entry;
    struct boot_params *params;
};

static void load(struct loaded *l, const struct writer *image, const char *cmdline,
                 const char *initrd, uint64_t memory)
{
    struct mem_file kernel;
    struct error err = {.msg = ""};

    mem_file_create(&kernel, image->data, image->len);
    struct boot_params_host host = {
        .kernel = kernel.path, .initrd = initrd, .cmdline = cmdline, .memory_size = memory};
    assert_int_equal(boot_open(&host, &l->boot, &err), 0);
    mem_file_close(&kernel);
    l->mem = kernel_memory(memory);
    assert_int_equal(boot_load(l->boot, l->mem, 0xe0000, tables, 1, &l->entry, &err), 0);
    l->params = guest_memory_at(l->mem, l->entry.rsi, sizeof(*l->params));
    assert_non_null(l->params);
}

static void unload(struct loaded *l)
{
    boot_close(l->boot);
    guest_memory_destroy(l->mem);
}

static void it_is_entered_0x200_after_its_start(void **state)
{
    struct writer image = plain_bzimage();
    struct loaded l;

    (void)state;
    load(&l, &image, "console=ttyS0", NULL, MEMORY);

    assert_int_equal(l.entry.mode, CPU_ENTRY_LONG);
    assert_int_equal(l.entry.rip, BZIMAGE_PREF + 0x200);
    assert_memory_equal(guest_memory_at(l.mem, BZIMAGE_PREF, 1), image.data + BZIMAGE_CODE_AT,
                        image.len - BZIMAGE_CODE_AT);
    assert_true(guest_memory_test_dirty(l.mem, BZIMAGE_PREF, false));
    assert_string_equal(boot_describe(l.boot), "bzImage 6.1.0-test, unknown");
    unload(&l);
    free(image.data);
}

static void the_zero_page_says_what_it_must(void **state)
{
    struct writer image = plain_bzimage();
    struct loaded l;

    (void)state;
    load(&l, &image, "console=ttyS0 quiet", NULL, MEMORY);

    assert_int_equal(l.params->hdr.type_of_loader, 0xff);
    assert_int_equal(l.params->hdr.loadflags, 0x41); /* loaded high, keep segments */
    assert_int_equal(l.params->acpi_rsdp_addr, 0xe0000);
    assert_int_equal(l.params->hdr.ramdisk_size, 0);
    assert_int_equal(l.params->hdr.ramdisk_image, 0);
    assert_int_equal(l.params->hdr.header, 0x53726448);
    assert_string_equal(guest_memory_at(l.mem, l.params->hdr.cmd_line_ptr, 20),
                        "console=ttyS0 quiet");
    unload(&l);
    free(image.data);
}

static void the_memory_map_has_holes_where_there_is_no_plain_ram(void **state)
{
    struct writer image = plain_bzimage();
    struct loaded l;

    (void)state;
    load(&l, &image, "", NULL, (UINT64_C(4) << 30));

    static const struct boot_e820_entry want[] = {{0, 0xa0000, 1},
                                                  {0xe0000, 0x10000, 3},
                                                  {0x100000, 0xbff00000, 1},
                                                  {UINT64_C(1) << 32, UINT64_C(1) << 30, 1}};
    assert_int_equal(l.params->e820_entries, 4);
    assert_memory_equal(l.params->e820_table, want, sizeof(want));
    unload(&l);
    free(image.data);
}

static void page_tables_map_4_gib_one_to_one(void **state)
{
    struct writer image = plain_bzimage();
    struct loaded l;

    (void)state;
    load(&l, &image, "", NULL, MEMORY);

    for (uint64_t address = 0; address < UINT64_C(1) << 32; address += 0x7ff123) {
        uint64_t table = l.entry.cr3;

        for (unsigned shift = 39; shift > 21; shift -= 9) {
            const uint64_t *entries = guest_memory_at(l.mem, table, GUEST_PAGE_SIZE);
            uint64_t entry = entries[(address >> shift) & 511];

            assert_int_equal(entry & 0xfff, 3);
            table = entry & ~UINT64_C(0xfff);
        }
        const uint64_t *pages = guest_memory_at(l.mem, table, GUEST_PAGE_SIZE);
        assert_int_equal(pages[(address >> 21) & 511], (address & ~UINT64_C(0x1fffff)) | 0x83);
    }
    const uint64_t *gdt = guest_memory_at(l.mem, l.entry.gdt_base, l.entry.gdt_limit + 1u);
    assert_int_equal(gdt[l.entry.code_selector / 8] >> 53 & 1, 1); /* 64-bit code */
    unload(&l);
    free(image.data);
}

static void an_initrd_lies_at_the_top_and_page_aligned(void **state)
{
    struct writer image = plain_bzimage();
    struct mem_file initrd;
    uint8_t data[5000];
    struct loaded l;

    (void)state;
    for (unsigned i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 7);
    mem_file_create(&initrd, data, sizeof(data));
    load(&l, &image, "", initrd.path, MEMORY);

    assert_int_equal(l.params->hdr.ramdisk_image, MEMORY - 0x2000);
    assert_int_equal(l.params->hdr.ramdisk_size, sizeof(data));
    assert_memory_equal(guest_memory_at(l.mem, MEMORY - 0x2000, sizeof(data)), data, sizeof(data));
    unload(&l);
    mem_file_close(&initrd);
    free(image.data);
}

static void an_initrd_stays_below_what_the_kernel_can_reach(void **state)
{
    struct writer image = plain_bzimage();
    struct mem_file initrd;
    struct loaded l;

    (void)state;
    file_patch(&image, 0x22c, 48 * MIB - 1, 4);
    mem_file_create(&initrd, "initrd", 6);
    load(&l, &image, "", initrd.path, MEMORY);

    assert_int_equal(l.params->hdr.ramdisk_image, 48 * MIB - 0x1000);
    unload(&l);
    mem_file_close(&initrd);
    free(image.data);
}

static void a_small_machine_has_its_kernel_lower_down(void **state)
{
    struct writer image = plain_bzimage();
    struct loaded l;

    (void)state;
    load(&l, &image, "", NULL, 20 * MIB);

    assert_int_equal(l.entry.rip, 2 * MIB + 0x200);
    unload(&l);
    free(image.data);
}

static void it_can_be_loaded_again_after_a_reset(void **state)
{
    struct writer image = plain_bzimage();
    struct cpu_entry again;
    struct error err;
    struct loaded l;

    (void)state;
    load(&l, &image, "once more", NULL, MEMORY);
    memset(guest_memory_at(l.mem, 0, MEMORY), 0xee, MEMORY);

    assert_int_equal(boot_load(l.boot, l.mem, 0xe0000, tables, 1, &again, &err), 0);
    assert_int_equal(again.rip, l.entry.rip);
    assert_memory_equal(guest_memory_at(l.mem, BZIMAGE_PREF, 1), image.data + BZIMAGE_CODE_AT,
                        image.len - BZIMAGE_CODE_AT);
    assert_string_equal(guest_memory_at(l.mem, l.params->hdr.cmd_line_ptr, 10), "once more");
    assert_int_equal(l.params->e820_entries, 3);
    unload(&l);
    free(image.data);
}

/* Open must fail; returns what it says. */
static const char *refusal(const struct writer *image, const char *cmdline, const char *initrd,
                           uint64_t memory, int code)
{
    static struct error err;
    struct mem_file kernel;
    struct boot *boot = NULL;

    mem_file_create(&kernel, image->data, image->len);
    struct boot_params_host host = {
        .kernel = kernel.path, .initrd = initrd, .cmdline = cmdline, .memory_size = memory};
    assert_int_equal(boot_open(&host, &boot, &err), -code);
    assert_null(boot);
    mem_file_close(&kernel);
    return err.msg;
}

#define assert_says(msg, words) \
    do { \
        const char *said = (msg); \
        if (!strstr(said, words)) \
            fail_msg("\"%s\" does not say \"%s\"", said, words); \
    } while (0)

static void a_command_line_over_the_kernels_limit_is_refused_with_both_numbers(void **state)
{
    struct writer image = plain_bzimage();
    struct loaded l;
    char line[2049];

    (void)state;
    memset(line, 'x', sizeof(line));
    line[2047] = '\0';
    load(&l, &image, line, NULL, MEMORY);
    assert_string_equal(guest_memory_at(l.mem, l.params->hdr.cmd_line_ptr, 2048), line);
    unload(&l);

    line[2047] = 'x';
    line[2048] = '\0';
    const char *msg = refusal(&image, line, NULL, MEMORY, E2BIG);
    assert_says(msg, "has 2048 bytes");
    assert_says(msg, "takes at most 2047");
    free(image.data);
}

static void a_kernel_larger_than_memory_is_refused_with_both_sizes(void **state)
{
    struct writer image = plain_bzimage();

    (void)state;
    assert_says(refusal(&image, "", NULL, 16 * MIB, E2BIG),
                "needs 18 MiB of memory to start, the machine has 16 MiB");
    free(image.data);
}

static void an_initrd_larger_than_what_is_left_is_refused_with_both_sizes(void **state)
{
    struct writer image = plain_bzimage();
    struct mem_file initrd;

    (void)state;
    mem_file_create(&initrd, "", 0);
    assert_int_equal(ftruncate(initrd.fd, 60 * (off_t)MIB), 0);
    assert_says(refusal(&image, "", initrd.path, MEMORY, E2BIG),
                "has 60 MiB, and the kernel leaves 46 MiB of the machine's 64 MiB");
    mem_file_close(&initrd);
    free(image.data);
}

static void kernels_of_the_wrong_kind_are_told_apart(void **state)
{
    struct writer image = plain_bzimage();

    (void)state;
    file_patch(&image, XLOADFLAGS_AT, 0, 2);
    assert_says(refusal(&image, "", NULL, MEMORY, ENOEXEC), "is a 32-bit kernel");
    file_patch(&image, VERSION_AT, 0x206, 2);
    assert_says(refusal(&image, "", NULL, MEMORY, ENOEXEC), "boot protocol 2.06 is too old");
    free(image.data);
}

static void a_kernel_cut_anywhere_is_refused(void **state)
{
    struct writer image = plain_bzimage();
    size_t whole = image.len;

    (void)state;
    for (image.len = 0x206; image.len < whole; image.len += 97)
        assert_says(refusal(&image, "", NULL, MEMORY, ENOEXEC), "is cut short");
    free(image.data);
}

static void a_file_that_shrinks_while_the_machine_runs_fails_the_next_load(void **state)
{
    struct writer image = plain_bzimage();
    struct mem_file kernel;
    struct boot *boot = NULL;
    struct cpu_entry entry;
    struct error err;

    (void)state;
    mem_file_create(&kernel, image.data, image.len);
    struct boot_params_host host = {.kernel = kernel.path, .cmdline = "", .memory_size = MEMORY};
    struct guest_memory *mem = kernel_memory(MEMORY);

    assert_int_equal(boot_open(&host, &boot, &err), 0);
    assert_int_equal(ftruncate(kernel.fd, 4096), 0);
    assert_int_equal(boot_load(boot, mem, 0, NULL, 0, &entry, &err), -EIO);
    assert_says(err.msg, "has become shorter");
    boot_close(boot);
    guest_memory_destroy(mem);
    mem_file_close(&kernel);
    free(image.data);
}

static void hostile_headers_are_refused_or_left_alone(void **state)
{
    struct writer image = plain_bzimage();

    (void)state;
    for (size_t at = 0x1f1; at < 0x268; at++)
        for (unsigned value = 0; value < 256; value += 51) {
            struct mem_file kernel;
            struct boot *boot = NULL;
            struct cpu_entry entry;
            struct error err;
            uint8_t was = image.data[at];

            image.data[at] = (uint8_t)value;
            mem_file_create(&kernel, image.data, image.len);
            struct boot_params_host host = {
                .kernel = kernel.path, .cmdline = "", .memory_size = MEMORY};
            if (boot_open(&host, &boot, &err) == 0) {
                struct guest_memory *mem = kernel_memory(MEMORY);

                if (boot_load(boot, mem, 0, tables, 1, &entry, &err) == 0)
                    assert_non_null(guest_memory_at(mem, entry.rip, 1));
                guest_memory_destroy(mem);
                boot_close(boot);
            }
            mem_file_close(&kernel);
            image.data[at] = was;
        }
    free(image.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_entered_0x200_after_its_start),
        cmocka_unit_test(the_zero_page_says_what_it_must),
        cmocka_unit_test(the_memory_map_has_holes_where_there_is_no_plain_ram),
        cmocka_unit_test(page_tables_map_4_gib_one_to_one),
        cmocka_unit_test(an_initrd_lies_at_the_top_and_page_aligned),
        cmocka_unit_test(an_initrd_stays_below_what_the_kernel_can_reach),
        cmocka_unit_test(a_small_machine_has_its_kernel_lower_down),
        cmocka_unit_test(it_can_be_loaded_again_after_a_reset),
        cmocka_unit_test(a_command_line_over_the_kernels_limit_is_refused_with_both_numbers),
        cmocka_unit_test(a_kernel_larger_than_memory_is_refused_with_both_sizes),
        cmocka_unit_test(an_initrd_larger_than_what_is_left_is_refused_with_both_sizes),
        cmocka_unit_test(kernels_of_the_wrong_kind_are_told_apart),
        cmocka_unit_test(a_kernel_cut_anywhere_is_refused),
        cmocka_unit_test(a_file_that_shrinks_while_the_machine_runs_fails_the_next_load),
        cmocka_unit_test(hostile_headers_are_refused_or_left_alone),
    };
    return cmocka_run_group_tests_name("bzimage", tests, NULL, NULL);
}
