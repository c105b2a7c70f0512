/* SPDX-License-Identifier: Apache-2.0 */
/* The control server before clients that send nonsense, too much, or never read. */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "control_bench.h"

static const struct {
    const char *line;
    int code;
    const char *words;
} no_requests[] = {
    {"garbage\n", -32700, "not JSON"},
    {"\x01\x02\xff\xfe\n", -32700, "not JSON"},
    {"{\"jsonrpc\":\"2.0\"\n", -32700, "not JSON"},
    {"{\"a\":1,\"a\":2}\n", -32700, "duplicate"},
    {"42\n", -32600, "an object"},
    {"\"vm.status\"\n", -32600, "an object"},
    {"[]\n", -32600, "batches are not served"},
    {"[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"vm.kill\"}]\n", -32600, "batches"},
    {"{}\n", -32600, "jsonrpc"},
    {"{\"jsonrpc\":2.0,\"id\":1,\"method\":\"vm.kill\"}\n", -32600, "must be"},
    {"{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"vm.kill\"}\n", -32600, "must be"},
    {"{\"jsonrpc\":\"2.0\",\"id\":1}\n", -32600, "method"},
    {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":7}\n", -32600, "method"},
    {"{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"vm.kill\"}\n", -32600, "id"},
    {"{\"jsonrpc\":\"2.0\",\"id\":true,\"method\":\"vm.kill\"}\n", -32600, "id"},
    {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"vm.puase\"}\n", -32601,
     "did you mean \\\"vm.pause\\\"?"},
    {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\"}\n", -32601, "rpc.methods lists them"},
    {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"vm.kill\",\"params\":{\"x\":1}}\n", -32602,
     "vm.kill takes no parameters"},
    {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"vm.kill\",\"params\":[]}\n", -32602,
     "no parameters"},
    {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"vm.kill\",\"params\":\"now\"}\n", -32602,
     "no parameters"},
    {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"vm.nets.link\"}\n", -32602,
     "vm.nets.link takes {"},
    {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"vm.nets.link\",\"params\":[\"net0\",true]}\n",
     -32602, "takes {"},
    {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"vm.nets.link\",\"params\":{\"id\":\"net0\"}}\n",
     -32602, "up"},
    {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"vm.nets.link\",\"params\":{\"id\":\"net0\",\"up\":"
     "1}}\n",
     -32602, "true or false"},
    {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"vm.nets.link\",\"params\":{\"id\":\"net0\",\"up\":"
     "true,"
     "\"x\":1}}\n",
     -32602, "takes {"},
};

static void what_is_no_request_is_answered_by_its_code(void **state)
{
    struct control_bench *f = *state;
    int fd = control_bench_dial(f);

    for (size_t i = 0; i < sizeof(no_requests) / sizeof(no_requests[0]); i++) {
        control_bench_say(fd, no_requests[i].line);
        control_bench_expect_error(control_bench_hear(fd), no_requests[i].code,
                                   no_requests[i].words);
    }
    control_bench_say(fd,
                      CONTROL_BENCH_STATUS); /* on the same connection, and nothing was killed */
    assert_non_null(strstr(control_bench_hear(fd), "\"state\":\"running\""));
    close(fd);
}

static void deep_nesting_is_a_parse_error(void **state)
{
    char line[60001];
    int fd = control_bench_dial(*state);

    memset(line, '[', sizeof(line) - 1);
    line[sizeof(line) - 2] = '\n';
    line[sizeof(line) - 1] = '\0';
    control_bench_say(fd, line);
    control_bench_expect_error(control_bench_hear(fd), -32700, "not JSON");
    close(fd);
}

static void a_megabyte_without_an_end_is_refused_and_hung_up(void **state)
{
    char *blob = malloc(1 << 20);
    int fd = control_bench_dial(*state);
    size_t sent = 0;

    memset(blob, 'x', 1 << 20);
    while (sent < 1 << 20) {
        ssize_t n = send(fd, blob + sent, (1 << 20) - sent, MSG_NOSIGNAL);
        if (n < 0)
            break;
        sent += (size_t)n;
    }
    free(blob);
    control_bench_expect_error(control_bench_hear(fd), -32600, "a line has at most 65536 bytes");
    assert_string_equal(control_bench_hear(fd), "");
    close(fd);
    control_bench_expect_service(*state);
}

