/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine's name, claimed.
 *
 * A name is taken while a process listens on its socket; the kernel ends that
 * with the process, whatever it died of, so a file that refuses connections is a
 * dead one's. Looking and taking happen under the folder's lock: of two
 * processes, one finds the other listening.
 */
#include "name.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "dir.h"
#include "vmrun/log.h"

struct control_name {
    int fd;
    bool bound; /* dev and ino are the socket file's */
    dev_t dev;
    ino_t ino;
    char name[CONTROL_NAME_MAX + 1];
    char path[CONTROL_PATH_MAX];
    char dir[CONTROL_PATH_MAX];
};

int control_name_fd(const struct control_name *name)
{
    return name->fd;
}

const char *control_name_text(const struct control_name *name)
{
    return name->name;
}

/* With the lock held: whatever is at the path is gone, or in words why it is not. */
static int clear_path(const struct control_name *n, struct error *err)
{
    struct stat st;
    pid_t pid = 0;

    if (lstat(n->path, &st) < 0)
        return errno == ENOENT ? 0 : error_errno(err, errno, "%s", n->path);
    if (!S_ISSOCK(st.st_mode))
        return error_set(err, EEXIST, "%s: in the way and not a socket; remove it", n->path);

    int fd = control_connect(n->path, &pid);
    if (fd >= 0) {
        close(fd);
        return pid ? error_set(err, EEXIST, "a machine named '%s' is running (pid %d)", n->name,
                               (int)pid)
                   : error_set(err, EEXIST, "a machine named '%s' is running", n->name);
    }
    if (fd == -EAGAIN)
        return error_set(err, EEXIST, "a machine named '%s' is running", n->name);
    if (fd != -ECONNREFUSED && fd != -ENOENT)
        return error_errno(err, -fd, "%s", n->path);
    if (unlink(n->path) < 0 && errno != ENOENT)
        return error_errno(err, errno, "remove the stale socket %s", n->path);
    return 0;
}

static int bind_path(struct control_name *n, struct error *err)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    struct stat st;

    n->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (n->fd < 0)
        return error_errno(err, errno, "control socket");
    memcpy(addr.sun_path, n->path, sizeof(addr.sun_path));
    /* On Linux the file takes its mode from the socket: at no moment is it wider than 0600. */
    if (fchmod(n->fd, 0600) < 0 || bind(n->fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
        lstat(n->path, &st) < 0)
        return error_errno(err, errno, "control socket %s", n->path);
    n->bound = true;
    n->dev = st.st_dev;
    n->ino = st.st_ino;
    if (listen(n->fd, 2 * CONTROL_CLIENTS_MAX) < 0)
        return error_errno(err, errno, "control socket %s", n->path);
    return 0;
}

int control_name_claim(const char *name, struct control_name **ret_name, struct error *err)
{
    struct control_name *n = calloc(1, sizeof(*n));
    int lock = -1, r;

    if (!n)
        return error_set(err, ENOMEM, "%s: out of memory", name);
    n->fd = -1;
    r = control_socket_path(name, true, n->path, err);
    if (r < 0)
        goto fail;
    snprintf(n->name, sizeof(n->name), "%s", name);
    r = control_dir(false, n->dir, sizeof(n->dir), err);
    if (r < 0)
        goto fail;
    r = control_dir_lock(n->dir, &lock, err);
    if (r < 0)
        goto fail;
    r = clear_path(n, err);
    if (r < 0)
        goto fail;
    r = bind_path(n, err);
    if (r < 0)
        goto fail;
    close(lock);
    *ret_name = n;
    return 0;

fail:
    if (lock >= 0)
        close(lock); /* before release, which takes it again */
    control_name_release(n);
    return r;
}

void control_name_unlink(const struct control_name *name)
{
    struct error err;
    struct stat st;
    int lock = -1;

    /* Someone may have removed our file, and another machine may have its name by now. */
    if (control_dir_lock(name->dir, &lock, &err) < 0)
        log_warn("%s", err.msg);
    if (lstat(name->path, &st) == 0 && st.st_dev == name->dev && st.st_ino == name->ino)
        unlink(name->path);
    if (lock >= 0)
        close(lock);
}

void control_name_release(struct control_name *name)
{
    if (!name)
        return;
    if (name->bound)
        control_name_unlink(name);
    if (name->fd >= 0)
        close(name->fd);
    free(name);
}
