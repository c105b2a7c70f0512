/* SPDX-License-Identifier: Apache-2.0 */
/*
 * streams: what a guest's stream sockets do, seen from both ends.
 *
 *   streams serve                  in the guest: echoes at port 1, sends at 2 and takes at 3
 *   streams many PATH N            on the host: N connections at once to port 1 of the guest, each
 *                                  echoing something of its own twice
 *   streams fetch PATH MIB         so much from port 2
 *   streams push PATH MIB          so much to port 3, which says how much came whole
 *   streams nobody PATH            a connection to a port at which nobody listens
 *   streams hold PATH              a connection to port 1 that says "held", then how it ends
 *   streams await SOCKET MIB       so much from who connects, which is answered; a program of the
 * host streams call PORT MIB          in the guest: to such a program streams grip PORT likewise a
 * connection that says "gripped", then how it ends
 *
 * Data is words that tell their place, so that nothing can be lost, doubled or put elsewhere
 * without being seen. It sends as much as was asked, its number in MiB first.
 */
#include <errno.h>
#include <inttypes.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define CHUNK 65536u
#define WORDS (CHUNK / 8)
#define STACK 65536
#define ECHO_BYTES 1000u

enum { ECHO = 1, SEND = 2, TAKE = 3, NOBODY = 99 };

__attribute__((noreturn)) static void give_up(const char *what)
{
    fprintf(stderr, "streams: %s: %s\n", what, strerror(errno));
    exit(1);
}

static bool put(int fd, const void *data, size_t len)
{
    for (size_t at = 0; at < len;) {
        ssize_t n = send(fd, (const char *)data + at, len - at, MSG_NOSIGNAL);

        if (n <= 0)
            return false;
        at += (size_t)n;
    }
    return true;
}

/* So many bytes, or what there is before the end. */
static size_t get(int fd, void *data, size_t len)
{
    size_t at = 0;

    while (at < len) {
        ssize_t n = recv(fd, (char *)data + at, len - at, 0);

        if (n <= 0)
            break;
        at += (size_t)n;
    }
    return at;
}

static void fill(uint64_t *words, uint64_t chunk)
{
    for (uint64_t i = 0; i < WORDS; i++)
        words[i] = (chunk * WORDS + i + 1) * UINT64_C(0x9e3779b97f4a7c15);
}

static bool put_stream(int fd, uint64_t mib)
{
    uint64_t words[WORDS], chunks = mib * 16;

    for (uint64_t i = 0; i < chunks; i++) {
        fill(words, i);
        if (!put(fd, words, CHUNK))
            return false;
    }
    return true;
}

/* Whether all of it came, and nothing else before the end. */
static bool get_stream(int fd, uint64_t mib)
{
    uint64_t words[WORDS], expected[WORDS], chunks = mib * 16;

    for (uint64_t i = 0; i < chunks; i++) {
        fill(expected, i);
        if (get(fd, words, CHUNK) != CHUNK || memcmp(words, expected, CHUNK) != 0) {
            fprintf(stderr, "streams: chunk %" PRIu64 " of %" PRIu64 " is wrong\n", i, chunks);
            return false;
        }
    }
    return true;
}

/* In the guest */

