/* SPDX-License-Identifier: Apache-2.0 */
/*
 * passt: the process that is a guest's network without any privilege, passt(1).
 *
 * The one thing to know: it must not outlive us. It ends when nobody has the other end of its
 * socket any more, and the kernel kills it with the thread that started it; where it becomes
 * another user, as it does when root starts it, only the first holds. That it is ready it says by
 * writing its process number to what it takes for a file, its own stderr.
 */
#include "passt.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmrun/forward.h"

#define PROGRAM "passt"
#define SOCKET_FD 3 /* there */
#define FIXED 16    /* arguments but for the forwards, and the NULL */
#define ARGUMENT 64 /* bytes of the longest one that is made up */
#define STACK_BYTES ((size_t)64 << 10)
#define END_MS 1000

/* Arguments */

static int read_forward(const char *text, size_t len, struct forward *ret_forward,
                        struct error *err)
{
    if (forward_parse(text, len, ret_forward) == 0)
        return 0;
    return error_set(err, EINVAL, "hostfwd: \"%.*s\" is no forward", (int)len, text);
}

static void print_forward(const struct forward *f, char buf[ARGUMENT])
{
    snprintf(buf, ARGUMENT, "%s%s%u:%u", f->address, f->address[0] ? "/" : "", f->host_port,
             f->guest_port);
}

/* An argument, into room for one; returns where it is. */
static char *put_word(char *at, const char *word)
{
    snprintf(at, ARGUMENT, "%s", word);
    return at;
}

int passt_arguments(const char *forwards, unsigned mtu, char ***ret_argv, struct error *err)
{
    static const char *const fixed[] = {PROGRAM, "--foreground", "--quiet",     "--fd",
                                        "3",     "--pid",        "/dev/stderr", "--mtu"};
    size_t count = 0, room = sizeof(fixed) / sizeof(fixed[0]), words = 0, at;
    bool tcp = false, udp = false;
    struct forward f;
    const char *next = forwards ? forwards : "";

    for (const char *w = next; (at = forward_next(&w)) > 0; w += at)
        words++;
    /* The pointers and behind them what they point to. */
    char **argv = calloc(1, (FIXED + 2 * words) * (sizeof(char *) + ARGUMENT));
    if (!argv)
        return error_set(err, ENOMEM, "out of memory");
    char *text = (char *)(argv + FIXED + 2 * words);

    for (; count < room; count++, text += ARGUMENT)
        argv[count] = put_word(text, fixed[count]);
    snprintf(text, ARGUMENT, "%u", mtu);
    argv[count++] = text;
    for (; (at = forward_next(&next)) > 0; next += at) {
        int r = read_forward(next, at, &f, err);

        if (r < 0) {
            free(argv);
            return r;
        }
        text += ARGUMENT;
        argv[count++] = put_word(text, f.udp ? "-u" : "-t");
        text += ARGUMENT;
        print_forward(&f, text);
        argv[count++] = text;
        *(f.udp ? &udp : &tcp) = true;
    }
    if (tcp && !udp) { /* else it would forward these ports of UDP as well */
        text += ARGUMENT;
        argv[count++] = put_word(text, "-u");
        argv[count++] = put_word(text + ARGUMENT, "none");
    }
    *ret_argv = argv;
    return 0;
}

/* Ports: passt is content when it gets a port for one of IPv4 and IPv6, and shares one of UDP. */

static int refuse_port(int code, const struct forward *f, const char *word, size_t len,
                       struct error *err)
{
    if (code == EADDRINUSE)
        return error_set(err, EADDRINUSE,
                         "hostfwd: \"%.*s\": port %u of the host is taken already; take another "
                         "one, or end who has it ('ss -lnp' lists them)",
                         (int)len, word, f->host_port);
    if (code == EACCES)
        return error_set(err, EACCES,
                         "hostfwd: \"%.*s\": port %u of the host is for root; take one from 1024 "
                         "on, or as root: sysctl net.ipv4.ip_unprivileged_port_start=%u",
                         (int)len, word, f->host_port, f->host_port);
    if (code == EADDRNOTAVAIL)
        return error_set(err, EADDRNOTAVAIL, "hostfwd: \"%.*s\": the host has no address %s",
                         (int)len, word, f->address);
    return error_errno(err, code, "hostfwd: \"%.*s\"", (int)len, word);
}

