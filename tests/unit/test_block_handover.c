/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The images of a machine that moves, seen by both sides at once: locks belong to open files, so
 * that two sides, and a third, fit into one process.
 */
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

#include "../../src/backends/block_image.h"
#include "../../src/backends/block_lock.h"
#include "block_bench.h"
#include "folder.h"
#include "vmrun/block_handover.h"

#define OTHER "data.img"
#define READ_ONLY "cd.img"
#define DISKS 3

static const uint8_t session[HANDOVER_SESSION_BYTES] = "one of many....";
static const uint8_t another[HANDOVER_SESSION_BYTES] = "another one....";

static uint64_t times; /* of the last offer */

/* The disks of one process. */
struct side {
    struct bench benches[DISKS];
    struct block_handover_disk disks[DISKS];
    struct block_handover set;
};

static void side_open(struct side *side, bool elsewhere, const char *const *paths, unsigned count)
{
    static const char *const ids[DISKS] = {"root", "data", "cd"};
    struct error err = {.msg = ""};

    *side = (struct side){.set = {.session = session, .disks = side->disks, .count = count}};
    for (unsigned i = 0; i < count; i++) {
        struct bench *b = &side->benches[i];

        bench_prepare(b, i == 1 ? BLOCK_CACHE_WRITEBACK : BLOCK_CACHE_NONE);
        b->params.path = paths[i];
        b->params.read_only = strcmp(paths[i], READ_ONLY) == 0;
        b->params.elsewhere = elsewhere;
        if (block_open(&b->params, &b->block, &err) < 0)
            fail_msg("%s", err.msg);
        side->disks[i] = (struct block_handover_disk){ids[i], paths[i], b->block};
    }
}

static void side_close(struct side *side)
{
    for (unsigned i = 0; i < side->set.count; i++)
        bench_close(&side->benches[i]);
}

static const char *const usual[DISKS] = {IMAGE, OTHER, READ_ONLY};

/* A source that runs, and a target that is being prepared. */
static void open_both(struct side *source, struct side *target)
{
    struct error err = {.msg = ""};

    make_image(IMAGE, MIB);
    make_image(OTHER, MIB);
    make_image(READ_ONLY, MIB);
    side_open(source, false, usual, DISKS);
    side_open(target, true, usual, DISKS);
    assert_int_equal(block_handover_mark(&source->set, &err), 0);
    assert_int_equal(block_handover_check(&target->set, &err), 0);
}

static int write_sector(struct side *side, unsigned disk)
{
    struct job job = {.data = buffer_create(4096)};

    buffer_fill(job.data, 4096, 1);
    job_set(&job, BLOCK_WRITE, 0, 4096);
    int r = bench_perform(&side->benches[disk], &job);

    free(job.data);
    return r;
}

static struct timespec time_of(const char *path)
{
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    return st.st_mtim;
}

static void assert_same_time(struct timespec a, struct timespec b)
{
    assert_int_equal(a.tv_sec, b.tv_sec);
    assert_int_equal(a.tv_nsec, b.tv_nsec);
}

static enum block_handover_answer ask(struct side *side, struct error *why)
{
    enum block_handover_answer answer;
    struct error err = {.msg = ""};

    *why = (struct error){.msg = ""};
    if (block_handover_ask(&side->set, &answer, why, &err) < 0)
        fail_msg("%s", err.msg);
    return answer;
}

static int take(struct side *side, struct error *err)
{
    bool arbiter = false;

    *err = (struct error){.msg = ""};
    int r = block_handover_take(&side->set, times, &arbiter, err);

    assert_int_equal(arbiter, r == 0);
    return r;
}

/* Whether an image could be opened by somebody who has to do with neither. */
static bool is_free(const char *path)
{
    struct error err = {.msg = ""};
    struct bench b;

    bench_prepare(&b, BLOCK_CACHE_WRITEBACK);
    b.params.path = path;
    int r = block_open(&b.params, &b.block, &err);

    bench_close(&b);
    return r == 0;
}

/* And the source has stopped and lets go of them. */
static void open_and_offer(struct side *source, struct side *target)
{
    open_both(source, target);
    times = block_handover_offer(&source->set);
}

/* Somebody else has one of them open, and may have written to it. */
static void third_opens(struct side *third, bool writes)
{
    const char *const path = OTHER;

    side_open(third, false, &path, 1);
    if (writes)
        assert_int_equal(write_sector(third, 0), 0);
}

