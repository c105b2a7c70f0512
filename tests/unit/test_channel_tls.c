/* SPDX-License-Identifier: Apache-2.0 */
/* channel over TLS: who gets in, who does not and what he is told. Skipped without libgnutls. */
#include <dlfcn.h>
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
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "channel_pair.h"
#include "folder.h"
#include "vmrun/thread.h"

#define MIB ((uint64_t)1 << 20)
#define TLS_DATA VMRUN_TEST_DATA "/tls/"
#define KEY "00112233445566778899aabbccddeeff"

static const struct channel_security plain;
static const struct channel_security psk = {.psk = "psk"};
static const struct channel_security host = {
    .cert = TLS_DATA "host.pem", .key = "key.pem", .ca = TLS_DATA "ca.pem"};

static struct channel_pair pair;

static void write_secret(const char *path, const char *text)
{
    folder_write(path, text, strlen(text));
    assert_int_equal(chmod(path, 0600), 0);
}

/* The key's mode is not what a checkout keeps. */
static int enter(void **state)
{
    char key[4096];
    FILE *file = fopen(TLS_DATA "key.pem", "r");
    size_t len;

    if (!file || folder_enter(state) < 0)
        return -1;
    len = fread(key, 1, sizeof(key) - 1, file);
    fclose(file);
    key[len] = '\0';
    write_secret("key.pem", key);
    write_secret("psk", "vmrun:" KEY "\n");
    return 0;
}

static int pair_teardown(void **state)
{
    (void)state;
    channel_pair_close(&pair);
    return 0;
}

static uint64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void rest(unsigned ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L}, NULL);
}

static void carries(const struct channel_security *security)
{
    struct flow flows[4];
    struct error err;

    channel_pair_open(&pair, security, security);
    channel_ok(channel_send_text(pair.near, "there", &err), &err);
    channel_expect_text(pair.far, "there");
    channel_ok(channel_send_text(pair.far, "and back", &err), &err);
    channel_expect_text(pair.near, "and back");
    assert_false(channel_readable(pair.near, 0));
    for (unsigned i = 0; i < 4; i++) {
        flows[i] = (struct flow){.channel = i % 2 ? pair.far : pair.near,
                                 .out = i == 0 || i == 3,
                                 .bytes = 64 * MIB,
                                 .seed = i / 2};
        flow_start(&flows[i]);
    }
    for (unsigned i = 0; i < 4; i++)
        flow_finish(&flows[i]);
    assert_int_equal(channel_sent_bytes(pair.near), 64 * MIB + 5);
    assert_int_equal(channel_received_bytes(pair.near), 64 * MIB + 8);
}

static void a_shared_key_carries_64_mebibytes_both_ways(void **state)
{
    (void)state;
    carries(&psk);
}

static void certificates_carry_64_mebibytes_both_ways(void **state)
{
    (void)state;
    carries(&host);
}

static void the_certificate_is_checked_for_a_name_as_well(void **state)
{
    (void)state;
    channel_pair_try(&pair, &host, &host, "tcp://localhost:0");
    channel_ok(pair.near_result, &pair.near_err);
    channel_ok(pair.far_result, &pair.far_err);
}

struct to {
    const struct channel_security *security;
    const char *url;
    unsigned after_ms;
};

static void *connect_to_url(void *opaque)
{
    struct to *to = opaque;

    rest(to->after_ms);
    pair.near_result =
        channel_connect(to->security, to->url, PAIR_WAIT_MS, &pair.near, &pair.near_err);
    return NULL;
}

/* Somebody with the key comes by and is let in. */
static void a_friend_gets_in(void)
{
    struct to to = {&psk, channel_listener_url(pair.listener), 100};
    pthread_t thread;
    struct error err;

    channel_ok(thread_start(&thread, "connect", 0, connect_to_url, &to, &err), &err);
    channel_ok(channel_accept(pair.listener, PAIR_WAIT_MS, &pair.far, &err), &err);
    pthread_join(thread, NULL);
    channel_ok(pair.near_result, &pair.near_err);
    channel_ok(channel_send_text(pair.near, "hello", &err), &err);
    channel_expect_text(pair.far, "hello");
}

