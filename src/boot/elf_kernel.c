/* SPDX-License-Identifier: Apache-2.0 */
/*
 * elf_kernel: an ELF file entered by PVH: its segments are read to their
 * physical addresses, and the first vCPU starts in 32-bit protected mode with
 * a pointer to the start info in RBX. ELF32 and ELF64 are read into the same
 * few numbers before anything is checked.
 *
 * Source: Xen, "x86/HVM direct boot ABI"; start info version 1.
 */
#include "elf_kernel.h"

#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MAX_HEADERS 64u
#define MAX_NOTES (64u << 10)
#define XEN_PHYS32_ENTRY 18u
#define CMDLINE_MAX 2047u /* of Linux; the ABI itself names none */
#define START_MAGIC 0x336ec578u

/* The layouts of the ABI. */
struct start_info {
    uint32_t magic, version, flags, modules;
    uint64_t modlist, cmdline, rsdp, memmap;
    uint32_t memmap_entries, reserved;
};
struct start_module {
    uint64_t gpa, size, cmdline, reserved;
};
struct start_memory {
    uint64_t addr, size;
    uint32_t type, reserved;
};
struct start_page {
    struct start_info info;
    struct start_module module;
    struct start_memory map[MEMORY_MAP_MAX];
};
_Static_assert(sizeof(struct start_page) <= LOW_BOOT_PARAMS - LOW_PVH_INFO, "one page");

struct header { /* a program header of either class */
    uint32_t type;
    uint64_t offset, file_size, gpa, size, align;
};

struct headers {
    struct header list[MAX_HEADERS];
    unsigned count;
};

bool elf_kernel_is(const uint8_t head[1024])
{
    return memcmp(head, ELFMAG, SELFMAG) == 0;
}

static int bad(const struct boot_file *file, const char *why, struct error *err)
{
    return error_set(err, ENOEXEC, "kernel %s: %s", file->path, why);
}

static int read_headers(const struct boot_file *file, struct headers *ret, struct error *err)
{
    union {
        Elf32_Ehdr e32;
        Elf64_Ehdr e64;
    } elf = {0};
    union {
        Elf32_Phdr p32[MAX_HEADERS];
        Elf64_Phdr p64[MAX_HEADERS];
    } table;
    int r = file->size < sizeof(elf) ? bad(file, "is cut short within its ELF header", err)
                                     : boot_file_read(file, 0, &elf, sizeof(elf), err);

    if (r < 0)
        return r;
    bool wide = elf.e32.e_ident[EI_CLASS] == ELFCLASS64;
    unsigned machine = elf.e32.e_machine;
    if (elf.e32.e_ident[EI_DATA] != ELFDATA2LSB || (machine != EM_X86_64 && machine != EM_386))
        return bad(file, "is an ELF file for another kind of CPU; one for x86-64 is needed", err);
    if (elf.e32.e_type != ET_EXEC && elf.e32.e_type != ET_DYN)
        return bad(file, "is an ELF object file or core dump, not a linked kernel", err);

    uint64_t at = wide ? elf.e64.e_phoff : elf.e32.e_phoff;
    unsigned count = wide ? elf.e64.e_phnum : elf.e32.e_phnum;
    unsigned each = wide ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);
    if (count == 0 || count > MAX_HEADERS ||
        (wide ? elf.e64.e_phentsize : elf.e32.e_phentsize) != each)
        return bad(file, "is an ELF file whose program headers are not a kernel's", err);
    if (at > file->size || (uint64_t)count * each > file->size - at)
        return bad(file, "is cut short before its program headers", err);
    r = boot_file_read(file, at, &table, (uint64_t)count * each, err);
    if (r < 0)
        return r;

    ret->count = count;
    for (unsigned i = 0; i < count; i++)
        ret->list[i] = wide ? (struct header){table.p64[i].p_type,   table.p64[i].p_offset,
                                              table.p64[i].p_filesz, table.p64[i].p_paddr,
                                              table.p64[i].p_memsz,  table.p64[i].p_align}
                            : (struct header){table.p32[i].p_type,   table.p32[i].p_offset,
                                              table.p32[i].p_filesz, table.p32[i].p_paddr,
                                              table.p32[i].p_memsz,  table.p32[i].p_align};
    return 0;
}

static uint64_t round_up(uint64_t n, uint64_t align)
{
    return (n + align - 1) & ~(align - 1);
}

/* Search one PT_NOTE's bytes: true with *ret_entry when the note is there. */
static bool find_entry(const uint8_t *notes, uint64_t size, uint64_t align, uint64_t *ret_entry)
{
    uint64_t at = 0;

    while (size - at >= sizeof(Elf32_Nhdr)) {
        Elf32_Nhdr note;

        memcpy(&note, notes + at, sizeof(note));
        uint64_t name = at + sizeof(note);
        uint64_t desc = round_up(name + note.n_namesz, align);
        uint64_t next = round_up(desc + note.n_descsz, align);
        if (desc + note.n_descsz > size)
            return false;
        if (note.n_type == XEN_PHYS32_ENTRY && note.n_namesz == sizeof("Xen") &&
            memcmp(notes + name, "Xen", sizeof("Xen")) == 0 &&
            (note.n_descsz == 4 || note.n_descsz == 8)) {
            *ret_entry = 0;
            memcpy(ret_entry, notes + desc, note.n_descsz);
            return true;
        }
        if (next > size)
            return false;
        at = next;
    }
    return false;
}

