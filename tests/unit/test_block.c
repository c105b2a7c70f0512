/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The block backend on real files: data in both cache modes, in alignments that
 * O_DIRECT takes and that it does not, singly and many at once.
 */
#include "vmrun/block.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "block_bench.h"
#include "folder.h"

#define JOBS 64

static const enum block_cache caches[] = {BLOCK_CACHE_NONE, BLOCK_CACHE_WRITEBACK};

static void what_is_written_is_in_the_image_and_is_read_again(void **state)
{
    (void)state;
    for (int c = 0; c < 2; c++) {
        struct bench b;
        struct job job = {.data = buffer_create(MIB)};
        uint8_t *seen = buffer_create(MIB), *meant = buffer_create(MIB);

        bench_open(&b, caches[c], 4 * MIB);
        assert_int_equal(block_size_sectors(b.block), 8192);
        buffer_fill(job.data, MIB, 5);
        memcpy(meant, job.data, MIB);
        job_set(&job, BLOCK_WRITE, MIB, MIB);
        assert_int_equal(bench_perform(&b, &job), 0);
        job_set(&job, BLOCK_FLUSH, 0, 0);
        assert_int_equal(bench_perform(&b, &job), 0);
        read_image(seen, MIB, MIB);
        assert_memory_equal(seen, meant, MIB);

        memset(job.data, 0, MIB);
        job_set(&job, BLOCK_READ, MIB, MIB);
        assert_int_equal(bench_perform(&b, &job), 0);
        assert_memory_equal(job.data, meant, MIB);
        bench_close(&b);
        free(job.data);
        free(seen);
        free(meant);
    }
}

static void a_full_house_is_taken_and_one_more_is_not(void **state)
{
    struct job *jobs = calloc(BLOCK_DEPTH + 1, sizeof(*jobs));
    uint8_t *data = buffer_create(BLOCK_DEPTH * 512), *seen = buffer_create(BLOCK_DEPTH * 512);
    struct bench b;

    (void)state;
    bench_open(&b, BLOCK_CACHE_NONE, 4 * MIB);
    buffer_fill(data, BLOCK_DEPTH * 512, 1);
    for (unsigned i = 0; i < BLOCK_DEPTH; i++) {
        jobs[i].data = data + i * 512;
        job_set(&jobs[i], BLOCK_WRITE, (uint64_t)i * 512, 512);
        bench_queue(&b, &jobs[i]);
    }
    assert_int_equal(block_in_flight(b.block), BLOCK_DEPTH);
    assert_int_equal(b.done, 0); /* nothing happens before submit */
    assert_int_equal(block_queue(b.block, &jobs[BLOCK_DEPTH].request), -EAGAIN);
    bench_finish(&b, 0, BLOCK_DEPTH);
    assert_int_equal(block_in_flight(b.block), 0);
    assert_in_range(b.batches, 1, BLOCK_DEPTH);
    read_image(seen, 0, BLOCK_DEPTH * 512);
    assert_memory_equal(seen, data, BLOCK_DEPTH * 512);
    bench_close(&b);
    free(jobs);
    free(data);
    free(seen);
}

/* One operation on a range that no other of the round touches, mirrored in the shadow. */
static void random_job(struct job *job, unsigned slot, uint64_t slot_bytes, uint8_t *shadow)
{
    uint64_t sectors = 1 + (uint64_t)rand() % (slot_bytes / 512);
    uint64_t at = slot * slot_bytes + (uint64_t)rand() % (slot_bytes / 512 - sectors + 1) * 512;
    unsigned odd = rand() % 4 == 0 ? (unsigned)rand() % 4096 : 0;
    uint64_t first, bytes = sectors * 512;

    job_set(job,
            (enum block_op[]){BLOCK_READ, BLOCK_WRITE, BLOCK_WRITE, BLOCK_READ, BLOCK_DISCARD,
                              BLOCK_WRITE_ZEROES, BLOCK_FLUSH}[rand() % 7],
            at, bytes);
    job->request.unmap = rand() % 2;
    first = (uint64_t)rand() % (bytes + 1);
    if (rand() % 2)
        first -= first % 512;
    job->iov[0] = (struct iovec){.iov_base = job->data + odd, .iov_len = first};
    job->iov[1] = (struct iovec){.iov_base = job->data + odd + first, .iov_len = bytes - first};
    job->request.iov_count = 2;
    if (job->request.op == BLOCK_WRITE) {
        buffer_fill(job->data + odd, bytes, (unsigned)rand());
        memcpy(shadow + at, job->data + odd, bytes);
    } else if (job->request.op == BLOCK_WRITE_ZEROES || job->request.op == BLOCK_DISCARD) {
        memset(shadow + at, 0, bytes);
    } else {
        memset(job->data + odd, 0xa5, bytes);
    }
}

