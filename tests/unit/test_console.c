/* SPDX-License-Identifier: Apache-2.0 */
/*
 * console: clients, pseudo-terminals and files. A thread is the guest, a
 * thread runs the loop, and the test is whoever reads and types.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "console_guest.h"

#define KIB 1024u
#define MIB (1024u * KIB)

static struct fixture {
    struct loop *loop;
    struct console *console;
    struct console_guest guest;
    struct error err;
    pthread_t loop_thread, guest_thread;
    bool looping, guest_runs;
    size_t to_send;
    atomic_bool guest_done;
    char path[64];
} f;

static void sleep_ms(unsigned ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L}, NULL);
}

static void *run_loop(void *opaque)
{
    struct error err;

    (void)opaque;
    loop_run(f.loop, &err);
    return NULL;
}

static void start(enum console_kind kind)
{
    const struct console_params params = {.kind = kind, .path = f.path};

    assert_int_equal(console_create(&params, f.loop, &f.console, &f.err), 0);
    console_guest_init(&f.guest, f.console);
    assert_int_equal(pthread_create(&f.loop_thread, NULL, run_loop, NULL), 0);
    f.looping = true;
}

static void *run_guest(void *opaque)
{
    (void)opaque;
    if (console_guest_send(&f.guest, f.to_send))
        atomic_store(&f.guest_done, true);
    return NULL;
}

/* The guest sends in the background; guest_ends() waits for it. */
static void guest_sends(size_t len)
{
    f.to_send = len;
    atomic_store(&f.guest_done, false);
    assert_int_equal(pthread_create(&f.guest_thread, NULL, run_guest, NULL), 0);
    f.guest_runs = true;
}

static void guest_ends(void)
{
    pthread_join(f.guest_thread, NULL);
    f.guest_runs = false;
    assert_true(atomic_load(&f.guest_done));
}

static void finish(void)
{
    if (f.guest_runs)
        pthread_join(f.guest_thread, NULL);
    if (f.looping) {
        loop_stop(f.loop);
        pthread_join(f.loop_thread, NULL);
    }
    console_destroy(f.console);
    f.guest_runs = f.looping = false;
    f.console = NULL;
}

static int setup(void **state)
{
    (void)state;
    memset(&f, 0, sizeof(f));
    strcpy(f.path, "/tmp/vmrun-console-XXXXXX");
    close(mkstemp(f.path));
    return loop_create(&f.loop, &f.err);
}

static int teardown(void **state)
{
    (void)state;
    finish();
    loop_destroy(f.loop);
    unlink(f.path);
    return 0;
}

/* Attaching happens on the loop. */
struct attach {
    int fd;
    const void *pending;
    size_t pending_len;
    int result;
    sem_t done;
};

static void attach_on_loop(void *opaque)
{
    struct attach *a = opaque;
    struct error err;

    a->result = console_attach(f.console, a->fd, a->pending, a->pending_len, &err);
    sem_post(&a->done);
}

