/* SPDX-License-Identifier: Apache-2.0 */
#include "kernel_file.h"

#include <asm/bootparam.h>
#include <dlfcn.h>
#include <elf.h>
#include <lz4.h>
#include <lzma.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <cmocka.h>

#define LZ4_BLOCK (8u << 20)

void mem_file_create(struct mem_file *file, const void *data, size_t len)
{
    file->fd = memfd_create("kernel", MFD_CLOEXEC);
    assert_true(file->fd >= 0);
    assert_int_equal(write(file->fd, data, len), len);
    snprintf(file->path, sizeof(file->path), "/proc/self/fd/%d", file->fd);
}

void mem_file_close(struct mem_file *file)
{
    close(file->fd);
}

void file_patch(struct writer *file, size_t at, uint64_t value, unsigned size)
{
    assert_true(at + size <= file->len);
    for (unsigned i = 0; i < size; i++)
        file->data[at + i] = (uint8_t)(value >> (8 * i));
}

static void pad_to(struct writer *w, size_t len)
{
    static const uint8_t zeros[4096];

    while (w->len < len)
        put_bytes(w, zeros, len - w->len < sizeof(zeros) ? len - w->len : sizeof(zeros));
}

struct writer bzimage_build(const void *payload, size_t len)
{
    struct setup_header header = {
        .setup_sects = 1,
        .boot_flag = 0xaa55,
        .jump = 0x66eb, /* its second byte: the header's length */
        .header = 0x53726448,
        .version = 0x20f,
        .kernel_version = 0x100,
        .loadflags = 1,
        .initrd_addr_max = 0x7fffffff,
        .kernel_alignment = 0x200000,
        .relocatable_kernel = 1,
        .xloadflags = XLF_KERNEL_64,
        .cmdline_size = 2047,
        .payload_offset = BZIMAGE_PAYLOAD_AT,
        .payload_length = (uint32_t)len,
        .pref_address = BZIMAGE_PREF,
        .init_size = BZIMAGE_INIT_SIZE,
    };
    struct writer w = {0};

    header.syssize = (uint32_t)((BZIMAGE_PAYLOAD_AT + len + 15) / 16);
    pad_to(&w, 0x1f1);
    put_bytes(&w, &header, sizeof(header));
    pad_to(&w, 0x300);
    put_bytes(&w, "6.1.0-test (somebody@somewhere)", 32);
    pad_to(&w, BZIMAGE_CODE_AT + BZIMAGE_PAYLOAD_AT);
    put_bytes(&w, payload, len);
    pad_to(&w, BZIMAGE_CODE_AT + (size_t)header.syssize * 16);
    assert_false(w.failed);
    return w;
}

uint8_t vmlinux_byte(uint64_t offset)
{
    /* Half of it compresses well, half does not. */
    return (offset >> 12) & 1 ? (uint8_t)(offset * 2654435761u >> 16) : (uint8_t)(offset >> 8);
}

static void put_pattern(struct writer *w, uint64_t offset, size_t len)
{
    uint8_t *bytes = malloc(len);

    assert_non_null(bytes);
    for (size_t i = 0; i < len; i++)
        bytes[i] = vmlinux_byte(offset + i);
    put_bytes(w, bytes, len);
    free(bytes);
}

struct writer vmlinux_build(size_t bulk, unsigned lists)
{
    const size_t first_at = 0x1000, first_len = 0x2345, second_at = 0x6000;
    const size_t second_len = 0x1234 + bulk;
    const size_t sections_at = (second_at + second_len + 7) & ~(size_t)7;
    Elf64_Ehdr ehdr = {.e_type = ET_EXEC,
                       .e_machine = EM_X86_64,
                       .e_entry = BZIMAGE_PREF + 0x40,
                       .e_phoff = sizeof(ehdr),
                       .e_phnum = 2,
                       .e_phentsize = sizeof(Elf64_Phdr),
                       .e_shoff = sections_at,
                       .e_shnum = 1,
                       .e_shentsize = sizeof(Elf64_Shdr)};
    Elf64_Phdr phdrs[] = {{.p_type = PT_LOAD,
                           .p_offset = first_at,
                           .p_paddr = BZIMAGE_PREF,
                           .p_filesz = first_len,
                           .p_memsz = first_len},
                          {.p_type = PT_LOAD,
                           .p_offset = second_at,
                           .p_paddr = BZIMAGE_PREF + VMLINUX_SECOND,
                           .p_filesz = second_len,
                           .p_memsz = second_len + 0x1000}};
    struct writer w = {0};