static int listen_at(unsigned port)
{
    const struct sockaddr_vm addr = {
        .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = port};
    int fd = socket(AF_VSOCK, SOCK_STREAM, 0);

    if (fd < 0 || bind(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0 ||
        listen(fd, 1024) < 0)
        give_up("listen");
    return fd;
}

static void echo(int fd)
{
    char data[4096];
    ssize_t n;

    while ((n = recv(fd, data, sizeof(data), 0)) > 0 && put(fd, data, (size_t)n))
        ;
}

struct visit {
    int fd, port;
};

static void *serve_one(void *opaque)
{
    struct visit visit = *(struct visit *)opaque;
    uint64_t mib = 0;
    char answer[32];

    free(opaque);
    if (visit.port == ECHO) {
        echo(visit.fd);
    } else if (get(visit.fd, &mib, sizeof(mib)) == sizeof(mib)) {
        if (visit.port == SEND) {
            (void)put_stream(visit.fd, mib);
        } else {
            bool whole = get_stream(visit.fd, mib) && get(visit.fd, answer, 1) == 0;

            snprintf(answer, sizeof(answer), "%s\n", whole ? "whole" : "wrong");
            (void)put(visit.fd, answer, strlen(answer));
        }
    }
    close(visit.fd);
    return NULL;
}

static void more_files(void)
{
    struct rlimit limit = {.rlim_cur = 4096, .rlim_max = 4096};

    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        give_up("limit of open files");
}

static void serve(void)
{
    struct pollfd listeners[3];
    pthread_attr_t small;

    pthread_attr_init(&small);
    pthread_attr_setdetachstate(&small, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&small, 4 * STACK);
    for (int i = 0; i < 3; i++)
        listeners[i] = (struct pollfd){.fd = listen_at((unsigned)i + 1), .events = POLLIN};
    printf("serving\n");
    fflush(stdout);
    while (poll(listeners, 3, -1) > 0)
        for (int i = 0; i < 3; i++) {
            struct visit *visit = malloc(sizeof(*visit));
            pthread_t thread;

            if (!visit)
                give_up("memory");
            *visit = (struct visit){.fd = -1, .port = i + 1};
            if (listeners[i].revents)
                visit->fd = accept(listeners[i].fd, NULL, NULL);
            if (visit->fd < 0 || pthread_create(&thread, &small, serve_one, visit) != 0)
                free(visit);
        }
}

static int call_host(unsigned port)
{
    const struct sockaddr_vm addr = {
        .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = port};
    int fd = socket(AF_VSOCK, SOCK_STREAM, 0);

    if (fd < 0 || connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0)
        give_up("connect");
    return fd;
}

static void call(unsigned port, uint64_t mib)
{
    int fd = call_host(port);
    char answer[8] = "";

    if (!put_stream(fd, mib))
        give_up("send");
    shutdown(fd, SHUT_WR);
    (void)get(fd, answer, sizeof(answer) - 1);
    printf("answer: %s", answer);
}

static void grip(unsigned port)
{
    int fd = call_host(port);
    char byte;

    printf("gripped\n");
    fflush(stdout);
    printf("grip ended: %s\n", recv(fd, &byte, 1, 0) < 0 ? strerror(errno) : "by the host");
}

/* On the host */

static int unix_socket(const char *path, struct sockaddr_un *ret_addr)
{
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    if (fd < 0 || strlen(path) >= sizeof(ret_addr->sun_path))
        give_up(path);
    *ret_addr = (struct sockaddr_un){.sun_family = AF_UNIX};
    strcpy(ret_addr->sun_path, path);
    return fd;
}

static int dial(const char *path, unsigned port)
{
    struct sockaddr_un addr;
    char text[32], answer;
    int fd = unix_socket(path, &addr);

    if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
        give_up(path);
    snprintf(text, sizeof(text), "CONNECT %u\n", port);
    if (!put(fd, text, strlen(text)))
        give_up("CONNECT");
    do
        if (get(fd, &answer, 1) != 1)
            give_up("OK");
    while (answer != '\n');
    return fd;
}

static void expect_echo(int fd, unsigned number, unsigned round)
{
    uint32_t said[ECHO_BYTES / 4], heard[ECHO_BYTES / 4];

    for (unsigned i = 0; i < ECHO_BYTES / 4; i++)
        said[i] = number * 2654435761u + round * 40503u + i;
    if (!put(fd, said, ECHO_BYTES) || get(fd, heard, ECHO_BYTES) != ECHO_BYTES ||
        memcmp(said, heard, ECHO_BYTES) != 0) {
        fprintf(stderr, "streams: connection %u, round %u: no echo\n", number, round);
        exit(1);
    }
}

static void many(const char *path, unsigned count)
{
    int *fds = calloc(count, sizeof(*fds));

    more_files();
    for (unsigned i = 0; fds && i < count; i++)
        fds[i] = dial(path, ECHO);
    for (unsigned round = 0; round < 2; round++)
        for (unsigned i = 0; fds && i < count; i++)
            expect_echo(fds[i], i, round);
    printf("%u connections at once\n", count);
}

static void fetch(const char *path, uint64_t mib)
{
    int fd = dial(path, SEND);
    char more;

    if (!put(fd, &mib, sizeof(mib)) || !get_stream(fd, mib) || get(fd, &more, 1) != 0)
        exit(1);
    printf("%" PRIu64 " MiB fetched\n", mib);
}

static void push(const char *path, uint64_t mib)
{
    int fd = dial(path, TAKE);
    char answer[8] = "";

    if (!put(fd, &mib, sizeof(mib)) || !put_stream(fd, mib))
        give_up("send");
    shutdown(fd, SHUT_WR);
    (void)get(fd, answer, sizeof(answer) - 1);
    printf("%" PRIu64 " MiB pushed: %s", mib, answer);
    if (strcmp(answer, "whole\n") != 0)
        exit(1);
}

static void hold(const char *path)
{
    int fd = dial(path, ECHO);
    char byte;

    expect_echo(fd, 1, 1);
    printf("held\n");
    fflush(stdout);
    printf(recv(fd, &byte, 1, 0) > 0 ? "more came\n" : "ended\n");
}

static void await_guest(const char *path, uint64_t mib)
{
    struct sockaddr_un addr;
    int listener = unix_socket(path, &addr), fd;
    bool whole;
    char more;

    if (bind(listener, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(listener, 16) < 0)
        give_up(path);
    fd = accept(listener, NULL, NULL);
    whole = fd >= 0 && get_stream(fd, mib) && get(fd, &more, 1) == 0;
    if (fd >= 0)
        (void)put(fd, whole ? "whole\n" : "wrong\n", 6);
    printf("from the guest: %s\n", whole ? "whole" : "wrong");
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    uint64_t number = argc > 3 ? strtoull(argv[3], NULL, 10) : 0;

    if (strcmp(what, "serve") == 0)
        serve();
    else if (strcmp(what, "hold") == 0 && argc == 3)
        hold(argv[2]);
    else if (strcmp(what, "grip") == 0 && argc == 3)
        grip((unsigned)strtoul(argv[2], NULL, 10));
    else if (strcmp(what, "nobody") == 0 && argc == 3)
        (void)dial(argv[2], NOBODY);
    else if (strcmp(what, "many") == 0 && argc == 4)
        many(argv[2], (unsigned)number);
    else if (strcmp(what, "fetch") == 0 && argc == 4)
        fetch(argv[2], number);
    else if (strcmp(what, "push") == 0 && argc == 4)
        push(argv[2], number);
    else if (strcmp(what, "await") == 0 && argc == 4)
        await_guest(argv[2], number);
    else if (strcmp(what, "call") == 0 && argc == 4)
        call((unsigned)strtoul(argv[2], NULL, 10), number);
    else
        return 2;
    return 0;
}
