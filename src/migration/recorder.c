/* SPDX-License-Identifier: Apache-2.0 */
/*
 * recorder: looks at our page tables again and again; what has come since the last look was touched
 * since then.
 *
 * The one thing to know: on a read the kernel maps the neighbours that are in its cache, too, up to
 * 64 KiB. It does not where writes may be tracked by userfaultfd, so RAM is registered there while
 * it is watched; nothing is ever write-protected and no fault ever reported. On kernels before 6.7
 * neighbours count as touched.
 */
#include "recorder.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "snapfile_rewrite.h"
#include "vmrun/log.h"
#include "vmrun/loop.h"
#include "vmrun/thread.h"
#include "vmrun/working_set.h"

#define FIRST_NS UINT64_C(5000000) /* between two looks, at first */
#define SLOWER 100                 /* later a hundredth of the time since the beginning */
#define COST 20                    /* and always so many times as long as the last look took */

#define BATCH_PAGES 8192u
#define IS_HERE (UINT64_C(3) << 62) /* in memory, or swapped out */
#define IS_FILE (UINT64_C(1) << 61) /* not yet a copy of its own */

#define WP_ASYNC (UINT64_C(1) << 15)
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

struct recorder {
    const struct guest_memory *memory;
    char *path;
    unsigned seconds;
    struct snapfile_rewrite *rewrite;
    int pagemap_fd, uffd;

    uint64_t *seen, *written; /* a bit for each page, counted through all RAM */
    struct working_run *runs; /* in the order of their first touch; `written` is not known yet */
    size_t count, room;
    bool full; /* or out of memory: what comes later is not recorded */
    uint64_t entries[BATCH_PAGES];

    pthread_t thread;
    bool started;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool ended; /* lock */
    atomic_bool given_up;
};

/* Looking */

static bool test(const uint64_t *bits, uint64_t page)
{
    return bits[page / 64] >> page % 64 & 1;
}

static void set(uint64_t *bits, uint64_t page)
{
    bits[page / 64] |= UINT64_C(1) << page % 64;
}

static bool make_room(struct recorder *rec)
{
    size_t room = rec->room ? 2 * rec->room : 1024;

    if (rec->count < rec->room)
        return true;
    struct working_run *runs =
        rec->count < WORKING_SET_MAX_RUNS ? realloc(rec->runs, room * sizeof(*runs)) : NULL;
    if (!runs)
        return false;
    rec->runs = runs;
    rec->room = room;
    return true;
}

/* joins: the page before it may be in the same run. */
static void take_page(struct recorder *rec, uint64_t page, bool joins)
{
    struct working_run *last = rec->count ? &rec->runs[rec->count - 1] : NULL;

    if (joins && last && last->first + last->pages == page) {
        last->pages++;
    } else if (make_room(rec)) {
        rec->runs[rec->count++] = (struct working_run){.first = page, .pages = 1};
    } else {
        rec->full = true;
        return;
    }
    set(rec->seen, page);
}

static int look_at_region(struct recorder *rec, const struct memory_region *region, uint64_t first)
{
    uint64_t pages = region->size / GUEST_PAGE_SIZE;

    for (uint64_t done = 0; done < pages && !rec->full;) {
        uint64_t want = pages - done < BATCH_PAGES ? pages - done : BATCH_PAGES;
        off_t at = (off_t)(((uintptr_t)region->host / GUEST_PAGE_SIZE + done) * sizeof(uint64_t));
        ssize_t n = pread(rec->pagemap_fd, rec->entries, want * sizeof(uint64_t), at);
        uint64_t got = n > 0 ? (uint64_t)n / sizeof(uint64_t) : 0;

        if (got == 0)
            return n < 0 ? -errno : -EIO;
        for (uint64_t i = 0; i < got && !rec->full; i++) {
            uint64_t page = first + done + i;

            if (!(rec->entries[i] & IS_HERE))
                continue;
            if (!test(rec->seen, page))
                take_page(rec, page, done + i > 0);
            if (!(rec->entries[i] & IS_FILE))
                set(rec->written, page);
        }
        done += got;
    }
    return 0;
}

static int look(struct recorder *rec, struct error *err)
{
    uint64_t first = 0;

    for (unsigned i = 0; i < rec->memory->count; i++) {
        const struct memory_region *region = &rec->memory->regions[i];
        int r = look_at_region(rec, region, first);

        if (r < 0)
            return error_errno(err, -r, "/proc/self/pagemap");
        first += region->size / GUEST_PAGE_SIZE;
    }
    return 0;
}

/* Whether to go on after so long. */
static bool rest(struct recorder *rec, uint64_t ns)
{
    uint64_t until = loop_now_ns() + ns;
    const struct timespec time = {.tv_sec = (time_t)(until / 1000000000u),
                                  .tv_nsec = (long)(until % 1000000000u)};

    pthread_mutex_lock(&rec->lock);
    while (!rec->ended && pthread_cond_timedwait(&rec->wake, &rec->lock, &time) == 0)
        ;
    bool ended = rec->ended;
    pthread_mutex_unlock(&rec->lock);
    return !ended;
}

static uint64_t cpu_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* The last look comes at the end, when pages that were only read may have been written to. */
static int watch(struct recorder *rec, struct error *err)
{
    uint64_t start = loop_now_ns(), all = rec->seconds * UINT64_C(1000000000);
    bool more = true;

    for (;;) {
        uint64_t cpu = cpu_ns();
        int r = look(rec, err);

        if (r < 0 || !more)
            return r;
        uint64_t now = loop_now_ns() - start, ns = now / SLOWER, cost = COST * (cpu_ns() - cpu);

        ns = ns < FIRST_NS ? FIRST_NS : ns;
        ns = ns < cost ? cost : ns;
        more = now < all && rest(rec, ns < all - now ? ns : all - now);
    }
}

