/* SPDX-License-Identifier: Apache-2.0 */
/*
 * boot: open what the operator named, say at once what is wrong with it, and
 * hand it to the loader for its format.
 *
 * All that can be refused is refused by boot_open(), before a machine exists.
 * boot_load() meets only what changed since: it trusts the numbers that were
 * checked then and reads the files anew.
 */
#include "vmrun/boot.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bzimage.h"
#include "cache.h"
#include "elf_kernel.h"
#include "loader.h"

enum kind { KIND_BZIMAGE, KIND_ELF };

struct boot {
    struct boot_request request;
    enum kind kind;
    struct bzimage bzimage;
    struct elf_kernel elf;
    char description[BOOT_DESCRIPTION_MAX];
};

int boot_file_read(const struct boot_file *file, uint64_t offset, void *data, uint64_t len,
                   struct error *err)
{
    uint8_t *at = data;

    while (len) {
        ssize_t n = pread(file->fd, at, len, (off_t)offset);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_errno(err, errno, "read %s", file->path);
        if (n == 0)
            return error_set(err, EIO, "%s: has become shorter than the %llu bytes it had",
                             file->path, (unsigned long long)file->size);
        at += n;
        offset += (uint64_t)n;
        len -= (uint64_t)n;
    }
    return 0;
}

int boot_file_read_guest(const struct boot_file *file, uint64_t offset, struct guest_memory *mem,
                         uint64_t gpa, uint64_t len, struct error *err)
{
    void *to = guest_memory_at(mem, gpa, len);

    if (!to)
        return error_set(err, EFAULT, "%s: no memory at 0x%llx to load it", file->path,
                         (unsigned long long)gpa);
    int r = boot_file_read(file, offset, to, len, err);
    guest_memory_mark_dirty(mem, gpa, len);
    return r;
}

int boot_load_initrd(const struct boot_request *request, struct boot_target *target, uint64_t max,
                     uint64_t *ret_gpa, struct error *err)
{
    const struct boot_file *file = &request->initrd;

    *ret_gpa = 0;
    if (file->fd < 0)
        return 0;
    uint64_t gpa = layout_find_high(&target->layout, LOW_KERNEL, max, file->size, GUEST_PAGE_SIZE);
    if (gpa == 0)
        return error_set(
            err, E2BIG,
            "initrd %s: %llu MiB do not fit into the %llu MiB where the kernel can "
            "find it",
            file->path, BOOT_MIB(file->size),
            (unsigned long long)((max < target->layout.end ? max : target->layout.end) >> 20));
    layout_take(&target->layout, gpa, file->size);
    *ret_gpa = gpa;
    return boot_file_read_guest(file, 0, target->mem, gpa, file->size, err);
}

void boot_load_cmdline(const struct boot_request *request, struct boot_target *target)
{
    guest_memory_write(target->mem, LOW_CMDLINE, request->cmdline, strlen(request->cmdline) + 1);
}

int boot_check_cmdline(const struct boot_request *request, uint64_t max, struct error *err)
{
    size_t len = strlen(request->cmdline);

    if (max > LOW_CMDLINE_ROOM - 1)
        max = LOW_CMDLINE_ROOM - 1;
    if (len > max)
        return error_set(err, E2BIG,
                         "the command line has %zu bytes; the kernel %s takes at most %llu", len,
                         request->kernel.path, (unsigned long long)max);
    return 0;
}

int boot_check_room(const struct boot_request *request, uint64_t kernel_needs, struct error *err)
{
    uint64_t memory = request->memory_size;

    if (kernel_needs > memory)
        return error_set(
            err, E2BIG, "kernel %s: needs %llu MiB of memory to start, the machine has %llu MiB",
            request->kernel.path, BOOT_MIB(kernel_needs), (unsigned long long)(memory >> 20));
    if (request->initrd.fd >= 0 && request->initrd.size > memory - kernel_needs)
        return error_set(err, E2BIG,
                         "initrd %s: has %llu MiB, and the kernel leaves %llu MiB of the machine's "
                         "%llu MiB of memory",
                         request->initrd.path, BOOT_MIB(request->initrd.size),
                         (unsigned long long)((memory - kernel_needs) >> 20),
                         (unsigned long long)(memory >> 20));
    return 0;
}