static void the_target_writes_when_it_has_taken_the_images_and_not_before(void **state)
{
    struct side source, target;
    struct error err, why;

    (void)state;
    open_both(&source, &target);
    assert_int_equal(write_sector(&target, 0), -ENOLCK);
    assert_int_equal(block_sync_until(target.benches[0].block, UINT64_MAX), -ENOLCK);
    assert_int_equal(write_sector(&source, 0), 0);

    times = block_handover_offer(&source.set);
    assert_int_equal(write_sector(&source, 0), -ENOLCK);
    assert_int_equal(write_sector(&target, 0), -ENOLCK);
    assert_int_equal(take(&target, &err), 0);
    assert_int_equal(write_sector(&target, 0), 0);
    assert_int_equal(write_sector(&target, 1), 0);
    assert_int_equal(write_sector(&source, 0), -ENOLCK);

    assert_int_equal(ask(&source, &why), HANDOVER_TAKEN);
    assert_int_equal(write_sector(&source, 0), -ENOLCK);
    side_close(&source);
    assert_false(is_free(IMAGE));
    assert_false(is_free(OTHER));
    assert_false(is_free(READ_ONLY));
    side_close(&target);
    assert_true(is_free(IMAGE));
}

static void without_a_target_the_source_goes_on_and_the_target_never_does(void **state)
{
    struct timespec before[2], after;
    struct side source, target;
    struct error err, why;

    (void)state;
    open_both(&source, &target);
    assert_int_equal(write_sector(&source, 0), 0);
    before[0] = time_of(IMAGE);
    before[1] = time_of(OTHER);
    times = block_handover_offer(&source.set);
    after = time_of(IMAGE);
    assert_true(after.tv_sec != before[0].tv_sec && after.tv_nsec != before[0].tv_nsec);
    assert_int_equal(ask(&source, &why), HANDOVER_AS_IT_WAS);
    assert_int_equal(write_sector(&source, 1), 0);
    assert_same_time(time_of(IMAGE), before[0]);
    assert_false(is_free(IMAGE));

    /* However late the word comes. */
    assert_int_equal(take(&target, &err), -EAGAIN);
    assert_string_equal(err.msg, "the source has taken the machine back");
    assert_int_equal(write_sector(&target, 0), -ENOLCK);
    side_close(&target);
    side_close(&source);
}

static void the_source_can_move_again_after_it_was_left_alone(void **state)
{
    struct side source, target;
    struct error err, why;

    (void)state;
    open_and_offer(&source, &target);
    assert_int_equal(ask(&source, &why), HANDOVER_AS_IT_WAS);
    side_close(&target);
    block_handover_unmark(&source.set);

    source.set.session = another;
    assert_int_equal(block_handover_mark(&source.set, &err), 0);
    side_open(&target, true, usual, DISKS);
    assert_int_equal(block_handover_check(&target.set, &err), -ENOTUNIQ); /* no mark */
    target.set.session = another;
    assert_int_equal(block_handover_check(&target.set, &err), 0);
    times = block_handover_offer(&source.set);
    assert_int_equal(take(&target, &err), 0);
    assert_int_equal(ask(&source, &why), HANDOVER_TAKEN);
    side_close(&source);
    side_close(&target);
}

static void a_target_that_died_before_it_took_them_leaves_all_as_it_was(void **state)
{
    struct side source, target;
    struct error why;

    (void)state;
    open_and_offer(&source, &target);
    side_close(&target);
    assert_int_equal(ask(&source, &why), HANDOVER_AS_IT_WAS);
    assert_int_equal(write_sector(&source, 0), 0);
    side_close(&source);
}

static void a_target_that_ran_and_died_is_noticed_even_if_it_wrote_nothing(void **state)
{
    struct side source, target;
    struct error err, why;

    (void)state;
    open_and_offer(&source, &target);
    assert_int_equal(take(&target, &err), 0);
    side_close(&target);
    assert_int_equal(ask(&source, &why), HANDOVER_UNKNOWN);
    assert_string_equal(why.msg, "disk root: disk.img: it was written, or the machine began to run "
                                 "there");
    assert_int_equal(write_sector(&source, 0), -ENOLCK);
    assert_true(is_free(IMAGE)); /* a person may look at it */

    assert_int_equal(block_handover_retake(&source.set, &err), 0); /* and decide */
    assert_int_equal(write_sector(&source, 0), 0);
    assert_false(is_free(IMAGE));
    side_close(&source);
}

