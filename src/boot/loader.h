/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_BOOT_LOADER_H
#define VMRUN_BOOT_LOADER_H

/*
 * What the loaders of src/boot share: the open files, and the map of what is
 * taken in RAM while a kernel is being placed.
 *
 * Everything read from a kernel file is hostile: sizes and addresses are
 * bounded before they are added to anything, and RAM is reached only through
 * guest_memory_at(), which refuses what does not lie wholly inside it.
 */

#include <stdbool.h>
#include <stdint.h>

#include "vmrun/boot.h"

/* A file that stays open from boot_open() on. */
struct boot_file {
    int fd;
    char *path;
    uint64_t size; /* bytes, when it was opened */
};

/* All of [offset, offset + len). Errors: -EIO, also when the file has become shorter since. */
int boot_file_read(const struct boot_file *file, uint64_t offset, void *data, uint64_t len,
                   struct error *err);
/* The same straight into guest RAM, which the caller knows to be there. */
int boot_file_read_guest(const struct boot_file *file, uint64_t offset, struct guest_memory *mem,
                         uint64_t gpa, uint64_t len, struct error *err);

/* Low memory, the same for every protocol. Page 0 stays free for what firmware would keep there. */
enum {
    LOW_GDT = 0x1000,
    LOW_PVH_INFO = 0x6000,    /* start info, module list and memory map */
    LOW_BOOT_PARAMS = 0x7000, /* the zero page */
    LOW_PAGE_TABLES = 0x9000, /* 6 pages */
    LOW_END = 0xf000,
    LOW_CMDLINE = 0x20000, /* on pages of its own: its length is the operator's */
    LOW_CMDLINE_ROOM = 0x10000,
    LOW_KERNEL = 0x100000, /* no kernel below this */
};

struct memory_map_entry {
    uint64_t gpa, size;
    uint32_t type; /* as in E820: 1 is RAM */
};

#define BOOT_MAX_RESERVED 32
#define MEMORY_MAP_MAX (MEMORY_MAX_REGIONS + 1 + 2 * BOOT_MAX_RESERVED)

/*
 * What the guest is told of its RAM: the regions without the PC's hole at 640 KiB and without
 * the reserved ranges, which follow with their own types; ascending. Returns the count.
 * Errors: -EINVAL more than BOOT_MAX_RESERVED ranges, or two that overlap.
 */
int memory_map_build(const struct guest_memory *mem, const struct boot_reserved *reserved,
                     unsigned count, struct memory_map_entry ret_map[MEMORY_MAP_MAX],
                     struct error *err);

/* What is taken in the low region, where everything that is loaded goes. */
struct layout {
    uint64_t end; /* of the low region */
    struct {
        uint64_t start, end;
    } taken[BOOT_MAX_RESERVED + 8];
    unsigned count;
};

/* As memory_map_build() for errors. */
int layout_init(struct layout *layout, const struct guest_memory *mem,
                const struct boot_reserved *reserved, unsigned count, struct error *err);
void layout_take(struct layout *layout, uint64_t gpa, uint64_t size);
bool layout_is_free(const struct layout *layout, uint64_t gpa, uint64_t size);

/*
 * Multiples of align (a power of two) with [gpa, gpa + size) free and within [min, max):
 * the lowest, the highest, or any one of them with equal chance. 0: there is none.
 */
uint64_t layout_find_low(const struct layout *layout, uint64_t min, uint64_t size, uint64_t align);
uint64_t layout_find_high(const struct layout *layout, uint64_t min, uint64_t max, uint64_t size,
                          uint64_t align);
uint64_t layout_find_random(const struct layout *layout, uint64_t min, uint64_t size,
                            uint64_t align);

/* Uniform below n (n > 0), from the host's random source. */
uint64_t layout_random_below(uint64_t n);

/* What the operator asked for, with the files open. */
struct boot_request {
    struct boot_file kernel, initrd; /* initrd.fd is -1 when there is none */
    char *cmdline;
    uint64_t memory_size;
    enum boot_unpack unpack;
    struct cache *cache; /* of unpacked kernels; NULL: none */
};

/* Where boot_load() is to put things. */
struct boot_target {
    struct guest_memory *mem;
    struct layout layout;
    uint64_t acpi_rsdp;
    struct memory_map_entry map[MEMORY_MAP_MAX];
    unsigned map_count;
};

/*
 * Load the initrd as high as it goes below max, and take its room. *ret_gpa is 0 when there is
 * none. Errors: -E2BIG with both sizes; -EIO.
 */
int boot_load_initrd(const struct boot_request *request, struct boot_target *target, uint64_t max,
                     uint64_t *ret_gpa, struct error *err);

/* The command line and its NUL at LOW_CMDLINE: open has checked that it fits. */
void boot_load_cmdline(const struct boot_request *request, struct boot_target *target);

/*
 * At open: whether kernel_needs bytes of RAM, counted from 0, and the initrd beside them can fit.
 * Errors: -E2BIG with both sizes.
 */
int boot_check_room(const struct boot_request *request, uint64_t kernel_needs, struct error *err);
/* Whether the command line is at most max bytes long. Errors: -E2BIG with both numbers. */
int boot_check_cmdline(const struct boot_request *request, uint64_t max, struct error *err);

#define BOOT_DESCRIPTION_MAX 128

/* What the first bytes of a file that is no kernel look like: "a gzip file" …; never NULL. */
const char *boot_looks_like(const struct boot_file *file);

#define BOOT_MIB(bytes) ((unsigned long long)(((bytes) + 0xfffff) >> 20)) /* rounded up */

#endif
