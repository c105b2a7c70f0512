/* SPDX-License-Identifier: Apache-2.0 */
/* What the control server does for clients that mean well. */
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

static void a_call_is_answered_with_its_id(void **state)
{
    static const char *const ids[] = {"1", "\"a\"", "null", "-2.5"};
    char line[128];
    int fd = control_bench_dial(*state);

    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        snprintf(line, sizeof(line), "{\"jsonrpc\":\"2.0\",\"id\":%s,\"method\":\"vm.pause\"}\n",
                 ids[i]);
        control_bench_say(fd, line);
        snprintf(line, sizeof(line),
                 "{\"jsonrpc\":\"2.0\",\"id\":%s,\"result\":{\"state\":\"paused\"}}", ids[i]);
        assert_string_equal(control_bench_hear(fd), line);
    }
    close(fd);
}

static void status_says_who_and_how(void **state)
{
    struct control_client *client;
    struct error err = {0};
    json_t *status;

    (void)state;
    assert_int_equal(control_client_open("web1", &client, &err), 0);
    assert_int_equal(
        control_client_call(client, "vm.status", NULL, CONTROL_BENCH_TIMEOUT_MS, &status, &err), 0);
    assert_string_equal(json_string_value(json_object_get(status, "name")), "web1");
    assert_string_equal(json_string_value(json_object_get(status, "state")), "running");
    assert_int_equal(json_integer_value(json_object_get(status, "pid")), getpid());
    assert_int_equal(json_integer_value(json_object_get(status, "memory_bytes")), 256 << 20);
    assert_int_equal(json_integer_value(json_object_get(status, "resets")), 2);
    assert_true(json_is_null(json_object_get(status, "initrd")));
    assert_int_equal(control_client_pid(client), getpid());
    json_decref(status);
    control_client_close(client);
}

static void every_method_is_listed_and_served(void **state)
{
    const struct control_bench *bench = *state;
    struct control_client *client;
    struct error err = {0};
    json_t *methods, *row, *result;
    size_t i;

    assert_int_equal(control_client_open("web1", &client, &err), 0);
    assert_int_equal(
        control_client_call(client, "rpc.methods", NULL, CONTROL_BENCH_TIMEOUT_MS, &methods, &err),
        0);
    assert_int_equal(json_array_size(methods), 18);
    json_array_foreach(methods, i, row)
    {
        const char *name = json_string_value(json_object_get(row, "name"));

        if (strcmp(name, "vm.reset") == 0 || strcmp(name, "vm.kill") == 0 ||
            strcmp(name, "console.attach") == 0 || strcmp(name, "vm.nets.link") == 0 ||
            strcmp(name, "vm.set") == 0 || strncmp(name, "vm.save", 7) == 0 ||
            strncmp(name, "vm.migrate", 10) == 0)
            continue; /* tests of their own */
        control_client_close(client);
        assert_int_equal(control_client_open("web1", &client, &err), 0);
        assert_int_equal(
            control_client_call(client, "vm.resume", NULL, CONTROL_BENCH_TIMEOUT_MS, NULL, &err),
            0);
        if (control_client_call(client, name, NULL, CONTROL_BENCH_TIMEOUT_MS, &result, &err) < 0)
            fail_msg("%s: %s", name, err.msg);
        json_decref(result);
    }
    assert_int_equal(bench->machine.refreshes, 1);
    json_decref(methods);
    assert_int_equal(
        control_client_call(client, "vm.stats", NULL, CONTROL_BENCH_TIMEOUT_MS, &result, &err), 0);
    assert_int_equal(
        json_integer_value(json_object_get(json_object_get(result, "counters"), "exits.mmio")), 9);
    json_decref(result);
    control_client_close(client);
}

