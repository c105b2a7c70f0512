/* SPDX-License-Identifier: Apache-2.0 */
/* channel: bytes between two hosts, and what can go wrong with that. Plain TCP. */
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "channel_pair.h"
#include "vmrun/thread.h"

#define MIB ((uint64_t)1 << 20)

static const struct channel_security plain;
static struct channel_pair pair;

static int setup(void **state)
{
    (void)state;
    channel_pair_open(&pair, &plain, &plain);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    channel_pair_close(&pair);
    return 0;
}

/* What the thing returns for the url, with the words that its message has to have. */
static void refused(const struct channel_security *security, const char *url, int code,
                    const char *words)
{
    struct channel_listener *listener = NULL;
    struct channel *channel = NULL;
    struct error err = {.msg = ""};

    assert_int_equal(channel_listen(security, url, &listener, &err), -code);
    assert_non_null(strstr(err.msg, words));
    assert_int_equal(err.code, code);
    assert_null(listener);
    memset(&err, 0, sizeof(err));
    assert_int_equal(channel_connect(security, url, 1000, &channel, &err), -code);
    assert_non_null(strstr(err.msg, words));
    assert_null(channel);
}

static void what_is_sent_arrives_whatever_the_parts(void **state)
{
    struct iovec out[4] = {{NULL, 0}, {(void *)"01234", 5}, {(void *)"", 0}, {(void *)"56789", 5}};
    char got[11] = "";
    struct iovec in[4] = {{got, 3}, {NULL, 0}, {got + 3, 7}, {NULL, 0}};
    struct error err;

    (void)state;
    channel_ok(channel_send(pair.near, out, 4, &err), &err);
    assert_true(channel_readable(pair.far, PAIR_WAIT_MS));
    channel_ok(channel_recv(pair.far, in, 4, &err), &err);
    assert_string_equal(got, "0123456789");
    assert_int_equal(channel_sent_bytes(pair.near), 10);
    assert_int_equal(channel_received_bytes(pair.far), 10);
    assert_int_equal(channel_sent_bytes(pair.far), 0);
    assert_false(channel_readable(pair.far, 0));
}

static void nothing_at_all_can_be_sent_and_received(void **state)
{
    struct iovec none = {NULL, 0};
    struct error err;

    (void)state;
    channel_ok(channel_send(pair.near, NULL, 0, &err), &err);
    channel_ok(channel_send(pair.near, &none, 1, &err), &err);
    channel_ok(channel_recv(pair.far, NULL, 0, &err), &err);
    channel_ok(channel_recv(pair.far, &none, 1, &err), &err);
    assert_false(channel_readable(pair.far, 0));
}

static void more_parts_than_a_system_call_takes_arrive(void **state)
{
    static uint8_t sent[5000], got[5000];
    struct iovec out[2500], in[5000];
    struct error err;

    (void)state;
    for (unsigned i = 0; i < 5000; i++) {
        sent[i] = (uint8_t)(i * 7 >> 3);
        out[i / 2] = (struct iovec){&sent[i / 2 * 2], 2};
        in[i] = (struct iovec){&got[i], 1};
    }
    channel_ok(channel_send(pair.near, out, 2500, &err), &err);
    channel_ok(channel_recv(pair.far, in, 5000, &err), &err);
    assert_memory_equal(sent, got, sizeof(sent));
}

static void sixteen_mebibytes_go_both_ways_at_once(void **state)
{
    struct flow flows[4] = {{.channel = pair.near, .out = true, .seed = 1},
                            {.channel = pair.far, .seed = 1},
                            {.channel = pair.far, .out = true, .seed = 2},
                            {.channel = pair.near, .seed = 2}};

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        flows[i].bytes = 16 * MIB;
        flow_start(&flows[i]);
    }
    for (unsigned i = 0; i < 4; i++)
        flow_finish(&flows[i]);
    assert_int_equal(channel_sent_bytes(pair.near), 16 * MIB);
    assert_int_equal(channel_received_bytes(pair.near), 16 * MIB);
}

