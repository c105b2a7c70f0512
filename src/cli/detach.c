/* SPDX-License-Identifier: Apache-2.0 */
/*
 * run --detach: the parent waits on a pipe for one message.
 *
 * "+NAME" says that the machine runs, "-STATUS WORDS" that it does not; nothing
 * at all, that the child died. Descriptors 0 to 2 of the child leave the
 * terminal and the caller's pipes before the parent goes, or `$(vmrun run
 * --detach)` would wait for ever.
 */
#include "detach.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmrun/cli.h"

static int replace_fd(int fd, const char *path, int flags, struct error *err)
{
    int opened = open(path, flags | O_CLOEXEC | O_NOCTTY, 0600);

    if (opened < 0 || dup2(opened, fd) < 0) {
        int r = error_errno(err, errno, "%s", path);
        if (opened >= 0)
            close(opened);
        return r;
    }
    close(opened);
    return 0;
}

/* The parent: what the child has to say decides the exit status. */
static int wait_for_child(int fd, pid_t child, struct error *err)
{
    char message[sizeof(err->msg) + 16];
    size_t len = 0;
    ssize_t n;
    int end = 0;

    while (len < sizeof(message) - 1) {
        n = read(fd, message + len, sizeof(message) - 1 - len);
        if (n == 0 || (n < 0 && errno != EINTR))
            break;
        if (n > 0)
            len += (size_t)n;
    }
    message[len] = '\0';
    if (message[0] == '+') {
        puts(message + 1);
        return CLI_OK;
    }
    while (waitpid(child, &end, 0) < 0 && errno == EINTR)
        continue;
    if (message[0] == '-') {
        char *words = NULL;
        int status = (int)strtol(message + 1, &words, 10);
        if (*words == ' ')
            error_set(err, ECANCELED, "%s", words + 1);
        return status;
    }
    if (WIFSIGNALED(end))
        error_set(err, ECHILD, "run --detach: signal %d ended vmrun before the machine ran",
                  WTERMSIG(end));
    else
        error_set(err, ECHILD, "run --detach: vmrun ended before the machine ran");
    return CLI_FAILED;
}

int detach_fork(int *ret_fd, struct error *err)
{
    int fds[2];

    *ret_fd = -1;
    if (pipe2(fds, O_CLOEXEC) < 0) {
        error_errno(err, errno, "run --detach");
        return CLI_FAILED;
    }
    pid_t child = fork();
    if (child < 0) {
        error_errno(err, errno, "run --detach");
        close(fds[0]);
        close(fds[1]);
        return CLI_FAILED;
    }
    if (child > 0) {
        close(fds[1]);
        int status = wait_for_child(fds[0], child, err);
        close(fds[0]);
        return status;
    }
    close(fds[0]);
    setsid();
    if (replace_fd(STDIN_FILENO, "/dev/null", O_RDONLY, err) < 0) {
        detach_failed(fds[1], CLI_FAILED, err);
        *err = (struct error){0};
        return CLI_FAILED;
    }
    *ret_fd = fds[1];
    return CLI_OK;
}

/* fd stays open. */
static int say(int fd, const char *message)
{
    size_t len = strlen(message);
    ssize_t n = write(fd, message, len); /* shorter than PIPE_BUF: all or nothing */

    return n == (ssize_t)len ? 0 : n < 0 ? -errno : -EIO;
}

int detach_ready(int fd, const char *name, const char *log_path, struct error *err)
{
    char message[128];

    if (replace_fd(STDERR_FILENO, log_path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_NOFOLLOW,
                   err) < 0 ||
        replace_fd(STDOUT_FILENO, "/dev/null", O_WRONLY, err) < 0)
        return -err->code;
    snprintf(message, sizeof(message), "+%s", name);
    int r = say(fd, message);
    if (r < 0) {
        unlink(log_path);
        return error_errno(err, -r, "run --detach: nobody waits for the machine any more");
    }
    return 0;
}

void detach_failed(int fd, int status, const struct error *err)
{
    char message[sizeof(err->msg) + 16];

    snprintf(message, sizeof(message), *err->msg ? "-%d %s" : "-%d", status, err->msg);
    (void)say(fd, message); /* an interrupted parent has nobody to tell */
    close(fd);
}