static void an_uncertain_machine_resumes_only_by_force(void **state)
{
    static const char *const form = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"vm.resume\"%s}\n";
    struct control_bench *bench = *state;
    int fd = control_bench_dial(bench);
    const char *answer;
    char line[160];

    bench->machine.state = MACHINE_UNCERTAIN;
    control_bench_say(fd, CONTROL_BENCH_STATUS);
    answer = control_bench_hear(fd);
    assert_non_null(strstr(answer, "\"state\":\"uncertain\""));
    assert_non_null(strstr(answer, "\"uncertain\":\"the line was cut\""));
    snprintf(line, sizeof(line), form, "");
    control_bench_say(fd, line);
    assert_non_null(strstr(control_bench_hear(fd), "look there first"));
    snprintf(line, sizeof(line), form, ",\"params\":{\"force\":false}");
    control_bench_say(fd, line);
    assert_non_null(strstr(control_bench_hear(fd), "look there first"));
    snprintf(line, sizeof(line), form, ",\"params\":{\"forced\":true}");
    control_bench_say(fd, line);
    assert_non_null(strstr(control_bench_hear(fd), "\"code\":-32602"));
    snprintf(line, sizeof(line), form, ",\"params\":{\"force\":true}");
    control_bench_say(fd, line);
    assert_non_null(strstr(control_bench_hear(fd), "\"result\":{\"state\":\"running\"}"));
    control_bench_say(fd, CONTROL_BENCH_STATUS);
    assert_non_null(strstr(control_bench_hear(fd), "\"uncertain\":null"));
    close(fd);
}

static void keys_of_a_machine_are_set_by_texts(void **state)
{
    static const struct {
        const char *params, *answer;
    } cases[] = {
        {"{\"balloon\":\"5\"}", "\"result\":{\"state\":\"running\"}"},
        {"{}", "vm.set takes {"},
        {"[]", "vm.set takes {"},
        {"{\"balloon\":7}", "\\\"balloon\\\" must be a text"},
        {"{\"balloon\":\"8\",\"memory\":\"1G\"}", "\\\"memory\\\" cannot be set"},
    };
    struct control_bench *bench = *state;
    int fd = control_bench_dial(bench);

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char line[200];

        snprintf(line, sizeof(line),
                 "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"vm.set\",\"params\":%s}\n",
                 cases[i].params);
        control_bench_say(fd, line);
        const char *said = control_bench_hear(fd);
        if (!strstr(said, cases[i].answer))
            fail_msg("%s: %s", cases[i].params, said);
        assert_int_equal(strstr(said, "-32602") != NULL, i > 0);
        assert_int_equal(bench->machine.balloon, 5);
    }
    close(fd);
}

static void a_card_s_link_is_set_by_its_id(void **state)
{
    static const char *const form = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"vm.nets.link\","
                                    "\"params\":{\"id\":\"%s\",\"up\":%s}}\n";
    struct control_bench *bench = *state;
    int fd = control_bench_dial(bench);
    char line[160];

    snprintf(line, sizeof(line), form, "net0", "true");
    control_bench_say(fd, line);
    assert_non_null(strstr(control_bench_hear(fd), "\"result\":{\"state\":\"running\"}"));
    assert_int_equal(bench->machine.link, true);
    snprintf(line, sizeof(line), form, "net0", "false");
    control_bench_say(fd, line);
    assert_non_null(strstr(control_bench_hear(fd), "\"result\":{\"state\":\"running\"}"));
    assert_int_equal(bench->machine.link, false);
    snprintf(line, sizeof(line), form, "net1", "true");
    control_bench_say(fd, line);
    control_bench_expect_error(control_bench_hear(fd), -32000, "no card net1");
    close(fd);
}

/* "type" of an event line. */
static json_t *event_of(const char *line, const char *type)
{
    json_t *object = json_loads(line, 0, NULL);
    json_t *params = json_incref(json_object_get(object, "params"));

    if (!params || strcmp(json_string_value(json_object_get(params, "type")), type) != 0)
        fail_msg("expected an event of type %s: %s", type, line);
    json_decref(object);
    return params;
}

static int dial_and_subscribe(struct control_bench *bench)
{
    int fd = control_bench_dial(bench);

    control_bench_say(fd, "{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"events.subscribe\"}\n");
    assert_non_null(strstr(control_bench_hear(fd), "\"result\""));
    return fd;
}