static void nothing_that_comes_is_a_timeout_and_what_comes_later_is_received(void **state)
{
    uint64_t start = channel_pair_now_ms();
    char byte;
    struct iovec in = {&byte, 1};
    struct error err;

    (void)state;
    channel_set_timeout(pair.far, 200);
    assert_int_equal(channel_recv(pair.far, &in, 1, &err), -ETIMEDOUT);
    assert_non_null(strstr(err.msg, "nothing came for 0.2 s"));
    assert_true(channel_pair_now_ms() - start >= 200);
    channel_ok(channel_send_text(pair.near, "late", &err), &err);
    channel_expect_text(pair.far, "late");
}

static void a_message_that_stops_half_way_spoils_what_follows_in_its_direction_only(void **state)
{
    char bytes[10];
    struct iovec in = {bytes, 10};
    struct error err;

    (void)state;
    channel_set_timeout(pair.far, 100);
    channel_ok(channel_send_text(pair.near, "01234", &err), &err);
    assert_int_equal(channel_recv(pair.far, &in, 1, &err), -ETIMEDOUT);
    channel_ok(channel_send_text(pair.near, "5678901234", &err), &err);
    assert_int_equal(channel_recv(pair.far, &in, 1, &err), -ETIMEDOUT);
    channel_ok(channel_send_text(pair.far, "and back", &err), &err);
    channel_expect_text(pair.near, "and back");
}

static void who_takes_nothing_is_a_timeout(void **state)
{
    struct iovec out = {calloc(1, 64 * MIB), 64 * MIB};
    struct error err;

    (void)state;
    assert_non_null(out.iov_base);
    channel_set_timeout(pair.near, 200);
    assert_int_equal(channel_send(pair.near, &out, 1, &err), -ETIMEDOUT);
    assert_non_null(strstr(err.msg, "nothing was taken for 0.2 s"));
    assert_int_equal(channel_send(pair.near, &out, 1, &err), -ETIMEDOUT);
    free(out.iov_base);
}

static void who_is_slow_but_goes_on_is_no_timeout(void **state)
{
    struct error err;

    (void)state;
    channel_set_timeout(pair.far, 400);
    for (unsigned i = 0; i < 5; i++) {
        char bytes[10];
        struct iovec in = {bytes, sizeof(bytes)};

        channel_ok(channel_send_text(pair.near, "01234", &err), &err);
        channel_pair_rest(150);
        channel_ok(channel_send_text(pair.near, "56789", &err), &err);
        channel_ok(channel_recv(pair.far, &in, 1, &err), &err);
    }
    assert_int_equal(channel_received_bytes(pair.far), 50);
}

static void *interrupt_soon(void *opaque)
{
    channel_pair_rest(100);
    channel_interrupt(opaque);
    channel_interrupt(opaque);
    return NULL;
}

static void interrupted(struct channel *channel, bool out, uint64_t bytes)
{
    struct iovec iov = {calloc(1, bytes), bytes};
    uint64_t start = channel_pair_now_ms();
    pthread_t thread;
    struct error err;

    assert_non_null(iov.iov_base);
    channel_set_timeout(channel, -1);
    channel_ok(thread_start(&thread, "interrupt", 0, interrupt_soon, channel, &err), &err);
    assert_int_equal(out ? channel_send(channel, &iov, 1, &err)
                         : channel_recv(channel, &iov, 1, &err),
                     -ECANCELED);
    assert_in_range(channel_pair_now_ms() - start, 90, 10000);
    pthread_join(thread, NULL);
    assert_int_equal(channel_recv(channel, &iov, 1, &err), -ECANCELED);
    assert_int_equal(channel_send(channel, &iov, 1, &err), -ECANCELED);
    assert_true(channel_readable(channel, -1));
    free(iov.iov_base);
}