static void a_third_party_that_wrote_in_between_is_noticed(void **state)
{
    struct side source, target, third;
    struct error err, why;

    (void)state;
    open_and_offer(&source, &target);
    third_opens(&third, true);

    /* Neither gets them while it has one. */
    assert_int_equal(take(&target, &err), -EBUSY);
    assert_non_null(strstr(err.msg, "disk data: data.img: in use: another process"));
    assert_true(is_free(IMAGE));
    assert_int_equal(ask(&source, &why), HANDOVER_UNKNOWN);
    assert_non_null(strstr(why.msg, "disk data: data.img: in use: another process"));
    assert_int_equal(block_handover_retake(&source.set, &err), -EBUSY);
    assert_true(is_free(IMAGE));
    side_close(&third);

    assert_int_equal(ask(&source, &why), HANDOVER_UNKNOWN);
    assert_string_equal(why.msg, "disk data: data.img: it was written, or the machine began to run "
                                 "there");
    assert_int_equal(take(&target, &err), -EAGAIN); /* the source keeps the arbiter */
    assert_int_equal(block_handover_retake(&source.set, &err), 0);
    side_close(&target);
    side_close(&source);
}

static void a_target_that_wakes_up_late_does_not_run_what_went_on_without_it(void **state)
{
    struct side source, target;
    struct error err, why;

    (void)state;
    open_and_offer(&source, &target);
    assert_int_equal(ask(&source, &why), HANDOVER_AS_IT_WAS);
    assert_int_equal(write_sector(&source, 0), 0);
    side_close(&source); /* killed: nobody holds the arbiter any more */
    assert_int_equal(take(&target, &err), -ESTALE);
    assert_string_equal(err.msg, "a disk was touched since the machine stopped: it was run, or "
                                 "written by somebody else");
    assert_true(is_free(IMAGE));
    side_close(&target);
}

static void nor_if_it_wrote_nothing_there(void **state)
{
    struct side source, target;
    struct error err, why;

    (void)state;
    open_and_offer(&source, &target);
    assert_int_equal(ask(&source, &why), HANDOVER_AS_IT_WAS);
    side_close(&source);
    assert_int_equal(take(&target, &err), -ESTALE);
    side_close(&target);
}

static void nor_what_a_person_let_go_on(void **state)
{
    struct side source, target, third;
    struct error err, why;

    (void)state;
    open_and_offer(&source, &target);
    third_opens(&third, false); /* it only looks */
    assert_int_equal(ask(&source, &why), HANDOVER_UNKNOWN);
    side_close(&third);
    assert_int_equal(block_handover_retake(&source.set, &err), 0);
    side_close(&source);
    assert_int_equal(take(&target, &err), -ESTALE);
    side_close(&target);
}

static void a_target_does_not_run_what_a_third_party_wrote_to(void **state)
{
    struct side source, target, third;
    struct error err, why;

    (void)state;
    open_and_offer(&source, &target);
    third_opens(&third, true);
    side_close(&third);
    assert_int_equal(take(&target, &err), -ESTALE);
    assert_int_equal(ask(&source, &why), HANDOVER_UNKNOWN);
    side_close(&source);
    side_close(&target);
}

/* Between its first lock and its last one a target may still fail: it has not got it. */
static void a_target_that_has_only_the_arbiter_has_not_got_it_yet(void **state)
{
    struct side source, target;
    struct flock lock = {.l_type = F_RDLCK, .l_start = INT64_C(1) << 62};
    enum block_handover_answer answer;
    struct error err, why;

    (void)state;
    open_and_offer(&source, &target);
    assert_int_equal(take(&target, &err), 0);
    assert_int_equal(fcntl(block_image_of(source.benches[0].block)->fd, F_OFD_GETLK, &lock), 0);
    assert_int_equal(lock.l_type, F_WRLCK); /* the arbiter; the promise is the last of its place */
    block_unlock_bytes(block_image_of(target.benches[0].block)->fd, lock.l_start + 127, 1);
    assert_int_equal(block_handover_ask(&source.set, &answer, &why, &err), -EAGAIN);
    assert_string_equal(err.msg, "the other side is about to take the machine");
    side_close(&target);
    assert_int_equal(ask(&source, &why), HANDOVER_UNKNOWN);
    side_close(&source);
}

static void an_image_of_another_size_is_not_taken(void **state)
{
    struct side source, target;
    struct error err, why;

    (void)state;
    open_and_offer(&source, &target);
    assert_int_equal(truncate(OTHER, 2 * MIB), 0);
    assert_int_equal(take(&target, &err), -ESTALE);
    assert_string_equal(err.msg, "disk data: data.img: it has 2097152 bytes now, and had 1048576 "
                                 "when the machine was prepared");
    assert_true(is_free(IMAGE)); /* nothing is held, and the source can have the arbiter */
    assert_int_equal(ask(&source, &why), HANDOVER_UNKNOWN); /* somebody did that */
    side_close(&target);
    side_close(&source);
}