static int attach_with(const void *pending, size_t pending_len)
{
    struct attach a = {.pending = pending, .pending_len = pending_len};
    int ends[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    a.fd = ends[1];
    sem_init(&a.done, 0, 0);
    assert_int_equal(loop_post(f.loop, attach_on_loop, &a), 0);
    while (sem_wait(&a.done) < 0)
        ;
    assert_int_equal(a.result, 0);
    return ends[0];
}

static int attach(void)
{
    return attach_with(NULL, 0);
}

/* Up to len bytes, or what came before wait_ms of silence or the end. */
static size_t read_up_to(int fd, uint8_t *data, size_t len, int wait_ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    size_t got = 0;

    while (got < len && poll(&p, 1, wait_ms) > 0) {
        ssize_t n = read(fd, data + got, len - got);

        if (n <= 0)
            break;
        got += (size_t)n;
    }
    return got;
}

/* Whether these bytes are the guest's stream from `at` on. */
static bool is_stream(const uint8_t *data, size_t len, uint64_t at)
{
    for (size_t i = 0; i < len; i++)
        if (data[i] != console_guest_byte(at + i))
            return false;
    return true;
}

static void expect_stream(int fd, uint64_t at, size_t len)
{
    uint8_t *data = malloc(len);

    assert_int_equal(read_up_to(fd, data, len, 10000), len);
    assert_true(is_stream(data, len, at));
    free(data);
}

/* Every byte of the stream, or up to a gap, a notice that tells its size, and all from there on. */
static void expect_stream_with_a_gap(int fd, size_t total)
{
    uint8_t *data = malloc(total + 200);
    size_t got = read_up_to(fd, data, total + 200, 1000), before = 0;
    unsigned long long gap;
    int notice_len = 0;

    while (before < got && data[before] == console_guest_byte(before))
        before++;
    data[got] = '\0';
    assert_int_equal(sscanf((char *)data + before,
                            "\r\n[vmrun: %llu bytes of output left out]\r\n%n", &gap, &notice_len),
                     1);
    assert_true(gap > 0);
    size_t after = before + (size_t)notice_len;
    assert_int_equal(before + gap + (got - after), total);
    assert_true(is_stream(data + after, got - after, before + gap));
    free(data);
}

static unsigned open_descriptors(void)
{
    unsigned count = 0;

    for (int fd = 0; fd < 256; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static uint64_t cpu_ms(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000 +
           (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1000;
}

static void expect_idle(void)
{
    uint64_t before = cpu_ms();

    sleep_ms(300);
    assert_true(cpu_ms() - before < 150);
}

static void a_client_gets_the_output_from_power_on(void **state)
{
    (void)state;
    start(CONSOLE_NONE);
    assert_true(console_guest_send(&f.guest, 100000));
    int fd = attach();
    expect_stream(fd, 0, 100000);
    assert_true(console_guest_send(&f.guest, 5000));
    expect_stream(fd, 100000, 5000);
    close(fd);
}

static void a_late_client_gets_the_last_mebibyte(void **state)
{
    (void)state;
    start(CONSOLE_NONE);
    assert_true(console_guest_send(&f.guest, 3 * MIB + 12345));
    int fd = attach();
    expect_stream(fd, 2 * MIB + 12345, MIB);
    close(fd);
}

static void several_clients_lose_nothing_and_the_slowest_sets_the_pace(void **state)
{
    (void)state;
    start(CONSOLE_NONE);
    int first = attach(), second = attach();
    guest_sends(3 * MIB);
    expect_stream(first, 0, MIB);
    sleep_ms(200);
    assert_false(atomic_load(&f.guest_done)); /* the second has read nothing yet */
    assert_true(atomic_load(&f.guest.sent) < 2 * MIB);
    for (unsigned i = 0; i < 16; i++) { /* in turns: neither waits for the other for long */
        expect_stream(second, i * 192 * KIB, 192 * KIB);
        if (i >= 6)
            expect_stream(first, MIB + (i - 6) * 192 * KIB, 192 * KIB);
    }
    expect_stream(first, MIB + 10 * 192 * KIB, 128 * KIB);
    guest_ends();
    close(first);
    close(second);
}

static void a_client_that_stalls_holds_nobody_back_for_ever_and_is_told(void **state)
{
    struct timespec from, to;

    (void)state;
    start(CONSOLE_NONE);
    int stalled = attach(), reader = attach();
    clock_gettime(CLOCK_MONOTONIC, &from);
    guest_sends(4 * MIB);
    expect_stream(reader, 0, 4 * MIB);
    guest_ends();
    clock_gettime(CLOCK_MONOTONIC, &to);
    assert_in_range(to.tv_sec - from.tv_sec, 2, 15);
    expect_stream_with_a_gap(stalled, 4 * MIB);
    assert_true(console_guest_send(&f.guest, 2000));
    expect_stream(stalled, 4 * MIB, 2000); /* it is a client like others again */
    expect_stream(reader, 4 * MIB, 2000);
    close(stalled);
    close(reader);
}

static void a_client_that_vanishes_frees_the_guest_and_its_descriptor(void **state)
{
    (void)state;
    start(CONSOLE_NONE);
    unsigned before = open_descriptors();
    int fd = attach();
    guest_sends(4 * MIB);
    expect_stream(fd, 0, 64 * KIB);
    close(fd);
    guest_ends();
    for (unsigned i = 0; i < 100 && open_descriptors() != before; i++)
        sleep_ms(20);
    assert_int_equal(open_descriptors(), before);
    expect_idle();
}

/* Type the stream's bytes from `at` on, as fast as they are taken. */
static void type(int fd, uint64_t at, size_t len)
{
    uint8_t piece[16 * KIB]; /* large pieces: a socket holds more of them */

    while (len) {
        size_t want = len < sizeof(piece) ? len : sizeof(piece);

        for (size_t i = 0; i < want; i++)
            piece[i] = console_guest_byte(at + i);
        ssize_t n = write(fd, piece, want);
        assert_true(n > 0);
        at += (size_t)n;
        len -= (size_t)n;
    }
}

struct typist {
    int fd;
    size_t len;
};

static void *type_all(void *opaque)
{
    const struct typist *t = opaque;

    type(t->fd, 0, t->len);
    return NULL;
}

static void expect_input(uint64_t at, size_t len)
{
    uint8_t *data = malloc(len);

    assert_int_equal(console_guest_receive(&f.guest, data, len, 10000), len);
    assert_true(is_stream(data, len, at));
    assert_int_equal(console_guest_receive(&f.guest, data, 1, 50), 0);
    free(data);
}

static void a_pasted_mebibyte_reaches_a_guest_that_takes_16_bytes_at_a_time(void **state)
{
    pthread_t thread;

    (void)state;
    start(CONSOLE_NONE);
    struct typist t = {.fd = attach(), .len = MIB};
    assert_int_equal(pthread_create(&thread, NULL, type_all, &t), 0);
    expect_input(0, MIB);
    pthread_join(thread, NULL);
    close(t.fd);
}

static void what_a_client_sent_before_it_hung_up_is_input(void **state)
{
    (void)state;
    start(CONSOLE_NONE);
    int fd = attach();
    type(fd, 0, 80000); /* more than the console's queue, which is full now */
    close(fd);
    expect_idle();                                      /* though the hang-up lasts */
    assert_true(console_guest_send(&f.guest, 2 * MIB)); /* and nobody reads the output */
    expect_input(0, 80000);
}

static void what_was_read_before_the_console_took_over_comes_first(void **state)
{
    uint8_t pending[100000]; /* more than the queue holds */

    (void)state;
    for (size_t i = 0; i < sizeof(pending); i++)
        pending[i] = console_guest_byte(i);
    start(CONSOLE_NONE);
    int fd = attach_with(pending, sizeof(pending));
    type(fd, sizeof(pending), 20000);
    expect_idle();
    expect_input(0, sizeof(pending) + 20000);
    close(fd);
}

static void input_that_is_there_before_the_device_is_kept_for_it(void **state)
{
    uint8_t data[3];

    (void)state;
    start(CONSOLE_NONE);
    console_set_device(f.console, &(struct console_device){0});
    int fd = attach_with("abc", 3);
    sleep_ms(20);
    console_guest_init(&f.guest, f.console);
    assert_int_equal(console_guest_receive(&f.guest, data, 3, 1000), 3);
    assert_memory_equal(data, "abc", 3);
    close(fd);
}

/* The slave of the console's pseudo-terminal, as a program on the host opens it. */
static int open_pty(int flags)
{
    const char *words = console_describe(f.console);

    assert_int_equal(strncmp(words, "pty /dev/pts/", 13), 0);
    int fd = open(words + 4, O_RDWR | O_NOCTTY | O_CLOEXEC | flags);
    assert_true(fd >= 0);
    return fd;
}

static void a_pty_with_nobody_attached_does_not_block_the_guest_for_ever(void **state)
{
    (void)state;
    start(CONSOLE_PTY);
    guest_sends(4 * MIB);
    guest_ends();
    expect_idle();
    int fd = open_pty(0);
    expect_stream_with_a_gap(fd, 4 * MIB);
    assert_true(console_guest_send(&f.guest, 20000));
    expect_stream(fd, 4 * MIB, 20000);
    close(fd);
}

static void a_slow_reader_of_a_pty_loses_nothing(void **state)
{
    (void)state;
    start(CONSOLE_PTY);
    int fd = open_pty(0);
    guest_sends(2 * MIB);
    for (unsigned i = 0; i < 16; i++) {
        sleep_ms(20);
        expect_stream(fd, i * 128 * KIB, 128 * KIB);
    }
    guest_ends();
    close(fd);
}

static void a_pty_is_raw_and_its_keys_reach_the_guest(void **state)
{
    uint8_t data[8];

    (void)state;
    start(CONSOLE_PTY);
    int fd = open_pty(0);
    assert_int_equal(write(fd, "ls\r\x01x\x03", 6), 6);
    assert_int_equal(console_guest_receive(&f.guest, data, 6, 5000), 6);
    assert_memory_equal(data, "ls\r\x01x\x03", 6); /* no escape key here */
    close(fd);
    fd = open_pty(0); /* one who leaves may come back */
    assert_int_equal(write(fd, "again", 5), 5);
    assert_int_equal(console_guest_receive(&f.guest, data, 5, 5000), 5);
    close(fd);
    expect_idle();
}

static void a_file_holds_all_output_once_the_console_is_gone(void **state)
{
    (void)state;
    assert_int_equal(truncate(f.path, 99), 0);
    start(CONSOLE_FILE);
    assert_string_equal(console_describe(f.console) + 5, f.path);
    assert_true(console_guest_send(&f.guest, 3 * MIB));
    finish();
    int fd = open(f.path, O_RDONLY | O_CLOEXEC);
    expect_stream(fd, 0, 3 * MIB);
    assert_int_equal(lseek(fd, 0, SEEK_END), 3 * MIB);
    close(fd);
}

static void destroying_flushes_though_the_loop_never_ran(void **state)
{
    const struct console_params params = {.kind = CONSOLE_FILE, .path = f.path};
    uint8_t data[5000];

    (void)state;
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = console_guest_byte(i);
    assert_int_equal(console_create(&params, f.loop, &f.console, &f.err), 0);
    assert_int_equal(console_write(f.console, data, sizeof(data)), sizeof(data));
    finish();
    int fd = open(f.path, O_RDONLY | O_CLOEXEC);
    expect_stream(fd, 0, sizeof(data));
    close(fd);
}

static void a_file_that_cannot_be_opened_is_named(void **state)
{
    struct console_params params = {.kind = CONSOLE_FILE, .path = "/nowhere/boot.log"};
    unsigned before = open_descriptors();

    (void)state;
    assert_int_equal(console_create(&params, f.loop, &f.console, &f.err), -ENOENT);
    assert_string_equal(f.err.msg, "console file '/nowhere/boot.log': No such file or directory");
    unlink(f.path);
    assert_int_equal(mkfifo(f.path, 0600), 0);
    params.path = f.path; /* without a reader it would wait for one for ever */
    assert_int_equal(console_create(&params, f.loop, &f.console, &f.err), -ENXIO);
    assert_null(f.console);
    assert_int_equal(open_descriptors(), before);
}

static void a_full_disk_stops_the_file_and_not_the_guest(void **state)
{
    (void)state;
    unlink(f.path);
    strcpy(f.path, "/dev/full");
    start(CONSOLE_FILE);
    assert_true(console_guest_send(&f.guest, 3 * MIB));
    int fd = attach();
    expect_stream(fd, 2 * MIB, MIB);
    close(fd);
    strcpy(f.path, "/nowhere"); /* teardown unlinks it */
}

static void no_descriptor_is_left_behind(void **state)
{
    static const enum console_kind kinds[] = {CONSOLE_NONE, CONSOLE_FILE, CONSOLE_PTY};

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        unsigned before = open_descriptors();

        start(kinds[i]);
        int fd = attach();
        assert_true(console_guest_send(&f.guest, 1000));
        expect_stream(fd, 0, 1000);
        finish();
        uint8_t byte;
        assert_int_equal(read(fd, &byte, 1), 0); /* the console closed its end */
        close(fd);
        assert_int_equal(open_descriptors(), before);
    }
    console_destroy(NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_client_gets_the_output_from_power_on),
        TEST(a_late_client_gets_the_last_mebibyte),
        TEST(several_clients_lose_nothing_and_the_slowest_sets_the_pace),
        TEST(a_client_that_stalls_holds_nobody_back_for_ever_and_is_told),
        TEST(a_client_that_vanishes_frees_the_guest_and_its_descriptor),
        TEST(a_pasted_mebibyte_reaches_a_guest_that_takes_16_bytes_at_a_time),
        TEST(what_a_client_sent_before_it_hung_up_is_input),
        TEST(what_was_read_before_the_console_took_over_comes_first),
        TEST(input_that_is_there_before_the_device_is_kept_for_it),
        TEST(a_pty_with_nobody_attached_does_not_block_the_guest_for_ever),
        TEST(a_slow_reader_of_a_pty_loses_nothing),
        TEST(a_pty_is_raw_and_its_keys_reach_the_guest),
        TEST(a_file_holds_all_output_once_the_console_is_gone),
        TEST(destroying_flushes_though_the_loop_never_ran),
        TEST(a_file_that_cannot_be_opened_is_named),
        TEST(a_full_disk_stops_the_file_and_not_the_guest),
        TEST(no_descriptor_is_left_behind),
    };
    return cmocka_run_group_tests_name("console", tests, NULL, NULL);
}