static void an_interrupt_reaches_who_receives(void **state)
{
    (void)state;
    interrupted(pair.near, false, 1);
}

static void an_interrupt_reaches_who_sends(void **state)
{
    (void)state;
    interrupted(pair.near, true, 64 * MIB);
}

static void an_interrupt_reaches_who_waits_for_the_limit(void **state)
{
    struct channel_limit *limit;
    struct error err;

    (void)state;
    channel_ok(channel_limit_create(1, &limit, &err), &err);
    channel_set_limit(pair.near, limit);
    interrupted(pair.near, true, 1000);
    channel_limit_destroy(limit);
}

static void who_went_is_noticed_by_who_receives_and_by_who_sends(void **state)
{
    char byte;
    struct iovec iov = {&byte, 1};
    struct error err;
    int r = 0;

    (void)state;
    channel_destroy(pair.far);
    pair.far = NULL;
    assert_true(channel_readable(pair.near, PAIR_WAIT_MS));
    assert_int_equal(channel_recv(pair.near, &iov, 1, &err), -EPIPE);
    assert_non_null(strstr(err.msg, "the other side closed the connection"));
    for (unsigned i = 0; i < 100 && r == 0; i++, channel_pair_rest(1))
        r = channel_send_text(pair.near, "?", &err);
    assert_true(r == -EPIPE || r == -ECONNRESET);
}

static void the_last_words_of_who_went_can_still_be_received(void **state)
{
    struct iovec out = {calloc(1, 64 * MIB), 64 * MIB};
    struct error err;
    int r;

    (void)state;
    assert_non_null(out.iov_base);
    channel_set_timeout(pair.near, 100); /* it leaves unread bytes behind: that is a reset */
    assert_int_equal(channel_send(pair.near, &out, 1, &err), -ETIMEDOUT);
    channel_ok(channel_send_text(pair.far, "refused: no such disk", &err), &err);
    channel_destroy(pair.far);
    pair.far = NULL;
    r = channel_send(pair.near, &out, 1, &err);
    assert_true(r < 0);
    channel_expect_text(pair.near, "refused: no such disk");
    free(out.iov_base);
}

static int raw_connection(const char *url)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                             .sin_port = htons((uint16_t)atoi(strrchr(url, ':') + 1))};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    return fd;
}

static void *take_slowly(void *opaque)
{
    char bytes[16 << 10];

    while (recv(*(int *)opaque, bytes, sizeof(bytes), 0) > 0)
        channel_pair_rest(20);
    return NULL;
}

/* A third of a full socket is more than is taken in a second, and it is not to be waited for. */
static void who_takes_little_at_a_time_is_no_timeout(void **state)
{
    int fd = raw_connection(channel_listener_url(pair.listener));
    struct iovec out = {calloc(5, MIB), 5 * MIB};
    struct channel *channel;
    struct error err;
    pthread_t taker;

    (void)state;
    assert_non_null(out.iov_base);
    channel_ok(channel_accept(pair.listener, PAIR_WAIT_MS, &channel, &err), &err);
    channel_set_timeout(channel, 1000);
    assert_int_equal(thread_start(&taker, "taker", 0, take_slowly, &fd, &err), 0);
    int result = channel_send(channel, &out, 1, &err);
    assert_int_equal(shutdown(fd, SHUT_RDWR), 0);
    pthread_join(taker, NULL);
    channel_destroy(channel);
    close(fd);
    free(out.iov_base);
    channel_ok(result, &err);
}

