/* SPDX-License-Identifier: Apache-2.0 */
/* The folder of sockets and the claim to a name; each test has a folder of its own. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmrun/control.h"

static char dir[64];

static int setup(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/vmrun-test-XXXXXX");
    return mkdtemp(dir) && setenv("VMRUN_DIR", dir, 1) == 0 ? 0 : -1;
}

static int teardown(void **state)
{
    char command[128];

    (void)state;
    snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    return system(command);
}

static void path_in_dir(const char *file, char *buf, size_t len)
{
    snprintf(buf, len, "%s/%s", dir, file);
}

static bool exists(const char *file)
{
    char path[128];
    struct stat st;

    path_in_dir(file, path, sizeof(path));
    return lstat(path, &st) == 0;
}

/* What a process that was killed leaves: a socket file that nobody listens on. */
static void leave_dead_socket(const char *file)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    path_in_dir(file, addr.sun_path, sizeof(addr.sun_path));
    assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    close(fd);
}

static void a_claimed_name_has_a_socket_for_its_owner_only(void **state)
{
    struct control_name *name;
    struct error err = {0};
    struct stat st;
    char path[128];

    (void)state;
    mode_t before = umask(0);
    int r = control_name_claim("web1", &name, &err);
    umask(before);

    assert_int_equal(r, 0);
    path_in_dir("web1.sock", path, sizeof(path));
    assert_int_equal(lstat(path, &st), 0);
    assert_true(S_ISSOCK(st.st_mode));
    assert_int_equal(st.st_mode & 07777, 0600);
    control_name_release(name);
    assert_false(exists("web1.sock"));
}

static void a_live_name_is_refused_with_its_pid(void **state)
{
    struct control_name *name, *second = NULL;
    struct error err = {0};
    char words[128];

    (void)state;
    assert_int_equal(control_name_claim("web1", &name, &err), 0);
    assert_int_equal(control_name_claim("web1", &second, &err), -EEXIST);
    snprintf(words, sizeof(words), "a machine named 'web1' is running (pid %d)", (int)getpid());
    assert_string_equal(err.msg, words);
    assert_null(second);
    assert_true(exists("web1.sock"));
    control_name_release(name);
}

static void a_dead_ones_socket_is_replaced(void **state)
{
    struct control_name *name;
    struct error err = {0};

    (void)state;
    leave_dead_socket("web1.sock");
    assert_int_equal(control_name_claim("web1", &name, &err), 0);
    control_name_release(name);
    assert_false(exists("web1.sock"));
}

static void a_file_in_the_way_is_left_alone(void **state)
{
    struct control_name *name = NULL;
    struct error err = {0};
    char path[128], words[256];

    (void)state;
    path_in_dir("web1.sock", path, sizeof(path));
    close(open(path, O_CREAT | O_WRONLY, 0600));
    assert_int_equal(control_name_claim("web1", &name, &err), -EEXIST);
    snprintf(words, sizeof(words), "%s: in the way and not a socket; remove it", path);
    assert_string_equal(err.msg, words);
    assert_true(exists("web1.sock"));
    assert_null(name);
}

static void what_is_no_name_is_refused(void **state)
{
    static const char *const wrong[] = {
        "",    ".",
        "..",  ".a",
        "-a",  "a/b",
        "a b", "ä",
        "a\n", "0123456789012345678901234567890123456789012345678901234567890123x"};
    struct control_name *name = NULL;
    struct control_client *client = NULL;
    struct error err = {0};

    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_int_equal(control_name_claim(wrong[i], &name, &err), -EINVAL);
        assert_int_equal(control_client_open(wrong[i], &client, &err), -EINVAL);
        assert_non_null(strstr(err.msg, "is not a name"));
    }
    assert_null(name);
    assert_null(client);
}

static void release_leaves_a_successors_socket_alone(void **state)
{
    struct control_name *name, *successor;
    struct error err = {0};
    char path[128];

    (void)state;
    assert_int_equal(control_name_claim("web1", &name, &err), 0);
    path_in_dir("web1.sock", path, sizeof(path));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(control_name_claim("web1", &successor, &err), 0);
    control_name_release(name);
    assert_true(exists("web1.sock"));
    control_name_release(successor);
    assert_false(exists("web1.sock"));
}

