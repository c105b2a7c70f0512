/* SPDX-License-Identifier: Apache-2.0 */
/* vmrun snapshot info, verify and diff: what they say of files, and that they need nothing else. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "folder.h"
#include "snapshot.h"
#include "vmrun/cli.h"

#define MIB (UINT64_C(1) << 20)
#define OUTPUT_MAX 65536

/* What a command line prints; free() it. */
static char *output_of(int expected_status, struct error *err, const char *action, const char *a,
                       const char *b, bool json)
{
    const char *words[7] = {"vmrun", "snapshot", action, a};
    char *text = calloc(1, OUTPUT_MAX);
    FILE *file = tmpfile();
    int count = 4;

    if (b)
        words[count++] = b;
    if (json)
        words[count++] = "--json";
    assert_non_null(text);
    assert_non_null(file);
    *err = (struct error){0};
    fflush(stdout);
    int before = dup(STDOUT_FILENO);
    dup2(fileno(file), STDOUT_FILENO);
    int status = cli_execute(count, (char *const *)words, err);
    fflush(stdout);
    dup2(before, STDOUT_FILENO);
    close(before);
    if (status != expected_status)
        fail_msg("status %d: %s", status, err->msg);
    assert_true(pread(fileno(file), text, OUTPUT_MAX - 1, 0) >= 0);
    fclose(file);
    return text;
}

static json_t *json_of(int expected_status, const char *action, const char *a, const char *b)
{
    struct error err;
    char *text = output_of(expected_status, &err, action, a, b, true);
    json_t *value = json_loads(text, 0, NULL);

    if (!value)
        fail_msg("not JSON: %s", text);
    free(text);
    return value;
}

static void says(const char *text, const char *words)
{
    if (!strstr(text, words))
        fail_msg("\"%s\" is not in:\n%s", words, text);
}

static void info_tells_machine_memory_sections_and_state(void **state)
{
    struct snapshot_like like = snapshot_small();
    struct error err;

    (void)state;
    snapshot_make("vm", &like);
    char *text = output_of(CLI_OK, &err, "info", "vm", NULL, false);
    says(text, "file       vm\n");
    says(text, ", x86_64\n");
    says(text, "created    20");
    says(text, "version 0.0.1\n");
    says(text, "memory     0x000000000 16K, in the file at 0x200000\n");
    says(text, "0.0 MiB are not zero\n");
    says(text, "sections   machine");
    says(text, "  optional\n");
    says(text, "\"cpus\": 1");
    says(text, "chip0\n  ticks                    7\n"
               "  flags                    [8] 01 02 03 00 00 00 00 00\n"
               "  deadline                 9223372036854775808 (0x8000000000000000)\n");
    free(text);
}

static void info_as_json_has_all_of_it(void **state)
{
    struct snapshot_like like = snapshot_small();
    const char *id, *flags, *deadline, *disk, *version, *name;
    json_int_t ticks, address, bytes, offset, data;

    (void)state;
    snapshot_make("vm", &like);
    json_t *info = json_of(CLI_OK, "info", "vm", NULL);
    assert_int_equal(
        json_unpack(info, "{s:s, s:I, s:{s:{s:I, s:s, s:s}}, s:[{s:I, s:I, s:I}], s:{s:[{s:s}]}}",
                    "id", &id, "data_bytes", &data, "state", "chip0", "ticks", &ticks, "flags",
                    &flags, "deadline", &deadline, "memory", "address", &address, "bytes", &bytes,
                    "file_offset", &offset, "machine", "disks", "path", &disk),
        0);
    assert_int_equal(strlen(id), 32);
    assert_int_equal(data, 2 * SNAPSHOT_PAGE);
    assert_int_equal(ticks, 7);
    assert_string_equal(flags, "0102030000000000");
    assert_string_equal(deadline, "0x8000000000000000");
    assert_int_equal(address, 0);
    assert_int_equal(bytes, 4 * SNAPSHOT_PAGE);
    assert_int_equal(offset, 2 * MIB);
    assert_string_equal(disk, "/a.img");
    assert_int_equal(json_unpack(info, "{s:{s:s}, s:[{s:s}]}", "about", "version", &version,
                                 "sections", "name", &name),
                     0);
    assert_string_equal(version, "0.0.1");
    assert_string_equal(name, "machine");
    json_decref(info);
}

