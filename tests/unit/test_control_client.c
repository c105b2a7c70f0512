/* SPDX-License-Identifier: Apache-2.0 */
/* The client before servers that say odd things, nothing, or die: each is a thread with a script.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "fake_server.h"
#include "vmrun/control.h"

#define TIMEOUT_MS 20000

struct fixture {
    struct fake_server server;
    pthread_t thread;
    const char *answer; /* said after the first request; "" nothing */
    bool stays;         /* until the client hangs up */
};

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

static void *serve_once(void *opaque)
{
    const struct fixture *f = opaque;
    char buf[4096];
    int fd = accept(f->server.fd, NULL, NULL);

    if (recv(fd, buf, sizeof(buf), 0) > 0 && *f->answer)
        send(fd, f->answer, strlen(f->answer), MSG_NOSIGNAL);
    while (f->stays && recv(fd, buf, sizeof(buf), 0) > 0)
        continue;
    close(fd);
    return NULL;
}

/* One call of vm.status to a server that follows the script. */
static int call(struct fixture *f, const char *answer, bool stays, int timeout_ms,
                json_t **ret_result, struct error *err)
{
    struct control_client *client;

    f->answer = answer;
    f->stays = stays;
    assert_int_equal(pthread_create(&f->thread, NULL, serve_once, f), 0);
    assert_int_equal(control_client_open("web1", &client, err), 0);
    int r = control_client_call(client, "vm.status", NULL, timeout_ms, ret_result, err);
    control_client_close(client);
    pthread_join(f->thread, NULL);
    return r;
}

static void a_name_that_nobody_has_is_told(void **state)
{
    struct control_client *client = NULL;
    struct error err = {0};

    (void)state;
    assert_int_equal(control_client_open("web2", &client, &err), -ENOENT);
    assert_string_equal(err.msg, "no machine named 'web2' is running");
    assert_null(client);
}

static void a_dead_socket_is_as_good_as_none(void **state)
{
    struct fixture *f = *state;
    struct control_client *client = NULL;
    struct error err = {0};

    close(f->server.fd);
    f->server.fd = -1;
    assert_int_equal(control_client_open("web1", &client, &err), -ENOENT);
    assert_null(client);
}

static void other_lines_before_the_answer_are_left_out(void **state)
{
    struct error err = {0};
    json_t *result = NULL;

    assert_int_equal(call(*state,
                          "{\"jsonrpc\":\"2.0\",\"method\":\"event\",\"params\":{}}\n"
                          "{\"jsonrpc\":\"2.0\",\"id\":99,\"result\":1}\n"
                          "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":2}\n",
                          false, TIMEOUT_MS, &result, &err),
                     0);
    assert_int_equal(json_integer_value(result), 2);
    json_decref(result);
}

static void a_silent_server_times_out(void **state)
{
    struct error err = {0};
    json_t *result = NULL;

    assert_int_equal(call(*state, "", true, 50, &result, &err), -ETIMEDOUT);
    assert_string_equal(err.msg, "machine 'web1' does not answer");
    assert_null(result);
}

static void half_an_answer_times_out(void **state)
{
    struct error err = {0};
    json_t *result = NULL;

    assert_int_equal(call(*state, "{\"jsonrpc\":\"2.0\",", true, 50, &result, &err), -ETIMEDOUT);
    assert_null(result);
}

static void a_server_that_dies_is_told(void **state)
{
    static const char *const answers[] = {"", "{\"jsonrpc\":\"2.0\",\"id\":1"};

    for (unsigned i = 0; i < 2; i++) {
        struct error err = {0};
        json_t *result = NULL;

        assert_int_equal(call(*state, answers[i], false, TIMEOUT_MS, &result, &err), -EPIPE);
        assert_string_equal(err.msg, "machine 'web1' ended meanwhile");
        assert_null(result);
    }
}

static void an_answer_without_sense_is_told(void **state)
{
    static const char *const answers[] = {"nonsense\n", "\n", "[1]\n", "7\n"};

    for (unsigned i = 0; i < 4; i++) {
        struct error err = {0};
        json_t *result = NULL;

        assert_int_equal(call(*state, answers[i], false, TIMEOUT_MS, &result, &err), -EPROTO);
        assert_string_equal(err.msg, "machine 'web1': its answer is not JSON-RPC");
        assert_null(result);
    }
}

static void an_error_keeps_its_words_and_number(void **state)
{
    struct error err = {0};

    assert_int_equal(call(*state,
                          "{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":-32000,"
                          "\"message\":\"no\",\"data\":{\"errno\":16}}}\n",
                          false, TIMEOUT_MS, NULL, &err),
                     -EBUSY);
    assert_string_equal(err.msg, "no");
    assert_int_equal(call(*state, "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32600}}\n",
                          false, TIMEOUT_MS, NULL, &err),
                     -EREMOTEIO);
    assert_string_equal(err.msg, "an error without words");
}

static void waiting_ends_with_the_process(void **state)
{
    struct fixture *f = *state;
    struct control_client *client;
    struct error err = {0};
    int go[2];
    char c;

    /* A listening socket's peer is the process that called listen(). */
    assert_int_equal(pipe(go), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        listen(f->server.fd, 1);
        if (write(go[1], "x", 1) == 1)
            pause();
        _exit(0);
    }
    assert_int_equal(read(go[0], &c, 1), 1);
    assert_int_equal(control_client_open("web1", &client, &err), 0);
    assert_int_equal(control_client_pid(client), child);
    assert_int_equal(control_client_wait_gone(client, 50, &err), -ETIMEDOUT);
    kill(child, SIGKILL);
    assert_int_equal(control_client_wait_gone(client, TIMEOUT_MS, &err), 0);
    control_client_close(client);
    assert_int_equal(waitpid(child, NULL, 0), child);
    close(go[0]);
    close(go[1]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_name_that_nobody_has_is_told),
        TEST(a_dead_socket_is_as_good_as_none),
        TEST(other_lines_before_the_answer_are_left_out),
        TEST(a_silent_server_times_out),
        TEST(half_an_answer_times_out),
        TEST(a_server_that_dies_is_told),
        TEST(an_answer_without_sense_is_told),
        TEST(an_error_keeps_its_words_and_number),
        TEST(waiting_ends_with_the_process),
    };
    return cmocka_run_group_tests_name("control client", tests, NULL, NULL);
}
