/* SPDX-License-Identifier: Apache-2.0 */
/* sink: the terminal, a pseudo-terminal, a file, or nothing. */
#include "sink.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

static int open_stdio(struct sink *sink, bool terminal_later, struct error *err)
{
    int r = 0;

    snprintf(sink->description, sizeof(sink->description), "stdio");
    sink->in_is_terminal = isatty(STDIN_FILENO);
    if (sink->in_is_terminal && !terminal_later)
        r = terminal_make_raw(STDIN_FILENO, err);
    if (r < 0)
        return r;
    sink->in_fd = STDIN_FILENO;
    output_share(&sink->out, STDOUT_FILENO);
    return 0;
}

static int open_file(struct sink *sink, const char *path, struct error *err)
{
    /* Non-blocking for the sake of FIFOs and serial lines: a regular file does not care. */
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0600);

    if (fd < 0)
        return error_errno(err, errno, "console file '%s'", path);
    snprintf(sink->description, sizeof(sink->description), "file %s", path);
    output_own(&sink->out, fd);
    return 0;
}

static int open_pty(struct sink *sink, struct error *err)
{
    char path[64];
    struct termios raw;
    int fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return error_errno(err, errno, "console: pseudo-terminal");
    output_own(&sink->out, fd);
    if (grantpt(fd) < 0 || unlockpt(fd) < 0 || ptsname_r(fd, path, sizeof(path)) != 0)
        goto fail;
    sink->pty_slave = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (sink->pty_slave < 0 || tcgetattr(sink->pty_slave, &raw) < 0)
        goto fail;
    cfmakeraw(&raw);
    if (tcsetattr(sink->pty_slave, TCSANOW, &raw) < 0)
        goto fail;
    /* Of its own: an event loop watches a descriptor once, and output needs a watch as well. */
    sink->in_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (sink->in_fd < 0)
        goto fail;
    sink->in_owned = true;
    snprintf(sink->description, sizeof(sink->description), "pty %s", path);
    return 0;

fail:
    error_errno(err, errno, "console: pseudo-terminal");
    output_fini(&sink->out);
    return -err->code;
}

int sink_open(struct sink *sink, const struct console_params *params, struct error *err)
{
    *sink = (struct sink){.out.fd = -1, .in_fd = -1, .pty_slave = -1, .description = "none"};
    switch (params->kind) {
    case CONSOLE_STDIO: return open_stdio(sink, params->terminal_later, err);
    case CONSOLE_FILE: return open_file(sink, params->path, err);
    case CONSOLE_PTY: return open_pty(sink, err);
    case CONSOLE_NONE: break;
    }
    return 0;
}

int sink_take_terminal(struct sink *sink, struct error *err)
{
    return sink->in_is_terminal ? terminal_make_raw(STDIN_FILENO, err) : 0;
}

void sink_close(struct sink *sink)
{
    if (sink->in_owned)
        close(sink->in_fd);
    sink->in_fd = -1;
    sink->in_owned = false;
    if (sink->in_is_terminal)
        terminal_restore();
    sink->in_is_terminal = false;
    if (sink->pty_slave >= 0)
        close(sink->pty_slave);
    sink->pty_slave = -1;
}
