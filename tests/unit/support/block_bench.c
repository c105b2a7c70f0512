/* SPDX-License-Identifier: Apache-2.0 */
#include "block_bench.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static int inject(void *opaque, const struct block_request *request, uint64_t *delay_ns)
{
    struct bench *b = opaque;

    b->asked++;
    if (b->of_one_op && request->op != b->faulty_op)
        return 0;
    *delay_ns = b->delay_ns;
    return b->fault;
}

static void batch_done(void *opaque)
{
    struct bench *b = opaque;

    b->batches++;
}

void make_image(const char *path, uint64_t bytes)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
    close(fd);
}

void bench_prepare(struct bench *b, enum block_cache cache)
{
    struct error err = {.msg = ""};

    *b = (struct bench){.lock = PTHREAD_MUTEX_INITIALIZER};
    assert_int_equal(loop_create(&b->loop, &err), 0);
    b->params = (struct block_params){.path = IMAGE,
                                      .cache = cache,
                                      .loop = b->loop,
                                      .lock = &b->lock,
                                      .batch_done = batch_done,
                                      .opaque = b,
                                      .fault = inject,
                                      .fault_opaque = b};
}

void bench_open(struct bench *b, enum block_cache cache, uint64_t bytes)
{
    struct error err = {.msg = ""};

    bench_prepare(b, cache);
    make_image(IMAGE, bytes);
    if (block_open(&b->params, &b->block, &err) < 0)
        fail_msg("%s", err.msg);
}

void bench_close(struct bench *b)
{
    block_close(b->block);
    loop_destroy(b->loop);
}

static void job_done(struct block_request *request, int result)
{
    struct job *job = (struct job *)((char *)request - offsetof(struct job, request));
    struct bench *b = job->bench;

    assert_int_equal(job->result, 1);
    assert_int_not_equal(pthread_mutex_trylock(&b->lock), 0); /* the caller holds it */
    job->result = result;
    if (++b->done == b->waiting_for)
        loop_stop(b->loop);
}

void bench_queue(struct bench *b, struct job *job)
{
    job->bench = b;
    job->result = 1;
    job->request.done = job_done;
    assert_int_equal(block_queue(b->block, &job->request), 0);
}

void job_set(struct job *job, enum block_op op, uint64_t offset, uint64_t bytes)
{
    job->request.op = op;
    job->request.offset = offset;
    job->request.bytes = bytes;
    job->request.iov = job->iov;
    job->request.iov_count = 1;
    job->iov[0] = (struct iovec){.iov_base = job->data, .iov_len = bytes};
}

void bench_finish(struct bench *b, unsigned before, unsigned count)
{
    struct error err;

    pthread_mutex_lock(&b->lock);
    block_submit(b->block);
    pthread_mutex_unlock(&b->lock);
    b->waiting_for = before + count;
    if (b->done < b->waiting_for)
        assert_int_equal(loop_run(b->loop, &err), 0);
    assert_int_equal(b->done, b->waiting_for);
    b->waiting_for = 0;
}

int bench_perform(struct bench *b, struct job *job)
{
    unsigned before = b->done;

    bench_queue(b, job);
    bench_finish(b, before, 1);
    return job->result;
}

uint8_t *buffer_create(uint64_t bytes)
{
    void *data = NULL;

    assert_int_equal(posix_memalign(&data, 4096, bytes + 4096), 0);
    return data;
}

void buffer_fill(uint8_t *data, uint64_t bytes, unsigned seed)
{
    for (uint64_t i = 0; i < bytes; i++)
        data[i] = (uint8_t)(1 + (i * 31 + i / 512 * 7 + seed * 13) % 255);
}

void read_image(uint8_t *data, uint64_t offset, uint64_t bytes)
{
    int fd = open(IMAGE, O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(pread(fd, data, bytes, (off_t)offset), bytes);
    close(fd);
}
