/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_TEST_KERNEL_FILE_H
#define VMRUN_TEST_KERNEL_FILE_H

/*
 * Kernels made to measure: a bzImage, an ELF with a PVH note, and the vmlinux
 * with relocations that a bzImage has inside. All are files without a folder.
 */

#include <stdbool.h>
#include <stdint.h>

#include "vmrun/bytes.h"
#include "vmrun/error.h"
#include "vmrun/memory.h"

/* A file in memory that can be opened by its path. */
struct mem_file {
    int fd;
    char path[32];
};
void mem_file_create(struct mem_file *file, const void *data, size_t len);
void mem_file_close(struct mem_file *file);

#define BZIMAGE_PREF UINT64_C(0x1000000)
#define BZIMAGE_INIT_SIZE 0x1000000u
#define BZIMAGE_CODE_AT 1024u     /* in the file: one boot sector, one of setup */
#define BZIMAGE_PAYLOAD_AT 0x400u /* in the code */

/* A bzImage of protocol 2.15 round this payload, changed by who needs another. free() .data. */
struct writer bzimage_build(const void *payload, size_t len);
/* Overwrite size bytes at this offset. */
void file_patch(struct writer *file, size_t at, uint64_t value, unsigned size);

/*
 * A vmlinux of two segments, the second of which moves when it is placed, and of `bulk` bytes more
 * in the second. It has one place to relocate of each kind; lists: 3 as Linux 6.1, 2 as 6.15, 0
 * none.
 */
struct writer vmlinux_build(size_t bulk, unsigned lists);
#define VMLINUX_SECOND UINT64_C(0x4000) /* from the load address */
#define VMLINUX_RELOC_32 UINT64_C(0x100)
#define VMLINUX_RELOC_INVERSE UINT64_C(0x200)
#define VMLINUX_RELOC_64 (VMLINUX_SECOND + 0x10)
#define VMLINUX_LINKED UINT64_C(0xffffffff81000000)
/* What the byte at this offset from the load address is, but for the relocated ones. */
uint8_t vmlinux_byte(uint64_t offset);

/* Compress as kernels are, by "gzip", "lz4", "zstd" or "xz", with the size behind it where
 * kernels have it. False when the host lacks the library. */
bool kernel_pack(const char *format, const struct writer *plain, struct writer *ret_packed);

/* One segment at gpa, 0x100 bytes counting up and 0x1000 of zeros; entry at its start. */
struct writer pvh_build(bool elf64, uint64_t gpa, const char *note_owner);

/* RAM of this size with the PC's hole. */
struct guest_memory *kernel_memory(uint64_t size);

#endif