static int find_note(const struct boot_file *file, const struct headers *headers,
                     uint64_t *ret_entry, struct error *err)
{
    for (unsigned i = 0; i < headers->count; i++) {
        const struct header *h = &headers->list[i];

        if (h->type != PT_NOTE || h->file_size == 0 || h->file_size > MAX_NOTES ||
            h->offset > file->size || h->file_size > file->size - h->offset)
            continue;
        uint8_t *notes = malloc(h->file_size);
        if (!notes)
            return error_set(err, ENOMEM, "kernel %s: out of memory", file->path);
        int r = boot_file_read(file, h->offset, notes, h->file_size, err);
        bool found = r == 0 && find_entry(notes, h->file_size, h->align == 8 ? 8 : 4, ret_entry);
        free(notes);
        if (r < 0 || found)
            return r;
    }
    return bad(file,
               "is an ELF file without a PVH note; Linux needs CONFIG_PVH for it, or give its "
               "bzImage",
               err);
}

static int add_segments(struct elf_kernel *kernel, const struct boot_file *file,
                        const struct headers *headers, struct error *err)
{
    kernel->low = UINT64_MAX;
    for (unsigned i = 0; i < headers->count; i++) {
        const struct header *h = &headers->list[i];

        if (h->type != PT_LOAD || h->size == 0)
            continue;
        if (kernel->count == ELF_MAX_SEGMENTS || h->file_size > h->size)
            return bad(file, "is an ELF file whose segments are not a kernel's", err);
        if (h->offset > file->size || h->file_size > file->size - h->offset)
            return bad(file, "is cut short within a segment; fetch it anew", err);
        if (h->gpa < LOW_KERNEL || h->gpa > UINT32_MAX || h->size > UINT32_MAX)
            return error_set(err, ENOEXEC,
                             "kernel %s: has a segment at 0x%llx; it must be linked to physical "
                             "addresses between 1M and 4G",
                             file->path, (unsigned long long)h->gpa);
        unsigned n = kernel->count++;
        kernel->segments[n].offset = h->offset;
        kernel->segments[n].file_size = h->file_size;
        kernel->segments[n].gpa = h->gpa;
        kernel->segments[n].size = h->size;
        if (h->gpa < kernel->low)
            kernel->low = h->gpa;
        if (h->gpa + h->size > kernel->high)
            kernel->high = h->gpa + h->size;
    }
    return kernel->count ? 0 : bad(file, "is an ELF file with nothing to load", err);
}

int elf_kernel_open(struct elf_kernel *kernel, const struct boot_request *request,
                    struct error *err)
{
    const struct boot_file *file = &request->kernel;
    struct headers headers = {.count = 0};
    uint64_t entry = 0;
    int r = read_headers(file, &headers, err);

    *kernel = (struct elf_kernel){0};
    if (r == 0)
        r = find_note(file, &headers, &entry, err);
    if (r == 0)
        r = add_segments(kernel, file, &headers, err);
    if (r < 0)
        return r;
    if (entry < kernel->low || entry >= kernel->high)
        return bad(file, "has its PVH entry point outside of its segments", err);
    kernel->entry = (uint32_t)entry;
    r = boot_check_cmdline(request, CMDLINE_MAX, err);
    return r < 0 ? r : boot_check_room(request, kernel->high, err);
}

static int load_segments(const struct elf_kernel *kernel, const struct boot_file *file,
                         struct guest_memory *mem, struct error *err)
{
    for (unsigned i = 0; i < kernel->count; i++) {
        uint64_t gpa = kernel->segments[i].gpa, file_size = kernel->segments[i].file_size;
        int r = 0;

        if (file_size)
            r = boot_file_read_guest(file, kernel->segments[i].offset, mem, gpa, file_size, err);
        if (r < 0)
            return r;
        guest_memory_zero(mem, gpa + file_size, kernel->segments[i].size - file_size);
    }
    return 0;
}

int elf_kernel_load(const struct elf_kernel *kernel, const struct boot_request *request,
                    struct boot_target *target, struct cpu_entry *ret_entry, struct error *err)
{
    uint64_t room = kernel->high - kernel->low, initrd;

    if (!layout_is_free(&target->layout, kernel->low, room))
        return error_set(err, E2BIG,
                         "kernel %s: needs the memory up to %llu MiB, the machine has %llu MiB "
                         "free below its hole",
                         request->kernel.path, BOOT_MIB(kernel->high),
                         (unsigned long long)(target->layout.end >> 20));
    layout_take(&target->layout, kernel->low, room);
    int r = boot_load_initrd(request, target, UINT64_C(1) << 32, &initrd, err);
    if (r == 0)
        r = load_segments(kernel, &request->kernel, target->mem, err);
    if (r < 0)
        return r;
    boot_load_cmdline(request, target);

    struct start_page page = {
        .info = {.magic = START_MAGIC,
                 .version = 1,
                 .modules = initrd ? 1 : 0,
                 .modlist = initrd ? LOW_PVH_INFO + offsetof(struct start_page, module) : 0,
                 .cmdline = LOW_CMDLINE,
                 .rsdp = target->acpi_rsdp,
                 .memmap = LOW_PVH_INFO + offsetof(struct start_page, map),
                 .memmap_entries = target->map_count},
        .module = {.gpa = initrd, .size = initrd ? request->initrd.size : 0},
    };
    for (unsigned i = 0; i < target->map_count; i++)
        page.map[i] =
            (struct start_memory){target->map[i].gpa, target->map[i].size, target->map[i].type, 0};
    guest_memory_write(target->mem, LOW_PVH_INFO, &page, sizeof(page));
    *ret_entry =
        (struct cpu_entry){.mode = CPU_ENTRY_PROTECTED, .rip = kernel->entry, .rbx = LOW_PVH_INFO};
    return 0;
}