static void a_save_is_told_to_subscribers_with_its_figures(void **state)
{
    struct control_bench *bench = *state;
    int fd = dial_and_subscribe(bench);
    json_t *event;

    control_bench_say(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"vm.save\",\"params\":"
                          "{\"path\":\"/tmp/x\",\"replace\":true,\"stop\":true}}\n");
    event = event_of(control_bench_hear(fd), "save");
    assert_string_equal(json_string_value(json_object_get(event, "detail")), "copying");
    assert_int_equal(json_integer_value(json_object_get(event, "round_bytes")), 8192);
    assert_int_equal(json_integer_value(json_object_get(event, "done_bytes")), 4096);
    json_decref(event);
    event = event_of(control_bench_hear(fd), "saved");
    assert_int_equal(json_integer_value(json_object_get(event, "rounds")), 2);
    assert_int_equal(json_integer_value(json_object_get(event, "pause_ns")), 3000000);
    assert_int_equal(json_integer_value(json_object_get(event, "data_bytes")), 12288);
    assert_int_equal(json_integer_value(json_object_get(event, "file_bytes")), 16384);
    assert_int_equal(json_integer_value(json_object_get(event, "held_bytes")), 20480);
    assert_string_equal(json_string_value(json_object_get(event, "found")), "log");
    assert_null(json_object_get(event, "errno"));
    json_decref(event);
    assert_non_null(strstr(control_bench_hear(fd), "\"result\":{\"state\":\"running\"}"));
    assert_string_equal(bench->migration.path, "/tmp/x");
    assert_string_equal(bench->migration.base, "");
    assert_false(bench->migration.track || bench->migration.compress);
    assert_true(bench->migration.replace);
    assert_true(bench->migration.stop);
    close(fd);
}

static void a_save_that_is_cancelled_has_failed(void **state)
{
    static const char *const cancel =
        "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"vm.save.cancel\"}\n";
    struct control_bench *bench = *state;
    int fd = dial_and_subscribe(bench);
    json_t *event;

    control_bench_say(fd, cancel);
    control_bench_expect_error(control_bench_hear(fd), -32000, "nothing is under way");
    control_bench_say(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"vm.save\",\"params\":"
                          "{\"path\":\"/tmp/x\",\"base\":\"/tmp/w\",\"track\":true,"
                          "\"compress\":true}}\n");
    json_decref(event_of(control_bench_hear(fd), "save"));
    assert_non_null(strstr(control_bench_hear(fd), "\"id\":1,\"result\""));
    assert_false(bench->migration.replace);
    assert_string_equal(bench->migration.base, "/tmp/w");
    assert_true(bench->migration.track && bench->migration.compress);
    control_bench_say(fd, cancel);
    event = event_of(control_bench_hear(fd), "save_failed");
    assert_string_equal(json_string_value(json_object_get(event, "detail")), "cancelled");
    assert_int_equal(json_integer_value(json_object_get(event, "errno")), ECANCELED);
    assert_null(json_object_get(event, "data_bytes"));
    json_decref(event);
    close(fd);
}

static void a_move_is_told_to_subscribers_with_its_figures(void **state)
{
    int fd = dial_and_subscribe(*state);
    json_t *event, *round;

    control_bench_say(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"vm.migrate\",\"params\":"
                          "{\"url\":\"tcp://there:1\",\"channels\":2}}\n");
    event = event_of(control_bench_hear(fd), "migrate");
    assert_string_equal(json_string_value(json_object_get(event, "detail")), "handover");
    assert_int_equal(json_integer_value(json_object_get(event, "dirty_rate")), 4096);
    json_decref(event);
    event = event_of(control_bench_hear(fd), "migrated");
    assert_string_equal(json_string_value(json_object_get(event, "outcome")), "there");
    assert_int_equal(json_integer_value(json_object_get(event, "channels")), 2);
    assert_null(json_object_get(event, "errno"));
    round = json_array_get(json_object_get(event, "round"), 0);
    assert_int_equal(json_integer_value(json_object_get(round, "bytes")), 8192);
    json_decref(event);
    close(fd);
}

static void a_move_that_fails_says_where_the_machine_is(void **state)
{
    int fd = dial_and_subscribe(*state);
    json_t *event;

    control_bench_say(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"vm.migrate\",\"params\":"
                          "{\"url\":\"tcp://nowhere:1\"}}\n");
    json_decref(event_of(control_bench_hear(fd), "migrate"));
    event = event_of(control_bench_hear(fd), "migrate_failed");
    assert_string_equal(json_string_value(json_object_get(event, "outcome")), "here");
    assert_int_equal(json_integer_value(json_object_get(event, "errno")), ECONNREFUSED);
    json_decref(event);
    close(fd);
}