static int try_port(const struct forward *f, bool ipv6)
{
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(f->host_port)};
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(f->host_port)};
    int on = 1, r = 0;
    int fd =
        socket(ipv6 ? AF_INET6 : AF_INET, (f->udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return errno == EAFNOSUPPORT && !f->address[0] ? 0 : -errno;
    if (f->address[0])
        (void)inet_pton(ipv6 ? AF_INET6 : AF_INET, f->address,
                        ipv6 ? (void *)&six.sin6_addr : (void *)&four.sin_addr);
    if (ipv6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
    if (!f->udp) /* what waits for the last of an old connection is no hindrance */
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (ipv6 ? bind(fd, (struct sockaddr *)&six, sizeof(six))
             : bind(fd, (struct sockaddr *)&four, sizeof(four)))
        r = -errno;
    close(fd);
    return r;
}

int passt_check_ports(const char *forwards, struct error *err)
{
    const char *next = forwards ? forwards : "";
    size_t len;

    for (; (len = forward_next(&next)) > 0; next += len) {
        struct forward f;
        int r = read_forward(next, len, &f, err);

        if (r < 0)
            return r;
        if (!f.address[0] || !f.ipv6)
            r = try_port(&f, false);
        if (r == 0 && (!f.address[0] || f.ipv6))
            r = try_port(&f, true);
        if (r < 0)
            return refuse_port(-r, &f, next, len, err);
    }
    return 0;
}

/* Starting */

static int refuse_missing(struct error *err)
{
    return error_set(err, ENOENT, PROGRAM " is not installed; as root: apt install " PROGRAM);
}

int passt_check_installed(struct error *err)
{
    const char *path = getenv("PATH");
    char file[4096];

    for (size_t len = 0; path && *path; path += len + (path[len] == ':')) {
        len = strcspn(path, ":");
        snprintf(file, sizeof(file), "%.*s/" PROGRAM, (int)len, path);
        if (access(file, X_OK) == 0)
            return 0;
    }
    return refuse_missing(err);
}

struct child {
    char *const *argv;
    int socket, words;
    int code; /* errno, when it did not come to be */
};

/*
 * In our memory, with the thread that started it waiting; nothing is copied, so that a large
 * guest's memory costs nothing. Only its descriptors and signals are its own.
 */
static int become_passt(void *opaque)
{
    struct child *c = opaque;
    int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
    sigset_t none;

    sigemptyset(&none);
    setsid(); /* a Ctrl-C is for us */
    /* One number may be another's place; so first out of the way. */
    int words = fcntl(c->words, F_DUPFD_CLOEXEC, SOCKET_FD + 1);
    int socket = fcntl(c->socket, F_DUPFD_CLOEXEC, SOCKET_FD + 1);

    if (nothing < 0 || words < 0 || socket < 0 || dup2(nothing, STDIN_FILENO) < 0 ||
        dup2(nothing, STDOUT_FILENO) < 0 || dup2(words, STDERR_FILENO) < 0 ||
        dup2(socket, SOCKET_FD) < 0 || prctl(PR_SET_PDEATHSIG, SIGKILL) < 0) {
        c->code = errno;
        return 127;
    }
    (void)syscall(SYS_close_range, SOCKET_FD + 1, ~0U, CLOSE_RANGE_CLOEXEC);
    for (int number = 1; number < NSIG; number++)
        (void)signal(number, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execvp(PROGRAM, c->argv);
    c->code = errno;
    return 127;
}

static int spawn(struct child *c, pid_t *ret_pid, struct error *err)
{
    sigset_t all, before;
    char *stack = malloc(STACK_BYTES);
    pid_t pid;

    if (!stack)
        return error_set(err, ENOMEM, "out of memory");
    sigfillset(&all); /* a handler of ours must not run there */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid = clone(become_passt, stack + STACK_BYTES, CLONE_VM | CLONE_VFORK | SIGCHLD, c);
    if (pid < 0)
        c->code = errno;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    free(stack);
    if (c->code && pid > 0)
        (void)waitpid(pid, NULL, 0);
    if (c->code == ENOENT)
        return refuse_missing(err);
    if (c->code)
        return error_errno(err, c->code, "start " PROGRAM);
    *ret_pid = pid;
    return 0;
}

int passt_start(struct passt *p, char *const *argv, int socket, struct error *err)
{
    struct child child = {.argv = argv, .socket = socket};
    int words[2], r;

    if (pipe2(words, O_CLOEXEC) < 0)
        return error_errno(err, errno, "start " PROGRAM);
    /* It opens this as a file by its name, maybe as another user. */
    (void)fchmod(words[1], 0622);
    (void)fcntl(words[0], F_SETFL, O_NONBLOCK);
    *p = (struct passt){.words_fd = words[0], .pid_fd = -1};
    child.words = words[1];
    r = spawn(&child, &p->pid, err);
    close(words[1]);
    if (r == 0) {
        p->pid_fd = (int)syscall(SYS_pidfd_open, p->pid, 0); /* which closes on exec */
        if (p->pid_fd < 0)
            r = error_errno(err, errno, "watch " PROGRAM);
    }
    if (r < 0)
        passt_end(p);
    return r;
}

/* What it says */

static void add_said(struct passt *p, const char *line)
{
    size_t room = sizeof(p->said) - p->said_len;
    int n = snprintf(p->said + p->said_len, room, "%s%s", p->said_len ? "; " : "", line);

    if (n > 0)
        p->said_len += (size_t)n < room ? (size_t)n : room - 1;
}

static void end_line(struct passt *p)
{
    static const char *const noise[] = {"Failed to send ", "Don't run as root"};

    p->line[p->line_len] = '\0';
    p->line_len = 0;
    if (!p->line[0])
        return;
    if (strspn(p->line, "0123456789") == strlen(p->line)) {
        p->ready = true;
        return;
    }
    for (unsigned i = 0; i < sizeof(noise) / sizeof(noise[0]); i++)
        if (strncmp(p->line, noise[i], strlen(noise[i])) == 0)
            return;
    add_said(p, p->line);
}

void passt_hear(struct passt *p)
{
    char text[1024];
    ssize_t n;

    if (p->words_fd < 0)
        return;
    n = read(p->words_fd, text, sizeof(text));
    if (n == 0) { /* a hang-up would be heard for ever */
        close(p->words_fd);
        p->words_fd = -1;
    }
    for (ssize_t i = 0; i < n; i++) {
        if (text[i] == '\n')
            end_line(p);
        else if (p->line_len < sizeof(p->line) - 1)
            p->line[p->line_len++] = isprint((unsigned char)text[i]) ? text[i] : '?';
    }
}

void passt_forget_words(struct passt *p)
{
    p->said_len = 0;
    p->said[0] = '\0';
}

/* Its end */

static void settle(struct passt *p, const siginfo_t *end)
{
    char how[64];

    for (unsigned i = 0; i < 64; i++) /* a pipe of 64 KiB */
        passt_hear(p);
    end_line(p);
    if (end->si_code == CLD_EXITED)
        snprintf(how, sizeof(how), PROGRAM " ended with status %d", end->si_status);
    else
        snprintf(how, sizeof(how), "signal %d ended " PROGRAM, end->si_status);
    if (!p->said_len)
        add_said(p, how);
    if (p->words_fd >= 0)
        close(p->words_fd);
    if (p->pid_fd >= 0)
        close(p->pid_fd);
    p->words_fd = p->pid_fd = -1;
    p->pid = 0;
    p->ready = false;
}

bool passt_has_ended(struct passt *p)
{
    siginfo_t end = {0};

    if (!p->pid)
        return true;
    /* ECHILD: whoever started us has its children's ends thrown away. */
    if (waitid(P_PID, (id_t)p->pid, &end, WEXITED | WNOHANG) == 0 && end.si_pid == 0)
        return false;
    settle(p, &end);
    return true;
}

void passt_end(struct passt *p)
{
    struct pollfd end = {.fd = p->pid_fd, .events = POLLIN};
    siginfo_t unknown = {.si_code = CLD_KILLED, .si_status = SIGKILL};

    if (!p->pid) {
        if (p->words_fd > 0) /* it did not come to be */
            close(p->words_fd);
        p->words_fd = p->pid_fd = -1;
        return;
    }
    (void)kill(p->pid, SIGKILL);
    /* One that we may not kill ends as its socket is closed, or is left to itself. */
    (void)poll(&end, 1, END_MS);
    /* While another process traces it, the kernel tells that one of its end first, and then us. */
    for (unsigned ms = 0; ms < END_MS && !passt_has_ended(p); ms++)
        (void)poll(NULL, 0, 1);
    if (p->pid)
        settle(p, &unknown);
}
