/* SPDX-License-Identifier: Apache-2.0 */
/* console: what the guest printed on one is shown by another, where the guest goes on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "folder.h"
#include "vmrun/console.h"

#define LIMIT CONSOLE_SCROLLBACK_BYTES

static struct loop *loop;

static struct console *open_console(enum console_kind kind)
{
    const struct console_params params = {.kind = kind, .path = "log"};
    struct console *console;
    struct error err;

    if (console_create(&params, loop, &console, &err) < 0)
        fail_msg("%s", err.msg);
    return console;
}

static int setup(void **state)
{
    struct error err;

    (void)state;
    return loop_create(&loop, &err);
}

static int teardown(void **state)
{
    (void)state;
    loop_destroy(loop);
    return 0;
}

static void stop(void *opaque)
{
    loop_stop(opaque);
}

/* What a client that attaches now is shown at once. */
static size_t view(struct console *console, uint8_t *seen, size_t room)
{
    int ends[2], bytes = 4 << 20;
    struct error err;

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    assert_int_equal(setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes)), 0);
    assert_int_equal(console_attach(console, ends[1], NULL, 0, &err), 0);
    size_t len = 0;

    for (;;) {
        ssize_t n = recv(ends[0], seen + len, room - len, MSG_DONTWAIT);

        if (n <= 0) {
            assert_int_equal(loop_post(loop, stop, loop), 0);
            assert_int_equal(loop_run(loop, &err), 0); /* it goes on where it was full */
            n = recv(ends[0], seen + len, room - len, MSG_DONTWAIT);
        }
        if (n <= 0)
            break;
        len += (size_t)n;
    }
    close(ends[0]);
    return len;
}

static struct writer get(struct console *console)
{
    struct writer w = {0};
    uint64_t from = 0;

    console_scrollback_get(console, &from, &w);
    assert_false(w.failed);
    return w;
}

static void a_client_sees_what_was_printed_before_and_after_the_move(void **state)
{
    static const uint8_t before[] = "boot\r\n\0\x1b[31m\xff", after[] = "login: ";
    struct console *from = open_console(CONSOLE_NONE), *to = open_console(CONSOLE_NONE);
    uint8_t seen[100];

    (void)state;
    assert_int_equal(console_write(from, before, sizeof(before)), sizeof(before));
    struct writer moved = get(from);

    console_scrollback_put(to, moved.data, moved.len);
    assert_int_equal(console_write(to, after, 7), 7);
    assert_int_equal(view(to, seen, sizeof(seen)), sizeof(before) + 7);
    assert_memory_equal(seen, before, sizeof(before));
    assert_memory_equal(seen + sizeof(before), after, 7);
    struct writer again = get(to);

    assert_int_equal(again.len, sizeof(before) + 7); /* and moves on */
    free(moved.data);
    free(again.data);
    console_destroy(from);
    console_destroy(to);
}

static void what_was_taken_before_is_not_taken_again(void **state)
{
    struct console *from = open_console(CONSOLE_NONE);
    uint8_t *much = calloc(1, LIMIT);
    struct writer w = {0};
    uint64_t at = 0;

    (void)state;
    assert_int_equal(console_write(from, (const uint8_t *)"before", 6), 6);
    console_scrollback_get(from, &at, &w);
    assert_int_equal(w.len, 6);
    console_scrollback_get(from, &at, &w);
    assert_int_equal(w.len, 6);
    assert_int_equal(console_write(from, (const uint8_t *)"after", 5), 5);
    console_scrollback_get(from, &at, &w);
    assert_int_equal(w.len, 11);
    assert_memory_equal(w.data, "beforeafter", 11);
    w.len = 0;
    assert_int_equal(console_write(from, much, LIMIT), LIMIT);
    assert_int_equal(console_write(from, (const uint8_t *)"end", 3), 3);
    console_scrollback_get(from, &at, &w); /* of too much the end */
    assert_int_equal(w.len, LIMIT);
    assert_memory_equal(w.data + LIMIT - 3, "end", 3);
    free(w.data);
    free(much);
    console_destroy(from);
}

static void a_log_file_gets_only_what_is_new(void **state)
{
    struct console *to = open_console(CONSOLE_FILE);
    struct stat st;

    (void)state;
    console_scrollback_put(to, "old\n", 4);
    assert_int_equal(console_write(to, (const uint8_t *)"new", 3), 3);
    console_destroy(to); /* which flushes */
    assert_int_equal(stat("log", &st), 0);
    assert_int_equal(st.st_size, 3);
}

static void of_too_much_the_end_is_kept(void **state)
{
    struct console *to = open_console(CONSOLE_NONE);
    size_t len = LIMIT * 3 + 5;
    uint8_t *data = malloc(len), *seen = malloc(len);

    (void)state;
    for (size_t i = 0; i < len; i++)
        data[i] = (uint8_t)(i * 7 + i / 251);
    console_scrollback_put(to, data, len);
    assert_int_equal(view(to, seen, len), LIMIT);
    assert_memory_equal(seen, data + len - LIMIT, LIMIT);
    assert_int_equal(console_write(to, data, 10), 10); /* the guest need not wait */
    free(data);
    free(seen);
    console_destroy(to);
}

static void nothing_moves_as_nothing(void **state)
{
    struct console *from = open_console(CONSOLE_NONE);
    struct writer moved = get(from);
    uint8_t seen[10];

    (void)state;
    assert_int_equal(moved.len, 0);
    console_scrollback_put(from, NULL, 0);
    assert_int_equal(view(from, seen, sizeof(seen)), 0);
    free(moved.data);
    console_destroy(from);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_client_sees_what_was_printed_before_and_after_the_move,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(what_was_taken_before_is_not_taken_again, setup, teardown),
        cmocka_unit_test_setup_teardown(a_log_file_gets_only_what_is_new, setup, teardown),
        cmocka_unit_test_setup_teardown(of_too_much_the_end_is_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(nothing_moves_as_nothing, setup, teardown),
    };
    return cmocka_run_group_tests_name("console move", tests, folder_enter, folder_leave);
}