static void the_longest_line_is_served(void **state)
{
    static const char head[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"vm.status\"";
    char *line = malloc(CONTROL_LINE_MAX + 1);
    int fd = control_bench_dial(*state);

    memset(line, ' ', CONTROL_LINE_MAX);
    memcpy(line, head, sizeof(head) - 1);
    memcpy(line + CONTROL_LINE_MAX - 2, "}\n", 3);
    control_bench_say(fd, line);
    assert_non_null(strstr(control_bench_hear(fd), "\"result\":"));
    free(line);
    close(fd);
}

static void half_a_line_and_gone_harms_nobody(void **state)
{
    for (size_t len = 0; len < sizeof(CONTROL_BENCH_STATUS) - 1; len++) {
        int fd = control_bench_dial(*state);

        assert_int_equal(send(fd, CONTROL_BENCH_STATUS, len, 0), len);
        close(fd);
    }
    /* and one that asks, but does not stay for the answer */
    for (unsigned i = 0; i < 50; i++) {
        int fd = control_bench_dial(*state);

        control_bench_say(fd, CONTROL_BENCH_STATUS);
        close(fd);
    }
    control_bench_expect_service(*state);
}

static void of_a_hundred_clients_the_first_32_are_served(void **state)
{
    enum { CLIENTS = 100 };
    int fds[CLIENTS];
    unsigned served = 0, refused = 0;

    for (unsigned i = 0; i < CLIENTS; i++) {
        fds[i] = control_bench_dial(*state);
        if (send(fds[i], CONTROL_BENCH_STATUS, strlen(CONTROL_BENCH_STATUS), MSG_NOSIGNAL) < 0)
            assert_int_equal(errno, EPIPE); /* refused already; the words are there */
        const char *line = control_bench_hear(fds[i]);
        served += strstr(line, "\"result\":") != NULL;
        refused += strstr(line, "too many clients (at most 32)") != NULL;
    }
    assert_int_equal(served, CONTROL_CLIENTS_MAX);
    assert_int_equal(refused, CLIENTS - CONTROL_CLIENTS_MAX);
    control_bench_say(fds[0], CONTROL_BENCH_STATUS);
    assert_non_null(strstr(control_bench_hear(fds[0]), "\"result\":"));
    for (unsigned i = 0; i < CLIENTS; i++)
        close(fds[i]);
    /* The server sees 32 hang up, in its own time. */
    for (unsigned i = 0; i < 100; i++) {
        int fd = control_bench_dial(*state);
        bool again =
            send(fd, CONTROL_BENCH_STATUS, strlen(CONTROL_BENCH_STATUS), MSG_NOSIGNAL) > 0 &&
            strstr(control_bench_hear(fd), "\"result\":") != NULL;
        close(fd);
        if (again)
            return;
        usleep(20000);
    }
    fail_msg("no client is served any more");
}

/* On the loop: one large event. */
static void post_event(void *opaque)
{
    struct control_bench *f = opaque;
    char detail[8192];

    memset(detail, 'x', sizeof(detail) - 1);
    detail[sizeof(detail) - 1] = '\0';
    control_server_event(f->server,
                         &(struct machine_news){.event = MACHINE_EVENT_CRASH, .detail = detail});
    atomic_fetch_add(&f->posted, 1);
}

static void a_subscriber_that_does_not_read_is_dropped(void **state)
{
    enum { EVENTS = 1000 }; /* 8 MiB, over what a socket and the queue hold */
    struct control_bench *f = *state;
    int slow = control_bench_dial(f), quick = control_bench_dial(f);
    char buf[65536];
    size_t got = 0;
    ssize_t n;

    control_bench_say(slow, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"events.subscribe\"}\n");
    assert_non_null(strstr(control_bench_hear(slow), "\"result\":"));
    for (unsigned i = 0; i < EVENTS; i++)
        assert_int_equal(loop_post(f->loop, post_event, f), 0);
    control_bench_say(quick, CONTROL_BENCH_STATUS);
    assert_non_null(strstr(control_bench_hear(quick), "\"result\":"));
    while (atomic_load(&f->posted) < EVENTS)
        usleep(1000);
    while ((n = recv(slow, buf, sizeof(buf), 0)) > 0)
        got += (size_t)n;
    assert_true(n == 0 || errno == ECONNRESET);
    assert_in_range(got, 1, 4 << 20);
    close(slow);
    close(quick);
    control_bench_expect_service(f);
}

static void a_client_that_asks_without_reading_waits_for_itself(void **state)
{
    struct control_bench *f = *state;
    int fd = control_bench_dial(f);
    static const char status[] = CONTROL_BENCH_STATUS;
    unsigned asked = 0;
    size_t part = 0;

    /* Ask until neither the server nor the socket takes more. */
    for (;;) {
        ssize_t n = send(fd, status + part, strlen(status) - part, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n > 0) {
            part += (size_t)n;
            if (part == strlen(status)) {
                part = 0;
                asked++;
            }
            continue;
        }
        assert_int_equal(errno, EAGAIN);
        struct pollfd p = {.fd = fd, .events = POLLOUT};
        if (poll(&p, 1, 300) == 0)
            break;
    }
    control_bench_expect_service(f);
    for (unsigned i = 0; i < asked; i++)
        if (!strstr(control_bench_hear(fd), "\"result\":"))
            fail_msg("answer %u of %u is missing", i, asked);
    control_bench_say(fd, status + part);
    assert_non_null(strstr(control_bench_hear(fd), "\"result\":"));
    close(fd);
}

#define TEST(name) \
    cmocka_unit_test_setup_teardown(name, control_bench_setup, control_bench_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_is_no_request_is_answered_by_its_code),
        TEST(deep_nesting_is_a_parse_error),
        TEST(a_megabyte_without_an_end_is_refused_and_hung_up),
        TEST(the_longest_line_is_served),
        TEST(half_a_line_and_gone_harms_nobody),
        TEST(of_a_hundred_clients_the_first_32_are_served),
        TEST(a_subscriber_that_does_not_read_is_dropped),
        TEST(a_client_that_asks_without_reading_waits_for_itself),
    };
    return cmocka_run_group_tests_name("control server, hostile clients", tests, NULL, NULL);
}
