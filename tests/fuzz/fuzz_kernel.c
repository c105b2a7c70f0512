/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_kernel: a hostile kernel file, through everything from its first bytes
 * to the RAM of a machine. The sizes in it reach a gigabyte; RAM has 64 MiB.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmrun/boot.h"

#define MEMORY (UINT64_C(64) << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void load(const char *path, enum boot_unpack unpack, struct guest_memory *mem)
{
    static const struct boot_reserved reserved[] = {{0xe0000, 0x20000, 3}};
    struct boot_params_host host = {.kernel = path,
                                    .initrd = path,
                                    .cmdline = "console=ttyS0",
                                    .memory_size = MEMORY,
                                    .unpack = unpack};
    struct boot *boot = NULL;
    struct cpu_entry entry;
    struct error err;

    if (boot_open(&host, &boot, &err) == 0 &&
        boot_load(boot, mem, 0xe0000, reserved, 1, &entry, &err) == 0 &&
        !guest_memory_at(mem, entry.rip, 1))
        abort();
    boot_close(boot);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int fd = -1;
    static struct guest_memory *mem;
    char path[32];

    if (!mem) {
        const struct memory_layout layout = {
            .size = MEMORY, .hole_start = UINT64_C(3) << 30, .hole_end = UINT64_C(4) << 30};
        struct error err;

        fd = memfd_create("kernel", MFD_CLOEXEC);
        if (fd < 0 || guest_memory_create(&layout, &mem, &err) < 0)
            abort();
    }
    if (ftruncate(fd, 0) < 0 || pwrite(fd, data, size, 0) != (ssize_t)size)
        abort();
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    load(path, BOOT_UNPACK_AUTO, mem);
    load(path, BOOT_UNPACK_GUEST, mem);
    guest_memory_zero(mem, 0,
                      MEMORY); /* gives the pages back: what one input costs, ends with it */
    return 0;
}