/* The message of a target that has these images instead. */
static int check(const char *const *paths, unsigned count, struct error *err)
{
    struct side target;

    *err = (struct error){.msg = ""};
    side_open(&target, true, paths, count);
    int r = block_handover_check(&target.set, err);

    side_close(&target);
    return r;
}

static void a_target_with_other_files_is_refused(void **state)
{
    static const char *const copied[DISKS] = {"copy.img", OTHER, READ_ONLY};
    static const char *const swapped[DISKS] = {OTHER, IMAGE, READ_ONLY};
    static const char *const twice[DISKS] = {IMAGE, IMAGE, READ_ONLY};
    struct side source, target, third;
    struct error err;

    (void)state;
    open_both(&source, &target);
    make_image("copy.img", MIB);
    assert_int_equal(check(copied, DISKS, &err), -ENOLCK);
    assert_string_equal(err.msg,
                        "disk root: copy.img: not the image that the machine has, or the locks of "
                        "its file system do not reach this host; both hosts need the same file, on "
                        "NFS mounted without nolock and local_lock");
    assert_int_equal(check(swapped, DISKS, &err), -ENOTUNIQ);
    assert_int_equal(check(twice, DISKS, &err), -ENOTUNIQ);
    assert_non_null(strstr(err.msg, "disk data: disk.img: not the image that the machine has"));

    /* A machine of its own writes the copy: its locks are no proof of anything. */
    side_open(&third, false, copied, 1);
    assert_int_equal(check(copied, DISKS, &err), -ENOTUNIQ);
    assert_string_equal(err.msg,
                        "disk root: copy.img: not the image that the machine has: another machine "
                        "writes it; put the same file there, or name it with --set");
    side_close(&third);

    /* And that of a machine that has gone. */
    block_handover_unmark(&source.set);
    assert_int_equal(check(usual, DISKS, &err), -ENOTUNIQ);
    side_close(&source);
    assert_int_equal(check(usual, DISKS, &err), -ENOLCK);
    side_close(&target);
}

static void an_image_that_is_written_cannot_be_opened_to_be_read(void **state)
{
    struct side source, target;
    struct error err = {.msg = ""};
    struct bench b;

    (void)state;
    open_both(&source, &target);
    bench_prepare(&b, BLOCK_CACHE_NONE);
    b.params.read_only = b.params.elsewhere = true;
    assert_int_equal(block_open(&b.params, &b.block, &err), -EBUSY);
    bench_close(&b);
    side_close(&source);
    side_close(&target);
}

static void a_machine_that_writes_nothing_has_no_arbiter(void **state)
{
    const char *const path = READ_ONLY;
    struct side source, target;
    struct error err, why;
    bool arbiter = true;

    (void)state;
    make_image(READ_ONLY, MIB);
    side_open(&source, false, &path, 1);
    side_open(&target, true, &path, 1);
    assert_int_equal(block_handover_mark(&source.set, &err), 0);
    assert_int_equal(block_handover_check(&target.set, &err), 0);
    times = block_handover_offer(&source.set);
    assert_int_equal(block_handover_take(&target.set, times, &arbiter, &err), 0);
    assert_false(arbiter);
    assert_int_equal(ask(&source, &why), HANDOVER_UNKNOWN);
    assert_string_equal(why.msg,
                        "it has no disk that is written, whose locks would tell who has it");
    side_close(&target);
    side_close(&source);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_target_writes_when_it_has_taken_the_images_and_not_before),
        cmocka_unit_test(without_a_target_the_source_goes_on_and_the_target_never_does),
        cmocka_unit_test(the_source_can_move_again_after_it_was_left_alone),
        cmocka_unit_test(a_target_that_died_before_it_took_them_leaves_all_as_it_was),
        cmocka_unit_test(a_target_that_ran_and_died_is_noticed_even_if_it_wrote_nothing),
        cmocka_unit_test(a_third_party_that_wrote_in_between_is_noticed),
        cmocka_unit_test(a_target_that_wakes_up_late_does_not_run_what_went_on_without_it),
        cmocka_unit_test(nor_if_it_wrote_nothing_there),
        cmocka_unit_test(nor_what_a_person_let_go_on),
        cmocka_unit_test(a_target_does_not_run_what_a_third_party_wrote_to),
        cmocka_unit_test(a_target_that_has_only_the_arbiter_has_not_got_it_yet),
        cmocka_unit_test(an_image_of_another_size_is_not_taken),
        cmocka_unit_test(a_target_with_other_files_is_refused),
        cmocka_unit_test(an_image_that_is_written_cannot_be_opened_to_be_read),
        cmocka_unit_test(a_machine_that_writes_nothing_has_no_arbiter),
    };
    return cmocka_run_group_tests_name("block handover", tests, folder_enter, folder_leave);
}