/* Nor is one who takes ever less, until somebody has waited long enough. */
static void patience_ends_for_who_takes_little_at_a_time(void **state)
{
    int fd = raw_connection(channel_listener_url(pair.listener));
    struct iovec out = {calloc(64, MIB), 64 * MIB};
    struct channel *channel;
    struct error err;
    pthread_t taker;
    uint64_t start;

    (void)state;
    assert_non_null(out.iov_base);
    channel_ok(channel_accept(pair.listener, PAIR_WAIT_MS, &channel, &err), &err);
    start = channel_pair_now_ms();
    channel_set_patience(channel, 3000); /* some 2 MiB, besides what the kernel takes */
    assert_int_equal(thread_start(&taker, "taker", 0, take_slowly, &fd, &err), 0);
    assert_int_equal(channel_send(channel, &out, 1, &err), -ETIMEDOUT);
    assert_non_null(strstr(err.msg, "it did not all go in time"));
    assert_in_range(channel_pair_now_ms() - start, 3000, 10000);
    assert_int_equal(shutdown(fd, SHUT_RDWR), 0);
    pthread_join(taker, NULL);
    channel_destroy(channel);
    close(fd);
    free(out.iov_base);
}

static void a_reset_is_told(void **state)
{
    int fd = raw_connection(channel_listener_url(pair.listener));
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    struct channel *channel;
    char byte;
    struct iovec in = {&byte, 1};
    struct error err;

    (void)state;
    channel_ok(channel_accept(pair.listener, PAIR_WAIT_MS, &channel, &err), &err);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)), 0);
    close(fd);
    assert_int_equal(channel_recv(channel, &in, 1, &err), -ECONNRESET);
    assert_non_null(strstr(err.msg, "the other side cut the connection"));
    channel_destroy(channel);
}

static void nobody_who_connects_is_a_timeout(void **state)
{
    struct channel *channel = NULL;
    struct error err;

    (void)state;
    assert_int_equal(channel_accept(pair.listener, 0, &channel, &err), -ETIMEDOUT);
    assert_int_equal(channel_accept(pair.listener, 100, &channel, &err), -ETIMEDOUT);
    assert_null(channel);
}

static void a_listener_can_be_polled(void **state)
{
    struct pollfd waiting = {.fd = channel_listener_fd(pair.listener), .events = POLLIN};
    struct channel *channel;
    struct error err;
    int fd;

    (void)state;
    assert_int_equal(poll(&waiting, 1, 0), 0);
    fd = raw_connection(channel_listener_url(pair.listener));
    assert_int_equal(poll(&waiting, 1, PAIR_WAIT_MS), 1);
    channel_ok(channel_accept(pair.listener, 0, &channel, &err), &err);
    assert_int_equal(poll(&waiting, 1, 0), 0);
    channel_destroy(channel);
    close(fd);
}

static void where_nobody_listens_is_refused(void **state)
{
    struct channel *channel = NULL;
    struct error err;
    char url[64];

    (void)state;
    snprintf(url, sizeof(url), "%s", channel_listener_url(pair.listener));
    channel_listener_destroy(pair.listener);
    pair.listener = NULL;
    assert_int_equal(channel_connect(&plain, url, 1000, &channel, &err), -ECONNREFUSED);
    assert_non_null(strstr(err.msg, url));
    assert_null(channel);
}

static void a_port_that_is_taken_is_refused(void **state)
{
    struct channel_listener *listener = NULL;
    struct error err;

    (void)state;
    assert_int_equal(channel_listen(&plain, channel_listener_url(pair.listener), &listener, &err),
                     -EADDRINUSE);
    assert_non_null(strstr(err.msg, channel_listener_url(pair.listener)));
}

static void a_port_can_be_listened_on_again_at_once(void **state)
{
    struct error err;
    char url[64];

    (void)state;
    snprintf(url, sizeof(url), "%s", channel_listener_url(pair.listener));
    channel_pair_close(&pair);
    channel_ok(channel_listen(&plain, url, &pair.listener, &err), &err);
    assert_string_equal(channel_listener_url(pair.listener), url);
}

