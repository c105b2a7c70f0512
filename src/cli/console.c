/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmrun console: the connection's bytes to standard output, standard input's to
 * the connection.
 *
 * The machine hangs up on a client that shuts its side, so the end of input is
 * kept to ourselves: output goes on until the machine ends or --timeout says
 * that it has been silent for long enough.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tty.h"
#include "verbs.h"

#define DETACH_KEY 0x1d /* Ctrl-] */
#define TIMEOUT_MAX_S 86400

struct session {
    const char *name;
    int fd;        /* the machine */
    int signal_fd; /* the signals that end us, once the terminal is back */
    int signal;    /* the one that did */
    bool terminal; /* stdin is one */
    bool input;    /* stdin has not ended */
    bool detached; /* by the key, or by the timeout */
    bool ended;    /* the machine hung up */
    int idle_ms;   /* after the end of input; -1: for ever */
    char to_guest[4096];
    size_t to_guest_len;
};

static int write_out(const char *data, size_t len, struct error *err)
{
    while (len) {
        ssize_t n = write(STDOUT_FILENO, data, len);

        if (n < 0 && errno == EAGAIN) {
            struct pollfd p = {.fd = STDOUT_FILENO, .events = POLLOUT};
            (void)poll(&p, 1, -1); /* whatever it says, write(2) says it better */
            continue;
        }
        if (n < 0 && errno != EINTR)
            return error_errno(err, errno, "standard output");
        if (n > 0) {
            data += n;
            len -= (size_t)n;
        }
    }
    return 0;
}

static int copy_output(struct session *s, struct error *err)
{
    char buf[16384];
    ssize_t n = recv(s->fd, buf, sizeof(buf), MSG_DONTWAIT);

    if (n > 0)
        return write_out(buf, (size_t)n, err);
    if (n == 0 || (errno != EAGAIN && errno != EINTR))
        s->ended = true;
    return 0;
}

static void send_input(struct session *s)
{
    ssize_t n = send(s->fd, s->to_guest, s->to_guest_len, MSG_NOSIGNAL | MSG_DONTWAIT);

    if (n <= 0)
        return; /* if it hung up, copy_output() finds out, after the machine's last words */
    s->to_guest_len -= (size_t)n;
    memmove(s->to_guest, s->to_guest + n, s->to_guest_len);
}

static void copy_input(struct session *s)
{
    ssize_t n = read(STDIN_FILENO, s->to_guest, sizeof(s->to_guest));

    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n <= 0) {
        s->input = false;
        s->detached = s->terminal; /* it hung up */
        return;
    }
    s->to_guest_len = (size_t)n;
    const char *key = s->terminal ? memchr(s->to_guest, DETACH_KEY, s->to_guest_len) : NULL;
    if (key) {
        s->to_guest_len = (size_t)(key - s->to_guest);
        s->detached = true;
    }
    if (s->to_guest_len)
        send_input(s);
}

static int serve(struct session *s, struct error *err)
{
    enum { MACHINE, SIGNAL, INPUT };

    while (!s->ended && !s->detached && !s->signal) {
        struct pollfd p[] = {
            [MACHINE] = {.fd = s->fd, .events = s->to_guest_len ? POLLIN | POLLOUT : POLLIN},
            [SIGNAL] = {.fd = s->signal_fd, .events = POLLIN},
            /* what was read last goes out first */
            [INPUT] = {.fd = s->input && !s->to_guest_len ? STDIN_FILENO : -1, .events = POLLIN},
        };
        int n = poll(p, 3, s->input || s->to_guest_len ? -1 : s->idle_ms);

        if (n < 0 && errno != EINTR)
            return error_errno(err, errno, "poll");
        if (n < 0)
            continue;
        if (n == 0)
            s->detached = true;
        if (p[SIGNAL].revents) {
            struct signalfd_siginfo info;
            if (read(s->signal_fd, &info, sizeof(info)) == sizeof(info))
                s->signal = (int)info.ssi_signo;
        }
        if (p[MACHINE].revents & POLLOUT)
            send_input(s);
        if (p[MACHINE].revents & (POLLIN | POLLHUP | POLLERR)) {
            int r = copy_output(s, err);
            if (r < 0)
                return r;
        }
        if (p[INPUT].revents)
            copy_input(s);
    }
    return 0;
}

/* From here on these signals come through a descriptor: nothing ends us with a raw terminal. */
static int open_signals(sigset_t *ret_before, int *ret_fd, struct error *err)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGQUIT);
    int fd = signalfd(-1, &set, SFD_CLOEXEC);
    if (fd < 0)
        return error_errno(err, errno, "signals");
    sigprocmask(SIG_BLOCK, &set, ret_before);
    *ret_fd = fd;
    return 0;
}

static int attach(struct session *s, struct control_client *client, struct error *err)
{
    const char *rest;
    int r = control_client_call(client, "console.attach", NULL, CLI_CALL_TIMEOUT_MS, NULL, err);

    if (r < 0)
        return r;
    s->fd = control_client_fd(client);
    size_t len = control_client_take_rest(client, &rest);
    s->terminal = isatty(STDIN_FILENO);
    if (s->terminal) {
        fprintf(stderr, "Attached to %s. Ctrl-] detaches.\n", s->name);
        tty_guard(tty_restore);
        r = tty_make_raw(STDIN_FILENO, err);
        if (r < 0)
            return r;
    }
    s->input = true;
    r = write_out(rest, len, err);
    return r < 0 ? r : serve(s, err);
}

int cli_console(const struct cli_args *args, struct error *err)
{
    struct session s = {.name = args->operands[0], .signal_fd = -1, .idle_ms = -1};
    struct control_client *client;
    sigset_t before;
    unsigned timeout_s;
    int status = cli_get_seconds(args, "--timeout", TIMEOUT_MAX_S, 0, &timeout_s, err);

    if (status != CLI_OK)
        return status;
    if (timeout_s)
        s.idle_ms = (int)timeout_s * 1000;
    if (cli_open(s.name, &client, err) < 0)
        return CLI_FAILED;
    int r = open_signals(&before, &s.signal_fd, err);
    if (r == 0) {
        r = attach(&s, client, err);
        tty_restore();
        if (r == 0 && s.terminal)
            fprintf(stderr, "\n%s %s.\n", s.ended ? "The end of" : "Detached from", s.name);
        close(s.signal_fd);
        sigprocmask(SIG_SETMASK, &before, NULL);
    }
    control_client_close(client);
    if (r == -EPIPE && !s.ended) /* nobody reads us any more: not worth a word */
        *err = (struct error){0};
    if (r < 0)
        return CLI_FAILED;
    return s.signal ? 128 + s.signal : CLI_OK;
}
