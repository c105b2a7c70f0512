/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two whole machines on one disk, as when one moves to the other: who has it, who runs, and what a
 * person can do where nobody can tell.
 */
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmrun/machine.h"

static const uint8_t session[HANDOVER_SESSION_BYTES] = "between the two";

static char folder[] = "/tmp/vmrun-handover-XXXXXX", image[sizeof(folder) + 16];
static struct loop *loop;
static struct vm_config config;
static uint64_t times; /* of the offer */
static struct machine *source, *target;
static uint64_t times;  /* of the disk, as it was offered */
static char detail[64]; /* of the last event of the source */

static void listen(void *opaque, const struct machine_news *news)
{
    (void)opaque;
    snprintf(detail, sizeof(detail), "%s", news->detail);
}

static void make_config(void)
{
    char kernel[512], text[1024];
    struct error err;

    guest_payload("work", kernel, sizeof(kernel));
    snprintf(text, sizeof(text),
             "{\"name\": \"web1\", \"memory\": \"16M\", \"boot\": {\"kernel\": \"%s\"}, "
             "\"console\": {\"serial\": \"none\"}, "
             "\"disks\": [{\"path\": \"%s\", \"id\": \"root\", \"cache\": \"writeback\"}]}",
             kernel, image);
    config_init(&config);
    if (config_load_text(&config, "config", text, strlen(text), &err) < 0)
        fail_msg("%s", err.msg);
}

static void create_source(void)
{
    struct error err;

    if (machine_create(&config, loop, &source, &err) < 0 || machine_start(source, &err) < 0)
        fail_msg("%s", err.msg);
    machine_set_listener(source, listen, NULL);
}

/* The source's CPU, and not yet its state. */
static void create_target(void)
{
    struct machine_image like = {.ram_fd = -1, .disks_elsewhere = true};
    struct writer cpuid = {0};
    struct error err;

    assert_int_equal(machine_save_cpuid(source, &cpuid, &err), 0);
    like.cpuid = cpuid.data;
    like.cpuid_len = cpuid.len;
    if (machine_create_from(&config, loop, &like, &target, &err) < 0)
        fail_msg("%s", err.msg);
    free(cpuid.data);
}

static int setup(void **state)
{
    struct error err;
    int fd;

    (void)state;
    snprintf(image, sizeof(image), "%s/root.img", folder);
    fd = open(image, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 1 << 20), 0);
    close(fd);
    assert_int_equal(loop_create(&loop, &err), 0);
    make_config();
    create_source();
    create_target();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    machine_destroy(target);
    machine_destroy(source);
    source = target = NULL;
    config_fini(&config);
    loop_destroy(loop);
    unlink(image);
    return 0;
}

static uint64_t advance(void *opaque, uint64_t when_ns)
{
    (void)opaque, (void)when_ns;
    return 0;
}

/* RAM and state, as the two would send it. The source stands still from now on. */
static void move_state(void)
{
    struct guest_memory *from = machine_memory(source), *to = machine_memory(target);
    struct writer state = {0};
    struct error err;

    if (machine_hold(source, &err) < 0 || machine_sync_disks(source, &err) < 0 ||
        machine_save_state(source, &state, &err) < 0)
        fail_msg("%s", err.msg);
    for (unsigned i = 0; i < from->count; i++)
        memcpy(to->regions[i].host, from->regions[i].host, from->regions[i].size);
    if (machine_load_state(target, state.data, state.len, advance, NULL, &err) < 0)
        fail_msg("%s", err.msg);
    free(state.data);
}

static void offer(void)
{
    struct error err;

    if (machine_handover_mark(source, session, &err) < 0 ||
        machine_disks_shared(target, session, &err) < 0)
        fail_msg("%s", err.msg);
    move_state();
    times = machine_handover_offer(source, session);
}

static enum block_handover_answer ask(struct error *why)
{
    enum block_handover_answer answer;
    struct error err;

    if (machine_handover_ask(source, session, &answer, why, &err) < 0)
        fail_msg("%s", err.msg);
    return answer;
}

static uint64_t work(struct machine *m)
{
    uint64_t count = 0;

    assert_int_equal(guest_memory_read(machine_memory(m), 0x90000, &count, sizeof(count)), 0);
    return count;
}

static void expect_work(struct machine *m)
{
    uint64_t before = work(m);

    for (unsigned i = 0; i < 10000 && work(m) == before; i++)
        usleep(1000);
    assert_true(work(m) != before);
}

static void expect_rest(struct machine *m)
{
    uint64_t before = work(m);

    usleep(50000);
    assert_true(work(m) == before);
}

static void the_target_goes_on_and_the_source_never_does(void **state)
{
    struct error err, why;
    bool arbiter = false;

    (void)state;
    expect_work(source);
    assert_true(machine_has_arbiter(source));
    offer();
    uint64_t stood_at = work(source);

    assert_int_equal(machine_handover_take(target, session, times, &arbiter, &err), 0);
    assert_true(arbiter);
    assert_int_equal(machine_start(target, &err), 0);
    machine_tell_moved(target);
    expect_work(target);
    assert_true(work(target) > stood_at);
    assert_int_equal(ask(&why), HANDOVER_TAKEN);
    expect_rest(source);
}

