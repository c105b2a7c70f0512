/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The folder of control sockets.
 *
 * Whoever can write in this folder can put a socket of their own under a
 * machine's name, so it is trusted only when it belongs to us and nobody else
 * may write in it. All changes to names happen under a flock() on the folder.
 */
#include "dir.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static_assert(sizeof(((struct sockaddr_un *)0)->sun_path) == CONTROL_PATH_MAX,
              "CONTROL_PATH_MAX is the kernel's");

#define SUFFIX ".sock"

bool control_name_is_valid(const char *name)
{
    size_t len = strlen(name);

    if (len == 0 || len > CONTROL_NAME_MAX || name[0] == '.' || name[0] == '-')
        return false;
    return strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == len;
}

static const char *env(const char *name)
{
    const char *value = getenv(name);

    return value && *value ? value : NULL;
}

static int check_owner(const char *dir, struct error *err)
{
    struct stat st;

    if (lstat(dir, &st) < 0)
        return errno == ENOENT ? 0 : error_errno(err, errno, "%s", dir);
    if (S_ISLNK(st.st_mode)) {
        if (st.st_uid != geteuid() && st.st_uid != 0)
            return error_set(err, EPERM,
                             "%s: a symbolic link of another user (uid %u); set VMRUN_DIR to a "
                             "folder of your own",
                             dir, st.st_uid);
        if (stat(dir, &st) < 0)
            return error_errno(err, errno, "%s", dir);
    }
    if (!S_ISDIR(st.st_mode))
        return error_set(err, ENOTDIR, "%s: not a folder; remove it or set VMRUN_DIR", dir);
    if (st.st_uid != geteuid())
        return error_set(err, EPERM,
                         "%s: belongs to another user (uid %u); set VMRUN_DIR to a folder of your "
                         "own",
                         dir, st.st_uid);
    if (st.st_mode & (S_IWGRP | S_IWOTH))
        return error_set(err, EPERM, "%s: others may write in it; 'chmod go-w %s' mends it", dir,
                         dir);
    return 0;
}

int control_dir(bool create, char *buf, size_t len, struct error *err)
{
    char dir[CONTROL_PATH_MAX];
    const char *from;
    int n;

    if ((from = env("VMRUN_DIR")))
        n = snprintf(dir, sizeof(dir), "%s", from);
    else if ((from = env("XDG_RUNTIME_DIR")))
        n = snprintf(dir, sizeof(dir), "%s/vmrun", from);
    else if (geteuid() == 0)
        n = snprintf(dir, sizeof(dir), "/run/vmrun");
    else
        n = snprintf(dir, sizeof(dir), "/tmp/vmrun-%u", geteuid());
    if (n < 0 || (size_t)n >= sizeof(dir) || (size_t)n >= len)
        return error_set(err, ENAMETOOLONG,
                         "%.40s...: too long for a folder of sockets (%d characters, at most %d); "
                         "set VMRUN_DIR to a shorter path",
                         from ? from : "", n, (int)sizeof(dir) - 1);

    if (create && mkdir(dir, 0700) < 0 && errno != EEXIST)
        return error_errno(err, errno,
                           "cannot make the folder of control sockets %s (VMRUN_DIR names another)",
                           dir);
    int r = check_owner(dir, err);
    if (r < 0)
        return r;
    memcpy(buf, dir, (size_t)n + 1);
    return 0;
}

static int path_of(const char *name, const char *suffix, bool create, char *buf, size_t len,
                   struct error *err)
{
    char dir[CONTROL_PATH_MAX];

    if (!control_name_is_valid(name))
        return error_set(err, EINVAL,
                         "\"%.80s\" is not a name: 1 to %d of A-Z a-z 0-9 . _ - and not starting "
                         "with . or -",
                         name, CONTROL_NAME_MAX);
    int r = control_dir(create, dir, sizeof(dir), err);
    if (r < 0)
        return r;
    if ((size_t)snprintf(buf, len, "%s/%s%s", dir, name, suffix) >= len)
        return error_set(err, ENAMETOOLONG,
                         "%s/%s%s: too long for a socket (at most %zu characters); choose a "
                         "shorter name or set VMRUN_DIR to a shorter path",
                         dir, name, suffix, len - 1);
    return 0;
}

