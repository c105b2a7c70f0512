/* SPDX-License-Identifier: Apache-2.0 */
/* ELF kernels by PVH, of both classes, and files that are no kernel at all. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "folder.h"
#include "kernel_file.h"
#include "vmrun/boot.h"

#define MIB (UINT64_C(1) << 20)
#define MEMORY (16 * MIB)
#define GPA (2 * MIB)

/* Offsets of ELF64 as pvh_build() makes it. */
#define SEGMENT_AT 64
#define NOTE_AT 0x200

static uint64_t number(const struct guest_memory *mem, uint64_t gpa, unsigned size)
{
    uint64_t value = 0;

    assert_int_equal(guest_memory_read(mem, gpa, &value, size), 0);
    return value;
}

static void both_classes_are_entered_with_a_start_info(void **state)
{
    (void)state;
    for (unsigned elf64 = 0; elf64 < 2; elf64++) {
        struct writer image = pvh_build(elf64, GPA, "Xen");
        struct guest_memory *mem = kernel_memory(MEMORY);
        struct mem_file kernel, initrd;
        struct boot *boot = NULL;
        struct cpu_entry entry;
        struct error err = {.msg = ""};

        mem_file_create(&kernel, image.data, image.len);
        mem_file_create(&initrd, "an initrd", 9);
        struct boot_params_host host = {
            .kernel = kernel.path, .initrd = initrd.path, .cmdline = "a=b", .memory_size = MEMORY};
        assert_int_equal(boot_open(&host, &boot, &err), 0);
        assert_int_equal(boot_load(boot, mem, 0xe0000, NULL, 0, &entry, &err), 0);

        assert_string_equal(boot_describe(boot), "ELF, PVH");
        assert_int_equal(entry.mode, CPU_ENTRY_PROTECTED);
        assert_int_equal(entry.rip, GPA);
        assert_memory_equal(guest_memory_at(mem, GPA, 0x100), image.data + 0x300, 0x100);
        assert_true(guest_memory_test_dirty(mem, GPA, false));

        assert_int_equal(number(mem, entry.rbx, 4), 0x336ec578);
        assert_int_equal(number(mem, entry.rbx + 4, 4), 1);  /* version */
        assert_int_equal(number(mem, entry.rbx + 12, 4), 1); /* modules */
        uint64_t module = number(mem, entry.rbx + 16, 8);
        assert_memory_equal(guest_memory_at(mem, number(mem, module, 8), 9), "an initrd", 9);
        assert_int_equal(number(mem, module + 8, 8), 9);
        assert_string_equal(guest_memory_at(mem, number(mem, entry.rbx + 24, 8), 4), "a=b");
        assert_int_equal(number(mem, entry.rbx + 32, 8), 0xe0000); /* RSDP */
        uint64_t map = number(mem, entry.rbx + 40, 8);
        assert_int_equal(number(mem, entry.rbx + 48, 4), 2);
        assert_int_equal(number(mem, map + 8, 8), 0xa0000);
        assert_int_equal(number(mem, map + 24, 8), 0x100000);
        assert_int_equal(number(mem, map + 32, 8), MEMORY - 0x100000);
        assert_int_equal(number(mem, map + 40, 4), 1);

        boot_close(boot);
        guest_memory_destroy(mem);
        mem_file_close(&kernel);
        mem_file_close(&initrd);
        free(image.data);
    }
}

static void a_second_load_clears_what_the_first_run_left(void **state)
{
    struct writer image = pvh_build(true, GPA, "Xen");
    struct guest_memory *mem = kernel_memory(MEMORY);
    struct mem_file kernel;
    struct boot *boot = NULL;
    struct cpu_entry entry;
    struct error err;

    (void)state;
    mem_file_create(&kernel, image.data, image.len);
    struct boot_params_host host = {.kernel = kernel.path, .cmdline = "", .memory_size = MEMORY};
    assert_int_equal(boot_open(&host, &boot, &err), 0);
    memset(guest_memory_at(mem, 0, MEMORY), 0xee, MEMORY);
    assert_int_equal(boot_load(boot, mem, 0, NULL, 0, &entry, &err), 0);

    const uint8_t *bss = guest_memory_at(mem, GPA + 0x100, 0x1001);
    for (unsigned i = 0; i < 0x1000; i++)
        assert_int_equal(bss[i], 0);
    assert_int_equal(bss[0x1000], 0xee);
    boot_close(boot);
    guest_memory_destroy(mem);
    mem_file_close(&kernel);
    free(image.data);
}

/* Open must fail with this code and these words. */
static void assert_refused(const struct writer *image, int code, const char *words)
{
    struct mem_file kernel;
    struct boot *boot = NULL;
    struct error err;

    mem_file_create(&kernel, image->data, image->len);
    struct boot_params_host host = {.kernel = kernel.path, .cmdline = "", .memory_size = MEMORY};
    assert_int_equal(boot_open(&host, &boot, &err), -code);
    if (!strstr(err.msg, words))
        fail_msg("\"%s\" does not say \"%s\"", err.msg, words);
    mem_file_close(&kernel);
}

static void an_elf_without_a_pvh_note_is_refused(void **state)
{
    struct writer image = pvh_build(true, GPA, "GNU");

    (void)state;
    assert_refused(&image, ENOEXEC, "without a PVH note");
    free(image.data);
}