/* A wire between two sockets, and whether the text went over it. */
struct tap {
    int near, far;
    char seen[1 << 16];
    size_t len;
};

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

static void *relay(void *opaque)
{
    struct tap *tap = opaque;
    struct pollfd fds[2] = {{.events = POLLIN}, {.fd = tap->far, .events = POLLIN}};

    tap->near = accept(tap->near, NULL, NULL);
    fds[0].fd = tap->near;
    while (poll(fds, 2, PAIR_WAIT_MS) > 0)
        for (unsigned i = 0; i < 2; i++) {
            char *at = tap->seen + tap->len;
            ssize_t n = 0;

            if (!fds[i].revents)
                continue;
            n = recv(fds[i].fd, at, sizeof(tap->seen) - tap->len, 0);
            if (n <= 0 || send(fds[!i].fd, at, (size_t)n, MSG_NOSIGNAL) != n)
                return NULL;
            tap->len += (size_t)n;
        }
    return NULL;
}

static void through_a_tap(const struct channel_security *security, bool readable)
{
    static const char secret[] = "what the guest's memory holds";
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    static struct tap tap;
    socklen_t len = sizeof(at);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    pthread_t thread, other;
    struct error err;
    static char url[64];

    assert_int_equal(bind(fd, (struct sockaddr *)&at, len), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &len), 0);
    snprintf(url, sizeof(url), "tcp://127.0.0.1:%u", ntohs(at.sin_port));
    channel_ok(channel_listen(security, "tcp://127.0.0.1:0", &pair.listener, &err), &err);
    tap = (struct tap){.near = fd, .far = raw_connection(channel_listener_url(pair.listener))};
    channel_ok(thread_start(&thread, "tap", 0, relay, &tap, &err), &err);
    channel_ok(thread_start(&other, "connect", 0, connect_to_url,
                            &(struct to){.security = security, .url = url}, &err),
               &err);
    channel_ok(channel_accept(pair.listener, PAIR_WAIT_MS, &pair.far, &err), &err);
    pthread_join(other, NULL);
    channel_ok(pair.near_result, &pair.near_err);
    channel_ok(channel_send_text(pair.near, secret, &err), &err);
    channel_expect_text(pair.far, secret);
    channel_destroy(pair.near);
    pair.near = NULL;
    pthread_join(thread, NULL);
    assert_int_equal(memmem(tap.seen, tap.len, secret, strlen(secret)) != NULL, readable);
    close(tap.near);
    close(tap.far);
    close(fd);
    channel_pair_close(&pair);
}

static void what_is_sent_cannot_be_read_on_the_wire(void **state)
{
    (void)state;
    through_a_tap(&plain, true); /* a tap that works */
    through_a_tap(&psk, false);
    through_a_tap(&host, false);
}

/* Neither side gets a channel; both are told. "": the words do not matter. */
static void kept_out(const struct channel_security *near, const struct channel_security *far,
                     const char *near_words, const char *far_words)
{
    channel_pair_try(&pair, near, far, "tcp://127.0.0.1:0");
    assert_int_equal(pair.near_result, -EPROTO);
    assert_int_equal(pair.far_result, -EPROTO);
    assert_non_null(strstr(pair.near_err.msg, near_words));
    assert_non_null(strstr(pair.near_err.msg, channel_listener_url(pair.listener)));
    assert_non_null(strstr(pair.far_err.msg, far_words));
    assert_non_null(strstr(pair.far_err.msg, "tcp://127.0.0.1:"));
}

static void another_key_is_kept_out(void **state)
{
    const struct channel_security other = {.psk = "other-key"};

    (void)state;
    write_secret("other-key", "vmrun:00112233445566778899aabbccddeefe\n");
    kept_out(&other, &psk, "the same --tls-psk?", "the same --tls-psk?");
}