static void random_requests_leave_what_a_shadow_copy_says(void **state)
{
    const uint64_t slot = 96 * 512, size = JOBS * slot + 512; /* an odd number of sectors */

    (void)state;
    srand(20);
    for (int c = 0; c < 2; c++) {
        uint8_t *shadow = calloc(1, size), *seen = buffer_create(size);
        struct job jobs[JOBS] = {0};
        struct bench b;

        bench_open(&b, caches[c], size);
        if (!block_can_discard(b.block))
            print_message("the file system of /tmp cannot discard\n");
        for (int i = 0; i < JOBS; i++)
            jobs[i].data = buffer_create(slot + 4096);
        for (int round = 0; round < 30; round++) {
            unsigned before = b.done;

            for (unsigned i = 0; i < JOBS; i++) {
                do
                    random_job(&jobs[i], i, slot, shadow);
                while (jobs[i].request.op == BLOCK_DISCARD && !block_can_discard(b.block));
                bench_queue(&b, &jobs[i]);
            }
            bench_finish(&b, before, JOBS);
            for (unsigned i = 0; i < JOBS; i++) {
                const struct block_request *r = &jobs[i].request;

                assert_int_equal(jobs[i].result, 0);
                if (r->op == BLOCK_READ)
                    assert_memory_equal(jobs[i].iov[0].iov_len ? jobs[i].iov[0].iov_base
                                                               : jobs[i].iov[1].iov_base,
                                        shadow + r->offset, r->bytes);
            }
        }
        read_image(seen, 0, size);
        assert_memory_equal(seen, shadow, size);
        for (int i = 0; i < JOBS; i++)
            free(jobs[i].data);
        bench_close(&b);
        free(shadow);
        free(seen);
    }
}

static void memory_that_is_not_aligned_is_no_matter(void **state)
{
    /* More than there are bounce buffers, and larger than one. */
    static const uint64_t sizes[] = {512, 4096, 262144, 262656, 1048576};
    struct job jobs[20] = {0};
    struct bench b;

    (void)state;
    bench_open(&b, BLOCK_CACHE_NONE, 32 * MIB);
    for (unsigned i = 0; i < 20; i++) {
        jobs[i].data = buffer_create(2 * MIB) + 1 + i;
        buffer_fill(jobs[i].data, sizes[i % 5], i);
        job_set(&jobs[i], BLOCK_WRITE, i * MIB, sizes[i % 5]);
        bench_queue(&b, &jobs[i]);
    }
    bench_finish(&b, 0, 20);
    for (unsigned i = 0; i < 20; i++) {
        uint8_t *meant = buffer_create(sizes[i % 5]);

        assert_int_equal(jobs[i].result, 0);
        memset(jobs[i].data, 0, sizes[i % 5]);
        job_set(&jobs[i], BLOCK_READ, i * MIB, sizes[i % 5]);
        assert_int_equal(bench_perform(&b, &jobs[i]), 0);
        buffer_fill(meant, sizes[i % 5], i);
        assert_memory_equal(jobs[i].data, meant, sizes[i % 5]);
        free(meant);
        free(jobs[i].data - 1 - i);
    }
    bench_close(&b);
}

static uint64_t blocks_of_image(void)
{
    struct stat st;

    assert_int_equal(stat(IMAGE, &st), 0);
    return (uint64_t)st.st_blocks;
}

static void a_discard_gives_the_space_back(void **state)
{
    struct job job = {.data = buffer_create(MIB)};
    uint8_t *seen = buffer_create(2 * MIB);
    struct bench b;

    (void)state;
    bench_open(&b, BLOCK_CACHE_NONE, 2 * MIB);
    if (!block_can_discard(b.block)) {
        bench_close(&b);
        print_message("skipped: the file system of /tmp cannot discard\n");
        skip();
    }
    buffer_fill(job.data, MIB, 1);
    for (unsigned i = 0; i < 2; i++) {
        job_set(&job, BLOCK_WRITE, i * MIB, MIB);
        assert_int_equal(bench_perform(&b, &job), 0);
    }
    job_set(&job, BLOCK_FLUSH, 0, 0);
    assert_int_equal(bench_perform(&b, &job), 0);
    uint64_t full = blocks_of_image();

    job_set(&job, BLOCK_DISCARD, 0, MIB / 2);
    assert_int_equal(bench_perform(&b, &job), 0);
    assert_int_equal(blocks_of_image(), full - MIB / 2 / 512);
    job_set(&job, BLOCK_WRITE_ZEROES, MIB / 2, MIB / 2);
    job.request.unmap = true;
    assert_int_equal(bench_perform(&b, &job), 0);
    assert_int_equal(blocks_of_image(), full - MIB / 512);
    job_set(&job, BLOCK_WRITE_ZEROES, MIB, 512); /* no hole: the space stays */
    job.request.unmap = false;
    assert_int_equal(bench_perform(&b, &job), 0);
    assert_int_equal(blocks_of_image(), full - MIB / 512);

    read_image(seen, 0, 2 * MIB);
    for (uint64_t i = 0; i < MIB + 512; i++)
        assert_int_equal(seen[i], 0);
    assert_memory_equal(seen + MIB + 512, job.data + 512, MIB - 512);
    bench_close(&b);
    free(job.data);
    free(seen);
}

