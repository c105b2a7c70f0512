/* SPDX-License-Identifier: Apache-2.0 */
/* vsock: the socket file of a machine, its greetings, and programs that a guest calls. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "folder.h"
#include "vmrun/vsock.h"
#include "vsock_bench.h"

#define PATH BENCH_SOCKET

static struct vsock_host *open_host(void)
{
    struct vsock_host *host = NULL;
    struct error err = {.msg = ""};

    (void)vsock_host_open(PATH, &host, &err);
    assert_string_equal(err.msg, "");
    return host;
}

static void assert_refused(const char *path, int code, const char *words)
{
    struct vsock_host *host;
    struct error err = {.msg = ""};

    assert_int_equal(vsock_host_open(path, &host, &err), -code);
    if (!strstr(err.msg, words))
        fail_msg("\"%s\" does not say \"%s\"", err.msg, words);
}

static void the_file_is_its_owners_alone_and_goes(void **state)
{
    struct vsock_host *host = open_host();
    struct stat st;

    (void)state;
    assert_int_equal(stat(PATH, &st), 0);
    assert_true(S_ISSOCK(st.st_mode));
    assert_int_equal(st.st_mode & 0777, 0600);
    vsock_host_close(host);
    assert_int_equal(access(PATH, F_OK), -1);
}

static void a_file_that_a_dead_process_left_is_replaced(void **state)
{
    pid_t child = fork();

    (void)state;
    if (child == 0) {
        struct vsock_host *host = open_host();

        _exit(host ? 0 : 1);
    }
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_int_equal(access(PATH, F_OK), 0);
    vsock_host_close(open_host());
}

static void one_that_is_listened_at_is_refused_with_the_cure(void **state)
{
    struct vsock_host *host = open_host();

    (void)state;
    assert_refused(PATH, EADDRINUSE, "set vsock.socket to another path");
    vsock_host_close(host);
}

static void what_is_no_socket_is_left_alone(void **state)
{
    (void)state;
    folder_write("file", "text", 4);
    assert_refused("file", EEXIST, "in the way and not a socket; remove it");
    assert_int_equal(access("file", F_OK), 0);
}

static void a_path_that_cannot_be_is_refused(void **state)
{
    char path[120];

    (void)state;
    memset(path, 'a', sizeof(path));
    path[97] = '\0';
    assert_refused(path, ENAMETOOLONG, "at most 96 characters");
    assert_refused("none/" PATH, ENOENT, "its folder");
}

static void somebody_elses_file_is_not_removed(void **state)
{
    struct vsock_host *host = open_host(), *other;

    (void)state;
    unlink(PATH);
    other = open_host();
    vsock_host_close(host);
    assert_int_equal(access(PATH, F_OK), 0);
    vsock_host_close(other);
}

/* What becomes of a text; 1: the port. */
static int greeting_of(const char *text, uint32_t *ret_port)
{
    struct vsock_greeting greeting = {.len = 0};
    int pair[2], r;

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    vsock_bench_say(pair[1], text, strlen(text));
    r = vsock_read_greeting(pair[0], &greeting, ret_port);
    close(pair[0]);
    close(pair[1]);
    return r;
}

static void greetings_are_taken_by_their_letters(void **state)
{
    static const char *const wrong[] = {
        "HELLO 5\n",
        "CONNECT\n",
        "CONNECT \n",
        "CONNECT five\n",
        "CONNECT -1\n",
        "CONNECT 5 6\n",
        "CONNECT 4294967296\n",
        "\n",
        "CONNECT 000000000000000000000000000000005\n",
    };
    uint32_t port = 0;

    (void)state;
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        if (greeting_of(wrong[i], &port) != -EPROTO)
            fail_msg("%s was not refused", wrong[i]);
    assert_int_equal(greeting_of("CONNECT 52\n", &port), 1);
    assert_int_equal(port, 52);
    assert_int_equal(greeting_of("connect 4294967295\r\n", &port), 1);
    assert_int_equal(port, UINT32_MAX);
    assert_int_equal(greeting_of("CONNECT 5", &port), -EAGAIN);
}

static void who_waits_is_told_of_until_it_is_accepted(void **state)
{
    struct vsock_host *host = open_host();
    struct vsock_event event;
    int fd = vsock_bench_dial(PATH), stream;

    (void)state;
    assert_int_equal(vsock_host_wait(host, &event, 1), 1);
    assert_int_equal(vsock_host_wait(host, &event, 1), 1);
    assert_true(event.tag == VSOCK_LISTENER);
    vsock_host_listen(host, false);
    assert_int_equal(vsock_host_wait(host, &event, 1), 0);
    vsock_host_listen(host, true);
    stream = vsock_accept(host, 7);
    assert_true(stream >= 0);
    assert_int_equal(vsock_accept(host, 8), -EAGAIN);
    assert_int_equal(vsock_host_wait(host, &event, 1), 1);
    assert_int_equal(event.tag, 7);
    assert_true(event.writable);
    assert_false(event.hung_up);
    assert_int_equal(vsock_host_wait(host, &event, 1), 0); /* once for each change */
    close(fd);
    assert_int_equal(vsock_host_wait(host, &event, 1), 1);
    assert_true(event.hung_up);
    vsock_close(stream);
    vsock_host_close(host);
}

static void who_is_called_must_listen(void **state)
{
    struct vsock_host *host = open_host();
    int listener, stream;

    (void)state;
    assert_int_equal(vsock_dial(host, 77, 1), -ENOENT);
    listener = vsock_bench_listen(77);
    stream = vsock_dial(host, 77, 1);
    assert_true(stream >= 0);
    vsock_close(stream);
    close(listener);
    assert_int_equal(vsock_dial(host, 77, 1), -ECONNREFUSED);
    vsock_host_close(host);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_file_is_its_owners_alone_and_goes),
        cmocka_unit_test(a_file_that_a_dead_process_left_is_replaced),
        cmocka_unit_test(one_that_is_listened_at_is_refused_with_the_cure),
        cmocka_unit_test(what_is_no_socket_is_left_alone),
        cmocka_unit_test(a_path_that_cannot_be_is_refused),
        cmocka_unit_test(somebody_elses_file_is_not_removed),
        cmocka_unit_test(greetings_are_taken_by_their_letters),
        cmocka_unit_test(who_waits_is_told_of_until_it_is_accepted),
        cmocka_unit_test(who_is_called_must_listen),
    };

    return cmocka_run_group_tests_name("vsock", tests, folder_enter, folder_leave);
}