static void another_identity_is_kept_out(void **state)
{
    const struct channel_security other = {.psk = "other-name"};

    (void)state;
    write_secret("other-name", "vmrum:" KEY "\n");
    kept_out(&other, &psk, "the same --tls-psk?", "another identity");
}

static void a_key_does_not_open_what_certificates_lock_nor_the_other_way_round(void **state)
{
    (void)state;
    kept_out(&psk, &host, "", "");
    channel_pair_close(&pair);
    kept_out(&host, &psk, "", "");
}

static struct channel_security with_cert(const char *cert)
{
    struct channel_security s = host;

    s.cert = cert;
    return s;
}

static void another_authority_is_kept_out(void **state)
{
    struct channel_security stranger = with_cert(TLS_DATA "stranger.pem");

    (void)state;
    /* It trusts our authority, so only we can refuse it ... */
    kept_out(&stranger, &host, "refused", "not signed by --tls-ca");
    channel_pair_close(&pair);
    kept_out(&host, &stranger, "not signed by --tls-ca", "refused");
    channel_pair_close(&pair);
    /* ... and here it does not trust ours. */
    stranger.ca = TLS_DATA "other-ca.pem";
    kept_out(&stranger, &host, "not signed by --tls-ca", "");
}

static void an_expired_certificate_is_kept_out(void **state)
{
    struct channel_security expired = with_cert(TLS_DATA "expired.pem");

    (void)state;
    kept_out(&expired, &host, "refused", "expired");
    channel_pair_close(&pair);
    kept_out(&host, &expired, "expired", "refused");
}

static void a_host_of_another_name_is_not_spoken_to(void **state)
{
    struct channel_security elsewhere = with_cert(TLS_DATA "elsewhere.pem");

    (void)state;
    kept_out(&host, &elsewhere, "does not name '127.0.0.1'", "refused");
    channel_pair_close(&pair);
    /* The name of who connects is not known: the authority vouches for it. */
    channel_pair_open(&pair, &elsewhere, &host);
}

static void a_certificate_for_servers_does_not_connect(void **state)
{
    struct channel_security server = with_cert(TLS_DATA "web-server.pem");

    (void)state;
    kept_out(&server, &host, "refused", "is not for TLS clients");
    channel_pair_close(&pair);
    channel_pair_open(&pair, &host, &server);
}

static void who_speaks_no_tls_is_sent_away(void **state)
{
    char bytes[64];
    struct iovec in = {bytes, sizeof(bytes)};
    struct channel *stranger = NULL, *channel = NULL;
    struct error err;

    (void)state;
    channel_ok(channel_listen(&psk, "tcp://127.0.0.1:0", &pair.listener, &err), &err);
    channel_ok(
        channel_connect(&plain, channel_listener_url(pair.listener), PAIR_WAIT_MS, &stranger, &err),
        &err);
    channel_ok(channel_send_text(stranger, "mv, and whatever is in a frame's header", &err), &err);
    assert_int_equal(channel_accept(pair.listener, PAIR_WAIT_MS, &channel, &err), -EPROTO);
    assert_null(channel);
    assert_true(channel_recv(stranger, &in, 1, &err) < 0);
    channel_destroy(stranger);
}

static void a_listener_without_tls_is_noticed(void **state)
{
    struct channel *channel = NULL;
    struct error err;

    (void)state;
    channel_ok(channel_listen(&plain, "tcp://127.0.0.1:0", &pair.listener, &err), &err);
    assert_int_equal(
        channel_connect(&psk, channel_listener_url(pair.listener), 300, &channel, &err),
        -ETIMEDOUT);
    assert_non_null(strstr(err.msg, "does the other side use it?"));
}