struct chain {
    struct job job;
    unsigned left;
};

static void queue_another(struct block_request *request, int result)
{
    struct chain *chain = (struct chain *)((char *)request - offsetof(struct chain, job.request));
    struct bench *b = chain->job.bench;

    assert_int_equal(result, 0);
    if (--chain->left == 0) {
        loop_stop(b->loop); /* also when it does not run yet */
        return;
    }
    request->offset += 512;
    request->op = chain->left % 3 ? BLOCK_READ : BLOCK_WRITE_ZEROES;
    assert_int_equal(block_queue(b->block, request), 0);
    block_submit(b->block); /* does its work once we have returned */
    assert_int_equal(block_in_flight(b->block), 1);
}

static void a_request_may_be_queued_again_from_inside_done(void **state)
{
    struct chain chain = {.job.data = buffer_create(512), .left = 100};
    struct error err;
    struct bench b;

    (void)state;
    bench_open(&b, BLOCK_CACHE_WRITEBACK, MIB);
    job_set(&chain.job, BLOCK_READ, 0, 512);
    chain.job.request.done = queue_another;
    chain.job.bench = &b;
    assert_int_equal(block_queue(b.block, &chain.job.request), 0);
    pthread_mutex_lock(&b.lock);
    block_submit(b.block);
    pthread_mutex_unlock(&b.lock);
    assert_int_equal(loop_run(b.loop, &err), 0);
    assert_int_equal(chain.left, 0);
    bench_close(&b);
    free(chain.job.data);
}

static void what_completes_together_is_told_in_one_batch(void **state)
{
    struct job jobs[JOBS] = {0};
    struct bench b;

    (void)state;
    bench_open(&b, BLOCK_CACHE_WRITEBACK, MIB);
    for (unsigned i = 0; i < JOBS; i++) {
        jobs[i].data = buffer_create(512);
        job_set(&jobs[i], BLOCK_WRITE, i * 512,
                512); /* into the cache: done when it is submitted */
        bench_queue(&b, &jobs[i]);
    }
    bench_finish(&b, 0, JOBS);
    assert_int_equal(b.batches, 1);
    for (unsigned i = 0; i < JOBS; i++)
        free(jobs[i].data);
    bench_close(&b);
}

static void a_grown_image_is_noticed_when_asked(void **state)
{
    struct job job = {.data = buffer_create(512)};
    struct bench b;

    (void)state;
    bench_open(&b, BLOCK_CACHE_NONE, MIB);
    assert_false(block_refresh_size(b.block));
    assert_int_equal(truncate(IMAGE, 3 * MIB), 0);
    assert_int_equal(block_size_sectors(b.block), 2048);
    assert_true(block_refresh_size(b.block));
    assert_int_equal(block_size_sectors(b.block), 6144);
    assert_false(block_refresh_size(b.block));
    job_set(&job, BLOCK_READ, 3 * MIB - 512, 512);
    assert_int_equal(bench_perform(&b, &job), 0);
    bench_close(&b);
    free(job.data);
}

static void closing_nothing_is_fine(void **state)
{
    (void)state;
    block_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_in_the_image_and_is_read_again),
        cmocka_unit_test(a_full_house_is_taken_and_one_more_is_not),
        cmocka_unit_test(random_requests_leave_what_a_shadow_copy_says),
        cmocka_unit_test(memory_that_is_not_aligned_is_no_matter),
        cmocka_unit_test(a_discard_gives_the_space_back),
        cmocka_unit_test(a_request_may_be_queued_again_from_inside_done),
        cmocka_unit_test(what_completes_together_is_told_in_one_batch),
        cmocka_unit_test(a_grown_image_is_noticed_when_asked),
        cmocka_unit_test(closing_nothing_is_fine),
    };
    return cmocka_run_group_tests_name("block", tests, folder_enter, folder_leave);
}
