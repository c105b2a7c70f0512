/* SPDX-License-Identifier: Apache-2.0 */
/*
 * torture: a guest that notices when anything about it changes that must not: memory, disk,
 * network, timers, clocks. For machines that are saved, restored and moved while it runs.
 *
 *   torture [memory=MIB] [writers=N] [rate=MIB-A-SECOND] [disk=DEVICE] [peer=ADDRESS]
 *   torture echo PORT     the other end of tcp and udp, on the host
 *
 * It prints a line a second: what it did so far, and `errors`, which must stay 0. It never ends.
 * A page's words follow from its number and its count of writes, a disk block's likewise, a
 * stream's bytes from their place in it: so each can be checked by itself, whenever it is read.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define WORDS (PAGE / 8)
#define MAX_WRITERS 16
#define DISK_BLOCKS 4096
#define PORT 7007
#define LATE_NS 100000000u /* a timer that fires later than this is late */
#define SLACK_NS 1000000u  /* between two ways of the kernel to read one clock */
#define MOST_OVERDUE 1000  /* looks for a timer; the shortest one comes each 10 ms */
#define SILENT_NS UINT64_C(20000000000)
#define AWAY_NS UINT64_C(3000000000) /* between two looks: this machine did not run */

static struct {
    uint64_t memory, writers, rate;
    const char *disk, *peer;
} options = {.memory = 64, .writers = 2, .rate = 100};

/* Counted by all threads, printed by main. */
static struct {
    uint64_t pages, blocks, sent, received, echoes, lost, ticks, late, missed, gap_ns, errors;
} done;

static uint64_t nonce[2];

static void count(uint64_t *what, uint64_t by)
{
    __atomic_fetch_add(what, by, __ATOMIC_RELAXED);
}

static uint64_t value(const uint64_t *what)
{
    return __atomic_load_n(what, __ATOMIC_RELAXED);
}

__attribute__((format(printf, 1, 2))) static void wrong(const char *fmt, ...)
{
    char words[200];
    va_list args;

    count(&done.errors, 1);
    va_start(args, fmt);
    vsnprintf(words, sizeof(words), fmt, args);
    va_end(args);
    printf("torture: WRONG: %s\n", words);
    fflush(stdout);
}

__attribute__((noreturn)) static void give_up(const char *what)
{
    printf("torture: WRONG: %s: %s\n", what, strerror(errno));
    fflush(stdout);
    exit(1);
}

