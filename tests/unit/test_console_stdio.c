/* SPDX-License-Identifier: Apache-2.0 */
/*
 * console: stdin and stdout. A child plays vmrun, with a guest in a thread and
 * its descriptors 0, 1 and 2 replaced; the test is the shell and its user.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/times.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "console_guest.h"

#define KIB 1024u
#define MIB (1024u * KIB)

/* What the child does, and tells: shared memory. */
static struct shared {
    size_t to_send, to_receive; /* the guest sends first */
    bool until_quit;            /* then it waits for Ctrl-A x; else the machine ends with it */
    unsigned linger_ms;         /* how long the machine lives on after the guest's work */
    atomic_size_t sent, received;
    atomic_bool quit;
    uint8_t input[2 * MIB];
} * s;

static pid_t child;

static int setup(void **state)
{
    (void)state;
    s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    child = 0;
    return s == MAP_FAILED ? -1 : 0;
}

static int teardown(void **state)
{
    (void)state;
    if (child > 0) {
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
    }
    return munmap(s, sizeof(*s));
}

static void sleep_ms(unsigned ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L}, NULL);
}

struct machine {
    struct loop *loop;
    struct console_guest guest;
};

static void *run_guest(void *opaque)
{
    struct machine *m = opaque;

    for (size_t left = s->to_send, piece; left; left -= piece) {
        piece = left < 4096 ? left : 4096;
        if (!console_guest_send(&m->guest, piece))
            _exit(10);
        atomic_fetch_add(&s->sent, piece);
    }
    size_t n = console_guest_receive(&m->guest, s->input, s->to_receive, 10000);
    atomic_store(&s->received, n);
    sleep_ms(s->linger_ms);
    if (!s->until_quit)
        loop_stop(m->loop);
    return NULL;
}

static void quit(void *opaque)
{
    atomic_store(&s->quit, true);
    loop_stop(((struct machine *)opaque)->loop);
}

/* The child's whole life; its exit status says how far it came. */
static int be_vmrun(void)
{
    struct machine m = {0};
    struct console_params params = {.kind = CONSOLE_STDIO, .quit = quit, .opaque = &m};
    struct console *console;
    struct error err;
    pthread_t thread;

    signal(SIGPIPE, SIG_IGN);
    alarm(60);
    if (loop_create(&m.loop, &err) < 0 || console_create(&params, m.loop, &console, &err) < 0) {
        fprintf(stderr, "%s\n", err.msg);
        return 11;
    }
    if (strcmp(console_describe(console), "stdio") != 0)
        return 12;
    console_guest_init(&m.guest, console);
    if (pthread_create(&thread, NULL, run_guest, &m) != 0 || loop_run(m.loop, &err) < 0)
        return 13;
    pthread_join(thread, NULL);
    console_destroy(console);
    loop_destroy(m.loop);
    return 0;
}