static void refuses(int r, const struct error *err)
{
    assert_int_equal(r, -EBUSY);
    if (!strstr(err->msg, "just moving to another host"))
        fail_msg("%s", err->msg);
}

static void while_its_state_travels_nothing_is_promised_that_the_target_would_not_keep(void **state)
{
    struct error err;

    (void)state;
    move_state();
    machine_leave(source, MACHINE_LEAVES);
    refuses(machine_pause(source, &err), &err);
    refuses(machine_reset(source, &err), &err);
    refuses(machine_press_power_button(source, &err), &err);
    machine_leave(source, MACHINE_IS_GIVEN);
    refuses(machine_kill_here(source, &err), &err);
    assert_int_equal(machine_state(source), MACHINE_RUNNING);
    machine_release(source); /* it stays */
    expect_work(source);
    assert_int_equal(machine_pause(source, &err), 0);
    assert_int_equal(machine_kill_here(source, &err), 0);
    assert_int_equal(machine_state(source), MACHINE_ENDED);
}

static void without_an_answer_the_source_goes_on(void **state)
{
    struct error err, why;
    bool arbiter = true;

    (void)state;
    offer();
    expect_rest(source);
    assert_int_equal(ask(&why), HANDOVER_AS_IT_WAS);
    machine_release(source);
    expect_work(source);
    assert_int_equal(machine_handover_take(target, session, times, &arbiter, &err), -EAGAIN);
    assert_int_equal(machine_sync_disks(source, &err), 0);
}

#define REASON "disk root may have been written"
#define HELP \
    "nobody can tell whether the machine runs on another host: " REASON "; look there, then " \
    "'vmrun resume web1 --force' or 'vmrun kill web1' here"

static void make_uncertain(void)
{
    struct error why;
    bool arbiter;

    offer();
    assert_int_equal(machine_handover_take(target, session, times, &arbiter, &why), 0);
    machine_destroy(target); /* it may have run, or not */
    target = NULL;
    assert_int_equal(ask(&why), HANDOVER_UNKNOWN);
    machine_set_uncertain(source, REASON);
}

static void an_uncertain_machine_does_nothing_by_itself(void **state)
{
    struct machine_info info;
    struct error err;

    (void)state;
    make_uncertain();
    expect_rest(source);
    assert_int_equal(machine_state(source), MACHINE_UNCERTAIN);
    assert_string_equal(detail, "uncertain");
    machine_info(source, &info);
    assert_string_equal(info.uncertain, REASON);

    assert_int_equal(machine_resume(source, &err), -EBUSY);
    assert_string_equal(err.msg, "cannot resume: " HELP);
    assert_int_equal(machine_pause(source, &err), -EBUSY);
    assert_string_equal(err.msg, "cannot pause: " HELP);
    assert_int_equal(machine_reset(source, &err), -EBUSY);
    assert_string_equal(err.msg, "cannot reset: " HELP);
    assert_int_equal(machine_press_power_button(source, &err), -EBUSY);
    assert_int_equal(machine_hold(source, &err), -EBUSY);
    machine_release(source);
    expect_rest(source);
}

static void a_person_may_have_it_go_on_when_nobody_has_its_disk(void **state)
{
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 101, .l_len = 1};
    struct machine_info info;
    struct error err;
    int fd;

    (void)state;
    make_uncertain();
    fd = open(image, O_RDWR | O_CLOEXEC);
    assert_int_equal(fcntl(fd, F_OFD_SETLK, &lock), 0); /* as QEMU's, who writes it */
    assert_int_equal(machine_resume_anyway(source, &err), -EBUSY);
    assert_non_null(strstr(err.msg, "cannot resume: disk root: "));
    assert_int_equal(machine_state(source), MACHINE_UNCERTAIN);
    expect_rest(source);

    close(fd);
    assert_int_equal(machine_resume_anyway(source, &err), 0);
    assert_int_equal(machine_state(source), MACHINE_RUNNING);
    machine_info(source, &info);
    assert_null(info.uncertain);
    expect_work(source);
    assert_int_equal(machine_resume_anyway(source, &err), 0); /* runs: no effect */
    assert_int_equal(machine_hold(source, &err), 0);
    assert_int_equal(machine_sync_disks(source, &err), 0);
    machine_release(source);
}

static void or_end_it(void **state)
{
    int status;

    (void)state;
    make_uncertain();
    machine_kill(source);
    assert_int_equal(machine_state(source), MACHINE_ENDED);
    assert_int_equal(machine_end(source, &status), MACHINE_END_KILLED);
    machine_set_uncertain(source, "too late");
    assert_int_equal(machine_state(source), MACHINE_ENDED);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

static int run(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_target_goes_on_and_the_source_never_does),
        TEST(while_its_state_travels_nothing_is_promised_that_the_target_would_not_keep),
        TEST(without_an_answer_the_source_goes_on),
        TEST(an_uncertain_machine_does_nothing_by_itself),
        TEST(a_person_may_have_it_go_on_when_nobody_has_its_disk),
        TEST(or_end_it),
    };

    if (!mkdtemp(folder))
        return 1;
    int failed = cmocka_run_group_tests_name("handover", tests, NULL, NULL);

    rmdir(folder);
    return failed;
}

int main(void)
{
    return guest_main(run);
}