static void what_a_file_says_cannot_move_the_cursor(void **state)
{
    struct snapshot_like like = snapshot_small();
    struct error err;

    (void)state;
    like.machine = "{\"name\": \"\\u001b[2J\\u009b\\u007f\"}";
    snapshot_make("escape", &like);
    char *text = output_of(CLI_OK, &err, "info", "escape", NULL, false);
    assert_null(strchr(text, '\033'));
    assert_null(strstr(text, "\xc2\x9b"));
    free(text);
}

static void verify_says_that_a_file_is_whole(void **state)
{
    struct snapshot_like like = snapshot_small();
    struct error err;

    (void)state;
    snapshot_make("vm", &like);
    char *text = output_of(CLI_OK, &err, "verify", "vm", NULL, false);
    assert_string_equal(text, "vm is whole: 3 fields of state, 1 chunks of RAM, 0.0 MiB of data\n");
    free(text);
    json_t *json = json_of(CLI_OK, "verify", "vm", NULL);
    assert_true(json_is_true(json_object_get(json, "whole")));
    json_decref(json);
}

static void damage(const char *path, uint64_t at)
{
    int fd = open(path, O_RDWR);

    assert_int_equal(pwrite(fd, "!", 1, (off_t)at), 1);
    close(fd);
}

static void verify_names_each_damaged_place(void **state)
{
    const struct snapshot_like like = {.regions = {{0, 4 * MIB}, {16 * MIB, 40 * MIB}},
                                       .region_count = 2,
                                       .pages = {0, UINT64_MAX}};
    struct error err;

    (void)state;
    snapshot_make("vm", &like);
    damage("vm", 2 * MIB + 2 * MIB + 5);
    char *text = output_of(CLI_FAILED, &err, "verify", "vm", NULL, false);
    assert_string_equal(text, "damaged    RAM 0x000200000 to 0x0003fffff\n");
    assert_string_equal(err.msg, "vm: RAM at 0x200000: checksum does not match");
    free(text);
    damage("vm", 2 * MIB + 4 * MIB);
    text = output_of(CLI_FAILED, &err, "verify", "vm", NULL, false);
    says(text, "damaged    RAM 0x000200000 to 0x0003fffff\n");
    says(text, "damaged    RAM 0x001000000 to 0x0011fffff\n");
    assert_string_equal(err.msg, "vm: 2 of 22 chunks of RAM are damaged");
    free(text);
    json_t *json = json_of(CLI_FAILED, "verify", "vm", NULL);
    assert_true(json_is_false(json_object_get(json, "whole")));
    assert_int_equal(json_array_size(json_object_get(json, "damage")), 2);
    json_decref(json);
    for (uint64_t at = 8 * MIB; at < 46 * MIB; at += 2 * MIB)
        damage("vm", at);
    text = output_of(CLI_FAILED, &err, "verify", "vm", NULL, false);
    says(text, "damaged    and 5 chunks more\n");
    free(text);
}

static void each_action_refuses_a_damaged_file(void **state)
{
    static const char *const actions[] = {"info", "verify", "diff"};
    struct snapshot_like like = snapshot_small();
    struct error err;

    (void)state;
    snapshot_make("vm", &like);
    snapshot_make("bad", &like);
    damage("bad", 2 * MIB + 4 * SNAPSHOT_PAGE);
    for (unsigned i = 0; i < 3; i++) {
        free(output_of(CLI_FAILED, &err, actions[i], "bad", i == 2 ? "vm" : NULL, false));
        assert_string_equal(err.msg, "bad: section 'machine': checksum does not match");
    }
}

static void a_file_without_a_machine_is_told_so(void **state)
{
    struct snapshot_like like = snapshot_small();
    struct snapfile_written written;
    struct snapfile_writer *writer;
    struct error err;

    (void)state;
    assert_int_equal(snapfile_create("none", true, like.regions, 1, &writer, &err), 0);
    assert_int_equal(snapfile_publish(writer, &written, &err), 0);
    free(output_of(CLI_FAILED, &err, "verify", "none", NULL, false));
    assert_string_equal(err.msg, "none: section 'machine': missing");
    like.machine = "{\"cpus\": 1,\n}";
    snapshot_make("odd", &like);
    free(output_of(CLI_FAILED, &err, "info", "odd", NULL, false));
    assert_string_equal(err.msg, "odd: section 'machine': not JSON (line 2)");
}