/* Writing */

static bool put_run(struct writer *w, struct working_run run)
{
    if (w->len >= (size_t)WORKING_SET_MAX_RUNS * WORKING_SET_RUN_BYTES)
        return false;
    working_set_put(w, &run);
    return true;
}

/* A run is cut where pages that were written to meet those that were only read. */
static void encode(const struct recorder *rec, struct writer *w, uint64_t *ret_pages)
{
    for (size_t i = 0; i < rec->count; i++) {
        uint64_t at = rec->runs[i].first, end = at + rec->runs[i].pages;

        while (at < end) {
            struct working_run run = {.first = at, .written = test(rec->written, at)};

            while (at < end && test(rec->written, at) == run.written)
                at++;
            run.pages = at - run.first;
            if (!put_run(w, run))
                return;
            *ret_pages += run.pages;
        }
    }
}

static int write_file(struct recorder *rec, struct error *err)
{
    struct snapfile_rewrite *rewrite = rec->rewrite;
    struct writer section = {0};
    uint64_t pages = 0;
    int r = 0;

    encode(rec, &section, &pages);
    if (section.failed)
        r = error_set(err, ENOMEM, "out of memory");
    else if (section.len == 0)
        r = error_set(err, ENODATA, "the guest touched nothing");
    if (r == 0) {
        rec->rewrite = NULL; /* done with in any case */
        r = snapfile_rewrite_publish(rewrite, WORKING_SET_SECTION, section.data, section.len,
                                     &rec->given_up, err);
    }
    if (r == 0)
        log_info("%s: has a working set now, %.1f MiB in %zu runs", rec->path,
                 (double)pages * GUEST_PAGE_SIZE / (1 << 20), section.len / WORKING_SET_RUN_BYTES);
    free(section.data);
    return r;
}

static void *record(void *opaque)
{
    struct recorder *rec = opaque;
    struct error err;
    int r = watch(rec, &err);

    if (rec->uffd >= 0)
        close(rec->uffd); /* from now on neighbours are mapped again */
    rec->uffd = -1;
    if (r == 0)
        r = write_file(rec, &err);
    if (atomic_load(&rec->given_up))
        error_set(&err, ECANCELED, "the machine was ended before");
    if (r < 0)
        log_warn("%s: no working set was recorded: %s", rec->path, err.msg);
    return NULL;
}

/* Start and end */

/* Not every kernel can; it is a matter of precision only. */
static void keep_neighbours_out(struct recorder *rec)
{
    struct uffdio_api api = {.api = UFFD_API, .features = WP_ASYNC};
    bool done = false;

    working_set_keep_apart(rec->memory);
    rec->uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
    if (rec->uffd < 0)
        return;
    done = ioctl(rec->uffd, UFFDIO_API, &api) == 0;
    for (unsigned i = 0; done && i < rec->memory->count; i++) {
        struct uffdio_register reg = {.range = {.start = (uintptr_t)rec->memory->regions[i].host,
                                                .len = rec->memory->regions[i].size},
                                      .mode = UFFDIO_REGISTER_MODE_WP};

        done = ioctl(rec->uffd, UFFDIO_REGISTER, &reg) == 0;
    }
    if (done)
        return;
    close(rec->uffd);
    rec->uffd = -1;
}

static int prepare(struct recorder *rec, struct error *err)
{
    size_t words = (size_t)(guest_memory_size(rec->memory) / GUEST_PAGE_SIZE / 64 + 1);

    rec->seen = calloc(words, sizeof(uint64_t));
    rec->written = calloc(words, sizeof(uint64_t));
    if (!rec->path || !rec->seen || !rec->written)
        return error_set(err, ENOMEM, "out of memory");
    rec->pagemap_fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (rec->pagemap_fd < 0)
        return error_errno(err, errno, "/proc/self/pagemap");
    keep_neighbours_out(rec);
    return 0;
}

int recorder_start(const struct guest_memory *memory, const struct snapfile *file, const char *path,
                   unsigned seconds, struct recorder **ret_recorder, struct error *err)
{
    struct recorder *rec = calloc(1, sizeof(*rec));
    pthread_condattr_t attr;
    int r;

    if (!rec)
        return error_set(err, ENOMEM, "out of memory");
    rec->memory = memory;
    rec->path = strdup(path);
    rec->seconds = seconds;
    rec->pagemap_fd = rec->uffd = -1;
    pthread_mutex_init(&rec->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&rec->wake, &attr);
    pthread_condattr_destroy(&attr);
    r = snapfile_rewrite_create(file, path, &rec->rewrite, err);
    if (r == 0)
        r = prepare(rec, err);
    if (r == 0)
        r = thread_start(&rec->thread, "record", 0, record, rec, err);
    rec->started = r == 0;
    if (r < 0)
        goto fail;
    *ret_recorder = rec;
    return 0;

fail:
    recorder_stop(rec, false);
    return r;
}

void recorder_stop(struct recorder *rec, bool keep)
{
    if (!rec)
        return;
    if (rec->started) {
        atomic_store(&rec->given_up, !keep);
        pthread_mutex_lock(&rec->lock);
        rec->ended = true;
        pthread_cond_signal(&rec->wake);
        pthread_mutex_unlock(&rec->lock);
        pthread_join(rec->thread, NULL);
    }
    snapfile_rewrite_abandon(rec->rewrite);
    if (rec->uffd >= 0)
        close(rec->uffd);
    if (rec->pagemap_fd >= 0)
        close(rec->pagemap_fd);
    pthread_cond_destroy(&rec->wake);
    pthread_mutex_destroy(&rec->lock);
    free(rec->runs);
    free(rec->seen);
    free(rec->written);
    free(rec->path);
    free(rec);
}
