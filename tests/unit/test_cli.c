/* SPDX-License-Identifier: Apache-2.0 */
/* The command line: what it parses to, what it refuses and in which words, and what help says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmrun/cli.h"

#define WORDS_MAX 8
#define CHECK(...) ((const char *const[WORDS_MAX]){"vmrun", __VA_ARGS__})

static int words_count(const char *const *words)
{
    int count = 0;

    while (count < WORDS_MAX && words[count])
        count++;
    return count;
}

static int parse(const char *const *words, struct cli_args *args)
{
    struct error err = {0};
    int status = cli_parse(words_count(words), (char *const *)words, args, &err);

    if (status != CLI_OK)
        fail_msg("refused: %s", err.msg);
    return status;
}

/* Nothing here may reach the machines of whoever runs the tests. */
static int setup(void **state)
{
    (void)state;
    return setenv("VMRUN_DIR", "/nonexistent/vmrun-test", 1);
}

static const struct {
    const char *words[WORDS_MAX];
    int status;
    const char *message;
} wrong_lines[] = {
    {{"vmrun"}, 2, "a verb is missing (see 'vmrun help')"},
    {{"vmrun", ""}, 2, "a verb is missing (see 'vmrun help')"},
    {{"vmrun", "rnu"}, 2, "unknown verb 'rnu', did you mean 'run'? (see 'vmrun help')"},
    {{"vmrun", "lsit"}, 2, "unknown verb 'lsit', did you mean 'list'? (see 'vmrun help')"},
    {{"vmrun", "frobnicate"}, 2, "unknown verb 'frobnicate' (see 'vmrun help')"},
    {{"vmrun", "save"}, 2, "save: NAME FILE is missing (see 'vmrun help save')"},
    {{"vmrun", "save", "web1"}, 2, "save: NAME FILE is missing (see 'vmrun help save')"},
    {{"vmrun", "save", "web1", "/tmp/x"}, 1, "no machine named 'web1' is running"},
    {{"vmrun", "restore"}, 2, "restore: FILE is missing (see 'vmrun help restore')"},
    {{"vmrun", "restore", "/tmp/x", "--mode", "later"},
     2,
     "restore: --mode: \"later\" is not one of lazy, prefetch, eager (see 'vmrun help restore')"},
    {{"vmrun", "restore", "/tmp/x", "--record=0"},
     2,
     "restore: --record: \"0\" is not a number of seconds from 1 to 3600 (see 'vmrun help "
     "restore')"},
    {{"vmrun", "restore", "/tmp/x", "--record", "5"},
     2,
     "restore: one argument too many: '5' (see 'vmrun help restore')"},
    {{"vmrun", "restore", "/tmp/x", "--record", "--mode=prefetch"},
     2,
     "restore: --record wants --mode lazy: with another the guest does not touch pages first (see "
     "'vmrun help restore')"},
    {{"vmrun", "restore", "--record=9", "/tmp/x", "--paused"},
     2,
     "restore: --record and --paused exclude each other: a guest that stands still touches nothing "
     "(see 'vmrun help restore')"},
    {{"vmrun", "restore", "/tmp/x", "--clock=stop"},
     2,
     "restore: --clock: \"stop\" is neither advance nor freeze (see 'vmrun help restore')"},
    {{"vmrun", "restore", "/nowhere/x"}, 1, "/nowhere/x: No such file or directory"},
    {{"vmrun", "restore", "/dev/null"}, 1, "/dev/null: is no regular file"},
    {{"vmrun", "--json"}, 2, "unknown verb '--json' (see 'vmrun help')"},
    {{"vmrun", "RUN"}, 2, "unknown verb 'RUN' (see 'vmrun help')"},
    {{"vmrun", "help", "stauts"},
     2,
     "help: unknown verb 'stauts', did you mean 'status'? (see 'vmrun help help')"},
    {{"vmrun", "help", "a", "b"}, 2, "help: one argument too many: 'b' (see 'vmrun help help')"},
    {{"vmrun", "help", "--completion", "fish"},
     2,
     "help: --completion: \"fish\" is not one of bash (see 'vmrun help help')"},
    {{"vmrun", "help", "--completion"},
     2,
     "help: --completion needs a value: --completion bash (see 'vmrun help help')"},
    {{"vmrun", "run", "--memroy", "5"},
     2,
     "run: unknown option '--memroy', did you mean '--memory'? (see 'vmrun help run')"},
    {{"vmrun", "run", "--memroy=5"},
     2,
     "run: unknown option '--memroy', did you mean '--memory'? (see 'vmrun help run')"},
    {{"vmrun", "run", "-memory", "5"},
     2,
     "run: unknown option '-memory', did you mean '--memory'? (see 'vmrun help run')"},
    {{"vmrun", "run", "-m", "5"}, 2, "run: unknown option '-m' (see 'vmrun help run')"},
    {{"vmrun", "run", "--=x"}, 2, "run: unknown option '--' (see 'vmrun help run')"},
    {{"vmrun", "run", "--memory"},
     2,
     "run: --memory needs a value: --memory SIZE (see 'vmrun help run')"},
    {{"vmrun", "run", "--disk", "a.img,cache=fast"},
     2,
     "run: --disk: cache: \"fast\" is not one of none, writeback (see 'vmrun help run')"},
    {{"vmrun", "run", "--disk"},
     2,
     "run: --disk needs a value: --disk FILE[,KEY=VALUE]... (see 'vmrun help run')"},
    {{"vmrun", "run", "--detach=yes"}, 2, "run: --detach takes no value (see 'vmrun help run')"},
    {{"vmrun", "run", "a.json", "b.json"},
     2,
     "run: one argument too many: 'b.json' (see 'vmrun help run')"},
    {{"vmrun", "run", "--kernel", "k", "--console", "stdio", "--detach"},
     2,
     "run: --console stdio and --detach exclude each other; 'vmrun console' attaches later "
     "(see 'vmrun help run')"},
    {{"vmrun", "list", "web1"}, 2, "list: one argument too many: 'web1' (see 'vmrun help list')"},
    {{"vmrun", "list", "--jsn"},
     2,
     "list: unknown option '--jsn', did you mean '--json'? (see 'vmrun help list')"},
    {{"vmrun", "status"}, 2, "status: NAME is missing (see 'vmrun help status')"},
    {{"vmrun", "pause", "a", "b"}, 2, "pause: one argument too many: 'b' (see 'vmrun help pause')"},
    {{"vmrun", "pause", "a", "--json"},
     2,
     "pause: unknown option '--json' (see 'vmrun help pause')"},
    {{"vmrun", "stop", "a", "--timeout", "soon"},
     2,
     "stop: --timeout: \"soon\" is not a number of seconds from 1 to 86400 (see 'vmrun help "
     "stop')"},
    {{"vmrun", "stop", "a", "--timeout=0"},
     2,
     "stop: --timeout: \"0\" is not a number of seconds from 1 to 86400 (see 'vmrun help "
     "stop')"},
    {{"vmrun", "console", "a", "--timeout", "-1"},
     2,
     "console: --timeout: \"-1\" is not a number of seconds from 1 to 86400 (see 'vmrun help "
     "console')"},
    {{"vmrun", "config"},
     2,
     "config: check FILE | show FILE | schema is missing (see 'vmrun help config')"},
    {{"vmrun", "config", "chekc", "f"},
     2,
     "config: unknown action 'chekc', did you mean 'check'? (see 'vmrun help config')"},
    {{"vmrun", "config", "frobnicate"},
     2,
     "config: unknown action 'frobnicate' (see 'vmrun help config')"},
    {{"vmrun", "config", "check"}, 2, "config: check: FILE is missing (see 'vmrun help config')"},
    {{"vmrun", "config", "schema", "f"},
     2,
     "config: one argument too many: 'f' (see 'vmrun help config')"},
    {{"vmrun", "status", "a/b"},
     1,
     "\"a/b\" is not a name: 1 to 64 of A-Z a-z 0-9 . _ - and not starting with . or -"},
    {{"vmrun", "status", "--", "-a"},
     1,
     "\"-a\" is not a name: 1 to 64 of A-Z a-z 0-9 . _ - and not starting with . or -"},
    {{"vmrun", "status", "web1"}, 1, "no machine named 'web1' is running"},
    {{"vmrun", "stop", "web1"}, 1, "no machine named 'web1' is running"},
    {{"vmrun", "kill", "web1"}, 1, "no machine named 'web1' is running"},
    {{"vmrun", "console", "web1"}, 1, "no machine named 'web1' is running"},
    {{"vmrun", "stats", "web1", "--watch"}, 1, "no machine named 'web1' is running"},
};

