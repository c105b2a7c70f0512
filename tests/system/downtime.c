/* SPDX-License-Identifier: Apache-2.0 */
/*
 * downtime: how long a guest was away when it moved, as it was seen from outside and from inside.
 *
 *   downtime answer          in the guest: sends back what comes
 *   downtime ask ADDRESS     elsewhere: a datagram a millisecond, fewer when answers take long,
 * lest an emulated guest does nothing else; for each line on its stdin it says what it saw since
 * the line before
 *
 * What it says: "sent N lost N echo_ms N.N guest_ms N.N": the longest time without an answer, and
 * the largest step between two readings of the guest's monotonic clock, which is read all the time.
 * An answer carries that step, and the number of the interval it is meant for.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PORT 7008
#define EVERY_NS 1000000u
#define SELDOM_NS 50000000u

struct datagram {
    uint64_t interval, sent_ns, gap_ns;
};

static uint64_t interval, gap_ns; /* of the guest; the asker names the interval */

__attribute__((noreturn)) static void give_up(const char *what)
{
    fprintf(stderr, "downtime: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void *watch_clock(void *opaque)
{
    uint64_t before = now_ns(), now;

    (void)opaque;
    for (;; before = now) {
        usleep(1000);
        now = now_ns();
        if (now - before > __atomic_load_n(&gap_ns, __ATOMIC_RELAXED))
            __atomic_store_n(&gap_ns, now - before, __ATOMIC_RELAXED);
    }
    return NULL;
}

__attribute__((noreturn)) static void answer(int fd)
{
    const struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    struct sockaddr_in from;
    struct datagram d;
    pthread_t thread;

    if (bind(fd, (const struct sockaddr *)&here, sizeof(here)) < 0)
        give_up("bind");
    if (pthread_create(&thread, NULL, watch_clock, NULL))
        give_up("thread");
    for (;;) {
        socklen_t len = sizeof(from);

        if (recvfrom(fd, &d, sizeof(d), 0, (struct sockaddr *)&from, &len) != (ssize_t)sizeof(d))
            continue;
        if (d.interval != interval) {
            interval = d.interval;
            __atomic_store_n(&gap_ns, 0, __ATOMIC_RELAXED);
        }
        d.gap_ns = __atomic_load_n(&gap_ns, __ATOMIC_RELAXED);
        (void)sendto(fd, &d, sizeof(d), MSG_DONTWAIT, (struct sockaddr *)&from, len);
    }
}

struct asker {
    struct datagram next;
    uint64_t due_ns, round_trip_ns;
    uint64_t answers, heard_ns, longest_ns, guest_ns; /* answers and gaps of this interval */
    uint64_t sent;
};

static void take_answers(struct asker *a, int fd)
{
    struct datagram d;
    uint64_t now = now_ns();

    while (recv(fd, &d, sizeof(d), MSG_DONTWAIT) == (ssize_t)sizeof(d)) {
        if (d.interval == a->next.interval) {
            a->answers++;
            a->guest_ns = d.gap_ns;
        }
        a->round_trip_ns += (now - d.sent_ns) / 8 - a->round_trip_ns / 8;
        if (now - a->heard_ns > a->longest_ns)
            a->longest_ns = now - a->heard_ns;
        a->heard_ns = now;
    }
}

static void tell(struct asker *a)
{
    uint64_t silent = now_ns() - a->heard_ns;

    if (silent > a->longest_ns)
        a->longest_ns = silent;
    printf("sent %llu lost %lld echo_ms %.1f guest_ms %.1f\n", (unsigned long long)a->sent,
           (long long)(a->sent - a->answers), (double)a->longest_ns / 1e6,
           (double)a->guest_ns / 1e6);
    fflush(stdout);
    a->next.interval++;
    a->sent = a->answers = a->longest_ns = a->guest_ns = 0;
}

static void send_next(struct asker *a, int fd, const struct sockaddr_in *to)
{
    uint64_t every = 4 * a->round_trip_ns;

    every = every < EVERY_NS ? EVERY_NS : every < SELDOM_NS ? every : SELDOM_NS;
    a->next.sent_ns = now_ns();
    a->due_ns = a->next.sent_ns + every;
    if (sendto(fd, &a->next, sizeof(a->next), MSG_DONTWAIT, (const struct sockaddr *)to,
               sizeof(*to)) > 0)
        a->sent++;
}

static void ask(int fd, const char *address)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    struct asker a = {.next.interval = 1, .heard_ns = now_ns()};
    struct pollfd ready[] = {{.fd = fd, .events = POLLIN}, {.fd = STDIN_FILENO, .events = POLLIN}};
    char c;

    if (inet_pton(AF_INET, address, &to.sin_addr) != 1)
        give_up(address);
    for (;;) {
        uint64_t now = now_ns();
        struct timespec wait = {0};

        if (now < a.due_ns)
            wait.tv_nsec = (long)(a.due_ns - now);
        else
            send_next(&a, fd, &to);
        ppoll(ready, 2, &wait, NULL);
        if (ready[0].revents)
            take_answers(&a, fd);
        if (ready[1].revents) {
            if (read(STDIN_FILENO, &c, 1) != 1)
                return;
            if (c == '\n')
                tell(&a);
        }
    }
}

int main(int argc, char **argv)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        give_up("socket");
    if (argc == 2 && strcmp(argv[1], "answer") == 0)
        answer(fd);
    if (argc != 3 || strcmp(argv[1], "ask") != 0) {
        fputs("usage: downtime answer | ask ADDRESS\n", stderr);
        return 2;
    }
    ask(fd, argv[2]);
    return 0;
}