static void two_of_the_same_do_not_differ(void **state)
{
    struct snapshot_like like = snapshot_small();
    struct error err;

    (void)state;
    snapshot_make("a", &like);
    snapshot_make("b", &like);
    char *text = output_of(CLI_OK, &err, "diff", "a", "b", false);
    assert_string_equal(text, "The machines are the same.\n");
    free(text);
    json_t *json = json_of(CLI_OK, "diff", "a", "b");
    assert_true(json_is_true(json_object_get(json, "same")));
    json_decref(json);
}

static void diff_names_keys_fields_and_pages(void **state)
{
    struct snapshot_like like = {.regions = {{0, 8 * MIB}},
                                 .region_count = 1,
                                 .pages = {0, 4096, 3 * MIB, 7 * MIB, UINT64_MAX},
                                 .ticks = 7};
    struct error err;

    (void)state;
    snapshot_make("a", &like);
    like.ticks = 9;
    like.flag = 0xfe;
    like.pages[2] = 3 * MIB + 4096; /* 3 MiB is a hole now */
    like.machine = "{\"cpus\": 2, \"disks\": [{\"path\": \"/b.img\"}, 5]}";
    snapshot_make("b", &like);
    char *text = output_of(CLI_OK, &err, "diff", "a", "b", false);
    assert_string_equal(text, "description\n"
                              "  cpus: 1 -> 2\n"
                              "  disks[0].path: \"/a.img\" -> \"/b.img\"\n"
                              "  disks[1]: nothing -> 5\n"
                              "state\n"
                              "  chip0.flags: 1 of 8 elements, the first is [7]: 0x0 -> 0xfe\n"
                              "  chip0.ticks: 7 -> 9\n"
                              "memory\n"
                              "  2 pages in 1 chunks of 2 MiB differ\n"
                              "  0x000300000 to 0x000301fff\n");
    free(text);

    json_int_t pages, chunks, address, bytes, a, b;
    const char *where, *array, *array_b;
    json_t *json = json_of(CLI_OK, "diff", "a", "b");
    assert_int_equal(json_unpack(json,
                                 "{s:{s:I, s:I, s:[{s:I, s:I}]}, s:[{s:s, s:s}, {s:s, s:I, s:I}]}",
                                 "memory", "pages", &pages, "chunks", &chunks, "ranges", "address",
                                 &address, "bytes", &bytes, "state", "where", &array, "b", &array_b,
                                 "where", &where, "a", &a, "b", &b),
                     0);
    assert_string_equal(array, "chip0.flags");
    assert_string_equal(array_b, "01020300000000fe");
    assert_int_equal(pages, 2);
    assert_int_equal(chunks, 1);
    assert_int_equal(address, 3 * MIB);
    assert_int_equal(bytes, 2 * SNAPSHOT_PAGE);
    assert_string_equal(where, "chip0.ticks");
    assert_int_equal(a, 7);
    assert_int_equal(b, 9);
    json_decref(json);
}

/* As a small one, with a CPU and a section that this vmrun does not know. */
static void make_with_cpuid(const char *path, uint32_t ebx, const char *later)
{
    const uint32_t words[] = {2, 0, 0, 0, 13, 0x756e6547, 0, 0, 7, 1, 1, 5, ebx, 0, 0};
    struct snapshot_like like = snapshot_small();
    struct snapfile_writer *writer;
    struct error err;

    assert_int_equal(snapfile_create(path, true, like.regions, 1, &writer, &err), 0);
    snapshot_put(writer, &like);
    assert_int_equal(snapfile_put_section(writer, "cpuid", true, words, sizeof(words), &err), 0);
    assert_int_equal(snapfile_put_section(writer, "later", false, later, strlen(later), &err), 0);
    snapshot_file_publish(writer);
}

static void info_tells_the_cpu_leaf_by_leaf(void **state)
{
    struct error err;
    json_int_t ebx;
    int eax;

    (void)state;
    make_with_cpuid("cpu", 3, "");
    char *text = output_of(CLI_OK, &err, "info", "cpu", NULL, false);
    says(text, "cpuid\n  0x0.0                    [4] 0xd 0x756e6547 0x0 0x0\n"
               "  0x7.1                    [4] 0x5 0x3 0x0 0x0\n");
    free(text);
    json_t *info = json_of(CLI_OK, "info", "cpu", NULL);
    assert_int_equal(json_unpack(info, "{s:{s:{s:[i, I]}}}", "state", "cpuid", "0x7.1", &eax, &ebx),
                     0);
    assert_int_equal(ebx, 3);
    json_decref(info);
}