int control_socket_path(const char *name, bool create, char *buf, struct error *err)
{
    return path_of(name, SUFFIX, create, buf, CONTROL_PATH_MAX, err);
}

int control_log_path(const char *name, char *buf, size_t len, struct error *err)
{
    return path_of(name, ".log", false, buf, len, err);
}

int control_dir_lock(const char *dir, int *ret_fd, struct error *err)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return error_errno(err, errno, "%s", dir);
    while (flock(fd, LOCK_EX) < 0) {
        if (errno == EINTR)
            continue;
        int r = error_errno(err, errno, "lock %s", dir);
        close(fd);
        return r;
    }
    *ret_fd = fd;
    return 0;
}

int control_connect(const char *path, pid_t *ret_pid)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    struct ucred peer = {0};
    socklen_t len = sizeof(peer);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return -errno;
    memcpy(addr.sun_path, path, strnlen(path, sizeof(addr.sun_path) - 1));
    if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
        int r = -errno;
        close(fd);
        return r;
    }
    if (ret_pid)
        *ret_pid = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 ? peer.pid : 0;
    return fd;
}

/* Is there a machine behind it? With the lock held, the socket of a dead one is removed. */
static bool probe(int dir_fd, const char *path, const char *file)
{
    int fd = control_connect(path, NULL);

    if (fd >= 0) {
        close(fd);
        return true;
    }
    if (fd == -ECONNREFUSED)
        unlinkat(dir_fd, file, 0);
    return fd == -EAGAIN;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int list_add(char ***names, size_t *count, const char *name)
{
    char **grown = reallocarray(*names, *count + 1, sizeof(**names));

    if (!grown)
        return -ENOMEM;
    *names = grown;
    grown[*count] = strdup(name);
    if (!grown[*count])
        return -ENOMEM;
    (*count)++;
    return 0;
}

/* Adds the machine behind one directory entry, if there is one. */
static int list_entry(const char *dir, int dir_fd, const char *file, char ***names, size_t *count)
{
    char name[CONTROL_NAME_MAX + 1], path[CONTROL_PATH_MAX];
    struct stat st;
    size_t len = strlen(file), suffix = strlen(SUFFIX);

    if (len <= suffix || len - suffix > CONTROL_NAME_MAX ||
        strcmp(file + len - suffix, SUFFIX) != 0)
        return 0;
    memcpy(name, file, len - suffix);
    name[len - suffix] = '\0';
    if (!control_name_is_valid(name) ||
        (size_t)snprintf(path, sizeof(path), "%s/%s", dir, file) >= sizeof(path) ||
        fstatat(dir_fd, file, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISSOCK(st.st_mode) ||
        !probe(dir_fd, path, file))
        return 0;
    return list_add(names, count, name);
}

int control_list(char ***ret_names, size_t *ret_count, struct error *err)
{
    char dir[CONTROL_PATH_MAX];
    char **names = NULL;
    size_t count = 0;
    DIR *entries = NULL;
    int fd = -1, r;

    r = control_dir(false, dir, sizeof(dir), err);
    if (r < 0)
        goto fail;
    if (access(dir, F_OK) < 0 && errno == ENOENT) {
        *ret_names = NULL;
        *ret_count = 0;
        return 0;
    }
    r = control_dir_lock(dir, &fd, err);
    if (r < 0)
        goto fail;
    entries = fdopendir(fd);
    if (!entries) {
        r = error_errno(err, errno, "%s", dir);
        close(fd);
        goto fail;
    }

    for (const struct dirent *e; (e = readdir(entries));) {
        r = list_entry(dir, dirfd(entries), e->d_name, &names, &count);
        if (r < 0) {
            error_set(err, ENOMEM, "%s: out of memory", dir);
            goto fail;
        }
    }
    closedir(entries);
    if (count)
        qsort(names, count, sizeof(*names), compare_names);
    *ret_names = names;
    *ret_count = count;
    return 0;

fail:
    if (entries)
        closedir(entries);
    control_list_free(names, count);
    return r;
}

void control_list_free(char **names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(names[i]);
    free(names);
}