static void wrong_command_lines_are_refused_in_these_words(void **state)
{

    (void)state;
    for (size_t i = 0; i < sizeof(wrong_lines) / sizeof(wrong_lines[0]); i++) {
        struct error err = {0};
        int status = cli_execute(words_count(wrong_lines[i].words),
                                 (char *const *)wrong_lines[i].words, &err);

        if (status != wrong_lines[i].status || strcmp(err.msg, wrong_lines[i].message) != 0)
            fail_msg("case %zu: %d \"%s\", expected %d \"%s\"", i, status, err.msg,
                     wrong_lines[i].status, wrong_lines[i].message);
    }
}

static void a_value_that_no_key_takes_is_a_wrong_command_line(void **state)
{
    static const char *const options[][2] = {
        {"--memory", "lots"}, {"--cpus", "0"},      {"--cpus", "many"},
        {"--name", "a/b"},    {"--cpu", "z80"},     {"--console", "tape"},
        {"--pages", "small"}, {"--unpack", "fast"}, {"--on-reboot", "cry"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
        const char *const *words = CHECK("run", options[i][0], options[i][1]);
        struct error err = {0};
        char start[64];

        assert_int_equal(cli_execute(4, (char *const *)words, &err), CLI_WRONG_LINE);
        snprintf(start, sizeof(start), "run: %s: \"%s\"", options[i][0], options[i][1]);
        assert_memory_equal(err.msg, start, strlen(start));
        assert_non_null(strstr(err.msg, "(see 'vmrun help run')"));
        assert_null(strchr(err.msg, '\n'));
    }
}

static void a_machine_without_a_kernel_is_refused(void **state)
{
    struct error err = {0};

    (void)state;
    assert_int_equal(cli_execute(2, (char *const *)CHECK("run"), &err), CLI_FAILED);
    assert_non_null(strstr(err.msg, "--kernel"));
}

static void options_and_operands_come_in_any_order(void **state)
{
    struct cli_args args;

    (void)state;
    parse(CHECK("run", "--cpus", "2", "a.json", "--memory=1G", "--paused"), &args);
    assert_string_equal(args.verb->name, "run");
    assert_int_equal(args.operand_count, 1);
    assert_string_equal(args.operands[0], "a.json");
    assert_string_equal(cli_get(&args, "--cpus"), "2");
    assert_string_equal(cli_get(&args, "--memory"), "1G");
    assert_true(cli_has(&args, "--paused"));
    assert_false(cli_has(&args, "--detach"));
    assert_null(cli_get(&args, "--kernel"));
    cli_args_fini(&args);
}

static void values_are_taken_as_they_are(void **state)
{
    struct cli_args args;

    (void)state;
    parse(CHECK("run", "--cmdline", "--quiet a=b", "--name=", "--kernel=a=b"), &args);
    assert_string_equal(cli_get(&args, "--cmdline"), "--quiet a=b");
    assert_string_equal(cli_get(&args, "--name"), "");
    assert_string_equal(cli_get(&args, "--kernel"), "a=b");
    assert_int_equal(args.operand_count, 0);
    cli_args_fini(&args);
}

static void the_last_of_two_values_counts(void **state)
{
    struct cli_args args;

    (void)state;
    parse(CHECK("run", "--cpus", "2", "--cpus", "3"), &args);
    assert_string_equal(cli_get(&args, "--cpus"), "3");
    assert_int_equal(args.value_count, 2);
    cli_args_fini(&args);
}

static void two_dashes_end_the_options(void **state)
{
    struct cli_args args;

    (void)state;
    parse(CHECK("run", "--", "--paused"), &args);
    assert_string_equal(args.operands[0], "--paused");
    assert_false(cli_has(&args, "--paused"));
    cli_args_fini(&args);
    parse(CHECK("run", "-"), &args);
    assert_string_equal(args.operands[0], "-");
    cli_args_fini(&args);
}

static void help_is_had_without_the_operands(void **state)
{
    struct cli_args args;

    (void)state;
    parse(CHECK("status", "--help"), &args);
    assert_true(args.help);
    cli_args_fini(&args);
    parse(CHECK("stop", "-h", "a", "b"), &args);
    assert_true(args.help);
    cli_args_fini(&args);
}

/* What a command line prints; free() it. */
static char *output_of(const char *const *words, int expected_status)
{
    struct error err = {0};
    char *text = calloc(1, 65536);
    FILE *file = tmpfile();

    assert_non_null(text);
    assert_non_null(file);
    fflush(stdout);
    int before = dup(STDOUT_FILENO);
    dup2(fileno(file), STDOUT_FILENO);
    int status = cli_execute(words_count(words), (char *const *)words, &err);
    fflush(stdout);
    dup2(before, STDOUT_FILENO);
    close(before);
    assert_int_equal(status, expected_status);
    assert_true(pread(fileno(file), text, 65535, 0) >= 0);
    fclose(file);
    return text;
}

static void every_verb_has_help_of_its_own(void **state)
{
    char *overview = output_of(CHECK("help"), CLI_OK);

    (void)state;
    for (const struct cli_verb *v = cli_verbs; v->name; v++) {
        char *by_verb = output_of(CHECK("help", v->name), CLI_OK);
        char *start;

        assert_true(asprintf(&start, "Usage: vmrun %s", v->name) > 0);
        assert_memory_equal(by_verb, start, strlen(start));
        assert_non_null(strstr(overview, v->summary));
        for (const struct cli_option *o = v->options; o && o->name; o++)
            assert_non_null(strstr(by_verb, o->help));
        if (strcmp(v->name, "help") != 0) {
            char *by_option = output_of(CHECK(v->name, "--help"), CLI_OK);
            assert_string_equal(by_verb, by_option);
            free(by_option);
        }
        free(start);
        free(by_verb);
    }
    free(overview);
}

static void no_line_of_help_is_wider_than_a_page(void **state)
{
    (void)state;
    for (const struct cli_verb *v = cli_verbs; v->name; v++) {
        char *text = output_of(CHECK("help", v->name), CLI_OK);

        for (const char *line = text; *line; line += strcspn(line, "\n") + 1)
            assert_in_range(strcspn(line, "\n"), 0, 100);
        free(text);
    }
}

static void help_and_version_have_their_usual_names(void **state)
{
    char *verb = output_of(CHECK("version"), CLI_OK);
    char *option = output_of(CHECK("--version"), CLI_OK);

    (void)state;
    assert_string_equal(verb, option);
    assert_string_equal(verb, "vmrun " VMRUN_VERSION "\n");
    free(verb);
    free(option);

    verb = output_of(CHECK("version", "--json"), CLI_OK);
    assert_string_equal(verb, "{\"version\": \"" VMRUN_VERSION "\"}\n");
    free(verb);

    verb = output_of(CHECK("help"), CLI_OK);
    option = output_of(CHECK("--help"), CLI_OK);
    assert_string_equal(verb, option);
    free(option);
    option = output_of(CHECK("-h"), CLI_OK);
    assert_string_equal(verb, option);
    free(verb);
    free(option);
}

static void an_empty_list_is_a_header_or_an_empty_array(void **state)
{
    char *table = output_of(CHECK("list"), CLI_OK), *json = output_of(CHECK("list", "--json"), 0);

    (void)state;
    assert_string_equal(table, "NAME  STATE  CPUS  MEMORY  UPTIME  PID\n");
    assert_string_equal(json, "[]\n");
    free(table);
    free(json);
}

/* Complete "vmrun WORDS": the candidates, sorted, one space after each. */
static char *complete(const char *script, const char *words)
{
    char path[] = "/tmp/vmrun-test-XXXXXX", command[512];
    char *answer = calloc(1, 4096);
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, script, strlen(script)), strlen(script));
    close(fd);
    snprintf(command, sizeof(command),
             "bash -c '. %s; COMP_WORDS=(vmrun %s); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); "
             "_vmrun 2>/dev/null; for w in \"${COMPREPLY[@]}\"; do echo \"$w\"; done | LC_ALL=C "
             "sort | tr \"\\n\" \" \"'",
             path, words);
    FILE *out = popen(command, "r");
    assert_non_null(out);
    assert_true(fread(answer, 1, 4095, out) < 4095);
    assert_int_equal(pclose(out), 0);
    unlink(path);
    return answer;
}