static void silent_strangers_keep_nobody_waiting(void **state)
{
    int fds[40];
    uint64_t start = now_ms();
    struct error err;

    (void)state;
    channel_ok(channel_listen(&psk, "tcp://127.0.0.1:0", &pair.listener, &err), &err);
    for (unsigned i = 0; i < 40; i++)
        fds[i] = raw_connection(channel_listener_url(pair.listener));
    a_friend_gets_in();
    assert_true(now_ms() - start < 8000);
    for (unsigned i = 0; i < 40; i++)
        close(fds[i]);
}

static void a_silent_stranger_is_sent_away_in_the_end(void **state)
{
    struct channel *channel = NULL;
    uint64_t start = now_ms();
    struct error err;
    char byte;
    int fd;

    (void)state;
    channel_ok(channel_listen(&psk, "tcp://127.0.0.1:0", &pair.listener, &err), &err);
    fd = raw_connection(channel_listener_url(pair.listener));
    assert_int_equal(channel_accept(pair.listener, 200, &channel, &err), -ETIMEDOUT);
    assert_int_equal(channel_accept(pair.listener, 60000, &channel, &err), -EPROTO);
    assert_non_null(strstr(err.msg, "no TLS handshake within 10 s"));
    assert_in_range(now_ms() - start, 9900, 15000);
    assert_true(recv(fd, &byte, 1, 0) <= 0);
    close(fd);
}

static void a_stranger_who_goes_again_ends_nothing(void **state)
{
    struct channel *channel = NULL;
    struct error err;

    (void)state;
    channel_ok(channel_listen(&psk, "tcp://127.0.0.1:0", &pair.listener, &err), &err);
    close(raw_connection(channel_listener_url(pair.listener)));
    assert_int_equal(channel_accept(pair.listener, PAIR_WAIT_MS, &channel, &err), -EPROTO);
    assert_non_null(strstr(err.msg, "hung up"));
    a_friend_gets_in();
}

static void who_went_is_noticed_and_his_last_words_are_heard(void **state)
{
    char byte;
    struct iovec in = {&byte, 1};
    struct error err;
    int r = 0;

    (void)state;
    channel_pair_open(&pair, &psk, &psk);
    channel_ok(channel_send_text(pair.far, "refused", &err), &err);
    channel_destroy(pair.far);
    pair.far = NULL;
    for (unsigned i = 0; i < 1000 && r == 0; i++, rest(1))
        r = channel_send_text(pair.near, "page", &err);
    assert_true(r == -EPIPE || r == -ECONNRESET);
    channel_expect_text(pair.near, "refused");
    r = channel_recv(pair.near, &in, 1, &err);
    assert_true(r == -EPIPE || r == -ECONNRESET);
}

static void timeouts_and_interrupts_work(void **state)
{
    struct iovec much = {calloc(1, 64 * MIB), 64 * MIB};
    struct error err;

    (void)state;
    assert_non_null(much.iov_base);
    channel_pair_open(&pair, &psk, &psk);
    channel_set_timeout(pair.far, 100);
    assert_int_equal(channel_recv(pair.far, &much, 1, &err), -ETIMEDOUT);
    channel_ok(channel_send_text(pair.near, "late", &err), &err);
    channel_expect_text(pair.far, "late");
    channel_set_timeout(pair.near, 100);
    assert_int_equal(channel_send(pair.near, &much, 1, &err), -ETIMEDOUT);
    assert_int_equal(channel_send(pair.near, &much, 1, &err), -ETIMEDOUT);
    channel_interrupt(pair.far);
    assert_int_equal(channel_recv(pair.far, &much, 1, &err), -ECANCELED);
    free(much.iov_base);
}

static void who_stops_and_goes_on_loses_nothing(void **state)
{
    struct flow out = {.bytes = 16 * MIB, .out = true, .seed = 5},
                in = {.bytes = 16 * MIB, .seed = 5};

    (void)state;
    channel_pair_open(&pair, &psk, &psk);
    out.channel = pair.near;
    in.channel = pair.far;
    flow_start(&out);
    rest(300); /* until the socket is full: a record is cut in two */
    flow_start(&in);
    flow_finish(&out);
    flow_finish(&in);
}

