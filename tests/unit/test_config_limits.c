/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration's limits: how they are written, what is refused, and that none is printed. */
#include <errno.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vmrun/config.h"

static void start(struct vm_config *config)
{
    struct error err = {.msg = ""};

    config_init(config);
    config_set(config, "", "boot.kernel", "k", &err);
    config_set(config, "", "disks", "a.img,iops=500", &err);
    config_set(config, "", "nets", "tap=t0,tx_bandwidth=10M,tx_bandwidth_burst=1M", &err);
    assert_string_equal(err.msg, "");
}

static void set(struct vm_config *config, const char *path, const char *text)
{
    struct error err = {.msg = ""};

    config_set(config, "--set", path, text, &err);
    assert_string_equal(err.msg, "");
}

static void limits_are_set_by_flags_and_paths(void **state)
{
    struct vm_config config;

    (void)state;
    start(&config);
    set(&config, "disks[0].bandwidth", "20M");
    set(&config, "disks[0].iops_burst", "50");
    set(&config, "nets[0].rx_packets", "1000");
    set(&config, "limits.cpu", "150%");
    set(&config, "limits.memory", "1G");
    assert_int_equal(config.disks[0].iops.rate, 500);
    assert_int_equal(config.disks[0].iops.burst, 50);
    assert_int_equal(config.disks[0].bandwidth.rate, 20 << 20);
    assert_int_equal(config.nets[0].tx_bandwidth.rate, 10 << 20);
    assert_int_equal(config.nets[0].tx_bandwidth.burst, 1 << 20);
    assert_int_equal(config.nets[0].rx_packets.rate, 1000);
    assert_int_equal(config.limits.cpu, 150);
    assert_int_equal(config.limits.memory, 1 << 30);
    config_fini(&config);
}

static json_t *print(const struct vm_config *config)
{
    struct error err = {.msg = ""};
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);

    assert_int_equal(config_print(config, out, &err), 0);
    fclose(out);
    json_t *json = json_loads(text, 0, NULL);
    free(text);
    assert_non_null(json);
    return json;
}

static void a_limit_that_is_none_is_not_printed(void **state)
{
    struct vm_config config;

    (void)state;
    start(&config);
    set(&config, "disks[0].iops", "0");
    set(&config, "limits.cpu", "25%");
    set(&config, "limits.memory", "0");
    json_t *json = print(&config);
    json_t *disk = json_array_get(json_object_get(json, "disks"), 0);
    json_t *net = json_array_get(json_object_get(json, "nets"), 0);
    json_t *limits = json_object_get(json, "limits");
    assert_null(json_object_get(disk, "iops"));
    assert_null(json_object_get(disk, "bandwidth"));
    assert_string_equal(json_string_value(json_object_get(net, "tx_bandwidth")), "10M");
    assert_null(json_object_get(net, "rx_bandwidth"));
    assert_string_equal(json_string_value(json_object_get(limits, "cpu")), "25%");
    assert_null(json_object_get(limits, "memory"));
    json_decref(json);
    config_fini(&config);
}

static void what_is_printed_is_read_again(void **state)
{
    struct vm_config config, again;
    struct error err = {.msg = ""};

    (void)state;
    start(&config);
    set(&config, "limits.cpu", "150%");
    json_t *json = print(&config);
    char *text = json_dumps(json, 0);
    config_init(&again);
    config_load_text(&again, "it", text, strlen(text), &err);
    assert_string_equal(err.msg, "");
    assert_int_equal(again.limits.cpu, 150);
    assert_int_equal(again.disks[0].iops.rate, 500);
    assert_int_equal(again.nets[0].tx_bandwidth.burst, 1 << 20);
    free(text);
    json_decref(json);
    config_fini(&config);
    config_fini(&again);
}

static void a_wrong_limit_is_told_with_what_would_be_right(void **state)
{
    static const struct {
        const char *path, *text, *message;
    } wrong[] = {
        {"limits.cpu", "150",
         "--set: \"150\" is not a percentage: a whole number and %, such as \"150%\""},
        {"limits.cpu", "%",
         "--set: \"%\" is not a percentage: a whole number and %, such as \"150%\""},
        {"limits.cpu", "1.5%",
         "--set: \"1.5%\" is not a percentage: a whole number and %, such as \"150%\""},
        {"limits.cpu", "100001%", "--set: \"100001%\" is out of range: 0% to 100000%"},
        {"limits.cpu", "99999999999999999999999999%",
         "--set: \"99999999999999999999999999%\" is not a percentage: a whole number and %, such "
         "as "
         "\"150%\""},
        {"limits.memory", "much",
         "--set: \"much\" is not a size: a whole number and K, M, G or T, such as \"100M\""},
        {"disks[0].bandwidth", "901G", "--set: \"901G\" is out of range: 0 to 900G"},
        {"disks[0].iops", "-1", "--set: \"-1\" is not a whole number from 0 to 1000000000"},
        {"nets[0].rx_bandwith", "1M",
         "--set: \"nets[0].rx_bandwith\" is not a known key; \"vmrun config schema\" lists them"},
    };
    static const char text[] = "{\"limits\":{\"cpu\":150}}";
    struct vm_config config;
    struct error err;

    (void)state;
    start(&config);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_int_equal(config_set(&config, "--set", wrong[i].path, wrong[i].text, &err), -EINVAL);
        assert_string_equal(err.msg, wrong[i].message);
    }
    assert_int_equal(config_load_text(&config, "f", text, strlen(text), &err), -EINVAL);
    assert_string_equal(err.msg,
                        "f: limits.cpu: 150 is a number, not a percentage such as \"150%\"");
    config_fini(&config);
}

static void a_limit_of_memory_has_room_for_the_guest_and_vmrun(void **state)
{
    struct vm_config config;
    struct error err;

    (void)state;
    start(&config);
    set(&config, "limits.memory", "319M");
    assert_int_equal(config_validate(&config, &err), -EINVAL);
    assert_string_equal(
        err.msg, "limits.memory: \"319M\" is too little for the guest's RAM, 256M, and 64M for "
                 "vmrun itself: the host would kill the machine; write \"320M\" or more");
    set(&config, "limits.memory", "320M");
    assert_int_equal(config_validate(&config, &err), 0);
    config_fini(&config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(limits_are_set_by_flags_and_paths),
        cmocka_unit_test(a_limit_that_is_none_is_not_printed),
        cmocka_unit_test(what_is_printed_is_read_again),
        cmocka_unit_test(a_wrong_limit_is_told_with_what_would_be_right),
        cmocka_unit_test(a_limit_of_memory_has_room_for_the_guest_and_vmrun),
    };

    return cmocka_run_group_tests_name("config limits", tests, NULL, NULL);
}