static void a_move_to_nowhere_is_refused(void **state)
{
    static const char *const wrong[] = {"", ",\"params\":{}", ",\"params\":{\"url\":7}",
                                        ",\"params\":{\"url\":\"tcp://there:1\",\"channels\":-1}",
                                        ",\"params\":{\"url\":\"tcp://there:1\",\"fast\":true}"};
    int fd = control_bench_dial(*state);
    char line[256];

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        snprintf(line, sizeof(line), "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"vm.migrate\"%s}\n",
                 wrong[i]);
        control_bench_say(fd, line);
        control_bench_expect_error(control_bench_hear(fd), -32602, "vm.migrate");
    }
    close(fd);
}

static void a_save_without_a_usable_path_is_refused(void **state)
{
    static const struct {
        const char *params, *words;
        int code;
    } wrong[] = {
        {"", "vm.save takes", -32602},
        {",\"params\":{}", "vm.save takes", -32602},
        {",\"params\":{\"path\":7}", "vm.save takes", -32602},
        {",\"params\":{\"path\":\"/x\",\"now\":true}", "vm.save takes", -32602},
        {",\"params\":{\"path\":\"/x\",\"stop\":1}", "vm.save takes", -32602},
        {",\"params\":{\"path\":\"/x\",\"base\":true}", "vm.save takes", -32602},
        {",\"params\":{\"path\":\"x\"}", "path\\\" must begin with /", -32602},
        {",\"params\":{\"path\":\"/x\",\"base\":\"y\"}", "base\\\" must begin with /", -32602},
        {",\"params\":{\"path\":\"/full\"}", "exists; --force", -32000},
    };
    int fd = control_bench_dial(*state);
    char line[256];

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        snprintf(line, sizeof(line), "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"vm.save\"%s}\n",
                 wrong[i].params);
        control_bench_say(fd, line);
        control_bench_expect_error(control_bench_hear(fd), wrong[i].code, wrong[i].words);
    }
    close(fd);
}

static void a_client_takes_events_one_by_one(void **state)
{
    struct control_client *client;
    struct error err = {0};
    json_t *event;

    (void)state;
    assert_int_equal(control_client_open("web1", &client, &err), 0);
    assert_int_equal(
        control_client_call(client, "events.subscribe", NULL, CONTROL_BENCH_TIMEOUT_MS, NULL, &err),
        0);
    assert_int_equal(control_client_next_event(client, 10, &event, &err), -ETIMEDOUT);
    assert_int_equal(control_client_notify(client, "vm.save",
                                           json_pack("{s:s, s:b}", "path", "/x", "stop", 1),
                                           CONTROL_BENCH_TIMEOUT_MS, &err),
                     0);
    assert_int_equal(control_client_next_event(client, CONTROL_BENCH_TIMEOUT_MS, &event, &err), 0);
    assert_string_equal(json_string_value(json_object_get(event, "type")), "save");
    json_decref(event);
    assert_int_equal(control_client_next_event(client, CONTROL_BENCH_TIMEOUT_MS, &event, &err), 0);
    assert_string_equal(json_string_value(json_object_get(event, "type")), "saved");
    json_decref(event);
    assert_int_equal(control_client_next_event(client, 10, &event, &err), -ETIMEDOUT);
    control_client_close(client);
}

static void the_machines_refusal_comes_in_its_words(void **state)
{
    struct control_client *client;
    struct error err = {0};

    (void)state;
    assert_int_equal(control_client_open("web1", &client, &err), 0);
    assert_int_equal(
        control_client_call(client, "vm.reset", NULL, CONTROL_BENCH_TIMEOUT_MS, NULL, &err), -EIO);
    assert_string_equal(err.msg, "reset: vmlinuz: ? is gone");
    assert_int_equal(
        control_client_call(client, "vm.pause", NULL, CONTROL_BENCH_TIMEOUT_MS, NULL, &err), 0);
    assert_int_equal(
        control_client_call(client, "vm.stop", NULL, CONTROL_BENCH_TIMEOUT_MS, NULL, &err), -EBUSY);
    assert_string_equal(err.msg, "the machine is paused");
    control_client_close(client);
}