static void tampering_is_noticed(void **state)
{
    char bytes[4];
    struct iovec in = {bytes, sizeof(bytes)};
    struct error err;

    (void)state;
    channel_pair_open(&pair, &psk, &psk);
    /* Bytes that are no record, written behind the session's back. */
    for (int fd = 3; fd < 64; fd++) {
        struct sockaddr_in to;
        socklen_t len = sizeof(to);

        if (getpeername(fd, (struct sockaddr *)&to, &len) == 0 &&
            ntohs(to.sin_port) == atoi(strrchr(channel_listener_url(pair.listener), ':') + 1))
            assert_int_equal(send(fd,
                                  "\x17\x03\x03\x00\x20"
                                  "0123456789abcdef0123456789abcdef",
                                  37, 0),
                             37);
    }
    assert_int_equal(channel_recv(pair.far, &in, 1, &err), -EPROTO);
}

static void refused(const struct channel_security *security, int code, const char *words)
{
    struct channel_listener *listener = NULL;
    struct channel *channel = NULL;
    struct error err = {.msg = ""};

    assert_int_equal(channel_listen(security, "tcp://127.0.0.1:0", &listener, &err), -code);
    assert_non_null(strstr(err.msg, words));
    assert_int_equal(channel_connect(security, "tcp://127.0.0.1:1", 100, &channel, &err), -code);
}

static void a_key_file_that_makes_no_sense_is_refused(void **state)
{
    static const char *const wrong[][2] = {
        {"", "no key"},
        {"\n", "no key"},
        {KEY, "no key"},
        {":" KEY, "no key"},
        {"vm run:" KEY, "a character"},
        {"vmrun:", "128 to 512 bits"},
        {"vmrun:00112233445566778899aabbccddee", "128 to 512 bits"},
        {"vmrun:" KEY "0", "pairs of hexadecimal digits"},
        {"vmrun:" KEY "xy", "pairs of hexadecimal digits"},
        {"vmrun: " KEY, "pairs of hexadecimal digits"},
        {"vmrun:" KEY "\r\n", "pairs of hexadecimal digits"},
        {"vmrun:" KEY "\n\n", "pairs of hexadecimal digits"},
        {"vmrun:" KEY "\nother:" KEY "\n", "pairs of hexadecimal digits"},
        {"vmrun:" KEY KEY KEY KEY "00", "128 to 512 bits"},
    };
    const struct channel_security s = {.psk = "wrong"};
    char longest[300];

    (void)state;
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        write_secret("wrong", wrong[i][0]);
        refused(&s, EINVAL, wrong[i][1]);
        refused(&s, EINVAL, "wrong: ");
        refused(&s, EINVAL, "openssl rand");
    }
    snprintf(longest, sizeof(longest), "%0128d:%s", 0, KEY);
    write_secret("wrong", longest);
    refused(&s, EINVAL, "its identity is too long");
    folder_write("wrong", "vmrun:" KEY "\0" KEY, 71);
    refused(&s, EINVAL, "no key");
    write_secret("wrong", "vmrun:" KEY); /* without a newline it is right */
    channel_pair_open(&pair, &s, &psk);
}

static void a_secret_that_others_can_read_is_refused(void **state)
{
    const struct channel_security s = {.psk = "shown"};
    struct channel_security shown_key = host;

    (void)state;
    write_secret("shown", "vmrun:" KEY);
    for (mode_t bit = 1; bit <= 0100; bit <<= 1)
        if (bit & 0027) {
            assert_int_equal(chmod("shown", 0600 | bit), 0);
            refused(&s, EPERM, "chmod 600");
        }
    assert_int_equal(chmod("shown", 0640), 0); /* a group on purpose */
    channel_pair_open(&pair, &s, &s);
    shown_key.key = TLS_DATA "../tls/key-of-everybody";
    folder_write("key-of-everybody", "", 0);
    assert_int_equal(chmod("key-of-everybody", 0644), 0);
    shown_key.key = "key-of-everybody";
    refused(&shown_key, EPERM, "key-of-everybody: its mode 0644");
}