static uint64_t now_ns(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static void fill(uint64_t *words, uint64_t number, uint64_t writes)
{
    words[0] = writes;
    for (uint64_t i = 1; i < WORDS; i++)
        words[i] = mix(number * WORDS + i + (writes << 40));
}

/* The first word that is not what it must be, or WORDS. */
static uint64_t verify(const uint64_t *words, uint64_t number, uint64_t writes)
{
    if (words[0] != writes)
        return 0;
    for (uint64_t i = 1; i < WORDS; i++)
        if (words[i] != mix(number * WORDS + i + (writes << 40)))
            return i;
    return WORDS;
}

/* Memory: each writer has pages of its own, and keeps how often it wrote each. */

struct writer {
    uint64_t *words;
    uint32_t *writes;
    uint64_t first, pages, seed;
};

static void *write_memory(void *opaque)
{
    struct writer *w = opaque;
    uint64_t begin = now_ns(CLOCK_MONOTONIC), written = 0;
    double each_ns = 1e9 * PAGE / ((double)options.rate / (double)options.writers * 1048576);

    for (uint64_t p = 0; p < w->pages; p++)
        fill(w->words + p * WORDS, w->first + p, 0);
    for (;;) {
        uint64_t p = (w->seed = mix(w->seed + 1)) % w->pages;
        uint64_t *page = w->words + p * WORDS;
        uint64_t bad = verify(page, w->first + p, w->writes[p]);

        if (bad < WORDS)
            wrong("page %llu, word %llu: %016llx after %u writes",
                  (unsigned long long)(w->first + p), (unsigned long long)bad,
                  (unsigned long long)page[bad], w->writes[p]);
        fill(page, w->first + p, ++w->writes[p]);
        count(&done.pages, 1);
        if (++written % 64 == 0) {
            uint64_t due = begin + (uint64_t)((double)written * each_ns);
            uint64_t now = now_ns(CLOCK_MONOTONIC);

            if (now > due + 1000000000u) /* it was away, or this machine is slow */
                begin = now - (uint64_t)((double)written * each_ns);
            else if (now < due)
                usleep((useconds_t)((due - now) / 1000));
        }
    }
    return NULL;
}

static void start(void *(*fn)(void *), void *opaque)
{
    pthread_t thread;

    if (pthread_create(&thread, NULL, fn, opaque))
        give_up("thread");
}

static void start_writers(void)
{
    static struct writer writers[MAX_WRITERS];
    uint64_t pages = options.memory * 256 / options.writers;

    for (uint64_t i = 0; i < options.writers; i++) {
        struct writer *w = &writers[i];

        *w = (struct writer){.first = i * pages, .pages = pages, .seed = i};
        w->words =
            mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        w->writes = calloc(pages, sizeof(w->writes[0]));
        if (w->words == MAP_FAILED || !w->writes)
            give_up("memory");
        start(write_memory, w);
    }
}

/* Disk: a block is read, checked, and written with its next content, past the guest's cache. */

static void *write_disk(void *opaque)
{
    static uint32_t writes[DISK_BLOCKS];
    uint64_t *words = aligned_alloc(PAGE, PAGE), seed = 7, blocks, bytes;
    int fd = open(options.disk, O_RDWR | O_DIRECT | O_CLOEXEC);

    (void)opaque;
    if (!words || fd < 0 || ioctl(fd, BLKGETSIZE64, &bytes) < 0)
        give_up(options.disk);
    blocks = bytes / PAGE < DISK_BLOCKS ? bytes / PAGE : DISK_BLOCKS;
    for (;;) {
        uint64_t b = (seed = mix(seed + 1)) % blocks;

        if (writes[b]) {
            if (pread(fd, words, PAGE, (off_t)(b * PAGE)) != PAGE)
                wrong("disk block %llu: read: %s", (unsigned long long)b, strerror(errno));
            else if (verify(words, b, writes[b]) < WORDS)
                wrong("disk block %llu: write %llu of it, not %u", (unsigned long long)b,
                      (unsigned long long)words[0], writes[b]);
        }
        fill(words, b, ++writes[b]);
        if (pwrite(fd, words, PAGE, (off_t)(b * PAGE)) != PAGE)
            wrong("disk block %llu: write: %s", (unsigned long long)b, strerror(errno));
        if (writes[b] % 16 == 0 && fdatasync(fd) < 0)
            wrong("disk: flush: %s", strerror(errno));
        count(&done.blocks, 1);
        usleep(1000);
    }
    return NULL;
}

/* Network: a stream that comes back, and a datagram a millisecond that comes back. */

static int open_socket(int type, const char *host, bool listens)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0), one = 1;

    if (host)
        inet_pton(AF_INET, host, &address.sin_addr);
    if (fd < 0)
        give_up("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (listens ? bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0
                : connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        give_up(listens ? "bind" : "connect");
    return fd;
}

static uint8_t stream_byte(uint64_t at)
{
    return (uint8_t)(mix(at / 8) >> at % 8 * 8);
}

static void check_stream(const uint8_t *bytes, ssize_t n, uint64_t *at)
{
    for (ssize_t i = 0; i < n; i++, ++*at)
        if (bytes[i] != stream_byte(*at)) {
            wrong("tcp: byte %llu", (unsigned long long)*at);
            *at = 0; /* once is enough: the rest is not looked at */
            return;
        }
}

static void *stream(void *opaque)
{
    int fd = open_socket(SOCK_STREAM, options.peer, false);
    uint64_t sent = 0, got = 0, heard = now_ns(CLOCK_MONOTONIC), looked = heard;
    uint8_t bytes[4096];

    (void)opaque;
    for (;;) {
        struct pollfd p = {.fd = fd,
                           .events = (short)(POLLIN | (sent - got < 1 << 20 ? POLLOUT : 0))};

        poll(&p, 1, 1000);
        if (p.revents & POLLIN) {
            ssize_t n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);

            if (n == 0 || (n < 0 && errno != EAGAIN)) {
                wrong("tcp: %s", n ? strerror(errno) : "the host hung up");
                return NULL;
            }
            if (n > 0) {
                check_stream(bytes, n, &got);
                count(&done.received, (uint64_t)n);
                heard = now_ns(CLOCK_MONOTONIC);
            }
        }
        if (p.revents & POLLOUT) {
            for (unsigned i = 0; i < sizeof(bytes); i++)
                bytes[i] = stream_byte(sent + i);
            ssize_t n = send(fd, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_NOSIGNAL);
            if (n > 0) {
                sent += (uint64_t)n;
                count(&done.sent, (uint64_t)n);
            }
            usleep(2000);
        }
        uint64_t now = now_ns(CLOCK_MONOTONIC);

        if (now - looked > AWAY_NS)
            heard = now;
        looked = now;
        if (now - heard > SILENT_NS) {
            wrong("tcp: nothing came back for 20 s");
            heard = now;
        }
    }
    return NULL;
}

