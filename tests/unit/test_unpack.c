/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels unpacked by us: every format, in place, relocated, and hostile ones. */
#include <asm/bootparam.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernel_file.h"
#include "vmrun/boot.h"

#define MIB (UINT64_C(1) << 20)
#define MEMORY (96 * MIB)
#define ENTRY 0x40                    /* of vmlinux_build() */
#define PATTERN_SIZE UINT64_C(0x1200) /* what is compared of the second segment */

static const char *const formats[] = {"gzip", "lz4", "zstd", "xz"};

struct loaded {
    struct guest_memory *mem;
    struct cpu_entry entry;
    struct boot_params *params;
    uint8_t *base; /* the kernel's first byte */
    struct error err;
};

static int load(struct loaded *l, const struct writer *image, const char *cmdline)
{
    struct mem_file kernel;
    struct boot *boot = NULL;

    *l = (struct loaded){.mem = kernel_memory(MEMORY)};
    mem_file_create(&kernel, image->data, image->len);
    struct boot_params_host host = {
        .kernel = kernel.path, .cmdline = cmdline, .memory_size = MEMORY};
    int r = boot_open(&host, &boot, &l->err);
    if (r == 0)
        r = boot_load(boot, l->mem, 0, NULL, 0, &l->entry, &l->err);
    if (r == 0) {
        l->params = guest_memory_at(l->mem, l->entry.rsi, sizeof(*l->params));
        l->base = guest_memory_at(l->mem, l->entry.rip - ENTRY, BZIMAGE_INIT_SIZE);
    }
    boot_close(boot);
    mem_file_close(&kernel);
    return r;
}

static void unload(struct loaded *l)
{
    guest_memory_destroy(l->mem);
}

/* A bzImage with this vmlinux in it. False, in words, when the host cannot pack so. */
static bool wrap(const char *format, const struct writer *vmlinux, struct writer *ret_image)
{
    struct writer packed;

    if (!kernel_pack(format, vmlinux, &packed)) {
        print_message("the host has no library for %s: left out\n", format);
        return false;
    }
    *ret_image = bzimage_build(packed.data, packed.len);
    free(packed.data);
    return true;
}

static bool build(const char *format, size_t bulk, unsigned lists, struct writer *ret_image)
{
    struct writer vmlinux = vmlinux_build(bulk, lists);
    bool built = wrap(format, &vmlinux, ret_image);

    free(vmlinux.data);
    return built;
}

static bool was_left_to_the_guest(const struct loaded *l)
{
    return l->entry.rip == BZIMAGE_PREF + 0x200;
}

/* Both segments are where they belong, but for the places that may be relocated. */
static void assert_in_place(const struct loaded *l)
{
    assert_non_null(l->base);
    for (uint64_t at = 0; at < 0x2345; at++)
        if (at / 4 != VMLINUX_RELOC_32 / 4 && at / 4 != VMLINUX_RELOC_INVERSE / 4)
            assert_int_equal(l->base[at], vmlinux_byte(at));
    for (uint64_t at = VMLINUX_SECOND; at < VMLINUX_SECOND + PATTERN_SIZE; at++)
        if (at / 8 != VMLINUX_RELOC_64 / 8)
            assert_int_equal(l->base[at], vmlinux_byte(at));
}

static uint64_t value_at(const struct loaded *l, uint64_t offset, unsigned size)
{
    uint64_t value = 0;

    memcpy(&value, l->base + offset, size);
    return value;
}

static void every_format_is_unpacked_to_where_it_runs(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
        struct writer image = {0};
        struct loaded l;

        if (!build(formats[i], 0, 3, &image))
            continue;
        assert_int_equal(load(&l, &image, "quiet nokaslr"), 0);

        assert_int_equal(l.entry.rip, BZIMAGE_PREF + ENTRY);
        assert_in_place(&l);
        assert_int_equal(value_at(&l, VMLINUX_RELOC_64, 8), VMLINUX_LINKED + 0x456);
        assert_int_equal(l.params->hdr.loadflags & 2, 0);
        assert_true(guest_memory_test_dirty(l.mem, BZIMAGE_PREF, false));
        assert_true(guest_memory_test_dirty(l.mem, BZIMAGE_PREF + VMLINUX_SECOND, false));
        unload(&l);
        free(image.data);
    }
}

