/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unpack_lz4: the legacy LZ4 frame, in which kernels are packed: a magic
 * number, then blocks, each a length and that many bytes.
 *
 * Every block but the last unpacks to 8 MiB and none refers to another, so
 * where each goes is known at once and a few threads share the work: this is
 * the longest single step of starting a machine.
 */
#include <errno.h>
#include <lz4.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "unpack_impl.h"
#include "vmrun/thread.h"

#define MAGIC_SIZE 4u
#define BLOCK_SIZE (8u << 20)
#define MAX_BLOCKS 128u /* 1 GiB */
#define MAX_THREADS 4u
#define HEAD_INPUT_SIZE (64u << 10)

struct block {
    uint64_t offset; /* in the source */
    uint32_t size;
};

struct job {
    const struct unpack_source *source;
    __typeof__(&LZ4_decompress_safe) decompress;
    uint8_t *out;
    size_t len;
    struct block blocks[MAX_BLOCKS];
    unsigned count;
    uint32_t largest;
    atomic_uint next; /* block to take */
    atomic_bool stop; /* one has failed */
};

struct worker {
    struct job *job;
    pthread_t thread;
    int r;
    struct error err;
};

static int read_block_size(const struct unpack_source *source, uint64_t offset, uint32_t *ret_size,
                           struct error *err)
{
    uint8_t bytes[4];

    if (source->size < 4 || offset > source->size - 4)
        return unpack_damaged(source, "it ends early", err);
    int r = boot_file_read(source->file, source->offset + offset, bytes, sizeof(bytes), err);
    if (r < 0)
        return r;
    uint32_t size = bytes[0] | bytes[1] << 8 | bytes[2] << 16 | (uint32_t)bytes[3] << 24;
    if (size == 0 || size > LZ4_COMPRESSBOUND(BLOCK_SIZE) || size > source->size - 4 - offset)
        return unpack_damaged(source, "a block larger than it can be", err);
    *ret_size = size;
    return 0;
}

int unpack_lz4_head(void *library, const struct unpack_source *source, uint8_t *out, size_t len,
                    struct error *err)
{
    __typeof__(&LZ4_decompress_safe_partial) decompress =
        unpack_symbol(library, "LZ4_decompress_safe_partial");
    uint32_t size = 0;
    int r = read_block_size(source, MAGIC_SIZE, &size, err);

    if (r < 0)
        return r;
    if (!decompress || len > HEAD_INPUT_SIZE / 2)
        return error_set(err, ENOTSUP, "liblz4 is not usable");
    if (size > HEAD_INPUT_SIZE)
        size = HEAD_INPUT_SIZE; /* what is beyond is not needed for len bytes */
    char *packed = malloc(size);
    if (!packed)
        return error_set(err, ENOMEM, "%s: out of memory", source->file->path);
    r = boot_file_read(source->file, source->offset + MAGIC_SIZE + 4, packed, size, err);
    if (r == 0 && decompress(packed, (char *)out, (int)size, (int)len, (int)len) != (int)len)
        r = unpack_damaged(source, "its first block", err);
    free(packed);
    return r;
}

static int find_blocks(struct job *job, struct error *err)
{
    uint64_t offset = MAGIC_SIZE;

    job->count = (unsigned)((job->len + BLOCK_SIZE - 1) / BLOCK_SIZE);
    for (unsigned i = 0; i < job->count; i++) {
        struct block *block = &job->blocks[i];
        int r = read_block_size(job->source, offset, &block->size, err);

        if (r < 0)
            return r;
        block->offset = offset + 4;
        offset += 4 + (uint64_t)block->size;
        if (block->size > job->largest)
            job->largest = block->size;
    }
    if (offset != job->source->size)
        return unpack_damaged(job->source, "bytes after its last block", err);
    return 0;
}

/* Ask for the pages in one call instead of a fault for each; a host that cannot just faults. */
static void populate(uint8_t *at, size_t len)
{
#ifdef MADV_POPULATE_WRITE
    size_t before = (uintptr_t)at & ((uintptr_t)sysconf(_SC_PAGESIZE) - 1);

    (void)madvise(at - before, len + before, MADV_POPULATE_WRITE);
#else
    (void)at, (void)len;
#endif
}

static int unpack_block(struct job *job, unsigned i, char *packed, struct error *err)
{
    const struct block *block = &job->blocks[i];
    size_t at = (size_t)i * BLOCK_SIZE;
    int want = (int)(job->len - at < BLOCK_SIZE ? job->len - at : BLOCK_SIZE);
    int r = boot_file_read(job->source->file, job->source->offset + block->offset, packed,
                           block->size, err);

    if (r < 0)
        return r;
    populate(job->out + at, (size_t)want);
    if (job->decompress(packed, (char *)job->out + at, (int)block->size, want) != want)
        return unpack_damaged(job->source, "a block does not unpack", err);
    return 0;
}

static void *work(void *opaque)
{
    struct worker *worker = opaque;
    struct job *job = worker->job;
    struct unpack_watch *watch = job->source->watch;
    /* Not malloc(): its pages would stay with the process after. */
    void *packed = mmap(NULL, job->largest, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

    if (packed == MAP_FAILED)
        worker->r = error_errno(&worker->err, errno, "%s: buffer", job->source->file->path);
    while (worker->r == 0 && !atomic_load(&job->stop)) {
        unsigned i = atomic_fetch_add(&job->next, 1);

        if (i >= job->count)
            break;
        worker->r = watch ? watch->progress(watch, (uint64_t)i * BLOCK_SIZE, &worker->err) : 0;
        if (worker->r == 0)
            worker->r = unpack_block(job, i, packed, &worker->err);
    }
    if (worker->r < 0)
        atomic_store(&job->stop, true);
    if (packed != MAP_FAILED)
        munmap(packed, job->largest);
    return NULL;
}

/* Run work() on this thread and on as many others as there is work and are CPUs for it. */
static int share_work(struct job *job, struct error *err)
{
    struct worker workers[MAX_THREADS] = {{.job = job}};
    long cpus = job->source->watch ? 1 : sysconf(_SC_NPROCESSORS_ONLN);
    unsigned count = 1;
    struct error ignored;
    int r = 0;

    while (count < MAX_THREADS && count < job->count && count < cpus) {
        workers[count].job = job;
        if (thread_start(&workers[count].thread, "unpack", 0, work, &workers[count], &ignored) < 0)
            break; /* fewer do it too */
        count++;
    }

    work(&workers[0]);
    for (unsigned i = 1; i < count; i++)
        pthread_join(workers[i].thread, NULL);
    for (unsigned i = 0; i < count && r == 0; i++)
        if (workers[i].r < 0) {
            *err = workers[i].err;
            r = workers[i].r;
        }
    return r;
}

int unpack_lz4_all(void *library, const struct unpack_source *source, uint8_t *out, size_t len,
                   struct error *err)
{
    if (len == 0 || len > (size_t)MAX_BLOCKS * BLOCK_SIZE)
        return error_set(err, ENOTSUP, "%s: an lz4 payload of %zu bytes", source->file->path, len);
    struct job *job = calloc(1, sizeof(*job));
    if (!job)
        return error_set(err, ENOMEM, "%s: out of memory", source->file->path);
    *job = (struct job){.source = source,
                        .decompress = unpack_symbol(library, "LZ4_decompress_safe"),
                        .out = out,
                        .len = len};
    int r =
        job->decompress ? find_blocks(job, err) : error_set(err, ENOTSUP, "liblz4 is not usable");

    if (r == 0)
        r = share_work(job, err);
    free(job);
    return r;
}