    memcpy(ehdr.e_ident, ELFMAG, SELFMAG);
    ehdr.e_ident[EI_CLASS] = ELFCLASS64;
    ehdr.e_ident[EI_DATA] = ELFDATA2LSB;
    put_bytes(&w, &ehdr, sizeof(ehdr));
    put_bytes(&w, phdrs, sizeof(phdrs));
    pad_to(&w, first_at);
    put_pattern(&w, 0, first_len);
    pad_to(&w, second_at);
    put_pattern(&w, VMLINUX_SECOND, second_len);
    pad_to(&w, sections_at + sizeof(Elf64_Shdr));
    file_patch(&w, first_at + VMLINUX_RELOC_32, VMLINUX_LINKED + 0x123, 4);
    file_patch(&w, first_at + VMLINUX_RELOC_INVERSE, 0x40000000, 4);
    file_patch(&w, second_at + 0x10, VMLINUX_LINKED + 0x456, 8);
    if (lists) {
        put_uint(&w, 0, 4);
        put_uint(&w, VMLINUX_LINKED + VMLINUX_RELOC_64, 4);
        if (lists == 3) {
            put_uint(&w, 0, 4);
            put_uint(&w, VMLINUX_LINKED + VMLINUX_RELOC_INVERSE, 4);
        }
        put_uint(&w, 0, 4);
        put_uint(&w, VMLINUX_LINKED + VMLINUX_RELOC_32, 4);
    }
    assert_false(w.failed);
    return w;
}

static void *need(void *library, const char *name)
{
    void *symbol = dlsym(library, name);

    assert_non_null(symbol);
    return symbol;
}

static void pack_gzip(void *library, const struct writer *plain, struct writer *w)
{
    __typeof__(&deflateInit2_) init = need(library, "deflateInit2_");
    __typeof__(&deflate) step = need(library, "deflate");
    __typeof__(&deflateEnd) end = need(library, "deflateEnd");
    z_stream stream = {.next_in = plain->data, .avail_in = (uInt)plain->len};
    uint8_t out[4096];
    int status = Z_OK;

    assert_int_equal(init(&stream, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY,
                          ZLIB_VERSION, sizeof(stream)),
                     Z_OK);
    while (status != Z_STREAM_END) {
        stream.next_out = out;
        stream.avail_out = sizeof(out);
        status = step(&stream, Z_FINISH);
        put_bytes(w, out, sizeof(out) - stream.avail_out);
    }
    end(&stream);
}

static void pack_lz4(void *library, const struct writer *plain, struct writer *w)
{
    __typeof__(&LZ4_compress_default) compress = need(library, "LZ4_compress_default");
    char *block = malloc(LZ4_COMPRESSBOUND(LZ4_BLOCK));

    assert_non_null(block);
    put_uint(w, 0x184c2102, 4);
    for (size_t at = 0; at < plain->len; at += LZ4_BLOCK) {
        size_t len = plain->len - at < LZ4_BLOCK ? plain->len - at : LZ4_BLOCK;
        int n =
            compress((const char *)plain->data + at, block, (int)len, LZ4_COMPRESSBOUND(LZ4_BLOCK));

        assert_true(n > 0);
        put_uint(w, (uint64_t)n, 4);
        put_bytes(w, block, (size_t)n);
    }
    free(block);
}

static void pack_zstd(void *library, const struct writer *plain, struct writer *w)
{
    __typeof__(&ZSTD_compressBound) bound = need(library, "ZSTD_compressBound");
    __typeof__(&ZSTD_compress) compress = need(library, "ZSTD_compress");
    size_t room = bound(plain->len);
    void *out = malloc(room);

    assert_non_null(out);
    put_bytes(w, out, compress(out, room, plain->data, plain->len, 3));
    free(out);
}