/* Wait for the start, claim, tell the outcome, and hold the name until told to go. */
static void contend(int start_fd, int result_fd, int end_fd)
{
    struct control_name *name = NULL;
    struct error err = {0};
    char c;

    if (read(start_fd, &c, 1) < 0)
        _exit(1);
    int r = control_name_claim("prize", &name, &err);
    c = r == 0 ? 'w' : r == -EEXIST ? 'l' : 'e';
    if (write(result_fd, &c, 1) != 1 || read(end_fd, &c, 1) < 0)
        _exit(1);
    control_name_release(name);
    _exit(0);
}

static void of_twenty_processes_one_wins(void **state)
{
    enum { PROCESSES = 20, ROUNDS = 5 };

    (void)state;
    for (unsigned round = 0; round < ROUNDS; round++) {
        int start[2], result[2], end[2];
        unsigned winners = 0, losers = 0;

        assert_int_equal(pipe(start) | pipe(result) | pipe(end), 0);
        leave_dead_socket("prize.sock");
        for (unsigned i = 0; i < PROCESSES; i++) {
            pid_t child = fork();

            assert_true(child >= 0);
            if (child == 0) {
                close(start[1]);
                close(end[1]);
                contend(start[0], result[1], end[0]);
            }
        }
        close(start[1]); /* the end of file starts all at once */
        for (unsigned i = 0; i < PROCESSES; i++) {
            char c = 0;

            assert_int_equal(read(result[0], &c, 1), 1);
            winners += c == 'w';
            losers += c == 'l';
        }
        close(end[1]);
        for (unsigned i = 0; i < PROCESSES; i++)
            assert_true(wait(NULL) > 0);
        assert_int_equal(winners, 1);
        assert_int_equal(losers, PROCESSES - 1);
        assert_false(exists("prize.sock"));
        close(start[0]);
        close(result[0]);
        close(result[1]);
        close(end[0]);
    }
}

static void the_list_is_sorted_and_sweeps_the_dead(void **state)
{
    struct control_name *b, *a;
    struct error err = {0};
    char **names, path[128];
    size_t count;

    (void)state;
    assert_int_equal(control_name_claim("b", &b, &err), 0);
    assert_int_equal(control_name_claim("a", &a, &err), 0);
    leave_dead_socket("dead.sock");
    leave_dead_socket("not-ours");
    path_in_dir("file.sock", path, sizeof(path));
    close(open(path, O_CREAT | O_WRONLY, 0600));

    assert_int_equal(control_list(&names, &count, &err), 0);
    assert_int_equal(count, 2);
    assert_string_equal(names[0], "a");
    assert_string_equal(names[1], "b");
    control_list_free(names, count);
    assert_false(exists("dead.sock"));
    assert_true(exists("not-ours"));
    assert_true(exists("file.sock"));
    control_name_release(a);
    control_name_release(b);
}

static void without_a_folder_the_list_is_empty(void **state)
{
    struct error err = {0};
    char **names, path[128];
    size_t count = 1;

    (void)state;
    path_in_dir("none", path, sizeof(path));
    setenv("VMRUN_DIR", path, 1);
    assert_int_equal(control_list(&names, &count, &err), 0);
    assert_int_equal(count, 0);
    assert_false(exists("none"));
}