static void ipv6_and_names_work(void **state)
{
    static const char *const urls[] = {"tcp://localhost:0", "tcp://127.1.2.3:0", "tcp://[::1]:0",
                                       "tcp://[::ffff:127.0.0.1]:0"};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    bool has_v6 = fd >= 0 && bind(fd, (struct sockaddr *)&v6, sizeof(v6)) == 0;
    struct error err;

    (void)state;
    if (fd >= 0)
        close(fd);
    if (!has_v6)
        print_message("skipped in part: this host has no IPv6\n");
    for (unsigned i = 0; (has_v6 || i < 2) && i < sizeof(urls) / sizeof(urls[0]); i++) {
        struct channel_pair other;

        channel_pair_try(&other, &plain, &plain, urls[i]);
        channel_ok(other.near_result, &other.near_err);
        channel_ok(other.far_result, &other.far_err);
        channel_ok(channel_send_text(other.far, "hello", &err), &err);
        channel_expect_text(other.near, "hello");
        channel_pair_close(&other);
    }
}

static void a_url_of_another_form_is_refused(void **state)
{
    static const char *const wrong[][2] = {
        {"", "tcp://HOST:PORT or tcp://[IPV6]:PORT is expected"},
        {"localhost:4711", "does not begin with tcp://"},
        {"TCP://localhost:4711", "does not begin with tcp://"},
        {"unix:///tmp/x", "does not begin with tcp://"},
        {"tcp:/localhost:4711", "does not begin with tcp://"},
        {"tcp://", "names no host"},
        {"tcp://:4711", "names no host"},
        {"tcp://[]:4711", "names no host"},
        {"tcp://localhost", "names no port"},
        {"tcp://[::1]", "names no port"},
        {"tcp://[::1]4711", "names no port"},
        {"tcp://[::1", "the [ is never closed"},
        {"tcp://::1:4711", "stands between [ and ]"},
        {"tcp://::1]:4711", "stands between [ and ]"},
        {"tcp://localhost:", "the port is to be a number up to 65535"},
        {"tcp://localhost:http", "the port"},
        {"tcp://localhost:-1", "the port"},
        {"tcp://localhost:+1", "the port"},
        {"tcp://localhost: 1", "the port"},
        {"tcp://localhost:0x10", "the port"},
        {"tcp://localhost:65536", "the port"},
        {"tcp://localhost:99999999999999999999", "the port"},
        {"tcp://localhost:4711/", "the port"},
        {"tcp://localhost:4711?x=y", "the port"},
        {"tcp://root@localhost:4711", "no host has such a name"},
        {"tcp://local host:4711", "no host has such a name"},
        {"tcp://local\nhost:4711", "no host has such a name"},
        {"tcp://[::1/64]:4711", "no host has such a name"},
        {"tcp://[1:2]:4711", "no IPv6 address"},
        {"tcp://[localhost]:4711", "no IPv6 address"},
        {"tcp://[127.0.0.1]:4711", "no IPv6 address"},
    };
    char longest[1200];

    (void)state;
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        refused(&plain, wrong[i][0], EINVAL, wrong[i][1]);
    snprintf(longest, sizeof(longest), "tcp://%01100d:1", 0);
    refused(&plain, longest, EINVAL, "the host's name is too long");
    refused(&plain, "tcp://no..such..host:1", EHOSTUNREACH, "no..such..host");
}

static void a_port_of_zero_is_nowhere_to_connect_to(void **state)
{
    struct channel *channel = NULL;
    struct error err;

    (void)state;
    assert_int_equal(channel_connect(&plain, "tcp://localhost:0", 1000, &channel, &err), -EINVAL);
    assert_non_null(strstr(err.msg, "port"));
}