static void pack_xz(void *library, const struct writer *plain, struct writer *w)
{
    __typeof__(&lzma_stream_buffer_bound) bound = need(library, "lzma_stream_buffer_bound");
    __typeof__(&lzma_easy_buffer_encode) encode = need(library, "lzma_easy_buffer_encode");
    size_t room = bound(plain->len), len = 0;
    uint8_t *out = malloc(room);

    assert_non_null(out);
    assert_int_equal(encode(1, LZMA_CHECK_CRC32, NULL, plain->data, plain->len, out, &len, room),
                     LZMA_OK);
    put_bytes(w, out, len);
    free(out);
}

bool kernel_pack(const char *format, const struct writer *plain, struct writer *ret_packed)
{
    static const struct {
        const char *format, *library;
        void (*pack)(void *library, const struct writer *plain, struct writer *w);
        bool size_behind;
    } kinds[] = {{"gzip", "libz.so.1", pack_gzip, false},
                 {"lz4", "liblz4.so.1", pack_lz4, true},
                 {"zstd", "libzstd.so.1", pack_zstd, true},
                 {"xz", "liblzma.so.5", pack_xz, true}};

    *ret_packed = (struct writer){0};
    for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(kinds[i].format, format) != 0)
            continue;
        void *library = dlopen(kinds[i].library, RTLD_NOW | RTLD_LOCAL);
        if (!library)
            return false;
        kinds[i].pack(library, plain, ret_packed);
        if (kinds[i].size_behind)
            put_uint(ret_packed, plain->len, 4);
        assert_false(ret_packed->failed);
        dlclose(library);
        return true;
    }
    fail_msg("no such format: %s", format);
    return false;
}

struct writer pvh_build(bool elf64, uint64_t gpa, const char *note_owner)
{
    const size_t note_at = 0x200, code_at = 0x300, code_len = 0x100;
    struct writer w = {0};

    if (elf64) {
        Elf64_Ehdr ehdr = {.e_type = ET_EXEC,
                           .e_machine = EM_X86_64,
                           .e_phoff = sizeof(ehdr),
                           .e_phnum = 2,
                           .e_phentsize = sizeof(Elf64_Phdr)};
        Elf64_Phdr phdrs[] = {{.p_type = PT_LOAD,
                               .p_offset = code_at,
                               .p_paddr = gpa,
                               .p_filesz = code_len,
                               .p_memsz = code_len + 0x1000},
                              {.p_type = PT_NOTE, .p_offset = note_at, .p_filesz = 20}};
        memcpy(ehdr.e_ident, "\177ELF\2\1\1", 7);
        put_bytes(&w, &ehdr, sizeof(ehdr));
        put_bytes(&w, phdrs, sizeof(phdrs));
    } else {
        Elf32_Ehdr ehdr = {.e_type = ET_EXEC,
                           .e_machine = EM_386,
                           .e_phoff = sizeof(ehdr),
                           .e_phnum = 2,
                           .e_phentsize = sizeof(Elf32_Phdr)};
        Elf32_Phdr phdrs[] = {{.p_type = PT_LOAD,
                               .p_offset = (uint32_t)code_at,
                               .p_paddr = (uint32_t)gpa,
                               .p_filesz = (uint32_t)code_len,
                               .p_memsz = (uint32_t)code_len + 0x1000},
                              {.p_type = PT_NOTE, .p_offset = (uint32_t)note_at, .p_filesz = 20}};
        memcpy(ehdr.e_ident, "\177ELF\1\1\1", 7);
        put_bytes(&w, &ehdr, sizeof(ehdr));
        put_bytes(&w, phdrs, sizeof(phdrs));
    }
    pad_to(&w, note_at);
    put_uint(&w, 4, 4);
    put_uint(&w, 4, 4);
    put_uint(&w, 18, 4);
    put_bytes(&w, note_owner, 4);
    put_uint(&w, gpa, 4);
    pad_to(&w, code_at);
    for (unsigned i = 0; i < code_len; i++)
        put_uint(&w, i, 1);
    assert_false(w.failed);
    return w;
}

struct guest_memory *kernel_memory(uint64_t size)
{
    struct memory_layout layout = {
        .size = size, .hole_start = UINT64_C(3) << 30, .hole_end = UINT64_C(4) << 30};
    struct guest_memory *mem = NULL;
    struct error err;

    assert_int_equal(guest_memory_create(&layout, &mem, &err), 0);
    return mem;
}
