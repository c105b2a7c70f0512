/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache: one file a kernel, "kernel-HASH": a page of header, then the payload
 * as it unpacks. The header must equal, byte for byte, what is made up anew
 * from the kernel file at hand: any change of either is a miss.
 *
 * Who could write here could choose the kernel of the next machine. So only
 * folders and files that belong to this user, and that nobody else may write
 * to, are believed; symbolic links are not followed.
 *
 * A file gets its name when it is whole and on the disk. The folder's lock
 * keeps a second process from doing the same work at the same time.
 *
 * The thread that fills it is in nobody's way: it begins late, rests three times as
 * long as it has worked, and holds only a few MiB at a time. It does not run at a
 * low priority: on a busy host that would keep cache_destroy() waiting for seconds.
 */
#include "cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "vmrun/log.h"
#include "vmrun/thread.h"

#define MAGIC UINT64_C(0x454843414d525631) /* "1VRMACHE" */
#define HEADER_SIZE 4096u
#define MAX_UNPACKED (UINT64_C(512) << 20)
#define MOST_ENTRIES 4u
#define PREFIX "kernel-"
#define NAME_SIZE sizeof(PREFIX "0123456789abcdef")
#define PIECE (UINT64_C(1) << 20)
#define STACK_BYTES (256u << 10)
#define REST 3      /* times as long as the work before it */
#define SETTLED_S 2 /* the coarsest time stamps of a file system */

/* In the host's byte order: the file never leaves the host. No padding: it is compared whole. */
struct header {
    uint64_t magic;
    uint64_t device, inode, size; /* of the kernel file */
    int64_t mtime_s, mtime_ns, ctime_s, ctime_ns;
    uint64_t payload_offset, payload_size, format;
    uint64_t unpacked_size;
};

struct cache {
    char *path;      /* of the folder */
    bool below_home; /* it is a default, and the folder above is made too */
    struct boot_file found;
    bool has_thread;
    pthread_t thread;
    pthread_mutex_t lock; /* of the flag */
    pthread_cond_t wake;
    bool cancel;
    unsigned delay_ms;
    /* Of the thread. */
    struct unpack_source packed;
    struct header header;
    bool anew; /* what is there is of no use */
};

static char *join(const char *dir, const char *name)
{
    char *path = NULL;

    /* A relative one would be another folder at each start. */
    if (!dir || dir[0] != '/' || asprintf(&path, "%s%s", dir, name) < 0)
        return NULL;
    return path;
}

struct cache *cache_create(unsigned delay_ms)
{
    pthread_condattr_t monotonic;
    const char *own = secure_getenv("VMRUN_CACHE_DIR");
    const char *xdg = secure_getenv("XDG_CACHE_HOME");
    char *path = own && *own   ? join(own, "")
                 : xdg && *xdg ? join(xdg, "/vmrun")
                               : join(secure_getenv("HOME"), "/.cache/vmrun");
    struct cache *cache = path ? calloc(1, sizeof(*cache)) : NULL;

