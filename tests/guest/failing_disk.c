/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk that fails, for a whole vmrun: preloaded (LD_PRELOAD), it has one call of the C library
 * fail. $FAILING_DISK says which: "pwrite 12 5" is the 12th pwrite, with error 5 (EIO). Only what
 * vmrun writes of its own accord comes through here: disks of guests are written by libaio.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static bool fails(const char *call)
{
    static atomic_uint calls;
    const char *words = getenv("FAILING_DISK");
    unsigned turn;
    char name[16];
    int code;

    if (!words || sscanf(words, "%15s %u %d", name, &turn, &code) != 3 || strcmp(name, call) != 0 ||
        ++calls != turn)
        return false;
    errno = code;
    return true;
}

ssize_t pwrite(int fd, const void *data, size_t len, off_t at)
{
    return fails("pwrite") ? -1 : syscall(SYS_pwrite64, fd, data, len, at);
}

int ftruncate(int fd, off_t len)
{
    return fails("ftruncate") ? -1 : (int)syscall(SYS_ftruncate, fd, len);
}

int fdatasync(int fd)
{
    return fails("fdatasync") ? -1 : (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
    return fails("fsync") ? -1 : (int)syscall(SYS_fsync, fd);
}

int linkat(int from, const char *path, int to, const char *name, int flags)
{
    return fails("linkat") ? -1 : (int)syscall(SYS_linkat, from, path, to, name, flags);
}
