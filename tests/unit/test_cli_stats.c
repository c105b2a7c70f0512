/* SPDX-License-Identifier: Apache-2.0 */
/* `vmrun stats` before a machine that is a script: what it prints, and how a watch ends. */
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "fake_server.h"
#include "vmrun/cli.h"

#define TEXT_MAX 16384

struct fixture {
    struct fake_server server;
    pthread_t thread;
    unsigned answers; /* then it hangs up */
};

/* The nth answer: half a second later than the one before, all counters grown. */
static void answer(int fd, json_int_t id, unsigned n)
{
    char line[1024];
    int len = snprintf(
        line, sizeof(line),
        "{\"jsonrpc\":\"2.0\",\"id\":%lld,\"result\":{\"time_ns\":%llu,\"counters\":{"
        "\"exits.pio\":%u,\"disk.a.b.reads\":%u,\"disk.a.b.q0.requests\":%u,"
        "\"disk.a.b.q0.bytes_out\":%u,\"disk.a.b.q0.bytes_in\":%u,\"disk.a.b.q0.kicks\":%u,"
        "\"disk.a.b.q0.interrupts\":%u,\"net.lan.ctrl.requests\":1,\"net.lan.ctrl.bytes_out\":2,"
        "\"net.lan.ctrl.bytes_in\":3,\"net.lan.ctrl.kicks\":4,\"net.lan.ctrl.interrupts\":5,"
        "\"resets\":0}}}\n",
        (long long)id, 1000000000ull + 500000000ull * n, 7 + 100 * n, 2 + n, 10 + 20 * n,
        160 + 320 * n, 40960 + 81920 * n, 9 + 2 * n, 8 + n);

    send(fd, line, (size_t)len, MSG_NOSIGNAL);
}

static void *serve(void *opaque)
{
    struct fixture *f = opaque;
    int fd = accept(f->server.fd, NULL, NULL);
    FILE *in = fdopen(fd, "r");
    size_t room = 0;
    char *line = NULL;

    for (unsigned n = 0; n < f->answers && getline(&line, &room, in) > 0; n++) {
        json_t *request = json_loads(line, 0, NULL);

        assert_string_equal(json_string_value(json_object_get(request, "method")), "vm.stats");
        answer(fd, json_integer_value(json_object_get(request, "id")), n);
        json_decref(request);
    }
    free(line);
    fclose(in);
    return NULL;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    *state = f;
    return fake_server_listen(&f->server);
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    int r = fake_server_close(&f->server);

    free(f);
    return r;
}

static void start(struct fixture *f, unsigned answers)
{
    f->answers = answers;
    assert_int_equal(pthread_create(&f->thread, NULL, serve, f), 0);
}

/* The command in a process of its own, on this standard output. */
static pid_t spawn(int out, const char *option, const char *second)
{
    const char *words[] = {"vmrun", "stats", "web1", option, second};
    int count = 3 + (option != NULL) + (second != NULL);
    pid_t pid = fork();

    if (pid == 0) {
        struct error err = {0};

        dup2(out, STDOUT_FILENO);
        int status = cli_execute(count, (char *const *)words, &err);
        fflush(stdout);
        _exit(err.code ? 99 : status);
    }
    assert_true(pid > 0);
    return pid;
}

