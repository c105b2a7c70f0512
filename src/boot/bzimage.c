/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bzimage: Linux by the 64-bit boot protocol: a header checked, a zero page
 * filled, page tables and segments made, and the kernel either unpacked here
 * (vmlinux.c) or loaded as it is, to unpack itself.
 *
 * Source: The Linux/x86 Boot Protocol, "The Real-Mode Kernel Header" and
 * "64-bit Boot Protocol".
 */
#include "bzimage.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "cache.h"
#include "vmlinux.h"
#include "vmrun/log.h"

#define HEADER_AT 0x1f1u        /* struct setup_header in the file and in the zero page */
#define HEADER_SIZE_FROM 0x202u /* the header's own length, less the byte before */
#define SECTOR 512u
#define MIN_PROTOCOL \
    0x20cu /* the first with xloadflags, which says whether the kernel is 64-bit \
            */
#define LOADER_UNDEFINED 0xffu
#define FLAG_LOADED_HIGH 0x01u
#define FLAG_KASLR 0x02u
#define FLAG_KEEP_SEGMENTS 0x40u
#define FLAG_CAN_USE_HEAP 0x80u
#define ENTRY_64 0x200u /* from the load address */
#define MIN_ALIGNMENT 0x1000u
#define LARGE_PAGE (UINT64_C(2) << 20)

#define SELECTOR_CODE 0x10u /* the two that the protocol asks for */
#define SELECTOR_DATA 0x18u

bool bzimage_is(const uint8_t head[1024])
{
    return head[0x1fe] == 0x55 && head[0x1ff] == 0xaa && memcmp(head + 0x202, "HdrS", 4) == 0;
}

/* The first word of the version text, if it is one. */
static void read_version(struct bzimage *image, const struct boot_file *file)
{
    char text[sizeof(image->version)] = "";
    struct error ignored;
    size_t n = 0;

    if (image->header.kernel_version == 0 ||
        boot_file_read(file, image->header.kernel_version + 0x200u, text, sizeof(text) - 1,
                       &ignored) < 0)
        return;
    while (isgraph((unsigned char)text[n]))
        n++;
    memcpy(image->version, text, n);
    image->version[n] = '\0';
}

static int check_protocol(const struct setup_header *header, const char *path, struct error *err)
{
    if (header->version < MIN_PROTOCOL)
        return error_set(err, ENOEXEC,
                         "kernel %s: boot protocol %u.%02u is too old; 2.12 (Linux 3.8) or newer "
                         "is needed",
                         path, header->version >> 8, header->version & 0xff);
    if (!(header->xloadflags & XLF_KERNEL_64))
        return error_set(err, ENOEXEC, "kernel %s: is a 32-bit kernel; one for x86-64 is needed",
                         path);
    if (!(header->loadflags & FLAG_LOADED_HIGH))
        return error_set(err, ENOEXEC, "kernel %s: is a zImage; a bzImage is needed", path);
    if (header->kernel_alignment < MIN_ALIGNMENT ||
        (header->kernel_alignment & (header->kernel_alignment - 1)) || header->init_size == 0 ||
        header->pref_address > UINT32_MAX || header->initrd_addr_max < LOW_KERNEL)
        return error_set(err, ENOEXEC, "kernel %s: its setup header is damaged", path);
    return 0;
}

/* Where the compressed kernel lies; one that is not to be found there is left to the guest. */
static int find_payload(struct bzimage *image, const struct boot_file *file, struct error *err)
{
    const struct setup_header *header = &image->header;
    uint64_t at = image->code_offset + header->payload_offset;
    uint8_t magic[UNPACK_MAGIC_SIZE] = {0}, size[4] = {0};

    if (header->payload_length <= sizeof(magic) + sizeof(size) ||
        (uint64_t)header->payload_offset + header->payload_length > image->code_size)
        return 0;
    int r = boot_file_read(file, at, magic, sizeof(magic), err);
    if (r == 0)
        r = boot_file_read(file, at + header->payload_length - sizeof(size), size, sizeof(size),
                           err);
    if (r < 0)
        return r;
    image->format = unpack_identify(magic);
    image->unpacked_size = size[0] | size[1] << 8 | size[2] << 16 | (uint32_t)size[3] << 24;
    return 0;
}

static uint64_t room_needed(const struct bzimage *image)
{
    return image->header.init_size > image->code_size ? image->header.init_size : image->code_size;
}

