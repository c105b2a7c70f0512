/* SPDX-License-Identifier: Apache-2.0 */
/* log: whole lines on stderr, which is a pipe here, and no floods. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmrun/log.h"
#include "vmrun/loop.h"

struct capture {
    int saved_fd, pipe_fd;
    char text[65536]; /* as much as a pipe holds */
};

static int setup(void **state)
{
    struct capture *c = calloc(1, sizeof(*c));
    int ends[2];

    if (!c || pipe(ends) < 0)
        return -1;
    c->saved_fd = dup(STDERR_FILENO);
    c->pipe_fd = ends[0];
    dup2(ends[1], STDERR_FILENO);
    close(ends[1]);
    log_set_level(LOG_LEVEL_INFO);
    *state = c;
    return 0;
}

/* Put stderr back and return all that went there. */
static const char *captured(struct capture *c)
{
    size_t len = 0;
    ssize_t n;

    dup2(c->saved_fd, STDERR_FILENO);
    while ((n = read(c->pipe_fd, c->text + len, sizeof(c->text) - 1 - len)) > 0)
        len += (size_t)n;
    c->text[len] = '\0';
    return c->text;
}

static int teardown(void **state)
{
    struct capture *c = *state;

    dup2(c->saved_fd, STDERR_FILENO);
    close(c->saved_fd);
    close(c->pipe_fd);
    free(c);
    return 0;
}

static void each_level_has_its_prefix(void **state)
{
    log_set_level(LOG_LEVEL_DEBUG);
    log_error("one %d", 1);
    log_warn("two");
    log_info("three");
    log_debug("four");
    assert_string_equal(captured(*state),
                        "vmrun: one 1\nvmrun: warning: two\nvmrun: three\nvmrun: debug: four\n");
}

static void lines_above_the_level_are_dropped(void **state)
{
    log_debug("not at first");
    log_set_level(LOG_LEVEL_ERROR);
    log_warn("nor this");
    log_error("this");
    assert_string_equal(captured(*state), "vmrun: this\n");
}

static void a_long_line_is_cut_and_still_ends(void **state)
{
    char words[4000];

    memset(words, 'w', sizeof(words));
    words[sizeof(words) - 1] = '\0';
    log_error("%s", words);
    log_error("next");

    const char *text = captured(*state);
    assert_non_null(strstr(text, "w\nvmrun: next\n"));
    assert_true(strlen(text) < 2000);
}

static void a_flood_becomes_one_line_and_a_count(void **state)
{
    struct log_limit limit = {0};

    for (int i = 0; i < 1000; i++)
        log_warn_limited(&limit, "guest does it again");
    limit.quiet_until_ns = loop_now_ns(); /* as if five seconds had passed */
    log_warn_limited(&limit, "and again");
    log_warn_limited(&limit, "and again");

    assert_string_equal(captured(*state),
                        "vmrun: warning: guest does it again\n"
                        "vmrun: warning: and again (and 999 such lines before)\n");
    assert_int_equal(limit.left_out, 1);
}

static void *log_many(void *letter)
{
    for (int i = 0; i < 200; i++)
        log_info("%s", (const char *)letter);
    return NULL;
}

static void lines_of_several_threads_never_mix(void **state)
{
    static char a[] = "aaaaaaaaaaaaaaaaaaaaaaaa", b[] = "bbbbbbbbbbbbbbbbbbbbbbbb";
    pthread_t threads[2];
    unsigned lines = 0;
    char *rest;

    pthread_create(&threads[0], NULL, log_many, a);
    pthread_create(&threads[1], NULL, log_many, b);
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);

    captured(*state);
    for (char *line = strtok_r(((struct capture *)*state)->text, "\n", &rest); line;
         line = strtok_r(NULL, "\n", &rest), lines++) {
        assert_int_equal(strncmp(line, "vmrun: ", 7), 0);
        assert_true(strcmp(line + 7, a) == 0 || strcmp(line + 7, b) == 0);
    }
    assert_int_equal(lines, 400);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(each_level_has_its_prefix, setup, teardown),
        cmocka_unit_test_setup_teardown(lines_above_the_level_are_dropped, setup, teardown),
        cmocka_unit_test_setup_teardown(a_long_line_is_cut_and_still_ends, setup, teardown),
        cmocka_unit_test_setup_teardown(a_flood_becomes_one_line_and_a_count, setup, teardown),
        cmocka_unit_test_setup_teardown(lines_of_several_threads_never_mix, setup, teardown),
    };
    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
