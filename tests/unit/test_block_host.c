/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the host does to a disk: errors, delays, a full file system, an image that
 * is cut, and what is refused as an image. Injected where it cannot be had for real.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "block_bench.h"
#include "folder.h"

#define JOBS 64

static const enum block_cache caches[] = {BLOCK_CACHE_NONE, BLOCK_CACHE_WRITEBACK};

static void an_injected_error_reaches_the_caller(void **state)
{
    static const int errors[] = {EIO, ENOSPC};
    struct job job = {.data = buffer_create(4096)};
    uint8_t seen[4096], zeros[4096] = {0};
    struct bench b;

    (void)state;
    bench_open(&b, BLOCK_CACHE_NONE, MIB);
    buffer_fill(job.data, 4096, 1);
    for (int i = 0; i < 2; i++) {
        b.fault = errors[i];
        job_set(&job, BLOCK_WRITE, 0, 4096);
        assert_int_equal(bench_perform(&b, &job), -errors[i]);
    }
    b.of_one_op = true;
    b.faulty_op = BLOCK_FLUSH;
    b.fault = EIO;
    job_set(&job, BLOCK_FLUSH, 0, 0);
    assert_int_equal(bench_perform(&b, &job), -EIO);
    read_image(seen, 0, 4096);
    assert_memory_equal(seen, zeros, 4096); /* a write that failed has not happened */
    job_set(&job, BLOCK_WRITE, 0, 4096);
    assert_int_equal(bench_perform(&b, &job), 0);
    assert_int_equal(b.asked, 4);
    bench_close(&b);
    free(job.data);
}

static void a_transfer_that_comes_back_short_is_finished(void **state)
{
    (void)state;
    for (int c = 0; c < 2; c++) {
        struct job job = {.data = buffer_create(65536)};
        uint8_t *meant = buffer_create(65536);
        struct bench b;

        bench_open(&b, caches[c], MIB);
        buffer_fill(meant, 65536, 9);
        memcpy(job.data, meant, 65536);
        b.fault = BLOCK_FAULT_SHORT;
        job_set(&job, BLOCK_WRITE, 4096, 65536);
        assert_int_equal(bench_perform(&b, &job), 0);
        memset(job.data, 0, 65536);
        job_set(&job, BLOCK_READ, 4096, 65536);
        assert_int_equal(bench_perform(&b, &job), 0);
        assert_memory_equal(job.data, meant, 65536);
        bench_close(&b);
        free(job.data);
        free(meant);
    }
}

static void an_image_that_was_cut_gives_errors_and_no_zeros(void **state)
{
    (void)state;
    for (int c = 0; c < 2; c++) {
        struct job job = {.data = buffer_create(65536)};
        struct bench b;

        bench_open(&b, caches[c], MIB);
        assert_int_equal(truncate(IMAGE, 32768), 0);
        job_set(&job, BLOCK_READ, 0, 65536);
        assert_int_equal(bench_perform(&b, &job), -EIO);
        job_set(&job, BLOCK_READ, 65536, 4096);
        assert_int_equal(bench_perform(&b, &job), -EIO);
        job_set(&job, BLOCK_READ, 0, 32768);
        assert_int_equal(bench_perform(&b, &job), 0);
        bench_close(&b);
        free(job.data);
    }
}

static void a_slow_request_holds_up_nobody_else(void **state)
{
    struct job slow = {.data = buffer_create(512)}, quick = {.data = buffer_create(512)};
    struct bench b;

    (void)state;
    bench_open(&b, BLOCK_CACHE_NONE, MIB);
    b.delay_ns = 50000000;
    uint64_t start = loop_now_ns();
    job_set(&slow, BLOCK_READ, 0, 512);
    bench_queue(&b, &slow);
    b.delay_ns = 0;
    job_set(&quick, BLOCK_READ, 512, 512);
    assert_int_equal(bench_perform(&b, &quick), 0);
    assert_int_equal(slow.result, 1);
    bench_finish(&b, 1, 1);
    assert_int_equal(slow.result, 0);
    assert_true(loop_now_ns() - start >= 50000000);
    bench_close(&b);
    free(slow.data);
    free(quick.data);
}

