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
#include "channel_secrets.h"
#include "folder.h"
#include "vmrun/thread.h"

#define MIB ((uint64_t)1 << 20)

static const struct channel_security plain;

static struct channel_pair pair;

static int pair_teardown(void **state)
{
    (void)state;
    channel_pair_close(&pair);
    return 0;
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
                                 .bytes = 16 * MIB,
                                 .seed = i / 2};
        flow_start(&flows[i]);
    }
    for (unsigned i = 0; i < 4; i++)
        flow_finish(&flows[i]);
    assert_int_equal(channel_sent_bytes(pair.near), 16 * MIB + 5);
    assert_int_equal(channel_received_bytes(pair.near), 16 * MIB + 8);
}

static void a_shared_key_carries_16_mebibytes_both_ways(void **state)
{
    (void)state;
    carries(&secrets_psk);
}

static void certificates_carry_16_mebibytes_both_ways(void **state)
{
    (void)state;
    carries(&secrets_host);
}

static void the_certificate_is_checked_for_a_name_as_well(void **state)
{
    (void)state;
    channel_pair_try(&pair, &secrets_host, &secrets_host, "tcp://localhost:0");
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

    channel_pair_rest(to->after_ms);
    pair.near_result =
        channel_connect(to->security, to->url, PAIR_WAIT_MS, &pair.near, &pair.near_err);
    return NULL;
}

/* Somebody with the key comes by and is let in. */
static void a_friend_gets_in(void)
{
    struct to to = {&secrets_psk, channel_listener_url(pair.listener), 100};
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
    through_a_tap(&secrets_psk, false);
    through_a_tap(&secrets_host, false);
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
    secret_write("other-key", "vmrun:00112233445566778899aabbccddeefe\n");
    kept_out(&other, &secrets_psk, "the same --tls-psk?", "the same --tls-psk?");
}

static void another_identity_is_kept_out(void **state)
{
    const struct channel_security other = {.psk = "other-name"};

    (void)state;
    secret_write("other-name", "vmrum:" KEY "\n");
    kept_out(&other, &secrets_psk, "the same --tls-psk?", "another identity");
}

static void a_key_does_not_open_what_certificates_lock_nor_the_other_way_round(void **state)
{
    (void)state;
    kept_out(&secrets_psk, &secrets_host, "", "");
    channel_pair_close(&pair);
    kept_out(&secrets_host, &secrets_psk, "", "");
}

static struct channel_security with_cert(const char *cert)
{
    struct channel_security s = secrets_host;

    s.cert = cert;
    return s;
}

static void another_authority_is_kept_out(void **state)
{
    struct channel_security stranger = with_cert(SECRETS_DATA "stranger.pem");

    (void)state;
    /* It trusts our authority, so only we can refuse it ... */
    kept_out(&stranger, &secrets_host, "refused", "not signed by --tls-ca");
    channel_pair_close(&pair);
    kept_out(&secrets_host, &stranger, "not signed by --tls-ca", "refused");
    channel_pair_close(&pair);
    /* ... and here it does not trust ours. */
    stranger.ca = SECRETS_DATA "other-ca.pem";
    kept_out(&stranger, &secrets_host, "not signed by --tls-ca", "");
}

static void an_expired_certificate_is_kept_out(void **state)
{
    struct channel_security expired = with_cert(SECRETS_DATA "expired.pem");

    (void)state;
    kept_out(&expired, &secrets_host, "refused", "expired");
    channel_pair_close(&pair);
    kept_out(&secrets_host, &expired, "expired", "refused");
}

static void a_host_of_another_name_is_not_spoken_to(void **state)
{
    struct channel_security elsewhere = with_cert(SECRETS_DATA "elsewhere.pem");

    (void)state;
    kept_out(&secrets_host, &elsewhere, "does not name '127.0.0.1'", "refused");
    channel_pair_close(&pair);
    /* The name of who connects is not known: the authority vouches for it. */
    channel_pair_open(&pair, &elsewhere, &secrets_host);
}