static int wait_status(pid_t pid)
{
    int status;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* What stands in the file from its beginning. */
static char *read_all(FILE *file)
{
    char *text = calloc(1, TEXT_MAX);

    assert_non_null(text);
    assert_true(pread(fileno(file), text, TEXT_MAX - 1, 0) >= 0);
    return text;
}

static char *output(struct fixture *f, unsigned answers, const char *option, const char *second)
{
    FILE *file = tmpfile();

    assert_non_null(file);
    start(f, answers);
    assert_int_equal(wait_status(spawn(fileno(file), option, second)), CLI_OK);
    pthread_join(f->thread, NULL);
    char *text = read_all(file);
    fclose(file);
    return text;
}

#define COLUMN_TITLES \
    "        requests bytes from guest   bytes to guest            kicks       interrupts\n"

static void counters_are_lines_and_queues_are_rows(void **state)
{
    char *text = output(*state, 1, NULL, NULL);

    assert_string_equal(text, "exits.pio                    7\n"
                              "disk.a.b.reads               2\n"
                              "resets                       0\n"
                              "\n"
                              "queue        " COLUMN_TITLES
                              "disk.a.b.q0                10              160            40960"
                              "                9                8\n"
                              "net.lan.ctrl                1                2                3"
                              "                4                5\n");
    free(text);
}

static void a_watch_prints_what_they_grow_by_in_a_second(void **state)
{
    char *text = output(*state, 2, "--watch", NULL); /* the machine ends, and so does it */

    assert_string_equal(text, "                 per second           total\n"
                              "exits.pio             200.0             107\n"
                              "disk.a.b.reads          2.0               3\n"
                              "resets                  0.0               0\n"
                              "\n"
                              "per second   " COLUMN_TITLES
                              "disk.a.b.q0              40.0            640.0         163840.0"
                              "              4.0              2.0\n"
                              "net.lan.ctrl              0.0              0.0              0.0"
                              "              0.0              0.0\n"
                              "\n");
    free(text);
}

static void json_has_the_names_of_the_control_socket(void **state)
{
    struct fixture *f = *state;
    char *text = output(f, 1, "--json", NULL);
    json_t *stats = json_loads(text, 0, NULL);

    assert_non_null(stats);
    json_t *counters = json_object_get(stats, "counters");
    assert_int_equal(json_object_size(counters), 13);
    assert_int_equal(json_integer_value(json_object_get(counters, "disk.a.b.q0.bytes_in")), 40960);
    assert_int_equal(json_integer_value(json_object_get(stats, "time_ns")), 1000000000);
    json_decref(stats);
    free(text);

    text = output(f, 3, "--watch", "--json");
    char *second = strchr(text, '\n');
    assert_non_null(second);
    stats = json_loads(second, 0, NULL);
    assert_non_null(stats);
    json_t *rates = json_object_get(stats, "per_second");
    assert_true(json_real_value(json_object_get(rates, "disk.a.b.q0.requests")) == 40.0);
    json_decref(stats);
    free(text);
}

/* Wait until so many bytes are there. */
static void wait_for_bytes(FILE *file, long bytes)
{
    for (unsigned i = 0; i < 2000; i++) {
        if (lseek(fileno(file), 0, SEEK_END) >= bytes)
            return;
        usleep(10000);
    }
    fail_msg("it prints nothing");
}

static void ctrl_c_ends_a_watch_well_and_other_signals_as_ever(void **state)
{
    static const struct {
        int signal, status;
    } cases[] = {{SIGINT, 0}, {SIGTERM, 128 + SIGTERM}};
    struct fixture *f = *state;

    for (unsigned i = 0; i < 2; i++) {
        FILE *file = tmpfile();

        assert_non_null(file);
        start(f, 1000);
        pid_t pid = spawn(fileno(file), "--watch", NULL);
        wait_for_bytes(file, 1);
        kill(pid, cases[i].signal);
        assert_int_equal(wait_status(pid), cases[i].status);
        pthread_join(f->thread, NULL);
        char *text = read_all(file);
        assert_int_equal(text[strlen(text) - 1], '\n'); /* whole reports */
        free(text);
        fclose(file);
    }
}

/* What a watch of so many answers writes to a terminal of this size. */
static void watch_on_terminal(struct fixture *f, unsigned answers, struct winsize size,
                              char text[TEXT_MAX])
{
    size_t len = 0;
    int terminal = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);

    assert_true(terminal >= 0);
    assert_int_equal(grantpt(terminal) | unlockpt(terminal), 0);
    assert_int_equal(ioctl(terminal, TIOCSWINSZ, &size), 0);
    int slave = open(ptsname(terminal), O_RDWR | O_NOCTTY);
    assert_true(slave >= 0);
    start(f, answers);
    pid_t pid = spawn(slave, "--watch", NULL);
    close(slave);
    for (ssize_t n = 1; n > 0 && len<TEXT_MAX - 1; len += n> 0 ? (size_t)n : 0)
        n = read(terminal, text + len, TEXT_MAX - 1 - len); /* EIO when it is gone */
    text[len] = '\0';
    assert_int_equal(wait_status(pid), CLI_OK);
    pthread_join(f->thread, NULL);
    close(terminal);
}

static void on_a_terminal_a_watch_refreshes_in_place(void **state)
{
    char text[TEXT_MAX];

    watch_on_terminal(*state, 3, (struct winsize){0}, text);
    const char *first = strstr(text, "\033[H\033[J"); /* wiped once, then written over */
    assert_non_null(first);
    assert_null(strstr(first + 3, "\033[H\033[J"));
    const char *again = strstr(first + 3, "\033[H");
    assert_non_null(again);
    assert_non_null(strstr(again + 3, "\033[H"));
    assert_non_null(strstr(text, "107\033[K"));
    assert_non_null(strstr(text, "207\033[K"));
}

static void a_terminal_that_is_too_small_does_not_scroll(void **state)
{
    char text[TEXT_MAX];

    watch_on_terminal(*state, 2, (struct winsize){.ws_row = 6, .ws_col = 30}, text);
    const char *report = strstr(text, "\033[H\033[J");
    assert_non_null(report);
    assert_string_equal(report + 6, "\033[H                 per second   \r\n"
                                    "exits.pio             200.0   \r\n"
                                    "disk.a.b.reads          2.0   \r\n"
                                    "resets                  0.0   \r\n"
                                    "(4 more)\033[K\r\n\033[J");
}

static void a_report_that_just_fits_is_shown_whole(void **state)
{
    char text[TEXT_MAX];

    watch_on_terminal(*state, 2, (struct winsize){.ws_row = 9, .ws_col = 98}, text);
    assert_null(strstr(text, "more)"));
    assert_non_null(strstr(text, "net.lan.ctrl "));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(counters_are_lines_and_queues_are_rows),
        TEST(a_watch_prints_what_they_grow_by_in_a_second),
        TEST(json_has_the_names_of_the_control_socket),
        TEST(ctrl_c_ends_a_watch_well_and_other_signals_as_ever),
        TEST(on_a_terminal_a_watch_refreshes_in_place),
        TEST(a_terminal_that_is_too_small_does_not_scroll),
        TEST(a_report_that_just_fits_is_shown_whole),
    };
    return cmocka_run_group_tests_name("vmrun stats", tests, NULL, NULL);
}