static int open_file(struct boot_file *file, const char *what, const char *path, struct error *err)
{
    struct stat st;

    file->path = strdup(path);
    if (!file->path)
        return error_set(err, ENOMEM, "%s %s: out of memory", what, path);
    /* Not blocking: a FIFO must be refused, not waited for. */
    file->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file->fd < 0)
        return error_errno(err, errno, "%s %s", what, path);
    if (fstat(file->fd, &st) < 0)
        return error_errno(err, errno, "%s %s", what, path);
    if (S_ISDIR(st.st_mode))
        return error_set(err, EISDIR, "%s %s: is a directory; name the file in it", what, path);
    if (!S_ISREG(st.st_mode))
        return error_set(err, ENOEXEC, "%s %s: is not a regular file", what, path);
    if (st.st_size == 0)
        return error_set(err, ENOEXEC, "%s %s: is empty", what, path);
    file->size = (uint64_t)st.st_size;
    return 0;
}

static void close_file(struct boot_file *file)
{
    if (file->fd >= 0)
        close(file->fd);
    free(file->path);
}

static int identify(struct boot *boot, struct error *err)
{
    const struct boot_file *file = &boot->request.kernel;
    uint8_t head[1024] = {0};
    int r =
        boot_file_read(file, 0, head, file->size < sizeof(head) ? file->size : sizeof(head), err);

    if (r < 0)
        return r;
    if (bzimage_is(head)) {
        boot->kind = KIND_BZIMAGE;
        r = bzimage_open(&boot->bzimage, &boot->request, err);
        snprintf(boot->description, sizeof(boot->description), "bzImage %s%s%s",
                 boot->bzimage.version, boot->bzimage.version[0] ? ", " : "",
                 unpack_name(boot->bzimage.format));
        return r;
    }
    if (elf_kernel_is(head)) {
        boot->kind = KIND_ELF;
        snprintf(boot->description, sizeof(boot->description), "ELF, PVH");
        return elf_kernel_open(&boot->elf, &boot->request, err);
    }
    return error_set(err, ENOEXEC,
                     "kernel %s: is not a kernel but looks like %s; a bzImage (vmlinuz) or an ELF "
                     "with a PVH note is needed",
                     file->path, boot_looks_like(file));
}

int boot_open(const struct boot_params_host *params, struct boot **ret_boot, struct error *err)
{
    struct boot *boot = calloc(1, sizeof(*boot));
    int r;

    if (!boot)
        return error_set(err, ENOMEM, "boot: out of memory");
    boot->request = (struct boot_request){.kernel.fd = -1,
                                          .initrd.fd = -1,
                                          .cmdline = strdup(params->cmdline ? params->cmdline : ""),
                                          .memory_size = params->memory_size,
                                          .unpack = params->unpack};
    if (!boot->request.cmdline) {
        r = error_set(err, ENOMEM, "boot: out of memory");
        goto fail;
    }
    r = open_file(&boot->request.kernel, "kernel", params->kernel, err);
    if (r < 0)
        goto fail;
    if (params->initrd) {
        r = open_file(&boot->request.initrd, "initrd", params->initrd, err);
        if (r < 0)
            goto fail;
    }
    r = identify(boot, err);
    if (r < 0)
        goto fail;
    if (boot->kind == KIND_BZIMAGE && params->unpack == BOOT_UNPACK_AUTO)
        boot->request.cache = cache_create(params->cache_delay_ms);
    *ret_boot = boot;
    return 0;

fail:
    boot_close(boot);
    return r;
}

void boot_close(struct boot *boot)
{
    if (!boot)
        return;
    cache_destroy(boot->request.cache); /* reads from the kernel file until then */
    close_file(&boot->request.kernel);
    close_file(&boot->request.initrd);
    free(boot->request.cmdline);
    free(boot);
}

int boot_load(struct boot *boot, struct guest_memory *mem, uint64_t acpi_rsdp,
              const struct boot_reserved *reserved, unsigned count, struct cpu_entry *ret_entry,
              struct error *err)
{
    struct boot_target target = {.mem = mem, .acpi_rsdp = acpi_rsdp};
    int r = memory_map_build(mem, reserved, count, target.map, err);

    if (r < 0)
        return r;
    target.map_count = (unsigned)r;
    r = layout_init(&target.layout, mem, reserved, count, err);
    if (r < 0)
        return r;
    return boot->kind == KIND_BZIMAGE
               ? bzimage_load(&boot->bzimage, &boot->request, &target, ret_entry, err)
               : elf_kernel_load(&boot->elf, &boot->request, &target, ret_entry, err);
}

const char *boot_describe(const struct boot *boot)
{
    return boot->description;
}