static void a_certificate_for_servers_does_not_connect(void **state)
{
    struct channel_security server = with_cert(SECRETS_DATA "web-server.pem");

    (void)state;
    kept_out(&server, &secrets_host, "refused", "is not for TLS clients");
    channel_pair_close(&pair);
    channel_pair_open(&pair, &secrets_host, &server);
}

static void who_speaks_no_tls_is_sent_away(void **state)
{
    char bytes[64];
    struct iovec in = {bytes, sizeof(bytes)};
    struct channel *stranger = NULL, *channel = NULL;
    struct error err;

    (void)state;
    channel_ok(channel_listen(&secrets_psk, "tcp://127.0.0.1:0", &pair.listener, &err), &err);
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
        channel_connect(&secrets_psk, channel_listener_url(pair.listener), 300, &channel, &err),
        -ETIMEDOUT);
    assert_non_null(strstr(err.msg, "does the other side use it?"));
}

static void silent_strangers_keep_nobody_waiting(void **state)
{
    int fds[40];
    uint64_t start = channel_pair_now_ms();
    struct error err;

    (void)state;
    channel_ok(channel_listen(&secrets_psk, "tcp://127.0.0.1:0", &pair.listener, &err), &err);
    for (unsigned i = 0; i < 40; i++)
        fds[i] = raw_connection(channel_listener_url(pair.listener));
    a_friend_gets_in();
    assert_true(channel_pair_now_ms() - start < 8000);
    for (unsigned i = 0; i < 40; i++)
        close(fds[i]);
}

static void a_silent_stranger_is_sent_away_in_the_end(void **state)
{
    struct channel *channel = NULL;
    uint64_t start = channel_pair_now_ms();
    struct error err;
    char byte;
    int fd;

    (void)state;
    channel_ok(channel_listen(&secrets_psk, "tcp://127.0.0.1:0", &pair.listener, &err), &err);
    fd = raw_connection(channel_listener_url(pair.listener));
    assert_int_equal(channel_accept(pair.listener, 200, &channel, &err), -ETIMEDOUT);
    assert_int_equal(channel_accept(pair.listener, 60000, &channel, &err), -EPROTO);
    assert_non_null(strstr(err.msg, "no TLS handshake within 10 s"));
    assert_in_range(channel_pair_now_ms() - start, 9900, 30000);
    assert_true(recv(fd, &byte, 1, 0) <= 0);
    close(fd);
}

static void a_stranger_who_goes_again_ends_nothing(void **state)
{
    struct channel *channel = NULL;
    struct error err;

    (void)state;
    channel_ok(channel_listen(&secrets_psk, "tcp://127.0.0.1:0", &pair.listener, &err), &err);
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
    channel_pair_open(&pair, &secrets_psk, &secrets_psk);
    channel_ok(channel_send_text(pair.far, "refused", &err), &err);
    channel_destroy(pair.far);
    pair.far = NULL;
    for (unsigned i = 0; i < 1000 && r == 0; i++, channel_pair_rest(1))
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
    channel_pair_open(&pair, &secrets_psk, &secrets_psk);
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
    channel_pair_open(&pair, &secrets_psk, &secrets_psk);
    out.channel = pair.near;
    in.channel = pair.far;
    flow_start(&out);
    channel_pair_rest(300); /* until the socket is full: a record is cut in two */
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
    channel_pair_open(&pair, &secrets_psk, &secrets_psk);
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

int main(void)
{
#define WITH_PAIR(test) cmocka_unit_test_teardown(test, pair_teardown)
    const struct CMUnitTest tests[] = {
        WITH_PAIR(a_shared_key_carries_16_mebibytes_both_ways),
        WITH_PAIR(certificates_carry_16_mebibytes_both_ways),
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
    };

    if (!dlopen("libgnutls.so.30", RTLD_NOW)) {
        puts("skipped: libgnutls.so.30 is not installed");
        return 0;
    }
    return cmocka_run_group_tests(tests, secrets_enter, folder_leave);
}