static void bash_completes_from_the_same_table(void **state)
{
    static const char *const cases[][2] = {
        {"st", "stats status stop "},
        {"stop --", "--force --help --timeout "},
        {"run --cpu \"\"", "host x86-64-v2 x86-64-v3 "},
        {"run --console f", "file: "},
        {"run --pages n", "normal "},
        {"config \"\"", "check schema show "},
        {"help ver", "version "},
        {"pause --", "--help "},
        {"list x", ""},
    };
    char *script = output_of(CHECK("help", "--completion", "bash"), CLI_OK);

    (void)state;
    if (system("bash -c true") != 0)
        skip();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char *answer = complete(script, cases[i][0]);

        assert_string_equal(answer, cases[i][1]);
        free(answer);
    }
    free(script);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_command_lines_are_refused_in_these_words),
        cmocka_unit_test(a_value_that_no_key_takes_is_a_wrong_command_line),
        cmocka_unit_test(a_machine_without_a_kernel_is_refused),
        cmocka_unit_test(options_and_operands_come_in_any_order),
        cmocka_unit_test(values_are_taken_as_they_are),
        cmocka_unit_test(the_last_of_two_values_counts),
        cmocka_unit_test(two_dashes_end_the_options),
        cmocka_unit_test(help_is_had_without_the_operands),
        cmocka_unit_test(every_verb_has_help_of_its_own),
        cmocka_unit_test(no_line_of_help_is_wider_than_a_page),
        cmocka_unit_test(help_and_version_have_their_usual_names),
        cmocka_unit_test(an_empty_list_is_a_header_or_an_empty_array),
        cmocka_unit_test(bash_completes_from_the_same_table),
    };
    return cmocka_run_group_tests_name("command line", tests, setup, NULL);
}