    if (!cache) {
        free(path);
        return NULL;
    }
    cache->path = path;
    cache->below_home = !(own && *own);
    cache->found.fd = -1;
    cache->delay_ms = delay_ms;
    pthread_mutex_init(&cache->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&cache->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    return cache;
}

static void close_found(struct cache *cache)
{
    if (cache->found.fd >= 0)
        close(cache->found.fd);
    free(cache->found.path);
    cache->found = (struct boot_file){.fd = -1};
}

void cache_destroy(struct cache *cache)
{
    if (!cache)
        return;
    pthread_mutex_lock(&cache->lock);
    cache->cancel = true;
    pthread_cond_signal(&cache->wake);
    pthread_mutex_unlock(&cache->lock);
    if (cache->has_thread)
        pthread_join(cache->thread, NULL);
    pthread_cond_destroy(&cache->wake);
    pthread_mutex_destroy(&cache->lock);
    close_found(cache);
    free(cache->path);
    free(cache);
}

static bool ours(const struct stat *st, mode_t type)
{
    return (st->st_mode & S_IFMT) == type && st->st_uid == geteuid() && !(st->st_mode & 022);
}

/* -1 with a line in the log when it is not there or not to be trusted. */
static int open_folder(const struct cache *cache)
{
    struct stat st;
    int fd = open(cache->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0) {
        if (errno != ENOENT)
            log_debug("cache %s: %s", cache->path, strerror(errno));
        return -1;
    }
    if (fstat(fd, &st) == 0 && ours(&st, S_IFDIR))
        return fd;
    log_debug("cache %s: not used: it must belong to user %u, and nobody else may write to it",
              cache->path, (unsigned)geteuid());
    close(fd);
    return -1;
}

/* One folder; below a default only where the one above it is ours, not as root in a user's home. */
static void make_one(const struct cache *cache, const char *path, size_t len)
{
    char *made = strndup(path, len);
    char *above = made ? strdup(made) : NULL;
    struct stat st;

    if (above) {
        strrchr(above, '/')[1] = '\0';
        if (!cache->below_home || (stat(above, &st) == 0 && st.st_uid == geteuid()))
            (void)mkdir(made, 0700);
    }
    free(above);
    free(made);
}

static int make_folder(const struct cache *cache)
{
    if (cache->below_home)
        make_one(cache, cache->path, (size_t)(strrchr(cache->path, '/') - cache->path));
    make_one(cache, cache->path, strlen(cache->path));
    return open_folder(cache);
}

/* What identifies this payload. False for a file that has no name or was changed just now. */
static bool describe(const struct unpack_source *packed, uint64_t unpacked_size,
                     struct header *ret_header)
{
    struct timespec now;
    struct stat st;

    if (unpacked_size == 0 || unpacked_size > MAX_UNPACKED || fstat(packed->file->fd, &st) < 0 ||
        st.st_nlink == 0)
        return false;
    /* A second change within one tick of its clock would leave no trace. */
    clock_gettime(CLOCK_REALTIME, &now);
    if (llabs((long long)now.tv_sec - st.st_ctim.tv_sec) <= SETTLED_S)
        return false;
    *ret_header = (struct header){
        .magic = MAGIC,
        .device = st.st_dev,
        .inode = st.st_ino,
        .size = (uint64_t)st.st_size,
        .mtime_s = st.st_mtim.tv_sec,
        .mtime_ns = st.st_mtim.tv_nsec,
        .ctime_s = st.st_ctim.tv_sec,
        .ctime_ns = st.st_ctim.tv_nsec,
        .payload_offset = packed->offset,
        .payload_size = packed->size,
        .format = packed->format,
        .unpacked_size = unpacked_size,
    };
    return true;
}

/* FNV-1a: a name, no more; the header decides. Of where the file is, so that a new one replaces it.
 */
static void name_of(const struct header *header, char name[NAME_SIZE])
{
    const uint64_t key[] = {header->device, header->inode, header->payload_offset};
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    for (size_t i = 0; i < sizeof(key) / sizeof(key[0]); i++)
        for (unsigned shift = 0; shift < 64; shift += 8)
            hash = (hash ^ (key[i] >> shift & 0xff)) * UINT64_C(0x100000001b3);
    snprintf(name, NAME_SIZE, PREFIX "%016" PRIx64, hash);
}

/* The open file when this entry is the one described and whole, or -1. */
static int open_entry(int folder, const struct header *header)
{
    struct header has;
    char name[NAME_SIZE];
    struct stat st;

    name_of(header, name);
    int fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return -1;
    if (fstat(fd, &st) == 0 && ours(&st, S_IFREG) &&
        (uint64_t)st.st_size == HEADER_SIZE + header->unpacked_size &&
        pread(fd, &has, sizeof(has), 0) == (ssize_t)sizeof(has) &&
        memcmp(&has, header, sizeof(has)) == 0)
        return fd;
    log_debug("cache: %s: of another kernel, or not to be trusted", name);
    close(fd);
    return -1;
}

bool cache_find(struct cache *cache, const struct unpack_source *packed, uint64_t unpacked_size,
                struct unpack_source *ret_stored)
{
    struct header header;

    close_found(cache);
    if (!describe(packed, unpacked_size, &header))
        return false;
    int folder = open_folder(cache);
    if (folder < 0)
        return false;
    int fd = open_entry(folder, &header);
    close(folder);
    if (fd < 0)
        return false;