static void a_notification_is_executed_silently(void **state)
{
    int fd = control_bench_dial(*state);

    control_bench_say(fd, "{\"jsonrpc\":\"2.0\",\"method\":\"vm.pause\"}\n"
                          "{\"jsonrpc\":\"2.0\",\"method\":\"no.such\"}\n"
                          "{\"jsonrpc\":\"2.0\",\"method\":\"vm.pause\",\"params\":{\"x\":1}}\n"
                          "{\"jsonrpc\":\"2.0\",\"method\":\"vm.reset\"}\n"
                          "{\"jsonrpc\":\"2.0\",\"method\":\"console.attach\"}\n\n\r\n");
    control_bench_say(fd, CONTROL_BENCH_STATUS);
    const char *line = control_bench_hear(fd);
    assert_non_null(strstr(line, "\"id\":1,"));
    assert_non_null(strstr(line, "\"state\":\"paused\""));
    close(fd);
}

static void requests_may_come_in_any_pieces(void **state)
{
    char both[2 * sizeof(CONTROL_BENCH_STATUS)];
    int fd = control_bench_dial(*state);

    snprintf(both, sizeof(both), "%s%s", CONTROL_BENCH_STATUS, CONTROL_BENCH_STATUS);
    control_bench_say(fd, both);
    assert_non_null(strstr(control_bench_hear(fd), "\"result\":"));
    assert_non_null(strstr(control_bench_hear(fd), "\"result\":"));
    for (const char *p = CONTROL_BENCH_STATUS; *p; p++)
        assert_int_equal(send(fd, p, 1, 0), 1);
    assert_non_null(strstr(control_bench_hear(fd), "\"result\":"));
    close(fd);
}

static void a_client_that_only_listens_on_gets_its_answer(void **state)
{
    int fd = control_bench_dial(*state);

    control_bench_say(fd, CONTROL_BENCH_STATUS);
    shutdown(fd, SHUT_WR);
    assert_non_null(strstr(control_bench_hear(fd), "\"result\":"));
    assert_string_equal(control_bench_hear(fd), "");
    close(fd);
}

static void events_are_told_to_subscribers(void **state)
{
    int fd = control_bench_dial(*state), other = control_bench_dial(*state);

    control_bench_say(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"events.subscribe\"}\n");
    assert_string_equal(control_bench_hear(fd),
                        "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"state\":\"running\"}}");
    shutdown(fd, SHUT_WR); /* it may stop talking and still listen */
    control_bench_say(other, "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"vm.pause\"}\n");
    assert_non_null(strstr(control_bench_hear(other), "\"id\":2,")); /* and was told no event */
    const char *line = control_bench_hear(fd);
    assert_non_null(strstr(line, "\"method\":\"event\",\"params\":{\"type\":\"state\","
                                 "\"state\":\"paused\",\"detail\":\"paused\",\"time\":"));
    assert_null(strstr(line, "\"id\""));
    close(fd);
    close(other);
}

/* On the loop, as the machine does it. */
static void report_io_error(void *opaque)
{
    struct control_bench *f = opaque;
    const struct machine_io_error error = {.device = "disk.root",
                                           .op = "write",
                                           .offset = 8192,
                                           .bytes = 4096,
                                           .code = ENOSPC,
                                           .left_out = 3};

    f->machine.listener(f->machine.opaque,
                        &(struct machine_news){.event = MACHINE_EVENT_IO_ERROR,
                                               .detail = "write of 4096 bytes at 8192 failed",
                                               .io_error = &error});
}

static void an_io_error_is_told_with_its_place(void **state)
{
    struct control_bench *f = *state;
    int fd = control_bench_dial(f);

    control_bench_say(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"events.subscribe\"}\n");
    assert_non_null(strstr(control_bench_hear(fd), "\"result\""));
    assert_int_equal(loop_post(f->loop, report_io_error, f), 0);
    const char *line = control_bench_hear(fd);
    assert_non_null(
        strstr(line, "\"type\":\"io_error\",\"state\":\"running\",\"detail\":\"write of"));
    assert_non_null(strstr(line, "\"device\":\"disk.root\",\"op\":\"write\",\"offset\":8192,"
                                 "\"bytes\":4096,\"errno\":28,\"left_out\":3}}"));
    close(fd);
}

