/* SPDX-License-Identifier: Apache-2.0 */
/*
 * looks_like: put a name to a file that was given as a kernel and is none.
 * Half of all such mistakes are a neighbour in the same folder.
 */
#include "loader.h"

#include <string.h>

static const struct {
    uint64_t offset;
    const char *magic;
    unsigned len;
    const char *name;
} kinds[] = {
    {0, "\x1f\x8b", 2, "a gzip file (an initrd, or a kernel to unpack first)"},
    {0, "\x28\xb5\x2f\xfd", 4, "a zstd file (an initrd, or a kernel to unpack first)"},
    {0,
     "\xfd"
     "7zXZ",
     5, "an xz file (an initrd, or a kernel to unpack first)"},
    {0, "\x02\x21\x4c\x18", 4, "an lz4 file (an initrd, or a kernel to unpack first)"},
    {0, "\x04\x22\x4d\x18", 4, "an lz4 file (an initrd, or a kernel to unpack first)"},
    {0, "BZh", 3, "a bzip2 file"},
    {0, "070701", 6, "a cpio archive (an initrd)"},
    {0, "070702", 6, "a cpio archive (an initrd)"},
    {0, "#!", 2, "a script"},
    {0, "QFI\xfb", 4, "a qcow2 disk image"},
    {0, "!<arch>\n", 8, "a Debian package or other ar archive"},
    {0, "\xed\xab\xee\xdb", 4, "an RPM package"},
    {0, "PK\x03\x04", 4, "a zip archive"},
    {0, "hsqs", 4, "a squashfs image"},
    {0, "ANDROID!", 8, "an Android boot image"},
    {0, "\x27\x05\x19\x56", 4, "a U-Boot image"},
    {0, "%PDF", 4, "a PDF document"},
    {56, "ARMd", 4, "a Linux kernel for arm64"},
    {56, "RSC\x05", 4, "a Linux kernel for RISC-V"},
    {257, "ustar", 5, "a tar archive"},
    {32769, "CD001", 5, "an ISO image"},
    {1080, "\x53\xef", 2, "an ext2, ext3 or ext4 file system"},
    {0, "XFSB", 4, "an XFS file system"},
    {512, "EFI PART", 8, "a disk image with a GPT"},
    {0, "MZ", 2, "an EFI or Windows program without a Linux boot header"},
    {510, "\x55\xaa", 2, "a disk image or boot sector"},
};

static bool is_text(const struct boot_file *file)
{
    static const char blanks[] = {'\t', '\n', '\r', '\f'};
    char head[512];
    struct error ignored;
    uint64_t len = file->size < sizeof(head) ? file->size : sizeof(head);

    if (boot_file_read(file, 0, head, len, &ignored) < 0)
        return false;
    for (uint64_t i = 0; i < len; i++)
        if ((unsigned char)head[i] < 0x20 && !memchr(blanks, head[i], sizeof(blanks)))
            return false;
    return true;
}

const char *boot_looks_like(const struct boot_file *file)
{
    for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        char at[8];
        struct error ignored;

        if (kinds[i].offset + kinds[i].len <= file->size &&
            boot_file_read(file, kinds[i].offset, at, kinds[i].len, &ignored) == 0 &&
            memcmp(at, kinds[i].magic, kinds[i].len) == 0)
            return kinds[i].name;
    }
    return is_text(file) ? "a text file" : "data of a kind that vmrun does not know";
}