int bzimage_open(struct bzimage *image, const struct boot_request *request, struct error *err)
{
    const struct boot_file *file = &request->kernel;
    uint8_t head[HEADER_AT + sizeof(struct setup_header)] = {0};
    size_t known = sizeof(image->header);
    int r = file->size < sizeof(head)
                ? error_set(err, ENOEXEC,
                            "kernel %s: is cut short within its header; fetch it anew", file->path)
                : boot_file_read(file, 0, head, sizeof(head), err);

    if (r < 0)
        return r;
    /* The header says how long it is; what this kernel's does not have stays zero. */
    size_t has = HEADER_SIZE_FROM + head[0x201] - HEADER_AT;
    *image = (struct bzimage){0};
    memcpy(&image->header, head + HEADER_AT, has < known ? has : known);
    r = check_protocol(&image->header, file->path, err);
    if (r < 0)
        return r;

    unsigned sectors = image->header.setup_sects ? image->header.setup_sects : 4;
    image->code_offset = (uint64_t)(sectors + 1) * SECTOR;
    image->code_size = (uint64_t)image->header.syssize * 16;
    unsigned long long whole = image->code_offset + image->code_size;
    if (image->code_size == 0 || whole > file->size)
        return error_set(err, ENOEXEC,
                         "kernel %s: is cut short: %llu bytes, and its header says %llu; fetch it "
                         "anew",
                         file->path, (unsigned long long)file->size, whole);
    r = find_payload(image, file, err);
    if (r < 0)
        return r;
    read_version(image, file);

    r = boot_check_cmdline(request, image->header.cmdline_size, err);
    if (r < 0)
        return r;
    uint64_t align = image->header.kernel_alignment;
    uint64_t from = image->header.relocatable_kernel ? (LOW_KERNEL + align - 1) & ~(align - 1)
                                                     : image->header.pref_address;
    return boot_check_room(request, from + room_needed(image), err);
}

/* As the file has it, to unpack itself: at its preferred address, or wherever there is room. */
static int load_packed(const struct bzimage *image, const struct boot_file *file,
                       struct boot_target *target, uint64_t *ret_entry, struct error *err)
{
    const struct setup_header *header = &image->header;
    uint64_t room = room_needed(image);
    uint64_t gpa = header->pref_address;

    if (!layout_is_free(&target->layout, gpa, room))
        gpa = header->relocatable_kernel
                  ? layout_find_low(&target->layout, LOW_KERNEL, room, header->kernel_alignment)
                  : 0;
    if (gpa == 0)
        return error_set(err, E2BIG,
                         "kernel %s: no %llu MiB of memory in one piece to start it in, beside the "
                         "initrd; raise the memory",
                         file->path, BOOT_MIB(room));
    int r = boot_file_read_guest(file, image->code_offset, target->mem, gpa, image->code_size, err);
    if (r < 0)
        return r;
    layout_take(&target->layout, gpa, room);
    *ret_entry = gpa + ENTRY_64;
    return 0;
}

static int load_unpacked(const struct bzimage *image, const struct boot_request *request,
                         struct boot_target *target, struct vmlinux_place *ret_place,
                         struct error *err)
{
    const struct setup_header *header = &image->header;
    struct vmlinux_image vmlinux = {
        .payload = {.file = &request->kernel,
                    .offset = image->code_offset + header->payload_offset,
                    .size = header->payload_length,
                    .format = image->format},
        .unpacked_size = image->unpacked_size,
        .pref_address = header->pref_address,
        .init_size = header->init_size,
        .alignment = header->kernel_alignment,
        .relocatable = header->relocatable_kernel,
    };

    if (request->unpack == BOOT_UNPACK_GUEST)
        return error_set(err, ENOTSUP, "as configured");
    if (header->kernel_alignment < LARGE_PAGE)
        return error_set(err, ENOTSUP, "its alignment");
    /* gzip has the size at its end by itself; behind the others the kernel's build put it. */
    if (image->format != UNPACK_GZIP)
        vmlinux.payload.size -= 4;
    if (!request->cache)
        return vmlinux_load(&vmlinux, request->cmdline, target, ret_place, err);

    const struct unpack_source packed = vmlinux.payload;
    bool damaged = false;