static void other_hosts_are_refused_without_tls(void **state)
{
    static const char *const others[] = {"tcp://0.0.0.0:4711",     "tcp://[::]:4711",
                                         "tcp://192.0.2.1:4711",   "tcp://[2001:db8::1]:4711",
                                         "tcp://128.0.0.1:4711",   "tcp://[::ffff:192.0.2.1]:4711",
                                         "tcp://[fe80::1%lo]:4711"};

    (void)state;
    for (unsigned i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        refused(&plain, others[i], EPERM, "--tls-psk");
    refused(&plain, others[0], EPERM, "--insecure");
}

static void other_hosts_are_welcome_to_who_says_insecure(void **state)
{
    const struct channel_security insecure = {.insecure = true};
    struct channel_pair other;

    (void)state;
    channel_pair_try(&other, &insecure, &insecure, "tcp://0.0.0.0:0");
    channel_ok(other.near_result, &other.near_err);
    channel_ok(other.far_result, &other.far_err);
    channel_pair_close(&other);
}

static void a_host_that_does_not_answer_is_a_timeout(void **state)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(at);
    struct channel *channel = NULL;
    struct error err;
    uint64_t start;
    int fds[8], listener = socket(AF_INET, SOCK_STREAM, 0);
    char url[64];

    (void)state;
    /* A queue that nobody takes from: when it is full the kernel drops who comes next. */
    assert_int_equal(bind(listener, (struct sockaddr *)&at, len), 0);
    assert_int_equal(listen(listener, 0), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&at, &len), 0);
    snprintf(url, sizeof(url), "tcp://127.0.0.1:%u", ntohs(at.sin_port));
    for (unsigned i = 0; i < 8; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        (void)connect(fds[i], (struct sockaddr *)&at, len);
    }
    start = channel_pair_now_ms();
    assert_int_equal(channel_connect(&plain, url, 300, &channel, &err), -ETIMEDOUT);
    assert_in_range(channel_pair_now_ms() - start, 290, 10000);
    for (unsigned i = 0; i < 8; i++)
        close(fds[i]);
    close(listener);
}

int main(void)
{
#define ON_A_PAIR(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        ON_A_PAIR(what_is_sent_arrives_whatever_the_parts),
        ON_A_PAIR(nothing_at_all_can_be_sent_and_received),
        ON_A_PAIR(more_parts_than_a_system_call_takes_arrive),
        ON_A_PAIR(sixteen_mebibytes_go_both_ways_at_once),
        ON_A_PAIR(nothing_that_comes_is_a_timeout_and_what_comes_later_is_received),
        ON_A_PAIR(a_message_that_stops_half_way_spoils_what_follows_in_its_direction_only),
        ON_A_PAIR(who_takes_nothing_is_a_timeout),
        ON_A_PAIR(who_is_slow_but_goes_on_is_no_timeout),
        ON_A_PAIR(who_takes_little_at_a_time_is_no_timeout),
        ON_A_PAIR(patience_ends_for_who_takes_little_at_a_time),
        ON_A_PAIR(an_interrupt_reaches_who_receives),
        ON_A_PAIR(an_interrupt_reaches_who_sends),
        ON_A_PAIR(an_interrupt_reaches_who_waits_for_the_limit),
        ON_A_PAIR(who_went_is_noticed_by_who_receives_and_by_who_sends),
        ON_A_PAIR(the_last_words_of_who_went_can_still_be_received),
        ON_A_PAIR(a_reset_is_told),
        ON_A_PAIR(nobody_who_connects_is_a_timeout),
        ON_A_PAIR(a_listener_can_be_polled),
        ON_A_PAIR(where_nobody_listens_is_refused),
        ON_A_PAIR(a_port_that_is_taken_is_refused),
        ON_A_PAIR(a_port_can_be_listened_on_again_at_once),
        cmocka_unit_test(ipv6_and_names_work),
        cmocka_unit_test(a_url_of_another_form_is_refused),
        cmocka_unit_test(a_port_of_zero_is_nowhere_to_connect_to),
        cmocka_unit_test(other_hosts_are_refused_without_tls),
        cmocka_unit_test(other_hosts_are_welcome_to_who_says_insecure),
        cmocka_unit_test(a_host_that_does_not_answer_is_a_timeout),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
