/* SPDX-License-Identifier: Apache-2.0 */
#include "fake_server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int fake_server_listen(struct fake_server *server)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};

    strcpy(server->dir, "/tmp/vmrun-test-XXXXXX");
    if (!mkdtemp(server->dir) || setenv("VMRUN_DIR", server->dir, 1) < 0)
        return -1;
    snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/web1.sock", server->dir);
    server->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return bind(server->fd, (struct sockaddr *)&addr, sizeof(addr)) | listen(server->fd, 1);
}

int fake_server_close(struct fake_server *server)
{
    char path[128];

    if (server->fd >= 0)
        close(server->fd);
    snprintf(path, sizeof(path), "%s/web1.sock", server->dir);
    unlink(path);
    return rmdir(server->dir);
}