    if (cache_find(request->cache, &packed, image->unpacked_size, &vmlinux.payload)) {
        if (vmlinux_load(&vmlinux, request->cmdline, target, ret_place, err) == 0)
            return 0;
        log_debug("cache: %s: not used: %s", request->kernel.path, err->msg);
        vmlinux.payload = packed;
        damaged = true;
    }
    int r = vmlinux_load(&vmlinux, request->cmdline, target, ret_place, err);
    if (r == 0)
        cache_keep(request->cache, &packed, image->unpacked_size, damaged);
    return r;
}

/* The first 4 GiB one to one, in 2 MiB pages. */
static void write_page_tables(struct guest_memory *mem)
{
    const uint64_t table = 0x3, page = 0x83; /* present, writable; large */
    uint64_t entries[6][512] = {{0}};

    static_assert(sizeof(entries) <= LOW_END - LOW_PAGE_TABLES, "page tables have 6 pages");
    entries[0][0] = (LOW_PAGE_TABLES + 0x1000) | table;
    for (unsigned i = 0; i < 4; i++)
        entries[1][i] = (LOW_PAGE_TABLES + 0x2000 + i * UINT64_C(0x1000)) | table;
    for (unsigned i = 0; i < 4 * 512; i++)
        entries[2 + i / 512][i % 512] = i * LARGE_PAGE | page;
    guest_memory_write(mem, LOW_PAGE_TABLES, entries, sizeof(entries));
}

static void write_zero_page(const struct bzimage *image, const struct boot_request *request,
                            struct boot_target *target, uint64_t initrd, bool kaslr)
{
    struct boot_params params = {.hdr = image->header};

    static_assert(sizeof(params) == GUEST_PAGE_SIZE &&
                      offsetof(struct boot_params, hdr) == HEADER_AT,
                  "the zero page is laid out by the protocol");
    static_assert(MEMORY_MAP_MAX <= E820_MAX_ENTRIES_ZEROPAGE, "the map fits the zero page");
    params.hdr.type_of_loader = LOADER_UNDEFINED;
    params.hdr.loadflags &= (uint8_t) ~(FLAG_KASLR | FLAG_CAN_USE_HEAP);
    params.hdr.loadflags |= FLAG_KEEP_SEGMENTS | (kaslr ? FLAG_KASLR : 0);
    params.hdr.cmd_line_ptr = LOW_CMDLINE;
    params.hdr.ramdisk_image = (uint32_t)initrd;
    params.hdr.ramdisk_size = initrd ? (uint32_t)request->initrd.size : 0;
    params.hdr.setup_data = 0;
    params.acpi_rsdp_addr = target->acpi_rsdp;
    params.e820_entries = (uint8_t)target->map_count;
    for (unsigned i = 0; i < target->map_count; i++)
        params.e820_table[i] = (struct boot_e820_entry){
            .addr = target->map[i].gpa, .size = target->map[i].size, .type = target->map[i].type};
    guest_memory_write(target->mem, LOW_BOOT_PARAMS, &params, sizeof(params));
}

int bzimage_load(const struct bzimage *image, const struct boot_request *request,
                 struct boot_target *target, struct cpu_entry *ret_entry, struct error *err)
{
    static const uint64_t gdt[] = {0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff};
    struct vmlinux_place place = {0};
    struct error cause;
    uint64_t initrd;
    int r = boot_load_initrd(request, target, (uint64_t)image->header.initrd_addr_max + 1, &initrd,
                             err);

    if (r < 0)
        return r;
    r = load_unpacked(image, request, target, &place, &cause);
    if (r == -ENOTSUP) {
        log_debug("kernel %s: left to its own decompressor: %s", request->kernel.path, cause.msg);
        r = load_packed(image, &request->kernel, target, &place.entry, &cause);
    }
    if (r < 0) {
        *err = cause;
        return r;
    }

    boot_load_cmdline(request, target);
    write_page_tables(target->mem);
    write_zero_page(image, request, target, initrd, place.kaslr);
    guest_memory_write(target->mem, LOW_GDT, gdt, sizeof(gdt));
    *ret_entry = (struct cpu_entry){.mode = CPU_ENTRY_LONG,
                                    .rip = place.entry,
                                    .rsp = LOW_END,
                                    .rsi = LOW_BOOT_PARAMS,
                                    .cr3 = LOW_PAGE_TABLES,
                                    .gdt_base = LOW_GDT,
                                    .gdt_limit = sizeof(gdt) - 1,
                                    .code_selector = SELECTOR_CODE,
                                    .data_selector = SELECTOR_DATA};
    return 0;
}