static void start(int in, int out, int err)
{
    fflush(NULL);
    child = fork();
    assert_true(child >= 0);
    if (child)
        return;
    dup2(in, STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    dup2(err, STDERR_FILENO);
    for (int fd = 3; fd < 64; fd++)
        close(fd);
    _exit(be_vmrun());
}

static void expect_end(void)
{
    int status;

    assert_int_equal(waitpid(child, &status, 0), child);
    child = 0;
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static int null_device(void)
{
    return open("/dev/null", O_RDWR | O_CLOEXEC);
}

static int temporary_file(void)
{
    FILE *file = tmpfile();
    int fd = dup(fileno(file));

    fclose(file);
    return fd;
}

static void expect_stream(int fd, uint64_t at, size_t len)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    uint8_t piece[8192];

    while (len) {
        assert_int_equal(poll(&p, 1, 10000), 1);
        ssize_t n = read(fd, piece, len < sizeof(piece) ? len : sizeof(piece));
        assert_true(n > 0);
        for (ssize_t i = 0; i < n; i++)
            assert_int_equal(piece[i], console_guest_byte(at + (size_t)i));
        at += (size_t)n;
        len -= (size_t)n;
    }
}

static void type(int fd, size_t len)
{
    uint8_t *data = malloc(len);

    for (size_t i = 0; i < len; i++)
        data[i] = console_guest_byte(i);
    for (size_t at = 0; at < len;) {
        ssize_t n = write(fd, data + at, len - at);

        assert_true(n > 0);
        at += (size_t)n;
    }
    free(data);
}

static void expect_input(size_t len)
{
    assert_int_equal(atomic_load(&s->received), len);
    for (size_t i = 0; i < len; i++)
        assert_int_equal(s->input[i], console_guest_byte(i));
}

static void a_slow_reader_of_a_pipe_loses_nothing_and_holds_the_guest_back(void **state)
{
    int null = null_device(), ends[2];

    (void)state;
    s->to_send = 3 * MIB;
    assert_int_equal(pipe(ends), 0);
    start(null, ends[1], STDERR_FILENO);
    close(ends[1]);
    sleep_ms(4000); /* longer than a client may stall */
    assert_in_range(atomic_load(&s->sent), MIB - 8 * KIB, MIB + 128 * KIB);
    expect_stream(ends[0], 0, 3 * MIB);
    expect_end();
    char byte;
    assert_int_equal(read(ends[0], &byte, 1), 0);
    close(ends[0]);
    close(null);
}

static void what_is_left_at_the_end_is_flushed_into_a_slow_pipe(void **state)
{
    int null = null_device(), ends[2];

    (void)state;
    s->to_send = 512 * KIB;
    assert_int_equal(pipe(ends), 0);
    start(null, ends[1], STDERR_FILENO);
    close(ends[1]);
    while (atomic_load(&s->sent) < s->to_send)
        sleep_ms(1);
    expect_stream(ends[0], 0, 512 * KIB);
    expect_end();
    close(ends[0]);
    close(null);
}

static void a_reader_that_never_reads_delays_the_end_by_a_second_only(void **state)
{
    int null = null_device(), ends[2];

    (void)state;
    s->to_send = 512 * KIB;
    assert_int_equal(pipe(ends), 0);
    start(null, ends[1], STDERR_FILENO);
    expect_end();
    expect_stream(ends[0], 0, 4096);
    close(ends[0]);
    close(ends[1]);
    close(null);
}

static void the_shells_descriptors_stay_blocking(void **state)
{
    int in[2], out[2];

    (void)state;
    s->to_send = 1000;
    s->linger_ms = 50;
    assert_int_equal(pipe(in) | pipe(out), 0);
    start(in[0], out[1], STDERR_FILENO);
    expect_stream(out[0], 0, 1000);
    assert_int_equal(fcntl(in[0], F_GETFL) & O_NONBLOCK, 0);
    assert_int_equal(fcntl(out[1], F_GETFL) & O_NONBLOCK, 0);
    expect_end();
    for (unsigned i = 0; i < 2; i++) {
        close(in[i]);
        close(out[i]);
    }
}

static void a_pasted_mebibyte_through_a_pipe_arrives_whole(void **state)
{
    int null = null_device(), ends[2];

    (void)state;
    s->to_receive = MIB;
    assert_int_equal(pipe(ends), 0);
    start(ends[0], null, STDERR_FILENO);
    close(ends[0]);
    type(ends[1], MIB);
    close(ends[1]);
    expect_end();
    expect_input(MIB);
    close(null);
}

/* CPU that the child, which has ended, took, in ms. */
static unsigned long child_cpu_ms(void)
{
    struct tms t;

    times(&t);
    return (unsigned long)(t.tms_cutime + t.tms_cstime) * 1000 /
           (unsigned long)sysconf(_SC_CLK_TCK);
}

static void the_end_of_stdin_ends_input_only(void **state)
{
    int ends[2], out[2];

    (void)state;
    s->to_receive = 100;
    s->linger_ms = 500;
    unsigned long before = child_cpu_ms();
    assert_int_equal(pipe(ends) | pipe(out), 0);
    start(ends[0], out[1], STDERR_FILENO);
    close(ends[0]);
    type(ends[1], 100);
    close(ends[1]);
    expect_end();
    expect_input(100);
    assert_true(child_cpu_ms() - before < 250);
    close(out[0]);
    close(out[1]);
}

static void a_full_queue_and_a_closed_pipe_cost_no_time(void **state)
{
    int null = null_device(), ends[2];

    (void)state;
    s->linger_ms = 600; /* the guest reads nothing at all */
    unsigned long before = child_cpu_ms();
    assert_int_equal(pipe(ends), 0);
    start(ends[0], null, STDERR_FILENO);
    close(ends[0]);
    type(ends[1], 100000);
    close(ends[1]);
    expect_end();
    assert_true(child_cpu_ms() - before < 300);
    close(null);
}

static void regular_files_are_read_and_written_whole(void **state)
{
    int in = temporary_file(), out = temporary_file();

    (void)state;
    type(in, 300000);
    lseek(in, 0, SEEK_SET);
    assert_int_equal(write(out, "log:", 4), 4); /* of the shell, before us */
    s->to_send = 2 * MIB;
    s->to_receive = 300000;
    start(in, out, STDERR_FILENO);
    expect_end();
    expect_input(300000);
    assert_int_equal(lseek(out, 0, SEEK_END), 4 + 2 * MIB);
    lseek(out, 4, SEEK_SET);
    expect_stream(out, 0, 2 * MIB);
    close(in);
    close(out);
}

static void with_dev_null_there_is_no_input_and_no_wait(void **state)
{
    int null = null_device();

    (void)state;
    s->to_send = 3 * MIB;
    start(null, null, STDERR_FILENO);
    expect_end();
    assert_int_equal(atomic_load(&s->sent), 3 * MIB);
    close(null);
}

static void a_socket_serves_as_stdout(void **state)
{
    int null = null_device(), ends[2];

    (void)state;
    s->to_send = 2 * MIB;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    start(null, ends[1], STDERR_FILENO);
    close(ends[1]);
    expect_stream(ends[0], 0, 2 * MIB);
    expect_end();
    close(ends[0]);
    close(null);
}

static void a_reader_that_goes_away_frees_the_guest_and_costs_no_time(void **state)
{
    int null = null_device(), ends[2];

    (void)state;
    s->to_send = 3 * MIB;
    s->linger_ms = 500;
    unsigned long before = child_cpu_ms();
    assert_int_equal(pipe(ends), 0);
    start(null, ends[1], null); /* it warns on stderr */
    close(ends[1]);
    expect_stream(ends[0], 0, 200000);
    close(ends[0]);
    expect_end();
    assert_int_equal(atomic_load(&s->sent), 3 * MIB);
    assert_true(child_cpu_ms() - before < 300);
    close(null);
}

/* A terminal whose slave is the child's 0, 1 and 2. */
static struct terminal {
    int master, slave;
    struct termios before;
} t;

static void start_on_terminal(void)
{
    struct termios now;

    assert_int_equal(openpty(&t.master, &t.slave, NULL, NULL, NULL), 0);
    assert_int_equal(tcgetattr(t.slave, &t.before), 0);
    start(t.slave, t.slave, t.slave);
    for (unsigned i = 0; i < 5000; i++) {
        assert_int_equal(tcgetattr(t.slave, &now), 0);
        if (!(now.c_lflag & (ICANON | ECHO | ISIG)))
            return;
        sleep_ms(1);
    }
    fail_msg("the terminal did not become raw");
}

static void expect_restored(void)
{
    struct termios now;

    assert_int_equal(tcgetattr(t.slave, &now), 0);
    assert_int_equal(now.c_lflag, t.before.c_lflag);
    assert_int_equal(now.c_iflag, t.before.c_iflag);
    assert_int_equal(now.c_oflag, t.before.c_oflag);
    assert_int_equal(now.c_cc[VMIN], t.before.c_cc[VMIN]);
    assert_int_equal(fcntl(t.slave, F_GETFL) & O_NONBLOCK, 0);
    close(t.master);
    close(t.slave);
}

static void press(const char *keys, size_t len)
{
    assert_int_equal(write(t.master, keys, len), len);
}

static void every_key_reaches_the_guest_and_the_terminal_is_restored(void **state)
{
    static const char keys[] = "ls\r\x03\x04\x11\x13\x1a\x1c\xff";

    (void)state;
    s->to_receive = sizeof(keys) - 1;
    start_on_terminal();
    press(keys, sizeof(keys) - 1);
    expect_end();
    assert_int_equal(atomic_load(&s->received), sizeof(keys) - 1);
    assert_memory_equal(s->input, keys, sizeof(keys) - 1);
    assert_false(atomic_load(&s->quit));
    expect_restored();
}

static void ctrl_a_x_quits(void **state)
{
    (void)state;
    s->until_quit = true;
    start_on_terminal();
    press("\x01", 1);
    sleep_ms(50); /* in two reads */
    press("x", 1);
    expect_end();
    assert_true(atomic_load(&s->quit));
    expect_restored();
}

static void ctrl_a_twice_is_ctrl_a_and_other_keys_after_it_are_taken_out(void **state)
{
    (void)state;
    s->to_receive = 5;
    start_on_terminal();
    press("a\x01\x01x\x01qb\x01\x01", 9);
    expect_end();
    assert_int_equal(atomic_load(&s->received), 5);
    assert_memory_equal(s->input, "a\x01xb\x01", 5);
    assert_false(atomic_load(&s->quit));
    expect_restored();
}

static void ctrl_a_h_helps(void **state)
{
    struct pollfd p;
    char text[512] = "";
    size_t len = 0;

    (void)state;
    s->until_quit = true;
    start_on_terminal();
    p = (struct pollfd){.fd = t.master, .events = POLLIN};
    press("\x01h", 2);
    while (!strstr(text, "send Ctrl-A\r\n") && len < sizeof(text) - 1 && poll(&p, 1, 5000) > 0) {
        ssize_t n = read(t.master, text + len, sizeof(text) - 1 - len);
        assert_true(n > 0);
        len += (size_t)n;
        text[len] = '\0';
    }
    assert_non_null(strstr(text, "\r\nCtrl-A x        end the machine\r\n"));
    press("\x01x", 2);
    expect_end();
    expect_restored();
}

static void a_terminal_that_hangs_up_ends_neither_guest_nor_time(void **state)
{
    (void)state;
    s->to_send = 2 * MIB;
    s->linger_ms = 400;
    unsigned long before = child_cpu_ms();
    start_on_terminal();
    sleep_ms(50);
    close(t.slave);
    close(t.master);
    expect_end();
    assert_int_equal(atomic_load(&s->sent), 2 * MIB);
    assert_true(child_cpu_ms() - before < 300);
}

static void a_fatal_signals_handler_can_restore_the_terminal(void **state)
{
    struct termios before, raw, after;
    int master, slave, status;

    (void)state;
    assert_int_equal(openpty(&master, &slave, NULL, NULL, NULL), 0);
    tcgetattr(slave, &before);
    fflush(NULL);
    child = fork();
    if (child == 0) {
        const struct console_params params = {.kind = CONSOLE_STDIO};
        struct console *console;
        struct loop *loop;
        struct error err;

        dup2(slave, STDIN_FILENO);
        dup2(slave, STDOUT_FILENO);
        if (loop_create(&loop, &err) < 0 || console_create(&params, loop, &console, &err) < 0)
            _exit(1);
        tcgetattr(STDIN_FILENO, &raw);
        console_restore_terminal();
        console_restore_terminal(); /* as two signals in a row would */
        _exit(raw.c_lflag & ICANON ? 2 : 0);
    }
    waitpid(child, &status, 0);
    child = 0;
    assert_int_equal(status, 0);
    tcgetattr(slave, &after);
    assert_int_equal(after.c_lflag, before.c_lflag);
    close(master);
    close(slave);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_slow_reader_of_a_pipe_loses_nothing_and_holds_the_guest_back),
        TEST(what_is_left_at_the_end_is_flushed_into_a_slow_pipe),
        TEST(a_reader_that_never_reads_delays_the_end_by_a_second_only),
        TEST(the_shells_descriptors_stay_blocking),
        TEST(a_pasted_mebibyte_through_a_pipe_arrives_whole),
        TEST(the_end_of_stdin_ends_input_only),
        TEST(a_full_queue_and_a_closed_pipe_cost_no_time),
        TEST(regular_files_are_read_and_written_whole),
        TEST(with_dev_null_there_is_no_input_and_no_wait),
        TEST(a_socket_serves_as_stdout),
        TEST(a_reader_that_goes_away_frees_the_guest_and_costs_no_time),
        TEST(every_key_reaches_the_guest_and_the_terminal_is_restored),
        TEST(ctrl_a_x_quits),
        TEST(ctrl_a_twice_is_ctrl_a_and_other_keys_after_it_are_taken_out),
        TEST(ctrl_a_h_helps),
        TEST(a_terminal_that_hangs_up_ends_neither_guest_nor_time),
        TEST(a_fatal_signals_handler_can_restore_the_terminal),
    };
    return cmocka_run_group_tests_name("console on stdio", tests, NULL, NULL);
}