static void diff_names_leaves_of_the_cpu_and_sections_that_it_does_not_know(void **state)
{
    struct error err;

    (void)state;
    make_with_cpuid("a", 3, "one");
    make_with_cpuid("b", 7, "two");
    char *text = output_of(CLI_OK, &err, "diff", "a", "b", false);
    says(text, "state\n  cpuid.0x7.1: 1 of 4 elements, the first is [1]: 0x3 -> 0x7\n"
               "other sections\n  later: \"");
    free(text);
    json_t *json = json_of(CLI_OK, "diff", "a", "b");
    assert_true(json_is_false(json_object_get(json, "same")));
    json_decref(json);
    make_with_cpuid("b", 3, "one");
    text = output_of(CLI_OK, &err, "diff", "a", "b", false);
    assert_string_equal(text, "The machines are the same.\n");
    free(text);
}

static void a_cpu_that_is_none_is_named(void **state)
{
    static const size_t lengths[] = {0, 3, 4, 31, 33, 61};
    struct snapshot_like like = snapshot_small();
    const uint8_t data[64] = {1};

    (void)state;
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        struct snapfile_writer *writer;
        struct error err;

        assert_int_equal(snapfile_create("cpu", true, like.regions, 1, &writer, &err), 0);
        snapshot_put(writer, &like);
        assert_int_equal(snapfile_put_section(writer, "cpuid", true, data, lengths[i], &err), 0);
        snapshot_file_publish(writer);
        free(output_of(CLI_FAILED, &err, "verify", "cpu", NULL, false));
        assert_string_equal(err.msg, "cpu: section 'cpuid': not the description of a CPU");
    }
}

static void machines_of_other_sizes_can_be_compared(void **state)
{
    struct snapshot_like like = {
        .regions = {{0, 4 * MIB}}, .region_count = 1, .pages = {0, UINT64_MAX}};
    struct error err;

    (void)state;
    snapshot_make("a", &like);
    like.regions[0].size = 6 * MIB;
    like.regions[1] = (struct snapfile_region){16 * MIB, MIB};
    like.region_count = 2;
    snapshot_make("b", &like);
    char *text = output_of(CLI_OK, &err, "diff", "a", "b", false);
    assert_string_equal(text, "memory\n"
                              "  0 pages in 0 chunks of 2 MiB differ\n"
                              "  3072 KiB are only in B, or laid out otherwise\n");
    free(text);
}

static void pack_and_unpack_go_there_and_back(void **state)
{
    struct snapshot_like like = snapshot_small();
    struct error err;
    json_int_t bytes;

    (void)state;
    snapshot_make("vm", &like);
    free(output_of(CLI_OK, &err, "pack", "vm", "archive", false));
    free(output_of(CLI_FAILED, &err, "pack", "vm", "archive", false));
    assert_string_equal(err.msg, "archive exists; --force replaces it");
    free(output_of(CLI_FAILED, &err, "info", "archive", NULL, false));
    assert_string_equal(err.msg,
                        "archive: an archive: 'vmrun snapshot unpack' makes a snapshot of it");
    json_t *json = json_of(CLI_OK, "unpack", "archive", "back");
    assert_int_equal(json_unpack(json, "{s:I}", "bytes", &bytes), 0);
    assert_true(bytes > (json_int_t)(2 * MIB));
    json_decref(json);
    char *text = output_of(CLI_OK, &err, "diff", "vm", "back", false);
    assert_string_equal(text, "The machines are the same.\n");
    free(text);
}