static void elf_files_that_are_no_kernel_are_told_apart(void **state)
{
    const struct {
        size_t at;
        uint64_t value;
        unsigned size;
        const char *words;
    } changes[] = {
        {18, 183, 2, "for another kind of CPU"},
        {16, 1, 2, "an ELF object file"},
        {56, 0, 2, "program headers are not a kernel's"},
        {32, UINT64_MAX, 8, "cut short before its program headers"},
        {SEGMENT_AT + 8, UINT64_MAX, 8, "cut short within a segment"},
        {SEGMENT_AT + 24, 0x8000, 8, "has a segment at 0x8000"},
        {SEGMENT_AT + 24, UINT64_MAX, 8, "between 1M and 4G"},
        {SEGMENT_AT + 40, 16, 8, "segments are not a kernel's"},
        {SEGMENT_AT, 7, 4, "nothing to load"},
        {NOTE_AT + 16, 64, 4, "entry point outside"},
        {NOTE_AT, UINT32_MAX, 4, "without a PVH note"},
        {NOTE_AT + 4, UINT32_MAX, 4, "without a PVH note"},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        struct writer image = pvh_build(true, GPA, "Xen");

        file_patch(&image, changes[i].at, changes[i].value, changes[i].size);
        assert_refused(&image, ENOEXEC, changes[i].words);
        free(image.data);
    }
}

static void an_elf_larger_than_memory_is_refused_with_both_sizes(void **state)
{
    struct writer image = pvh_build(true, 63 * MIB, "Xen");

    (void)state;
    assert_refused(&image, E2BIG, "needs 64 MiB of memory to start, the machine has 16 MiB");
    free(image.data);
}

static void an_elf_cut_anywhere_is_refused(void **state)
{
    struct writer image = pvh_build(true, GPA, "Xen");
    size_t whole = image.len;

    (void)state;
    for (image.len = 4; image.len < whole; image.len++)
        assert_refused(&image, ENOEXEC, "");
    free(image.data);
}

static void what_is_no_kernel_is_called_by_its_name(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
        const char *words;
    } files[] = {
        {"\x1f\x8b\x08\x00", 4, "looks like a gzip file"},
        {"#!/bin/sh\n", 10, "looks like a script"},
        {"070701000", 9, "looks like a cpio archive"},
        {"QFI\xfb\0\0\0\3", 8, "looks like a qcow2 disk image"},
        {"{ \"name\": \"web1\" }\n", 19, "looks like a text file"},
        {"MZ\0\0\0\0", 6, "without a Linux boot header"},
        {"\0\1\2\3", 4, "data of a kind that vmrun does not know"},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        struct writer image = {0};

        put_bytes(&image, files[i].bytes, files[i].len);
        assert_refused(&image, ENOEXEC, files[i].words);
        free(image.data);
    }

    uint8_t iso[40000] = {0};
    memcpy(iso + 32768, "\1CD001", sizeof("\1CD001"));
    assert_refused(&(struct writer){.data = iso, .len = sizeof(iso)}, ENOEXEC,
                   "looks like an ISO image");
}

static int open_paths(const char *kernel, const char *initrd, struct error *err)
{
    struct boot_params_host host = {
        .kernel = kernel, .initrd = initrd, .cmdline = "", .memory_size = MEMORY};
    struct boot *boot = NULL;
    int r = boot_open(&host, &boot, err);

    boot_close(boot);
    return r;
}

static void paths_that_are_no_files_are_refused_by_name(void **state)
{
    struct writer image = pvh_build(true, GPA, "Xen");
    struct error err;

    (void)state;
    folder_write("vmlinuz", image.data, image.len);
    folder_write("empty", "", 0);
    assert_int_equal(open_paths("vmlinuz", NULL, &err), 0);

    assert_int_equal(open_paths("vmlinux", NULL, &err), -ENOENT);
    assert_string_equal(err.msg, "kernel vmlinux: No such file or directory");
    assert_int_equal(open_paths("/tmp", NULL, &err), -EISDIR);
    assert_string_equal(err.msg, "kernel /tmp: is a directory; name the file in it");
    assert_int_equal(open_paths("empty", NULL, &err), -ENOEXEC);
    assert_string_equal(err.msg, "kernel empty: is empty");
    assert_int_equal(open_paths("/dev/null", NULL, &err), -ENOEXEC);
    assert_string_equal(err.msg, "kernel /dev/null: is not a regular file");

    assert_int_equal(open_paths("vmlinuz", "initrd.img", &err), -ENOENT);
    assert_string_equal(err.msg, "initrd initrd.img: No such file or directory");
    assert_int_equal(open_paths("vmlinuz", "/tmp", &err), -EISDIR);
    assert_int_equal(open_paths("vmlinuz", "empty", &err), -ENOEXEC);
    assert_string_equal(err.msg, "initrd empty: is empty");
    free(image.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_classes_are_entered_with_a_start_info),
        cmocka_unit_test(a_second_load_clears_what_the_first_run_left),
        cmocka_unit_test(an_elf_without_a_pvh_note_is_refused),
        cmocka_unit_test(elf_files_that_are_no_kernel_are_told_apart),
        cmocka_unit_test(an_elf_larger_than_memory_is_refused_with_both_sizes),
        cmocka_unit_test(an_elf_cut_anywhere_is_refused),
        cmocka_unit_test(what_is_no_kernel_is_called_by_its_name),
        cmocka_unit_test(paths_that_are_no_files_are_refused_by_name),
    };
    return cmocka_run_group_tests_name("elf kernel", tests, folder_enter, folder_leave);
}
