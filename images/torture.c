/* SPDX-License-Identifier: Apache-2.0 */
/*
 * torture: a guest that notices when anything about it changes that must not: memory, disk,
 * network, stream sockets, timers, clocks. For machines that are saved, restored and moved while
 * it runs.
 *
 *   torture [memory=MIB] [writers=N] [rate=MIB-A-SECOND] [lend] [disk=DEVICE] [peer=ADDRESS]
 *           [sockets]
 *   torture echo          the other end of tcp and udp, on the host
 *   torture answer PATH   the other end of stream sockets, with vmrun's socket PATH, on the host
 *
 * It prints a line a second: what it did so far, and `errors`, which must stay 0. It never ends.
 * A page's words follow from its number and its count of writes, a disk block's likewise, a
 * stream's bytes from their place in it: so each can be checked by itself, whenever it is read.
 */
#include "torture.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#define PAGE 4096
#define WORDS (PAGE / 8)
#define MAX_WRITERS 16
#define DISK_BLOCKS 4096
#define HUGE_PAGE (2u << 20)
#define SILENT_NS UINT64_C(20000000000)
#define AWAY_NS UINT64_C(3000000000) /* between two looks: this machine did not run */

static struct {
    uint64_t memory, writers, rate;
    const char *disk, *peer;
    bool lend, sockets;
} options = {.memory = 64, .writers = 2, .rate = 100};

struct torture_done done;
static uint64_t nonce[2];

void count(uint64_t *what, uint64_t by)
{
    __atomic_fetch_add(what, by, __ATOMIC_RELAXED);
}

uint64_t value(const uint64_t *what)
{
    return __atomic_load_n(what, __ATOMIC_RELAXED);
}

void wrong(const char *fmt, ...)
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

void give_up(const char *what)
{
    printf("torture: WRONG: %s: %s\n", what, strerror(errno));
    fflush(stdout);
    exit(1);
}

uint64_t now_ns(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

uint8_t stream_byte(uint64_t first, uint64_t at)
{
    return (uint8_t)((at < 8 ? first : mix(first + at / 8)) >> at % 8 * 8);
}

bool ear_is_idle(struct ear *ear, bool heard)
{
    uint64_t now = now_ns(CLOCK_MONOTONIC);

    if (heard || now - ear->looked > AWAY_NS)
        ear->heard = now;
    ear->looked = now;
    if (now - ear->heard <= SILENT_NS)
        return false;
    ear->heard = now;
    return true;
}

void start(void *(*fn)(void *), void *opaque)
{
    pthread_t thread;

    if (pthread_create(&thread, NULL, fn, opaque))
        give_up("thread");
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

static bool is_clear(const uint64_t *words)
{
    for (uint64_t i = 0; i < WORDS; i++)
        if (words[i])
            return false;
    return true;
}

/*
 * And memory that is free in between, so that others have it, as the balloon, and it is new each
 * time. Linux has huge pages for it, and so reports it, on machines of 512 MiB and above.
 */
static void *lend_memory(void *opaque)
{
    uint64_t first = options.memory * 256;

    (void)opaque;
    for (uint64_t turn = 1;; turn++) {
        uint8_t *room =
            mmap(NULL, 2 * HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        uint64_t *words = (uint64_t *)(((uintptr_t)room + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);

        if (room == MAP_FAILED)
            give_up("memory");
        madvise(words, HUGE_PAGE, MADV_HUGEPAGE);
        for (uint64_t p = 0; p < HUGE_PAGE / PAGE; p++) {
            if (!is_clear(words + p * WORDS))
                wrong("memory that is new, page %llu: it is not clear", (unsigned long long)p);
            fill(words + p * WORDS, first + p, turn);
        }
        sleep(1);
        for (uint64_t p = 0; p < HUGE_PAGE / PAGE; p++)
            if (verify(words + p * WORDS, first + p, turn) < WORDS)
                wrong("memory that is new, page %llu: not what was written", (unsigned long long)p);
        munmap(room, 2 * HUGE_PAGE);
        count(&done.lent, 1);
        sleep(3); /* Linux waits for two before it reports what is free */
    }
    return NULL;
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
        else if (strcmp(*words, "lend") == 0)
            options.lend = true;
        else if (strcmp(*words, "sockets") == 0)
            options.sockets = true;
        else
            options.writers = 0;
    }
    if (!options.memory || !options.writers || options.writers > MAX_WRITERS || !options.rate) {
        fprintf(stderr,
                "torture: memory=MIB writers=1…%d rate=MIB lend disk=DEVICE peer=ADDRESS sockets\n",
                MAX_WRITERS);
        exit(2);
    }
}

static void report(uint64_t second)
{
    uint64_t resets = value(&done.resets); /* before "open": these have come after those */
    const struct {
        const char *name;
        uint64_t value;
    } all[] = {
        {"second", second},
        {"pages", value(&done.pages)},
        {"lent", value(&done.lent)},
        {"blocks", value(&done.blocks)},
        {"tcp", value(&done.received)},
        {"udp", value(&done.echoes)},
        {"lost", value(&done.lost)},
        {"vsock", value(&done.heard)},
        {"open", value(&done.open)},
        {"resets", resets},
        {"ticks", value(&done.ticks)},
        {"missed", value(&done.missed)},
        {"late", value(&done.late)},
        {"gap_ms", value(&done.gap_ns) / 1000000},
        {"errors", value(&done.errors)},
    };
    char line[500];
    int used = snprintf(line, sizeof(line), "torture: %016llx", (unsigned long long)nonce[0]);

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        used += snprintf(line + used, sizeof(line) - (size_t)used, " %s %llu", all[i].name,
                         (unsigned long long)all[i].value);
    puts(line);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "echo") == 0)
        echo();
    if (argc == 3 && strcmp(argv[1], "answer") == 0)
        answer(argv[2]);
    read_options(argv + 1);
    if (getrandom(nonce, sizeof(nonce), 0) != (ssize_t)sizeof(nonce))
        give_up("nonce");
    start_writers();
    if (options.lend)
        start(lend_memory, NULL);
    if (options.disk)
        start(write_disk, NULL);
    if (options.peer)
        start_network(options.peer);
    if (options.sockets)
        start_sockets();
    start_clocks();
    for (uint64_t second = 1;; second++) {
        sleep(1);
        report(second);
    }
}
