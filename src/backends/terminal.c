/* SPDX-License-Identifier: Apache-2.0 */
#include "terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

/* What to put back. A signal handler needs it, and a process has only one terminal. */
static struct termios saved;
static volatile sig_atomic_t saved_fd = -1;

int terminal_make_raw(int fd, struct error *err)
{
    struct termios raw;

    if (tcgetattr(fd, &raw) < 0)
        return error_errno(err, errno, "terminal");
    saved = raw;
    raw.c_iflag &= ~(tcflag_t)(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
    raw.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | ISIG | IEXTEN);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    saved_fd = fd;
    if (tcsetattr(fd, TCSADRAIN, &raw) < 0) {
        saved_fd = -1;
        return error_errno(err, errno, "terminal: raw mode");
    }
    return 0;
}

void terminal_restore(void)
{
    int fd = saved_fd;

    saved_fd = -1;
    if (fd >= 0)
        (void)tcsetattr(fd, TCSANOW, &saved); /* a terminal that hung up needs no restoring */
}

void output_share(struct output *out, int fd)
{
    char path[32];
    struct stat st;

    *out = (struct output){.fd = fd};
    /* A regular file never blocks for long, and opened anew it would lose the shared offset. */
    if (fstat(fd, &st) < 0 || S_ISREG(st.st_mode))
        return;
    out->socket = S_ISSOCK(st.st_mode);
    if (out->socket)
        return;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int own = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    out->owned = own >= 0;
    out->careful = own < 0;
    if (own >= 0)
        out->fd = own;
}

void output_own(struct output *out, int fd)
{
    *out = (struct output){.fd = fd, .owned = true};
}

void output_fini(struct output *out)
{
    if (out->owned)
        close(out->fd);
    *out = (struct output){.fd = -1};
}

ssize_t output_write(struct output *out, const void *data, size_t len)
{
    struct pollfd poll_fd = {.fd = out->fd, .events = POLLOUT};
    ssize_t n;

    if (out->socket) {
        n = send(out->fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    } else if (out->careful) {
        if (poll(&poll_fd, 1, 0) <= 0)
            return -EAGAIN;
        /* A terminal that is ready to write has room for 256 bytes, a pipe for more. */
        n = write(out->fd, data, len < 256 ? len : 256);
    } else {
        n = write(out->fd, data, len);
    }
    return n < 0 ? -errno : n;
}
