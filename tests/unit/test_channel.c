/* SPDX-License-Identifier: Apache-2.0 */
/* channel: bytes between two hosts, and everything that can go wrong with that. Plain TCP. */
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../src/migration/channel.h"
#include "vmrun/thread.h"

#define WAIT_MS 20000
#define MIB ((size_t)1 << 20)

static const struct channel_security plain;

struct pair {
    struct channel_listener *listener;
    struct channel *near, *far;
};

/* A call that has to succeed. */
static void ok(int r, const struct error *err)
{
    if (r < 0)
        fail_msg("%s", err->msg);
}

static int pair_open(void **state)
{
    struct pair *p = calloc(1, sizeof(*p));
    struct error err;

    assert_non_null(p);
    ok(channel_listen(&plain, "tcp://127.0.0.1:0", &p->listener, &err), &err);
    ok(channel_connect(&plain, channel_listener_url(p->listener), WAIT_MS, &p->near, &err), &err);
    ok(channel_accept(p->listener, WAIT_MS, &p->far, &err), &err);
    *state = p;
    return 0;
}

static int pair_close(void **state)
{
    struct pair *p = *state;

    channel_destroy(p->near);
    channel_destroy(p->far);
    channel_listener_destroy(p->listener);
    free(p);
    return 0;
}

static void what_is_sent_arrives(void **state)
{
    struct pair *p = *state;
    struct iovec out = {(void *)"0123456789", 10};
    char got[11] = "";
    struct iovec in[2] = {{got, 3}, {got + 3, 7}};
    struct error err;

    ok(channel_send(p->near, &out, 1, &err), &err);
    assert_true(channel_readable(p->far, WAIT_MS));
    ok(channel_recv(p->far, in, 2, &err), &err);
    assert_string_equal(got, "0123456789");
    assert_int_equal(channel_sent_bytes(p->near), 10);
    assert_int_equal(channel_received_bytes(p->far), 10);
    assert_int_equal(channel_sent_bytes(p->far), 0);
    assert_false(channel_readable(p->far, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_sent_arrives, pair_open, pair_close),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