    cache->found = (struct boot_file){
        .fd = fd, .path = strdup(cache->path), .size = HEADER_SIZE + unpacked_size};
    if (!cache->found.path) {
        close_found(cache);
        return false;
    }
    *ret_stored = (struct unpack_source){.file = &cache->found,
                                         .offset = HEADER_SIZE,
                                         .size = unpacked_size,
                                         .format = UNPACK_STORED};
    return true;
}

/* One filling of the cache, on its thread. */
struct filling {
    struct unpack_watch watch;
    struct cache *cache;
    int fd;
    uint8_t *unpacked;
    uint64_t written, given_back; /* bytes of it; the second in whole pages */
    uint64_t rested_ns;           /* the thread's CPU time at the end of its last rest */
};

/* Sleep, unless it is cancelled. */
static int rest(struct cache *cache, uint64_t ns, struct error *err)
{
    struct timespec until;
    int r = 0;

    clock_gettime(CLOCK_MONOTONIC, &until);
    ns += (uint64_t)until.tv_nsec;
    until.tv_sec += (time_t)(ns / 1000000000);
    until.tv_nsec = (long)(ns % 1000000000);
    pthread_mutex_lock(&cache->lock);
    while (!cache->cancel && r == 0)
        r = pthread_cond_timedwait(&cache->wake, &cache->lock, &until);
    bool cancelled = cache->cancel;
    pthread_mutex_unlock(&cache->lock);
    return cancelled ? error_set(err, ECANCELED, "the machine ends") : 0;
}

static uint64_t cpu_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static int rest_from_work(struct filling *f, struct error *err)
{
    int r = rest(f->cache, (cpu_ns() - f->rested_ns) * REST, err);

    f->rested_ns = cpu_ns();
    return r;
}

/* What is unpacked goes to the disk, a piece at a time: none keeps who cancels waiting for long. */
static int progress(struct unpack_watch *watch, uint64_t done, struct error *err)
{
    struct filling *f = (struct filling *)watch; /* its first member */
    int r = rest_from_work(f, err);

    while (r == 0 && f->written < done) {
        uint64_t left = done - f->written;
        off_t at = (off_t)(HEADER_SIZE + f->written);
        ssize_t n = pwrite(f->fd, f->unpacked + f->written, left < PIECE ? left : PIECE, at);

        if (n <= 0)
            return error_errno(err, n < 0 ? errno : ENOSPC, "write");
        (void)sync_file_range(f->fd, at, n,
                              SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
                                  SYNC_FILE_RANGE_WAIT_AFTER);
        f->written += (uint64_t)n;
        r = rest_from_work(f, err);
    }
    /* zstd looks back at all that it has unpacked; the others look at nothing, or keep it. */
    uint64_t whole = f->written & ~(uint64_t)(HEADER_SIZE - 1);
    if (f->cache->packed.format != UNPACK_ZSTD && whole > f->given_back) {
        (void)madvise(f->unpacked + f->given_back, whole - f->given_back, MADV_DONTNEED);
        f->given_back = whole;
    }
    return r;
}

/* Give the nameless file its name, in place of what had it. */
static int publish(int folder, int fd, const char *name, struct error *err)
{
    static const char temp[] = "new"; /* the folder's lock is held: there is one */
    char self[32];

    snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
    (void)unlinkat(folder, temp, 0);
    if (linkat(AT_FDCWD, self, folder, temp, AT_SYMLINK_FOLLOW) < 0)
        return error_errno(err, errno, "link");
    if (renameat(folder, temp, folder, name) < 0) {
        int r = error_errno(err, errno, "rename");

        (void)unlinkat(folder, temp, 0);
        return r;
    }
    return 0;
}

/* The oldest entry but `keep`; the number of entries in all. */
static unsigned oldest_entry(DIR *dir, const char *keep, char ret_name[NAME_SIZE])
{
    struct timespec oldest = {0};
    struct dirent *entry;
    unsigned count = 0;
    struct stat st;

    ret_name[0] = '\0';
    rewinddir(dir);
    while ((entry = readdir(dir))) {
        if (strncmp(entry->d_name, PREFIX, strlen(PREFIX)) != 0 ||
            strlen(entry->d_name) != NAME_SIZE - 1 ||
            fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        count++;
        if (strcmp(entry->d_name, keep) == 0)
            continue;
        if (!ret_name[0] || st.st_mtim.tv_sec < oldest.tv_sec ||
            (st.st_mtim.tv_sec == oldest.tv_sec && st.st_mtim.tv_nsec < oldest.tv_nsec)) {
            oldest = st.st_mtim;
            memcpy(ret_name, entry->d_name, NAME_SIZE);
        }
    }
    return count;
}

static void evict(int folder, const char *keep)
{
    char name[NAME_SIZE];
    int copy = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = copy >= 0 ? fdopendir(copy) : NULL;

    if (!dir) {
        if (copy >= 0)
            close(copy);
        return;
    }
    while (oldest_entry(dir, keep, name) > MOST_ENTRIES && name[0] &&
           unlinkat(folder, name, 0) == 0)
        log_debug("cache: %s removed, the oldest", name);
    closedir(dir);
}

static int fill(struct filling *f, struct error *err)
{
    struct unpack_source packed = f->cache->packed;
    uint64_t size = f->cache->header.unpacked_size;
    uint8_t first[HEADER_SIZE] = {0};
    struct unpack unpack;
    struct header after;

    packed.watch = &f->watch;
    int r = unpack_open(&unpack, &packed, err);
    if (r < 0)
        return r;
    r = unpack_all(&unpack, f->unpacked, size, err);
    unpack_close(&unpack);
    if (r == 0)
        r = progress(&f->watch, size, err);
    memcpy(first, &f->cache->header, sizeof(f->cache->header));
    if (r == 0 &&
        (pwrite(f->fd, first, sizeof(first), 0) != (ssize_t)sizeof(first) || fdatasync(f->fd) < 0))
        r = error_errno(err, errno, "write");
    if (r == 0 &&
        (!describe(&packed, size, &after) || memcmp(&after, &f->cache->header, sizeof(after)) != 0))
        r = error_set(err, ESTALE, "it was changed meanwhile");
    return r;
}

static int make_entry(struct cache *cache, int folder, const char *name, struct error *err)
{
    uint64_t size = cache->header.unpacked_size;
    struct filling f = {
        .watch.progress = progress,
        .cache = cache,
        .fd = openat(folder, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600),
        .rested_ns = cpu_ns(),
    };

    if (f.fd < 0)
        return error_errno(err, errno, "a file without a name");
    /* Not a mapping of the file: on a full disk that is a SIGBUS. */
    f.unpacked = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int r = f.unpacked == MAP_FAILED ? error_errno(err, errno, "memory") : fill(&f, err);
    if (f.unpacked != MAP_FAILED)
        munmap(f.unpacked, size);
    if (r == 0)
        r = publish(folder, f.fd, name, err);
    close(f.fd);
    return r;
}

static void *keep(void *opaque)
{
    struct cache *cache = opaque;
    struct error err = {.msg = ""};
    char name[NAME_SIZE];

    if (rest(cache, cache->delay_ms * UINT64_C(1000000), &err) < 0)
        return NULL;
    int folder = make_folder(cache);
    if (folder < 0)
        return NULL;
    name_of(&cache->header, name);
    /* Whoever holds the lock is at it, or at another kernel: then it is the next start's turn. */
    if (flock(folder, LOCK_EX | LOCK_NB) == 0) {
        int there = cache->anew ? -1 : open_entry(folder, &cache->header);

        if (there >= 0)
            close(there);
        else if (make_entry(cache, folder, name, &err) == 0)
            evict(folder, name);
        else
            log_debug("cache %s: %s is not kept: %s", cache->path, cache->packed.file->path,
                      err.msg);
    }
    close(folder);
    return NULL;
}

void cache_keep(struct cache *cache, const struct unpack_source *packed, uint64_t unpacked_size,
                bool anew)
{
    struct error ignored; /* then it is the next start's turn */

    if (cache->has_thread || !describe(packed, unpacked_size, &cache->header))
        return;
    cache->anew = anew;
    cache->packed = *packed;

    cache->has_thread =
        thread_start(&cache->thread, "cache", STACK_BYTES, keep, cache, &ignored) == 0;
}