static void attaching_turns_the_connection_into_the_console(void **state)
{
    struct control_bench *f = *state;
    int fd = control_bench_dial(f);

    control_bench_say(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"console.attach\"}\nls\r");
    assert_string_equal(control_bench_hear(fd),
                        "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"state\":\"running\"}}");
    assert_string_equal(control_bench_hear(fd), "scrollback");
    close(fd);
    control_bench_expect_service(f); /* and is through with the other: what it wrote may be read */
    assert_string_equal(f->machine.attached_with, "ls\r");
}

static void the_client_hands_on_what_came_after_the_answer(void **state)
{
    struct control_client *client;
    struct error err = {0};
    const char *rest;
    char buf[32] = "";

    (void)state;
    assert_int_equal(control_client_open("web1", &client, &err), 0);
    assert_int_equal(
        control_client_call(client, "console.attach", NULL, CONTROL_BENCH_TIMEOUT_MS, NULL, &err),
        0);
    size_t len = control_client_take_rest(client, &rest);
    assert_in_range(len, 0, 10);
    if (len)
        memcpy(buf, rest, len);
    while (len < 10) {
        struct pollfd p = {.fd = control_client_fd(client), .events = POLLIN};
        assert_int_equal(poll(&p, 1, CONTROL_BENCH_TIMEOUT_MS), 1);
        ssize_t n = recv(p.fd, buf + len, sizeof(buf) - len, 0);
        assert_true(n > 0);
        len += (size_t)n;
    }
    assert_string_equal(buf, "scrollback");
    control_client_close(client);
}

static void kill_is_answered_before_the_end(void **state)
{
    struct control_client *client;
    struct error err = {0};
    json_t *result;

    (void)state;
    assert_int_equal(control_client_open("web1", &client, &err), 0);
    assert_int_equal(
        control_client_call(client, "vm.kill", NULL, CONTROL_BENCH_TIMEOUT_MS, &result, &err), 0);
    assert_string_equal(json_string_value(json_object_get(result, "state")), "ended");
    json_decref(result);
    assert_int_equal(
        control_client_call(client, "console.attach", NULL, CONTROL_BENCH_TIMEOUT_MS, NULL, &err),
        -EBUSY);
    control_client_close(client);
}

static void the_configuration_is_told(void **state)
{
    struct control_client *client;
    struct error err = {0};
    json_t *result;

    (void)state;
    assert_int_equal(control_client_open("web1", &client, &err), 0);
    assert_int_equal(
        control_client_call(client, "vm.config", NULL, CONTROL_BENCH_TIMEOUT_MS, &result, &err), 0);
    assert_int_equal(json_integer_value(json_object_get(result, "cpus")), 1);
    json_decref(result);
    control_client_close(client);
}

#define TEST(name) \
    cmocka_unit_test_setup_teardown(name, control_bench_setup, control_bench_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_call_is_answered_with_its_id),
        TEST(status_says_who_and_how),
        TEST(every_method_is_listed_and_served),
        TEST(an_uncertain_machine_resumes_only_by_force),
        TEST(keys_of_a_machine_are_set_by_texts),
        TEST(a_card_s_link_is_set_by_its_id),
        TEST(a_save_is_told_to_subscribers_with_its_figures),
        TEST(a_save_that_is_cancelled_has_failed),
        TEST(a_save_without_a_usable_path_is_refused),
        TEST(a_move_is_told_to_subscribers_with_its_figures),
        TEST(a_move_that_fails_says_where_the_machine_is),
        TEST(a_move_to_nowhere_is_refused),
        TEST(a_client_takes_events_one_by_one),
        TEST(the_machines_refusal_comes_in_its_words),
        TEST(a_notification_is_executed_silently),
        TEST(requests_may_come_in_any_pieces),
        TEST(a_client_that_only_listens_on_gets_its_answer),
        TEST(events_are_told_to_subscribers),
        TEST(an_io_error_is_told_with_its_place),
        TEST(attaching_turns_the_connection_into_the_console),
        TEST(the_client_hands_on_what_came_after_the_answer),
        TEST(kill_is_answered_before_the_end),
        TEST(the_configuration_is_told),
    };
    return cmocka_run_group_tests_name("control server", tests, NULL, NULL);
}