static void drain_waits_for_all_of_them(void **state)
{
    struct job jobs[JOBS] = {0};
    struct bench b;

    (void)state;
    bench_open(&b, BLOCK_CACHE_NONE, JOBS * 65536);
    for (unsigned i = 0; i < JOBS; i++) {
        jobs[i].data = buffer_create(65536);
        b.delay_ns = i % 8 == 0 ? 1000000 * (JOBS - i) : 0; /* the later, the sooner */
        b.fault = i == 8 ? EIO : 0;
        job_set(&jobs[i], i % 3 ? BLOCK_WRITE : BLOCK_FLUSH, i * 65536, 65536);
        bench_queue(&b, &jobs[i]);
    }
    pthread_mutex_lock(&b.lock);
    block_drain(b.block);
    assert_int_equal(block_in_flight(b.block), 0);
    block_drain(b.block); /* with nothing to wait for, too */
    pthread_mutex_unlock(&b.lock);
    for (unsigned i = 0; i < JOBS; i++) {
        assert_int_equal(jobs[i].result, i == 8 ? -EIO : 0);
        free(jobs[i].data);
    }
    bench_close(&b);
}

static void a_flush_that_was_given_up_takes_no_request_its_place(void **state)
{
    static struct job jobs[BLOCK_DEPTH];
    struct bench b;

    (void)state;
    bench_open(&b, BLOCK_CACHE_NONE, 65536);
    b.delay_ns = 200000000;
    pthread_mutex_lock(&b.lock);
    assert_true(block_drain_until(b.block, loop_now_ns() + 1));
    assert_int_equal(block_sync_until(b.block, loop_now_ns() + 10000000), -ETIMEDOUT);
    assert_int_equal(block_in_flight(b.block), 1);
    for (unsigned i = 0; i < BLOCK_DEPTH; i++) {
        job_set(&jobs[i], BLOCK_FLUSH, 0, 0);
        bench_queue(&b, &jobs[i]);
    }
    assert_int_equal(block_in_flight(b.block), BLOCK_DEPTH + 1);
    assert_false(block_drain_until(b.block, loop_now_ns() + 10000000));
    block_drain(b.block);
    assert_int_equal(block_in_flight(b.block), 0);
    pthread_mutex_unlock(&b.lock);
    bench_close(&b);
}

static void an_image_opened_to_read_is_not_written(void **state)
{
    (void)state;
    for (int c = 0; c < 2; c++) {
        struct job job = {.data = buffer_create(512)};
        struct error err = {.msg = ""};
        struct bench b;

        bench_prepare(&b, caches[c]);
        make_image(IMAGE, MIB);
        assert_int_equal(chmod(IMAGE, 0444), 0);
        b.params.read_only = true;
        assert_int_equal(block_open(&b.params, &b.block, &err), 0);
        assert_false(block_can_discard(b.block));
        job_set(&job, BLOCK_READ, 0, 512);
        assert_int_equal(bench_perform(&b, &job), 0);
        job_set(&job, BLOCK_FLUSH, 0, 0);
        assert_int_equal(bench_perform(&b, &job), 0);
        job_set(&job, BLOCK_WRITE, 0, 512);
        assert_int_equal(bench_perform(&b, &job), -EBADF);
        job_set(&job, BLOCK_WRITE_ZEROES, 0, 512);
        assert_int_equal(bench_perform(&b, &job), -EBADF);
        bench_close(&b);
        assert_int_equal(unlink(IMAGE), 0);
        free(job.data);
    }
}

/* A file system of 1 MiB, in a name space of our own. */
static bool mount_small(const char *path)
{
    mkdir(path, 0755);
    return unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
           mount("tmpfs", path, "tmpfs", 0, "size=1m") == 0;
}

static void opening_an_image_leaves_its_time_as_it_was(void **state)
{
    struct block_identity before, after;

    (void)state;
    make_image(IMAGE, MIB);
    for (int c = 0; c < 2; c++) {
        struct error err;
        struct bench b;

        assert_int_equal(block_identify(IMAGE, &before, &err), 0);
        usleep(20000); /* a tick of the file system's clock, and more */
        bench_prepare(&b, caches[c]);
        assert_int_equal(block_open(&b.params, &b.block, &err), 0);
        assert_int_equal(block_identify(IMAGE, &after, &err), 0);
        assert_int_equal(after.mtime_ns, before.mtime_ns);
        bench_close(&b);
    }
}