static void claiming_makes_the_folder(void **state)
{
    struct control_name *name;
    struct error err = {0};
    struct stat st;
    char path[128];

    (void)state;
    path_in_dir("new", path, sizeof(path));
    setenv("VMRUN_DIR", path, 1);
    assert_int_equal(control_name_claim("web1", &name, &err), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    control_name_release(name);
}

static void the_environment_chooses_the_folder(void **state)
{
    char buf[CONTROL_PATH_MAX], expected[128];
    struct error err = {0};

    (void)state;
    unsetenv("VMRUN_DIR");
    setenv("XDG_RUNTIME_DIR", dir, 1);
    assert_int_equal(control_dir(false, buf, sizeof(buf), &err), 0);
    path_in_dir("vmrun", expected, sizeof(expected));
    assert_string_equal(buf, expected);

    unsetenv("XDG_RUNTIME_DIR");
    assert_int_equal(control_dir(false, buf, sizeof(buf), &err), 0);
    if (geteuid() == 0)
        assert_string_equal(buf, "/run/vmrun");
    else
        assert_memory_equal(buf, "/tmp/vmrun-", 11);
}

static void a_folder_that_others_write_in_is_refused(void **state)
{
    char buf[CONTROL_PATH_MAX], words[256];
    struct error err = {0};

    (void)state;
    assert_int_equal(chmod(dir, 0777), 0);
    assert_int_equal(control_dir(true, buf, sizeof(buf), &err), -EPERM);
    snprintf(words, sizeof(words), "%s: others may write in it; 'chmod go-w %s' mends it", dir,
             dir);
    assert_string_equal(err.msg, words);
}

static void a_folder_of_somebody_else_is_refused(void **state)
{
    char buf[CONTROL_PATH_MAX], link_path[128];
    struct error err = {0};

    (void)state;
    if (geteuid() != 0) {
        setenv("VMRUN_DIR", "/usr", 1);
        assert_int_equal(control_dir(true, buf, sizeof(buf), &err), -EPERM);
        return;
    }
    snprintf(link_path, sizeof(link_path), "%s.link", dir);
    assert_int_equal(symlink(dir, link_path), 0);
    setenv("VMRUN_DIR", link_path, 1);
    assert_int_equal(control_dir(true, buf, sizeof(buf), &err), 0);
    assert_int_equal(lchown(link_path, 65534, 65534), 0);
    assert_int_equal(control_dir(true, buf, sizeof(buf), &err), -EPERM);
    assert_non_null(strstr(err.msg, "a symbolic link of another user (uid 65534)"));
    unlink(link_path);

    setenv("VMRUN_DIR", dir, 1);
    assert_int_equal(chown(dir, 65534, 65534), 0);
    assert_int_equal(control_dir(true, buf, sizeof(buf), &err), -EPERM);
    assert_non_null(strstr(err.msg, "belongs to another user (uid 65534)"));
}

static void a_path_too_long_for_a_socket_is_refused(void **state)
{
    char buf[CONTROL_PATH_MAX], path[256];
    struct control_name *name = NULL;
    struct error err = {0};

    (void)state;
    memset(path, 'x', sizeof(path) - 1);
    path[sizeof(path) - 1] = '\0';
    path[0] = '/';
    setenv("VMRUN_DIR", path, 1);
    assert_int_equal(control_dir(true, buf, sizeof(buf), &err), -ENAMETOOLONG);
    assert_non_null(strstr(err.msg, "set VMRUN_DIR to a shorter path"));

    snprintf(path, sizeof(path), "%s/%052d", dir, 0);
    setenv("VMRUN_DIR", path, 1);
    assert_int_equal(control_name_claim("a-name-of-thirty-two-characters-", &name, &err),
                     -ENAMETOOLONG);
    assert_null(name);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_claimed_name_has_a_socket_for_its_owner_only),
        TEST(a_live_name_is_refused_with_its_pid),
        TEST(a_dead_ones_socket_is_replaced),
        TEST(a_file_in_the_way_is_left_alone),
        TEST(what_is_no_name_is_refused),
        TEST(release_leaves_a_successors_socket_alone),
        TEST(of_twenty_processes_one_wins),
        TEST(the_list_is_sorted_and_sweeps_the_dead),
        TEST(without_a_folder_the_list_is_empty),
        TEST(claiming_makes_the_folder),
        TEST(the_environment_chooses_the_folder),
        TEST(a_folder_that_others_write_in_is_refused),
        TEST(a_folder_of_somebody_else_is_refused),
        TEST(a_path_too_long_for_a_socket_is_refused),
    };
    return cmocka_run_group_tests_name("control names", tests, NULL, NULL);
}