static void nothing_is_left_of_what_does_not_belong_to_the_kernel(void **state)
{
    struct writer image = {0};
    struct loaded l;

    (void)state;
    if (!build("gzip", 0, 3, &image))
        skip();
    assert_int_equal(load(&l, &image, "nokaslr"), 0);

    const uint8_t *before = guest_memory_at(l.mem, BZIMAGE_PREF - 0x1000, 0x1000);
    for (unsigned i = 0; i < 0x1000; i++)
        assert_int_equal(before[i], 0); /* the ELF header was here */
    for (uint64_t at = VMLINUX_SECOND + 0x1234; at < 0x10000; at++)
        assert_int_equal(l.base[at], 0); /* the second segment's old place, the tables */
    unload(&l);
    free(image.data);
}

static void lz4_of_many_blocks_is_unpacked_whole(void **state)
{
    const size_t bulk = 9 * MIB;
    struct writer image = {0};
    struct loaded l;

    (void)state;
    if (!build("lz4", bulk, 3, &image))
        skip();
    assert_int_equal(load(&l, &image, "nokaslr"), 0);

    assert_in_place(&l);
    for (uint64_t at = VMLINUX_SECOND + PATTERN_SIZE; at < VMLINUX_SECOND + bulk; at += 61)
        assert_int_equal(l.base[at], vmlinux_byte(at));
    unload(&l);
    free(image.data);
}

/* All three places moved by one distance, which is what the kernel's mapping allows. */
static uint64_t assert_relocated(const struct loaded *l, bool inverse)
{
    uint64_t shift = value_at(l, VMLINUX_RELOC_64, 8) - (VMLINUX_LINKED + 0x456);

    assert_int_equal(shift % 0x200000, 0);
    assert_true(VMLINUX_LINKED + shift + BZIMAGE_INIT_SIZE <= UINT64_C(0xffffffffc0000000));
    assert_int_equal(value_at(l, VMLINUX_RELOC_32, 4), (uint32_t)(VMLINUX_LINKED + 0x123 + shift));
    if (inverse)
        assert_int_equal(value_at(l, VMLINUX_RELOC_INVERSE, 4), (uint32_t)(0x40000000 - shift));
    return shift;
}

static void addresses_are_random_and_the_kernel_is_told(void **state)
{
    unsigned moved_physically = 0, moved_virtually = 0;
    struct writer image = {0};

    (void)state;
    if (!build("gzip", 0, 3, &image))
        skip();
    /* 40 slots and 496: all three draws at home twice over is one run in 10^12. */
    for (unsigned i = 0; i < 6; i++) {
        struct loaded l;

        assert_int_equal(load(&l, &image, "nokaslrx xnokaslr"), 0);
        assert_int_equal(l.params->hdr.loadflags & 2, 2);
        assert_int_equal((l.entry.rip - ENTRY) % 0x200000, 0);
        assert_in_place(&l);
        moved_virtually += assert_relocated(&l, true) != 0;
        moved_physically += l.entry.rip != BZIMAGE_PREF + ENTRY;
        unload(&l);
    }
    assert_true(moved_virtually > 0);
    assert_true(moved_physically > 0);
    free(image.data);
}

static void memory_limits_on_the_command_line_keep_the_kernel_where_it_was_linked(void **state)
{
    struct writer image = {0};
    struct loaded l;

    (void)state;
    if (!build("gzip", 0, 3, &image))
        skip();
    assert_int_equal(load(&l, &image, "mem=80M"), 0);
    assert_int_equal(l.entry.rip, BZIMAGE_PREF + ENTRY);
    assert_int_equal(l.params->hdr.loadflags & 2, 2);
    unload(&l);
    free(image.data);
}