static void a_full_file_system_fails_the_write_and_nothing_before_it(void **state)
{
    struct job job = {.data = buffer_create(65536)};
    uint8_t *seen = buffer_create(65536);
    struct error err = {.msg = ""};
    struct bench b;
    unsigned written = 0;

    (void)state;
    if (!mount_small("small")) {
        print_message("skipped: only root can mount a small file system\n");
        skip();
    }
    bench_prepare(&b, BLOCK_CACHE_WRITEBACK);
    b.params.path = "small/disk.img";
    make_image(b.params.path, 4 * MIB);
    assert_int_equal(block_open(&b.params, &b.block, &err), 0);
    for (;; written++) {
        buffer_fill(job.data, 65536, written);
        job_set(&job, BLOCK_WRITE, written * UINT64_C(65536), 65536);
        if (bench_perform(&b, &job) < 0)
            break;
    }
    assert_int_equal(job.result, -ENOSPC);
    assert_in_range(written, 10, 16);
    for (unsigned i = 0; i < written; i++) {
        buffer_fill(seen, 65536, i);
        job_set(&job, BLOCK_READ, i * UINT64_C(65536), 65536);
        assert_int_equal(bench_perform(&b, &job), 0);
        assert_memory_equal(job.data, seen, 65536);
    }
    bench_close(&b);
    assert_int_equal(umount("small"), 0);
    free(job.data);
    free(seen);
}

static void what_is_no_image_is_refused_with_the_cure(void **state)
{
    static const struct {
        const char *path;
        enum block_cache cache;
        bool read_only;
        int r;
        const char *message;
    } images[] = {
        {"nowhere.img", BLOCK_CACHE_NONE, false, -ENOENT,
         "nowhere.img: cannot open: No such file or directory"},
        {"/tmp", BLOCK_CACHE_NONE, false, -EINVAL, "/tmp: neither a file nor a block device"},
        {"/dev/null", BLOCK_CACHE_WRITEBACK, false, -EINVAL,
         "/dev/null: neither a file nor a block device"},
        {"pipe", BLOCK_CACHE_WRITEBACK, true, -EINVAL, "pipe: neither a file nor a block device"},
        {"empty", BLOCK_CACHE_WRITEBACK, false, -EINVAL,
         "empty: empty; a disk has a size: truncate -s SIZE FILE"},
        {"odd", BLOCK_CACHE_NONE, false, -EINVAL,
         "odd: 1000 bytes are no whole number of sectors of 512; is it a raw image?"},
        {"/proc/version", BLOCK_CACHE_NONE, true, -EINVAL,
         "/proc/version: its file system cannot do without the page cache (O_DIRECT), as "
         "\"cache\": \"none\" asks; use \"cache\": \"writeback\""},
    };

    (void)state;
    assert_int_equal(mkfifo("pipe", 0600), 0);
    make_image("empty", 0);
    make_image("odd", 1000);
    for (size_t i = 0; i < sizeof(images) / sizeof(images[0]); i++) {
        struct error err = {.msg = ""};
        struct bench b;

        bench_prepare(&b, images[i].cache);
        b.params.path = images[i].path;
        b.params.read_only = images[i].read_only;
        assert_int_equal(block_open(&b.params, &b.block, &err), images[i].r);
        assert_string_equal(err.msg, images[i].message);
        assert_null(b.block);
        bench_close(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_injected_error_reaches_the_caller),
        cmocka_unit_test(a_transfer_that_comes_back_short_is_finished),
        cmocka_unit_test(an_image_that_was_cut_gives_errors_and_no_zeros),
        cmocka_unit_test(a_slow_request_holds_up_nobody_else),
        cmocka_unit_test(drain_waits_for_all_of_them),
        cmocka_unit_test(a_flush_that_was_given_up_takes_no_request_its_place),
        cmocka_unit_test(an_image_opened_to_read_is_not_written),
        cmocka_unit_test(opening_an_image_leaves_its_time_as_it_was),
        cmocka_unit_test(a_full_file_system_fails_the_write_and_nothing_before_it),
        cmocka_unit_test(what_is_no_image_is_refused_with_the_cure),
    };
    return cmocka_run_group_tests_name("block host", tests, folder_enter, folder_leave);
}
