/* SPDX-License-Identifier: Apache-2.0 */
/* describe: a machine as text and back, and whether its disks are what they were. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "config_text.h"
#include "folder.h"
#include "vmrun/block.h"
#include "vmrun/machine.h"

#define WHERE "web1.vmsnap: section 'machine'"

static struct block_identity identify(const char *path)
{
    struct block_identity identity;
    struct error err = {.msg = ""};

    block_identify(path, &identity, &err);
    assert_string_equal(err.msg, "");
    return identity;
}

static char *describe(const struct vm_config *config, const struct block_identity *disks)
{
    struct error err = {.msg = ""};
    char *text = NULL;

    machine_describe_config(config, disks, NULL, &text, &err);
    assert_string_equal(err.msg, "");
    return text;
}

/* A machine with these images for disks, and its description. */
static char *describe_disks(struct vm_config *config, unsigned count, const char *const *paths)
{
    struct block_identity disks[CONFIG_MAX_DISKS];
    struct error err = {.msg = ""};

    config_init(config);
    config_set(config, "--kernel", "boot.kernel", "vmlinuz", &err);
    for (unsigned i = 0; i < count; i++) {
        config_set(config, "--disk", "disks", paths[i], &err);
        disks[i] = identify(paths[i]);
    }
    assert_string_equal(err.msg, "");
    return describe(config, disks);
}

static void write_image(const char *path, unsigned bytes)
{
    char *data = calloc(1, bytes);

    assert_non_null(data);
    folder_write(path, data, bytes);
    free(data);
}

static void set(struct vm_config *config, const char *path, const char *text)
{
    struct error err = {.msg = ""};

    config_set(config, "--set", path, text, &err);
    assert_string_equal(err.msg, "");
}

/* A machine as text */

static void every_key_of_a_machine_comes_back(void **state)
{
    const struct block_identity disks[2] = {{.bytes = 4096, .mtime_ns = 7}, {.bytes = 512}};
    struct vm_config config, back;
    struct error err = {.msg = ""};

    (void)state;
    config_text_load(&config, "web1.json", CONFIG_TEXT_EVERY_KEY);
    config_set(&config, "--set", "nets[1].mac", "52:54:00:00:00:01", &err);
    config_set(&config, "--set", "nets[1].queues", "2", &err); /* a machine has settled both */
    char *text = describe(&config, disks);

    config_init(&back);
    machine_read_description(WHERE, text, strlen(text), &back, &err);
    assert_string_equal(err.msg, "");
    char *before = config_text_print(&config), *after = config_text_print(&back);
    assert_string_equal(before, after);
    free(before);
    free(after);
    free(text);
    config_fini(&config);
    config_fini(&back);
}

static void a_card_without_a_number_of_queues_had_one_pair(void **state)
{
    static const char text[] = "{\"config\": {\"boot\": {\"kernel\": \"/k\"}, \"cpus\": 4, "
                               "\"nets\": [{\"ifname\": \"tap0\"}]}, \"disks\": []}";
    struct vm_config config;
    struct error err = {.msg = ""};

    (void)state;
    config_init(&config);
    assert_int_equal(machine_read_description(WHERE, text, strlen(text), &config, &err), 0);
    assert_int_equal(config.nets[0].queues, 1);
    config_fini(&config);
}

static void a_card_that_says_nothing_of_offload_has_what_its_backend_always_had(void **state)
{
    static const char text[] =
        "{\"config\": {\"boot\": {\"kernel\": \"/k\"}, \"nets\": [{\"ifname\": \"tap0\"}, "
        "{\"backend\": \"user\"}, {\"backend\": \"user\", \"offload\": \"on\"}]}, "
        "\"disks\": []}";
    struct vm_config config;
    struct error err = {.msg = ""};

    (void)state;
    config_init(&config);
    assert_int_equal(machine_read_description(WHERE, text, strlen(text), &config, &err), 0);
    assert_int_equal(config.nets[0].offload, CONFIG_OFFLOAD_AUTO);
    assert_int_equal(config.nets[1].offload, CONFIG_OFFLOAD_OFF);
    assert_int_equal(config.nets[2].offload, CONFIG_OFFLOAD_ON);
    config_fini(&config);
}

