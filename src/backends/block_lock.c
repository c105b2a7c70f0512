/* SPDX-License-Identifier: Apache-2.0 */
/*
 * block_lock: keeps two programs from writing one image.
 *
 * The one thing to know: the scheme is QEMU's (block/file-posix.c), so that its
 * programs and ours respect each other. Byte 100 + n of the image is locked by
 * who uses permission n, byte 200 + n by who does not let others use it. All
 * these locks are shared ones and never conflict: after taking one's own, one
 * asks whether somebody else has a lock at the opposite bytes.
 */
#include "block_lock.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define USED_AT 100
#define UNSHARED_AT 200

enum permission { CONSISTENT_READ = 0, WRITE = 1, WRITE_UNCHANGED = 2, RESIZE = 3, PERMISSIONS };

static int set_lock(int fd, short type, off_t at, off_t len)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = at, .l_len = len};
    int r;

    do
        r = fcntl(fd, F_OFD_SETLK, &lock);
    while (r < 0 && errno == EINTR); /* a file system over a network waits for its server */
    return r == 0 ? 0 : errno == EACCES ? -EAGAIN : -errno;
}

int block_lock_byte(int fd, off_t at, bool exclusive)
{
    return set_lock(fd, exclusive ? F_WRLCK : F_RDLCK, at, 1);
}

void block_unlock_bytes(int fd, off_t at, off_t len)
{
    (void)set_lock(fd, F_UNLCK, at, len); /* a lock that is not there is no error */
}

bool block_is_byte_locked(int fd, off_t at)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};

    return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

bool block_is_written_by_another(int fd)
{
    return block_is_byte_locked(fd, USED_AT + WRITE);
}

void block_unlock(int fd)
{
    block_unlock_bytes(fd, USED_AT, PERMISSIONS);
    block_unlock_bytes(fd, UNSHARED_AT, PERMISSIONS);
}

/* Whether descriptor `fd` of process `pid` is this file, with a lock on it. */
static bool holds(const char *pid, const char *fd, const struct stat *file)
{
    char path[96], line[128];
    struct stat st;
    bool found = false;

    snprintf(path, sizeof(path), "/proc/%.20s/fd/%.20s", pid, fd);
    if (stat(path, &st) < 0 || st.st_dev != file->st_dev || st.st_ino != file->st_ino)
        return false;
    snprintf(path, sizeof(path), "/proc/%.20s/fdinfo/%.20s", pid, fd);
    FILE *info = fopen(path, "re");
    while (info && !found && fgets(line, sizeof(line), info))
        found = strncmp(line, "lock:", 5) == 0;
    if (info)
        fclose(info);
    return found;
}

static bool process_holds(const char *pid, const struct stat *file)
{
    const struct dirent *entry;
    char path[64];
    bool found = false;

    snprintf(path, sizeof(path), "/proc/%.20s/fd", pid);
    DIR *fds = opendir(path);
    while (fds && !found && (entry = readdir(fds)))
        found = isdigit((unsigned char)entry->d_name[0]) && holds(pid, entry->d_name, file);
    if (fds)
        closedir(fds);
    return found;
}

/*
 * Who has a lock on it: " (qemu-system-x86, pid 123)", or "" when /proc does not
 * tell. The kernel does not name the owner of such a lock, so this is a search.
 */
static void name_holder(int fd, char *buf, size_t len)
{
    DIR *processes = opendir("/proc");
    const struct dirent *entry;
    char path[64], name[32] = "";
    struct stat file;

    buf[0] = '\0';
    if (fstat(fd, &file) < 0) {
        if (processes)
            closedir(processes);
        return;
    }
    while (processes && !buf[0] && (entry = readdir(processes))) {
        long pid = strtol(entry->d_name, NULL, 10);

        if (pid <= 0 || pid == getpid() || !process_holds(entry->d_name, &file))
            continue;
        snprintf(path, sizeof(path), "/proc/%ld/comm", pid);
        FILE *comm = fopen(path, "re");
        if (comm) {
            if (fgets(name, sizeof(name), comm))
                name[strcspn(name, "\n")] = '\0';
            fclose(comm);
        }
        snprintf(buf, len, " (%s, pid %ld)", name, pid);
    }
    if (processes)
        closedir(processes);
}

static int refuse(int fd, const char *what, struct error *err)
{
    char holder[80];

    name_holder(fd, holder, sizeof(holder));
    return error_set(err, EBUSY, "in use: another process%s %s", holder, what);
}

int block_lock(int fd, bool read_only, struct error *err)
{
    static const enum permission writer[] = {CONSISTENT_READ, WRITE};
    static const enum permission unshared[] = {WRITE, RESIZE};
    unsigned used_count = read_only ? 1 : 2;
    int r = 0;

    for (unsigned i = 0; r == 0 && i < used_count; i++)
        r = block_lock_byte(fd, USED_AT + (off_t)writer[i], false);
    for (unsigned i = 0; r == 0 && i < sizeof(unshared) / sizeof(unshared[0]); i++)
        r = block_lock_byte(fd, UNSHARED_AT + (off_t)unshared[i], false);
    if (r == -EAGAIN) /* an exclusive lock: no program of the scheme has one */
        return refuse(fd, "has locked it", err);
    if (r < 0)
        return error_set(err, ENOLCK, "its file system has no locks (%s)", strerror(-r));
    for (unsigned i = 0; i < used_count; i++)
        if (block_is_byte_locked(fd, UNSHARED_AT + (off_t)writer[i]))
            return refuse(fd, read_only ? "does not let others read it" : "does not share it", err);
    for (unsigned i = 0; i < sizeof(unshared) / sizeof(unshared[0]); i++)
        if (block_is_byte_locked(fd, USED_AT + (off_t)unshared[i]))
            return refuse(fd, "writes it", err);
    return 0;
}