static void a_kernel_of_two_relocation_lists_is_relocated_too(void **state)
{
    struct writer image = {0};
    struct loaded l;

    (void)state;
    if (!build("gzip", 0, 2, &image))
        skip();
    assert_int_equal(load(&l, &image, ""), 0);
    assert_relocated(&l, false);
    assert_int_equal(value_at(&l, VMLINUX_RELOC_INVERSE, 4), 0x40000000);
    unload(&l);
    free(image.data);
}

static void a_kernel_without_relocations_stays_where_it_was_linked(void **state)
{
    struct writer image = {0};
    struct loaded l;

    (void)state;
    if (!build("gzip", 0, 0, &image))
        skip();
    assert_int_equal(load(&l, &image, ""), 0);
    assert_int_equal(l.entry.rip, BZIMAGE_PREF + ENTRY);
    assert_int_equal(l.params->hdr.loadflags & 2, 0);
    unload(&l);
    free(image.data);
}

static void a_damaged_payload_is_refused_by_name(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
        struct writer image = {0};
        struct loaded l;

        if (!build(formats[i], 0, 3, &image))
            continue;
        /* Behind the part that holds the ELF's head: only the whole shows it. */
        memset(image.data + image.len - 0x300, 0xff, 0x200);
        assert_int_equal(load(&l, &image, ""), -ENOEXEC);
        assert_non_null(strstr(l.err.msg, formats[i]));
        assert_non_null(strstr(l.err.msg, "damaged"));
        unload(&l);
        free(image.data);
    }
}

static void a_payload_of_another_size_than_it_claims_is_refused(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof(formats) / sizeof(formats[0]); i++)
        for (int more = -1; more <= 1; more += 2) {
            struct writer vmlinux = vmlinux_build(0, 3), packed = {0}, image = {0};
            struct loaded l;

            if (kernel_pack(formats[i], &vmlinux, &packed)) {
                file_patch(&packed, packed.len - 4, vmlinux.len + (unsigned)(more * 8), 4);
                image = bzimage_build(packed.data, packed.len);
                assert_int_equal(load(&l, &image, "nokaslr"), -ENOEXEC);
                unload(&l);
                free(image.data);
                free(packed.data);
            }
            free(vmlinux.data);
        }
}

/* What cannot be understood is the kernel's own decompressor's business, not an error. */
static void assert_left_to_the_guest(const struct writer *vmlinux)
{
    struct writer image = {0};
    struct loaded l;

    if (!wrap("gzip", vmlinux, &image))
        skip();
    assert_int_equal(load(&l, &image, ""), 0);
    assert_true(was_left_to_the_guest(&l));
    assert_int_equal(l.params->hdr.loadflags & 2, 0);
    unload(&l);
    free(image.data);
}

static void relocations_outside_of_the_kernel_are_not_applied(void **state)
{
    static const uint64_t outside[] = {0x80ffffff, 0x81ffffff, 0x7fffffff, 1,
                                       0x81000000 + VMLINUX_SECOND + 0x1234 - 3};

    (void)state;
    for (unsigned i = 0; i < sizeof(outside) / sizeof(outside[0]); i++) {
        struct writer vmlinux = vmlinux_build(0, 3);

        file_patch(&vmlinux, vmlinux.len - 4, outside[i], 4);
        assert_left_to_the_guest(&vmlinux);
        free(vmlinux.data);
    }
}

static void hostile_elf_headers_are_left_to_the_guest(void **state)
{
    const size_t second = 64 + 56; /* its program header */
    const struct {
        size_t at;
        uint64_t value;
        unsigned size;
    } changes[] = {
        {0, 0, 4},                           /* not an ELF */
        {18, 40, 2},                         /* for another CPU */
        {24, UINT64_MAX, 8},                 /* entry */
        {32, UINT64_MAX - 8, 8},             /* program headers at */
        {56, 0xffff, 2},                     /* their number */
        {40, UINT64_MAX - 8, 8},             /* section headers at */
        {60, 0xffff, 2},                     /* their number */
        {second + 8, 0x1001, 8},             /* overlaps the first in the file */
        {second + 8, UINT64_MAX - 0x10, 8},  /* beyond the file */
        {second + 24, 0, 8},                 /* placed below where it was linked */
        {second + 24, BZIMAGE_PREF + 8, 8},  /* overlaps the first in memory */
        {second + 24, UINT64_MAX - 0x10, 8}, /* beyond everything */
        {second + 32, UINT64_MAX, 8},        /* file size */
        {second + 40, UINT64_MAX, 8},        /* memory size */
        {second + 40, 1, 8},                 /* smaller than the file's */
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        struct writer vmlinux = vmlinux_build(0, 3), image = {0};
        struct loaded l;

        file_patch(&vmlinux, changes[i].at, changes[i].value, changes[i].size);
        if (!wrap("gzip", &vmlinux, &image))
            skip();
        assert_int_equal(load(&l, &image, ""), 0);
        if (!was_left_to_the_guest(&l))
            fail_msg("change %u was taken", i);
        unload(&l);
        free(image.data);
        free(vmlinux.data);
    }
}

