/* SPDX-License-Identifier: Apache-2.0 */
/*
 * newfile: written without a name, and then linked into its place; what it replaces gives way at
 * once and only at the end.
 */
#include "newfile.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

int newfile_failed(const struct newfile *f, struct error *err)
{
    return error_errno(err, errno, "%s", f->path);
}

static int split_path(struct newfile *f, const char *path, struct error *err)
{
    f->path = strdup(path);
    if (!f->path)
        return error_set(err, ENOMEM, "%s: out of memory", path);
    const char *slash = strrchr(f->path, '/');
    f->base = slash ? slash + 1 : f->path;
    if (!*f->base || strcmp(f->base, ".") == 0 || strcmp(f->base, "..") == 0)
        return error_set(err, EISDIR, "%s: not the name of a file", path);

    char *folder = slash ? strndup(f->path, (size_t)(slash - f->path) + 1) : strdup(".");
    if (!folder)
        return error_set(err, ENOMEM, "%s: out of memory", path);
    f->dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int r = f->dir < 0 ? error_errno(err, errno, "%s: its folder", path) : 0;
    free(folder);
    return r;
}

static int name_is_taken(const struct newfile *f, struct error *err)
{
    return error_set(err, EEXIST, "%s exists; --force replaces it", f->path);
}

static int check_target(const struct newfile *f, struct error *err)
{
    struct stat st;

    if (fstatat(f->dir, f->base, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : newfile_failed(f, err);
    if (S_ISDIR(st.st_mode))
        return error_set(err, EISDIR, "%s: is a folder", f->path);
    if (!f->replace)
        return name_is_taken(f, err);
    if (!S_ISREG(st.st_mode) && !S_ISLNK(st.st_mode))
        return error_set(err, EINVAL, "%s: exists and is no regular file", f->path);
    return 0;
}

static int make_temporary(struct newfile *f, struct error *err)
{
    uint64_t random;

    if (getrandom(&random, sizeof(random), 0) != sizeof(random))
        return newfile_failed(f, err);
    snprintf(f->temporary, sizeof(f->temporary), ".vmrun-%016" PRIx64, random);
    return 0;
}

static int open_named(struct newfile *f, struct error *err)
{
    int r = make_temporary(f, err);

    if (r < 0)
        return r;
    f->fd = openat(f->dir, f->temporary, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (f->fd >= 0)
        return 0;
    f->temporary[0] = '\0';
    return newfile_failed(f, err);
}

/* Without a name when the file system can do that: whatever kills us leaves nothing behind. */
static int open_file(struct newfile *f, bool named, struct error *err)
{
    named = named || access("/proc/self/fd", F_OK) < 0;
    if (!named)
        f->fd = openat(f->dir, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (!named && f->fd < 0 && errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)
        return newfile_failed(f, err);
    if (f->fd < 0) {
        int r = open_named(f, err);

        if (r < 0)
            return r;
    }
    /* A folder's default access list may have given it to others. */
    return fchmod(f->fd, 0600) < 0 ? newfile_failed(f, err) : 0;
}

int newfile_open(struct newfile *f, const char *path, bool replace, bool named, struct error *err)
{
    int r;

    *f = (struct newfile){.dir = -1, .fd = -1, .replace = replace};
    r = split_path(f, path, err);
    if (r == 0)
        r = check_target(f, err);
    if (r == 0)
        r = open_file(f, named, err);
    return r;
}

void newfile_close(struct newfile *f)
{
    if (f->temporary[0])
        (void)unlinkat(f->dir, f->temporary, 0);
    if (f->path && f->fd >= 0)
        close(f->fd);
    if (f->path && f->dir >= 0)
        close(f->dir);
    free(f->path);
    *f = (struct newfile){.dir = -1, .fd = -1};
}

int newfile_write(const struct newfile *f, uint64_t offset, const void *data, uint64_t bytes,
                  struct error *err)
{
    const uint8_t *at = data;

    while (bytes > 0) {
        ssize_t n = pwrite(f->fd, at, bytes, (off_t)offset);

        if (n < 0 && errno == EINTR)
            continue;
        if (n == 0)
            errno = ENOSPC;
        if (n <= 0)
            return newfile_failed(f, err);
        at += n;
        offset += (uint64_t)n;
        bytes -= (uint64_t)n;
    }
    return 0;
}

/* From the temporary name, if nothing has the last one. */
static int take_free_name(struct newfile *f)
{
    if (linkat(f->dir, f->temporary, f->dir, f->base, 0) == 0)
        return 0; /* the other name goes with the writer */
    if (errno != EPERM && errno != EOPNOTSUPP)
        return -1;
    if (renameat2(f->dir, f->temporary, f->dir, f->base, RENAME_NOREPLACE) < 0)
        return -1;
    f->temporary[0] = '\0';
    return 0;
}

int newfile_take_name(struct newfile *f, struct error *err)
{
    char self[40];
    int r;

    snprintf(self, sizeof(self), "/proc/self/fd/%d", f->fd);
    if (!f->temporary[0] && f->replace) {
        r = make_temporary(f, err);
        if (r < 0)
            return r;
        if (linkat(AT_FDCWD, self, f->dir, f->temporary, AT_SYMLINK_FOLLOW) < 0) {
            f->temporary[0] = '\0';
            return newfile_failed(f, err);
        }
    }
    if (f->replace) {
        r = renameat(f->dir, f->temporary, f->dir, f->base);
        if (r == 0)
            f->temporary[0] = '\0';
    } else if (f->temporary[0]) {
        r = take_free_name(f);
    } else {
        r = linkat(AT_FDCWD, self, f->dir, f->base, AT_SYMLINK_FOLLOW);
    }
    if (r < 0)
        return errno == EEXIST ? name_is_taken(f, err) : newfile_failed(f, err);
    if (fsync(f->dir) < 0 && errno != EINVAL) /* not every file system has that for folders */
        return error_errno(err, errno, "%s is there, but a power cut could take its name", f->path);
    return 0;
}
