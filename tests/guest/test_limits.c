/* SPDX-License-Identifier: Apache-2.0 */
/* What of a whole machine can be set while it is there, and what is said of the rest. */
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmrun/machine.h"

static char folder[] = "/tmp/vmrun-limits-XXXXXX", image[sizeof(folder) + 16];
static struct loop *loop;
static struct vm_config config;
static struct machine *machine;

static int setup(void **state)
{
    char kernel[512], text[1024];
    struct error err = {.msg = ""};
    int fd = open(image, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    (void)state;
    assert_true(fd >= 0 && ftruncate(fd, 1 << 20) == 0);
    close(fd);
    guest_payload("work", kernel, sizeof(kernel));
    snprintf(text, sizeof(text),
             "{\"name\": \"web1\", \"memory\": \"16M\", \"boot\": {\"kernel\": \"%s\"}, "
             "\"console\": {\"serial\": \"none\"}, "
             "\"disks\": [{\"path\": \"%s\", \"cache\": \"writeback\", \"iops\": 100}]}",
             kernel, image);
    config_init(&config);
    config_load_text(&config, "config", text, strlen(text), &err);
    assert_string_equal(err.msg, "");
    if (loop_create(&loop, &err) < 0 || machine_create(&config, loop, &machine, &err) < 0 ||
        machine_start(machine, &err) < 0)
        fail_msg("%s", err.msg);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    machine_destroy(machine);
    loop_destroy(loop);
    config_fini(&config);
    unlink(image);
    return 0;
}

static void what_was_set_is_its_configuration_and_not_its_makers(void **state)
{
    static const struct machine_pair pairs[] = {
        {"disks[0].iops", "500"}, {"disks[0].iops_burst", "1000"}, {"disks[0].bandwidth", "20M"}};
    struct error err = {.msg = ""};
    char *description = NULL;

    (void)state;
    machine_set(machine, pairs, 3, &err);
    assert_string_equal(err.msg, "");
    const struct config_disk *disk = &machine_config(machine)->disks[0];
    assert_int_equal(disk->iops.rate, 500);
    assert_int_equal(disk->iops.burst, 1000);
    assert_int_equal(disk->bandwidth.rate, 20 << 20);
    assert_int_equal(config.disks[0].iops.rate, 100);
    assert_int_equal(machine_describe(machine, &description, &err), 0);
    assert_non_null(strstr(description, "\"bandwidth\": \"20M\""));
    free(description);
}

static void of_several_all_are_set_or_none(void **state)
{
    static const struct machine_pair pairs[] = {{"disks[0].iops", "7"},
                                                {"disks[0].bandwidth", "many"}};
    struct error err;

    (void)state;
    assert_int_equal(machine_set(machine, pairs, 2, &err), -EINVAL);
    assert_string_equal(err.msg,
                        "disks[0].bandwidth: \"many\" is not a size: a whole number and K, "
                        "M, G or T, such as \"100M\"");
    assert_int_equal(machine_config(machine)->disks[0].iops.rate, 100);
}

static void what_cannot_be_set_is_told_with_what_can(void **state)
{
    static const struct {
        struct machine_pair pair;
        int code;
        const char *words;
    } wrong[] = {
        {{"disks[0].iosp", "7"}, EINVAL, "did you mean \"disks[0].iops\""},
        {{"disks[].iops", "7"}, EINVAL, "cannot be set"},
        {{"disks[1].iops", "7"}, EINVAL, "\"disks[1].iops\" is not a known key"},
        {{"disks[99999999999].iops", "7"}, EINVAL, "is not a known key"},
        {{"disks[0].path", "b.img"}, EINVAL, "cannot be set while a machine is there"},
        {{"nets[0].tx_bandwidth", "1M"}, EINVAL, "is not a known key"},
        {{"", "7"}, EINVAL, "what can: balloon, limits.cpu"},
        {{"[[[[", "7"}, EINVAL, "cannot be set"},
        {{"limits.cpu", "50%"}, ENODEV, "no cgroup of its own"},
        {{"disks[0].iops", "1000000001"}, EINVAL, "out of range"},
    };
    struct error err;

    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_int_equal(machine_set(machine, &wrong[i].pair, 1, &err), -wrong[i].code);
        if (!strstr(err.msg, wrong[i].words))
            fail_msg("%s", err.msg);
    }
}

static void nothing_is_set_while_it_is_held_or_has_ended(void **state)
{
    static const struct machine_pair pair = {"disks[0].iops", "7"};
    struct error err;

    (void)state;
    assert_int_equal(machine_hold(machine, &err), 0);
    assert_int_equal(machine_set(machine, &pair, 1, &err), -EBUSY);
    machine_release(machine);
    assert_int_equal(machine_set(machine, &pair, 1, &err), 0);
    machine_kill(machine);
    assert_int_equal(machine_set(machine, &pair, 1, &err), -EBUSY);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

static int run(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_was_set_is_its_configuration_and_not_its_makers),
        TEST(of_several_all_are_set_or_none),
        TEST(what_cannot_be_set_is_told_with_what_can),
        TEST(nothing_is_set_while_it_is_held_or_has_ended),
    };

    if (!mkdtemp(folder))
        return 1;
    snprintf(image, sizeof(image), "%s/disk", folder);
    int failed = cmocka_run_group_tests_name("limits", tests, NULL, NULL);

    rmdir(folder);
    return failed;
}

int main(void)
{
    return guest_main(run);
}