static void *echoes(void *opaque)
{
    int fd = open_socket(SOCK_DGRAM, options.peer, false);
    uint64_t next = 1, back;

    (void)opaque;
    for (;; next++) {
        (void)send(fd, &next, sizeof(next), MSG_DONTWAIT);
        usleep(1000);
        while (recv(fd, &back, sizeof(back), MSG_DONTWAIT) == (ssize_t)sizeof(back)) {
            if (back > next)
                wrong("udp: echo of %llu, which was not sent", (unsigned long long)back);
            count(&done.echoes, 1);
        }
        __atomic_store_n(&done.lost, next - value(&done.echoes), __ATOMIC_RELAXED);
    }
    return NULL;
}

/* The host's end: send back what comes. */
__attribute__((noreturn)) static void echo(void)
{
    int listener = open_socket(SOCK_STREAM, NULL, true), udp = open_socket(SOCK_DGRAM, NULL, true);
    int tcp = -1;
    uint8_t bytes[65536];

    listen(listener, 4);
    for (;;) {
        struct pollfd p[] = {{.fd = listener, .events = POLLIN},
                             {.fd = udp, .events = POLLIN},
                             {.fd = tcp, .events = POLLIN}};

        poll(p, 3, -1);
        if (p[0].revents) {
            close(tcp);
            tcp = accept(listener, NULL, NULL);
            continue;
        }
        if (p[1].revents) {
            struct sockaddr_in from;
            socklen_t len = sizeof(from);
            ssize_t n = recvfrom(udp, bytes, sizeof(bytes), 0, (struct sockaddr *)&from, &len);

            if (n > 0)
                (void)sendto(udp, bytes, (size_t)n, MSG_DONTWAIT, (struct sockaddr *)&from, len);
        }
        if (p[2].revents) {
            ssize_t n = recv(tcp, bytes, sizeof(bytes), 0);

            if (n <= 0 || send(tcp, bytes, (size_t)n, MSG_NOSIGNAL) != n) {
                close(tcp);
                tcp = -1;
            }
        }
    }
}

/* Timers and clocks */

static const uint64_t wheel_ms[] = {10, 20, 30, 50, 110, 250, 1000, 7000};
#define TIMERS (sizeof(wheel_ms) / sizeof(wheel_ms[0]))

struct timer {
    int fd;
    uint64_t begin, period, ticks; /* ns, ns, how many so far */
    unsigned overdue;              /* how often it was looked for in vain */
};

static void timer_start(struct timer *t, uint64_t period)
{
    uint64_t first;

    *t = (struct timer){.begin = now_ns(CLOCK_MONOTONIC), .period = period};
    t->fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    first = t->begin + period;
    const struct itimerspec every = {
        .it_value = {(time_t)(first / 1000000000u), (long)(first % 1000000000u)},
        .it_interval = {(time_t)(period / 1000000000u), (long)(period % 1000000000u)}};
    if (t->fd < 0 || timerfd_settime(t->fd, TFD_TIMER_ABSTIME, &every, NULL) < 0)
        give_up("timer");
}

/* It may come late, and several ticks at once; none may come before its time or not at all. */
static void timer_take(struct timer *t)
{
    uint64_t before = now_ns(CLOCK_MONOTONIC), due = t->begin + (t->ticks + 1) * t->period, times;
    uint64_t after;

    if (read(t->fd, &times, sizeof(times)) != (ssize_t)sizeof(times)) {
        /* Just after time has moved on the interrupt may be still to come: looked at for a while.
         */
        t->overdue = before > due + LATE_NS ? t->overdue + 1 : 0;
        if (t->overdue < MOST_OVERDUE)
            return;
        wrong("timer of %llu ms: tick %llu does not come",
              (unsigned long long)(t->period / 1000000), (unsigned long long)t->ticks + 1);
        times = 1 + (before - due) / t->period; /* once is enough */
    }
    t->overdue = 0;
    t->ticks += times;
    count(&done.ticks, times);
    count(&done.missed, times - 1);
    if (before > due + LATE_NS)
        count(&done.late, 1);
    due = t->begin + t->ticks * t->period;
    after = now_ns(CLOCK_MONOTONIC);
    if (after + SLACK_NS < due)
        wrong("timer of %llu ms: tick %llu, of %llu at once, comes %llu us too early, on CPU %d; "
              "%llu us passed while it was read",
              (unsigned long long)(t->period / 1000000), (unsigned long long)t->ticks,
              (unsigned long long)times, (unsigned long long)(due - after) / 1000, sched_getcpu(),
              (unsigned long long)(after - before) / 1000);
    if (before > t->begin + (t->ticks + 1) * t->period + SLACK_NS)
        wrong("timer of %llu ms: ticks are lost, %llu so far",
              (unsigned long long)(t->period / 1000000), (unsigned long long)t->ticks);
}