static void it_says_of_disks_and_host_what_they_are(void **state)
{
    const struct block_identity disks[2] = {{.bytes = 4096, .mtime_ns = 7}, {.bytes = 512}};
    struct vm_config config;

    (void)state;
    config_text_load(&config, "web1.json", CONFIG_TEXT_EVERY_KEY);
    char *text = describe(&config, disks);
    json_t *json = json_loads(text, 0, NULL);
    json_t *array = json_object_get(json, "disks"), *host = json_object_get(json, "host");

    assert_int_equal(json_array_size(array), 2);
    const char *path = json_string_value(json_object_get(json_array_get(array, 0), "path"));
    assert_int_equal(path[0], '/');
    assert_string_equal(path + strlen(path) - 11, "/d/root.img");
    assert_int_equal(json_integer_value(json_object_get(json_array_get(array, 0), "bytes")), 4096);
    assert_int_equal(json_integer_value(json_object_get(json_array_get(array, 0), "mtime_ns")), 7);
    assert_null(json_object_get(json_array_get(array, 1), "mtime_ns"));
    assert_true(json_string_length(json_object_get(host, "kernel")) > 0);
    assert_true(json_is_string(json_object_get(host, "cpu_vendor")));
    assert_true(json_is_string(json_object_get(host, "cpu_model")));
    assert_true(json_string_length(json_object_get(host, "vmrun")) > 0);
    json_decref(json);
    free(text);
    config_fini(&config);
}

static void a_card_keeps_its_address_under_another_name(void **state)
{
    struct vm_config config, back;
    struct error err = {.msg = ""};

    (void)state;
    config_init(&config);
    set(&config, "boot.kernel", "vmlinuz");
    set(&config, "name", "web1");
    set(&config, "nets", "tap=tap0");
    assert_null(config.nets[0].mac);
    char *text = describe(&config, NULL);
    set(&config, "name", "web2");
    char *other = describe(&config, NULL);

    config_init(&back);
    machine_read_description(WHERE, text, strlen(text), &back, &err);
    assert_string_equal(err.msg, "");
    assert_non_null(back.nets[0].mac);
    assert_non_null(strstr(text, back.nets[0].mac));
    assert_null(strstr(other, back.nets[0].mac));
    config_fini(&back);
    config_fini(&config);
    free(text);
    free(other);
}

static void what_is_no_description_is_refused_in_words(void **state)
{
    static const struct {
        const char *text, *message;
        int code;
    } cases[] = {
        {"", "not JSON (line 1)", -EPROTO},
        {"[1]", "no description of a machine", -EPROTO},
        {"{}", "a description without \"config\"", -EPROTO},
        {"{\"config\": 3}", "a description without \"config\"", -EPROTO},
        {"{\"config\": {\"cpus\": 1, \"cpus\": 2}}", "not JSON (line 1)", -EPROTO},
        {"{\"config\": {\"cpus\": 300}}", "cpus: 300 is out of range: 1 to 255", -EINVAL},
        {"{\"config\": {\"cpu\": {\"modle\": 1}}}",
         "cpu.modle: unknown key; did you mean \"model\"?", -EINVAL},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct vm_config config;
        struct error err;
        char message[256];

        config_init(&config);
        assert_int_equal(
            machine_read_description(WHERE, cases[i].text, strlen(cases[i].text), &config, &err),
            cases[i].code);
        snprintf(message, sizeof(message), "%s: %s", WHERE, cases[i].message);
        assert_string_equal(err.msg, message);
        config_fini(&config);
    }
}

/* Its disks */

static int check(const char *text, const struct vm_config *config, struct error *err)
{
    *err = (struct error){.msg = ""};
    return machine_check_disks(WHERE, text, strlen(text), config, err);
}

static void disks_that_are_as_they_were_are_taken(void **state)
{
    static const char *const paths[] = {"a.img", "b.img"};
    struct vm_config config;
    struct error err;

    (void)state;
    write_image("a.img", 4096);
    write_image("b.img", 8192);
    char *text = describe_disks(&config, 2, paths);
    struct vm_config back;
    config_init(&back);
    assert_int_equal(machine_read_description(WHERE, text, strlen(text), &back, &err), 0);
    assert_int_equal(check(text, &back, &err), 0);
    config_fini(&back);
    config_fini(&config);
    free(text);
}