static void an_unpack_that_has_no_room_is_left_to_the_guest(void **state)
{
    struct writer image = {0};
    struct mem_file kernel;
    struct boot *boot = NULL;
    struct cpu_entry entry;
    struct error err;
    const struct boot_reserved taken[] = {{BZIMAGE_PREF + 0x800000, 0x1000, 2}};

    (void)state;
    if (!build("lz4", 0, 0, &image))
        skip();
    struct guest_memory *mem = kernel_memory(33 * MIB);

    mem_file_create(&kernel, image.data, image.len);
    struct boot_params_host host = {.kernel = kernel.path, .cmdline = "", .memory_size = 33 * MIB};
    assert_int_equal(boot_open(&host, &boot, &err), 0);
    assert_int_equal(boot_load(boot, mem, 0, taken, 1, &entry, &err), 0);
    assert_int_equal(entry.rip, 2 * MIB + 0x200);
    boot_close(boot);
    guest_memory_destroy(mem);
    mem_file_close(&kernel);
    free(image.data);
}

static void unpacking_by_the_guest_can_be_asked_for(void **state)
{
    struct writer image = {0};
    struct mem_file kernel;
    struct boot *boot = NULL;
    struct cpu_entry entry;
    struct error err;

    (void)state;
    if (!build("lz4", 0, 3, &image))
        skip();
    struct guest_memory *mem = kernel_memory(MEMORY);

    mem_file_create(&kernel, image.data, image.len);
    struct boot_params_host host = {
        .kernel = kernel.path, .cmdline = "", .memory_size = MEMORY, .unpack = BOOT_UNPACK_GUEST};
    assert_int_equal(boot_open(&host, &boot, &err), 0);
    assert_string_equal(boot_describe(boot), "bzImage 6.1.0-test, lz4");
    assert_int_equal(boot_load(boot, mem, 0, NULL, 0, &entry, &err), 0);
    assert_int_equal(entry.rip, BZIMAGE_PREF + 0x200);
    boot_close(boot);
    guest_memory_destroy(mem);
    mem_file_close(&kernel);
    free(image.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_format_is_unpacked_to_where_it_runs),
        cmocka_unit_test(nothing_is_left_of_what_does_not_belong_to_the_kernel),
        cmocka_unit_test(lz4_of_many_blocks_is_unpacked_whole),
        cmocka_unit_test(addresses_are_random_and_the_kernel_is_told),
        cmocka_unit_test(memory_limits_on_the_command_line_keep_the_kernel_where_it_was_linked),
        cmocka_unit_test(a_kernel_of_two_relocation_lists_is_relocated_too),
        cmocka_unit_test(a_kernel_without_relocations_stays_where_it_was_linked),
        cmocka_unit_test(a_damaged_payload_is_refused_by_name),
        cmocka_unit_test(a_payload_of_another_size_than_it_claims_is_refused),
        cmocka_unit_test(relocations_outside_of_the_kernel_are_not_applied),
        cmocka_unit_test(hostile_elf_headers_are_left_to_the_guest),
        cmocka_unit_test(an_unpack_that_has_no_room_is_left_to_the_guest),
        cmocka_unit_test(unpacking_by_the_guest_can_be_asked_for),
    };
    return cmocka_run_group_tests_name("unpack", tests, NULL, NULL);
}