static void *turn_wheel(void *opaque)
{
    struct timer timers[TIMERS];
    struct pollfd ready[TIMERS];

    (void)opaque;
    for (size_t i = 0; i < TIMERS; i++) {
        timer_start(&timers[i], wheel_ms[i] * 1000000);
        ready[i] = (struct pollfd){.fd = timers[i].fd, .events = POLLIN};
    }
    for (;;) {
        poll(ready, TIMERS, 1000);
        for (size_t i = 0; i < TIMERS; i++)
            timer_take(&timers[i]);
    }
    return NULL;
}

/* One for each clock, on whichever CPU the kernel likes: none may see another's time pass back. */
static void *watch_clock(void *opaque)
{
    static uint64_t last[16]; /* by clock, of all threads */
    clockid_t clock = (clockid_t)(intptr_t)opaque;

    for (unsigned look = 1;; look++) {
        uint64_t before = value(&last[clock]), now = now_ns(clock);

        if (now < before)
            wrong("clock %d went back by %llu ns", clock, (unsigned long long)(before - now));
        while (now > before && !__atomic_compare_exchange_n(&last[clock], &before, now, false,
                                                            __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            ;
        if (clock == CLOCK_MONOTONIC && before && now > before &&
            now - before > value(&done.gap_ns))
            __atomic_store_n(&done.gap_ns, now - before, __ATOMIC_RELAXED);
        if (look % 16 == 0) /* many in a row: each sleep costs this machine exits */
            usleep(2000);
    }
    return NULL;
}

static void read_options(char **words)
{
    for (; *words; words++) {
        char *equals = strchr(*words, '=');
        const char *operand = equals ? equals + 1 : "";

        if (strncmp(*words, "memory=", 7) == 0)
            options.memory = strtoull(operand, NULL, 10);
        else if (strncmp(*words, "writers=", 8) == 0)
            options.writers = strtoull(operand, NULL, 10);
        else if (strncmp(*words, "rate=", 5) == 0)
            options.rate = strtoull(operand, NULL, 10);
        else if (strncmp(*words, "disk=", 5) == 0)
            options.disk = operand;
        else if (strncmp(*words, "peer=", 5) == 0)
            options.peer = operand;
        else
            options.writers = 0;
    }
    if (!options.memory || !options.writers || options.writers > MAX_WRITERS || !options.rate) {
        fprintf(stderr, "torture: memory=MIB writers=1…%d rate=MIB disk=DEVICE peer=ADDRESS\n",
                MAX_WRITERS);
        exit(2);
    }
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "echo") == 0)
        echo();
    read_options(argv + 1);
    if (getrandom(nonce, sizeof(nonce), 0) != (ssize_t)sizeof(nonce))
        give_up("nonce");
    start_writers();
    if (options.disk)
        start(write_disk, NULL);
    if (options.peer) {
        start(stream, NULL);
        start(echoes, NULL);
    }
    start(turn_wheel, NULL);
    for (unsigned i = 0; i < 4; i++)
        start(watch_clock, (void *)(intptr_t)(i % 2 ? CLOCK_MONOTONIC : CLOCK_BOOTTIME));
    for (uint64_t second = 1;; second++) {
        sleep(1);
        printf("torture: %016llx second %llu pages %llu blocks %llu tcp %llu udp %llu lost %llu "
               "ticks %llu missed %llu late %llu gap_ms %llu errors %llu\n",
               (unsigned long long)nonce[0], (unsigned long long)second,
               (unsigned long long)value(&done.pages), (unsigned long long)value(&done.blocks),
               (unsigned long long)value(&done.received), (unsigned long long)value(&done.echoes),
               (unsigned long long)value(&done.lost), (unsigned long long)value(&done.ticks),
               (unsigned long long)value(&done.missed), (unsigned long long)value(&done.late),
               (unsigned long long)(value(&done.gap_ns) / 1000000),
               (unsigned long long)value(&done.errors));
        fflush(stdout);
    }
}
