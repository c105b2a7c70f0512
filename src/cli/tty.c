/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The terminal in raw mode, and back on every way out. What is static here is
 * for signal handlers, which are given nothing; a process has one terminal.
 */
#include "tty.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <termios.h>

static struct termios saved;
static volatile sig_atomic_t saved_fd = -1;
static void (*volatile guard)(void);

int tty_make_raw(int fd, struct error *err)
{
    struct termios raw;

    if (tcgetattr(fd, &raw) < 0)
        return error_errno(err, errno, "terminal");
    saved = raw;
    cfmakeraw(&raw);
    saved_fd = fd;
    if (tcsetattr(fd, TCSADRAIN, &raw) < 0) {
        saved_fd = -1;
        return error_errno(err, errno, "terminal: raw mode");
    }
    return 0;
}

void tty_restore(void)
{
    int fd = saved_fd;

    saved_fd = -1;
    if (fd >= 0)
        (void)tcsetattr(fd, TCSANOW, &saved); /* a terminal that hung up needs no restoring */
}

static void die(int number)
{
    if (guard)
        guard();
    raise(number); /* SA_RESETHAND: the default action now, with its core dump */
}

void tty_guard(void (*restore)(void))
{
    static const int fatal[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    struct sigaction action = {.sa_handler = die, .sa_flags = SA_RESETHAND};

    guard = restore;
    for (size_t i = 0; i < sizeof(fatal) / sizeof(fatal[0]); i++)
        sigaction(fatal[i], &action, NULL);
}