static void wrong_command_lines_are_refused(void **state)
{
    static const struct {
        const char *words[7];
        int count;
        const char *message;
    } cases[] = {
        {{"vmrun", "snapshot"},
         2,
         "snapshot: info|verify FILE | diff FILE FILE | flatten|pack|unpack FILE NEWFILE is "
         "missing"},
        {{"vmrun", "snapshot", "inof", "f"}, 4, "snapshot: unknown action 'inof', did you mean"},
        {{"vmrun", "snapshot", "info"}, 3, "snapshot: info: FILE is missing"},
        {{"vmrun", "snapshot", "verify", "a", "b"}, 5, "snapshot: one argument too many: 'b'"},
        {{"vmrun", "snapshot", "diff", "a"}, 4, "snapshot: diff: a second FILE is missing"},
        {{"vmrun", "snapshot", "diff", "a", "b", "c"}, 6, "snapshot: one argument too many: 'c'"},
        {{"vmrun", "snapshot", "pack", "a"}, 4, "snapshot: pack: a second FILE is missing"},
        {{"vmrun", "snapshot", "verify", "a", "--force"},
         5,
         "snapshot: verify: makes no file that"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct error err = {0};

        assert_int_equal(cli_execute(cases[i].count, (char *const *)cases[i].words, &err),
                         CLI_WRONG_LINE);
        says(err.msg, cases[i].message);
    }
}

static void a_chain_is_shown_verified_compared_and_flattened(void **state)
{
    struct snapshot_like like = snapshot_small();
    const char *base, *file;
    json_int_t held, pages;
    struct error err;

    (void)state;
    snapshot_make("base", &like);
    like.pages[0] = SNAPSHOT_PAGE;
    like.pages[1] = UINT64_MAX;
    like.ticks = 8;
    snapshot_make_on("young", "base", &like);

    char *text = output_of(CLI_OK, &err, "info", "young", NULL, false);
    says(text, "1 pages are of this file, the others of what it builds on\nbase       base, ");
    says(text, "\nchain      base: 0.0 MiB\n");
    free(text);
    json_t *info = json_of(CLI_OK, "info", "young", NULL);
    assert_int_equal(json_unpack(info, "{s:{s:s}, s:I, s:[{s:s}]}", "base", "file", &base,
                                 "pages_held", &held, "chain", "file", &file),
                     0);
    assert_string_equal(base, "base");
    assert_string_equal(file, "base");
    assert_int_equal(held, 1);
    json_decref(info);

    text = output_of(CLI_OK, &err, "verify", "young", NULL, false);
    says(text, "0.0 MiB of data; so is the file that it builds on\n");
    free(text);

    json_t *diff = json_of(CLI_OK, "diff", "base", "young");
    assert_int_equal(json_unpack(diff, "{s:{s:I}}", "memory", "pages", &pages), 0);
    assert_int_equal(pages, 1);
    assert_int_equal(json_array_size(json_object_get(diff, "sections")), 0);
    json_decref(diff);

    text = output_of(CLI_OK, &err, "flatten", "young", "flat", false);
    says(text, "flat: 2.0 MiB\n");
    free(text);
    text = output_of(CLI_OK, &err, "diff", "young", "flat", false);
    assert_string_equal(text, "The machines are the same.\n");
    free(text);

    /* What is missing is told, and what there is can be looked at. */
    assert_int_equal(unlink("base"), 0);
    text = output_of(CLI_OK, &err, "info", "young", NULL, false);
    says(text, "cannot be restored: young builds on: base: No such file or directory\n");
    free(text);
    free(output_of(CLI_FAILED, &err, "verify", "young", NULL, false));
    says(err.msg, "young builds on: base: No such file or directory");
    free(output_of(CLI_FAILED, &err, "flatten", "young", "again", false));
    assert_int_equal(access("again", F_OK), -1);
    free(output_of(CLI_OK, &err, "verify", "flat", NULL, false));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(info_tells_machine_memory_sections_and_state),
        cmocka_unit_test(info_as_json_has_all_of_it),
        cmocka_unit_test(what_a_file_says_cannot_move_the_cursor),
        cmocka_unit_test(verify_says_that_a_file_is_whole),
        cmocka_unit_test(verify_names_each_damaged_place),
        cmocka_unit_test(each_action_refuses_a_damaged_file),
        cmocka_unit_test(a_file_without_a_machine_is_told_so),
        cmocka_unit_test(two_of_the_same_do_not_differ),
        cmocka_unit_test(diff_names_keys_fields_and_pages),
        cmocka_unit_test(info_tells_the_cpu_leaf_by_leaf),
        cmocka_unit_test(diff_names_leaves_of_the_cpu_and_sections_that_it_does_not_know),
        cmocka_unit_test(a_cpu_that_is_none_is_named),
        cmocka_unit_test(machines_of_other_sizes_can_be_compared),
        cmocka_unit_test(pack_and_unpack_go_there_and_back),
        cmocka_unit_test(wrong_command_lines_are_refused),
        cmocka_unit_test(a_chain_is_shown_verified_compared_and_flattened),
    };

    return cmocka_run_group_tests_name("snapfile_cli", tests, folder_enter, folder_leave);
}