static void files_that_are_not_there_or_no_such_files_are_refused(void **state)
{
    struct channel_security s = {.psk = "nowhere"};

    (void)state;
    refused(&s, ENOENT, "nowhere");
    s.psk = ".";
    assert_int_equal(chmod(".", 0700), 0);
    refused(&s, EISDIR, ".: ");
    s = host;
    s.ca = "nowhere";
    refused(&s, ENOENT, "nowhere");
    s.ca = "psk";
    refused(&s, EINVAL, "psk: ");
    s = host;
    s.cert = "psk";
    refused(&s, EINVAL, "psk with key.pem");
    s = host;
    s.cert = TLS_DATA "ca.pem"; /* of another key */
    refused(&s, EINVAL, "key.pem");
    s = host;
    s.key = "/dev/zero";
    refused(&s, EPERM, "/dev/zero");
    s = host;
    s.ca = "/dev/zero";
    refused(&s, EFBIG, "over 1 MiB");
}

static void options_that_contradict_each_other_are_refused(void **state)
{
    struct channel_security s = host;

    (void)state;
    s.psk = "psk";
    refused(&s, EINVAL, "give one");
    s = host;
    s.insecure = true;
    refused(&s, EINVAL, "--insecure");
    s = host;
    s.ca = NULL;
    refused(&s, EINVAL, "--tls-ca is missing");
    s = host;
    s.key = NULL;
    refused(&s, EINVAL, "--tls-key is missing");
    s = (struct channel_security){.ca = TLS_DATA "ca.pem"};
    refused(&s, EINVAL, "--tls-cert is missing");
}

int main(void)
{
#define WITH_PAIR(test) cmocka_unit_test_teardown(test, pair_teardown)
    const struct CMUnitTest tests[] = {
        WITH_PAIR(a_shared_key_carries_64_mebibytes_both_ways),
        WITH_PAIR(certificates_carry_64_mebibytes_both_ways),
        WITH_PAIR(the_certificate_is_checked_for_a_name_as_well),
        WITH_PAIR(what_is_sent_cannot_be_read_on_the_wire),
        WITH_PAIR(another_key_is_kept_out),
        WITH_PAIR(another_identity_is_kept_out),
        WITH_PAIR(a_key_does_not_open_what_certificates_lock_nor_the_other_way_round),
        WITH_PAIR(another_authority_is_kept_out),
        WITH_PAIR(an_expired_certificate_is_kept_out),
        WITH_PAIR(a_host_of_another_name_is_not_spoken_to),
        WITH_PAIR(a_certificate_for_servers_does_not_connect),
        WITH_PAIR(who_speaks_no_tls_is_sent_away),
        WITH_PAIR(a_listener_without_tls_is_noticed),
        WITH_PAIR(silent_strangers_keep_nobody_waiting),
        WITH_PAIR(a_silent_stranger_is_sent_away_in_the_end),
        WITH_PAIR(a_stranger_who_goes_again_ends_nothing),
        WITH_PAIR(who_went_is_noticed_and_his_last_words_are_heard),
        WITH_PAIR(timeouts_and_interrupts_work),
        WITH_PAIR(who_stops_and_goes_on_loses_nothing),
        WITH_PAIR(tampering_is_noticed),
        WITH_PAIR(a_key_file_that_makes_no_sense_is_refused),
        WITH_PAIR(a_secret_that_others_can_read_is_refused),
        WITH_PAIR(files_that_are_not_there_or_no_such_files_are_refused),
        WITH_PAIR(options_that_contradict_each_other_are_refused),
    };

    if (!dlopen("libgnutls.so.30", RTLD_NOW)) {
        puts("skipped: libgnutls.so.30 is not installed");
        return 0;
    }
    return cmocka_run_group_tests(tests, enter, folder_leave);
}