static void all_that_differs_is_told_at_once(void **state)
{
    static const char *const paths[] = {"gone.img", "grown.img", "written.img", "same.img",
                                        "folder.img"};
    const struct timespec later[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1}};
    struct vm_config config, back;
    struct error err;

    (void)state;
    for (unsigned i = 0; i < 5; i++)
        write_image(paths[i], 4096);
    char *text = describe_disks(&config, 5, paths);
    config_init(&back);
    assert_int_equal(machine_read_description(WHERE, text, strlen(text), &back, &err), 0);
    unlink("gone.img");
    assert_int_equal(truncate("grown.img", 8192), 0);
    assert_int_equal(utimensat(AT_FDCWD, "written.img", later, 0), 0);
    unlink("folder.img");
    assert_int_equal(mkdir("folder.img", 0700), 0);

    assert_int_equal(check(text, &back, &err), -ESTALE);
    assert_non_null(
        strstr(err.msg, "gone.img: cannot open: No such file or directory; disk disk1"));
    assert_non_null(strstr(err.msg, "grown.img has 8192 bytes and had 4096"));
    assert_non_null(strstr(err.msg, "written.img was written to since"));
    assert_non_null(strstr(err.msg, "folder.img: not a file or block device"));
    assert_null(strstr(err.msg, "same.img"));
    rmdir("folder.img");
    config_fini(&back);
    config_fini(&config);
    free(text);
}

static void a_copy_under_another_path_may_be_younger_and_not_longer(void **state)
{
    static const char *const paths[] = {"a.img"};
    struct vm_config config, back;
    struct error err;

    (void)state;
    write_image("a.img", 4096);
    char *text = describe_disks(&config, 1, paths);
    unlink("a.img");
    write_image("copy.img", 4096);
    config_init(&back);
    assert_int_equal(machine_read_description(WHERE, text, strlen(text), &back, &err), 0);
    set(&back, "disks[0].path", "copy.img");
    assert_int_equal(check(text, &back, &err), 0);
    write_image("copy.img", 4608);
    assert_int_equal(check(text, &back, &err), -ESTALE);
    assert_string_equal(err.msg, "disk disk0: copy.img has 4608 bytes and had 4096");
    config_fini(&back);
    config_fini(&config);
    free(text);
}

static void more_than_a_message_holds_is_counted(void **state)
{
    char names[CONFIG_MAX_DISKS][120];
    const char *paths[CONFIG_MAX_DISKS];
    struct vm_config config;
    struct error err;

    (void)state;
    for (unsigned i = 0; i < CONFIG_MAX_DISKS; i++) {
        snprintf(names[i], sizeof(names[i]), "%090u.img", i);
        paths[i] = names[i];
        write_image(names[i], 512);
    }
    char *text = describe_disks(&config, CONFIG_MAX_DISKS, paths);
    for (unsigned i = 0; i < CONFIG_MAX_DISKS; i++)
        unlink(names[i]);
    assert_int_equal(check(text, &config, &err), -ESTALE);
    assert_non_null(strstr(err.msg, "disk disk2: "));
    assert_non_null(strstr(err.msg, "; and 13 more"));
    config_fini(&config);
    free(text);
}

static void a_forged_list_of_disks_does_no_harm(void **state)
{
    static const char *const forged[] = {
        "{}", "{\"disks\": 7}", "{\"disks\": [7, {}, {\"id\": 3}]}",
        "{\"disks\": [{\"id\": \"disk0\", \"bytes\": \"many\", \"mtime_ns\": [], \"path\": {}}]}"};
    struct vm_config config;
    struct error err;

    (void)state;
    write_image("a.img", 4096);
    config_init(&config);
    set(&config, "disks", "a.img");
    for (unsigned i = 0; i < sizeof(forged) / sizeof(forged[0]); i++)
        assert_int_equal(check(forged[i], &config, &err), -ESTALE);
    assert_int_equal(check("[]", &config, &err), -EPROTO);
    config_fini(&config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_key_of_a_machine_comes_back),
        cmocka_unit_test(a_card_without_a_number_of_queues_had_one_pair),
        cmocka_unit_test(a_card_that_says_nothing_of_offload_has_what_its_backend_always_had),
        cmocka_unit_test(it_says_of_disks_and_host_what_they_are),
        cmocka_unit_test(a_card_keeps_its_address_under_another_name),
        cmocka_unit_test(what_is_no_description_is_refused_in_words),
        cmocka_unit_test(disks_that_are_as_they_were_are_taken),
        cmocka_unit_test(all_that_differs_is_told_at_once),
        cmocka_unit_test(a_copy_under_another_path_may_be_younger_and_not_longer),
        cmocka_unit_test(more_than_a_message_holds_is_counted),
        cmocka_unit_test(a_forged_list_of_disks_does_no_harm),
    };

    return cmocka_run_group_tests_name("describe", tests, folder_enter, folder_leave);
}
