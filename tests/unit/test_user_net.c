/* SPDX-License-Identifier: Apache-2.0 */
/*
 * user_net: with a passt that does as it is told. This program is started as that passt, by a link
 * of this name in PATH; what it then does stands in FAKE_PASST.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_net.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <netinet/in.h>

#include "../../src/backends/passt.h"
#include "folder.h"
#include "vmrun/loop.h"
#include "vmrun/netdev.h"

#define HEADER NETDEV_HEADER_BYTES
#define WIRE 3 /* as vmrun gives it to passt */
#define FLOOD 4000
#define FLOOD_BYTES 9000

/* passt */

static void say_ready(void)
{
    dprintf(STDERR_FILENO, "%d\n", getpid());
}

static int echo(void)
{
    char bytes[4096];
    ssize_t n;

    say_ready();
    while ((n = recv(WIRE, bytes, sizeof(bytes), 0)) > 0)
        (void)send(WIRE, bytes, (size_t)n, 0);
    return n < 0;
}

/* A frame comes and many numbered ones go, as if the wire took and gave whatever it is asked. */
static int be_trusting(void)
{
    uint8_t frame[4 + FLOOD_BYTES] = {0, 0, FLOOD_BYTES >> 8, FLOOD_BYTES & 0xff};

    say_ready();
    if (recv(WIRE, frame + 4, 4 + 60, MSG_WAITALL) != 4 + 60)
        return 1;
    for (uint32_t i = 0; i < FLOOD; i++) {
        memcpy(frame + 4, &i, sizeof(i));
        if (send(WIRE, frame, sizeof(frame), MSG_NOSIGNAL) != sizeof(frame))
            return 1;
    }
    for (;;)
        pause();
    return 0;
}

static int send_and_wait(const void *bytes, size_t len)
{
    say_ready();
    (void)send(WIRE, bytes, len, MSG_NOSIGNAL);
    for (;;)
        pause();
    return 0;
}

/* Trace a process as a debugger does, and be slow to take note of its end. */
static void trace(pid_t traced, int report)
{
    struct pollfd end = {.fd = (int)syscall(SYS_pidfd_open, traced, 0), .events = POLLIN};

    close(WIRE);
    if (ptrace(PTRACE_SEIZE, traced, 0, 0) < 0 || write(report, "", 1) != 1)
        _exit(1);
    (void)poll(&end, 1, 10000);
    usleep(100000);
    _exit(0);
}

static int be_traced(void)
{
    int report[2];
    char byte;

    (void)prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY); /* unknown where nothing forbids it */
    if (pipe(report) < 0)
        return 1;
    pid_t traced = getpid(), tracer = fork();
    if (tracer == 0)
        trace(traced, report[1]);
    close(report[1]);
    if (tracer < 0 || read(report[0], &byte, 1) != 1) {
        dprintf(STDERR_FILENO, "nobody may trace it here\n");
        return 1;
    }
    return send_and_wait("", 0);
}

static int be_passt(const char *what)
{
    uint8_t half[1004] = {0, 0, 8, 0};

    if (strcmp(what, "echo") == 0)
        return echo();
    if (strcmp(what, "zero") == 0)
        return send_and_wait("\0\0\0\0\0\0\0\0", 8);
    if (strcmp(what, "4g") == 0)
        return send_and_wait("\xff\xff\xff\xff\xff\xff\xff\xff", 8);
    if (strcmp(what, "half") == 0)
        return send_and_wait(half, sizeof(half));
    if (strcmp(what, "trusting") == 0)
        return be_trusting();
    if (strcmp(what, "traced") == 0)
        return be_traced();
    if (strcmp(what, "words") == 0) {
        dprintf(STDERR_FILENO, "Failed to send 9 bytes to syslog\nno good\n\nand\tno way");
        return 1;
    }
    if (strcmp(what, "talks") == 0) {
        say_ready();
        for (;;)
            dprintf(STDERR_FILENO, "%0999d\n", 0);
    }
    if (strcmp(what, "mute") == 0) {
        say_ready();
        close(STDERR_FILENO);
        return echo();
    }
    if (strcmp(what, "once") == 0) { /* the second one finds its port taken */
        if (access(getenv("FAKE_MARK"), F_OK) == 0)
            return 1;
        close(open(getenv("FAKE_MARK"), O_CREAT | O_WRONLY, 0600));
        return echo();
    }
    for (;;) /* "nothing" */
        pause();
    return 0;
}

/* The bench */

static char folder[200];

static int setup(void **state)
{
    char self[512] = "", mark[220];

    assert_int_equal(folder_enter(state), 0);
    assert_non_null(getcwd(folder, sizeof(folder)));
    assert_true(readlink("/proc/self/exe", self, sizeof(self) - 1) > 0);
    assert_int_equal(symlink(self, "passt"), 0);
    snprintf(mark, sizeof(mark), "%s/mark", folder);
    setenv("FAKE_MARK", mark, 1);
    setenv("PATH", folder, 1);
    return 0;
}

static int try_open(const char *what, const char *forwards, struct netdev **ret, struct error *err)
{
    const struct user_net_params params = {.id = "net net0", .forwards = forwards, .mtu = 1500};

    setenv("FAKE_PASST", what, 1);
    return user_net_open(&params, ret, err);
}

static struct netdev *must_open(const char *what)
{
    struct netdev *netdev = NULL;
    struct error err;

    if (try_open(what, NULL, &netdev, &err) < 0)
        fail_msg("%s", err.msg);
    return netdev;
}

static void assert_refused(const char *what, const char *forwards, int code, const char *words)
{
    struct netdev *netdev = NULL;
    struct error err = {0};

    assert_int_equal(try_open(what, forwards, &netdev, &err), -code);
    assert_null(netdev);
    if (!strstr(err.msg, words))
        fail_msg("\"%s\" lacks \"%s\"", err.msg, words);
}

/* Serve the news for as long as that, or until the link is so. */
static bool link_becomes(struct netdev *netdev, bool up)
{
    uint64_t until_ns = loop_now_ns() + UINT64_C(10000000000);

    while (netdev_link_up(netdev) != up && loop_now_ns() < until_ns) {
        struct pollfd news = {.fd = netdev_link_fd(netdev), .events = POLLIN};

        (void)poll(&news, 1, 20);
        netdev_link_drain(netdev);
    }
    return netdev_link_up(netdev) == up;
}

/* The process, by what it was given. */
static pid_t passt_of(void)
{
    char path[64], text[32] = "";
    FILE *list;
    int pid = 0;

    snprintf(path, sizeof(path), "/proc/self/task/%d/children", getpid());
    list = fopen(path, "re");
    assert_non_null(list);
    if (fgets(text, sizeof(text), list))
        pid = atoi(text);
    fclose(list);
    return pid;
}

static int64_t send_frame(struct netdev *netdev, uint8_t *packet, size_t len)
{
    const struct iovec iov = {packet, len};
    int64_t n = netdev_send(netdev, 0, &iov, 1);

    (void)netdev_flush(netdev, 0);
    return n;
}

static int64_t receive(struct netdev *netdev, void *packet, size_t len, int timeout_ms)
{
    struct pollfd ready = {.fd = netdev_fd(netdev, 0), .events = POLLIN};
    const struct iovec iov = {packet, len};

    if (!netdev_more(netdev, 0))
        (void)poll(&ready, 1, timeout_ms);
    return netdev_receive(netdev, 0, &iov, 1);
}

static void assert_echoes(struct netdev *netdev)
{
    uint8_t packet[HEADER + 100] = {0}, got[HEADER + 200];

    memset(packet + HEADER, 7, 100);
    assert_int_equal(send_frame(netdev, packet, sizeof(packet)), sizeof(packet));
    assert_int_equal(receive(netdev, got, sizeof(got), 5000), sizeof(packet));
    packet[0] = VIRTIO_NET_HDR_F_DATA_VALID; /* the first of the header's bytes */
    assert_memory_equal(got, packet, sizeof(packet));
}

/* Tests */

static void frames_go_to_passt_and_come_from_it(void **state)
{
    struct netdev *netdev = must_open("echo");

    (void)state;
    assert_true(netdev_link_up(netdev));
    assert_false(netdev_offloads(netdev));
    assert_true(netdev_relays(netdev));
    assert_int_equal(netdev_mtu(netdev), 1500);
    assert_echoes(netdev);
    netdev_close(netdev);
}

/* Both ends of a wire may share whether they wait, and passt takes it that its own does. */
static void passt_may_wait_for_the_wire_and_nothing_is_lost(void **state)
{
    struct netdev *netdev = must_open("trusting");
    uint8_t packet[HEADER + 60] = {0}, got[HEADER + FLOOD_BYTES];
    uint32_t number = 0;

    (void)state;
    usleep(50000); /* it finds the wire empty */
    assert_int_equal(send_frame(netdev, packet, sizeof(packet)), sizeof(packet));
    usleep(50000); /* and then full */
    for (uint32_t i = 0; i < FLOOD; i++) {
        int64_t n = -EAGAIN;

        while (n == -EAGAIN && netdev_link_up(netdev)) {
            n = receive(netdev, got, sizeof(got), 1000);
            netdev_link_drain(netdev);
        }
        assert_int_equal(n, sizeof(got));
        memcpy(&number, got + HEADER, sizeof(number));
        assert_int_equal(number, i);
    }
    netdev_close(netdev);
}

static void assert_gone_when_closed(const char *what)
{
    struct netdev *netdev = must_open(what);
    pid_t passt = passt_of();

    assert_true(passt > 0);
    netdev_close(netdev);
    assert_int_equal(kill(passt, 0), -1);
    assert_int_equal(errno, ESRCH);
}

static void passt_is_gone_when_the_netdev_is_closed(void **state)
{
    (void)state;
    assert_gone_when_closed("half");
}

static void one_that_another_process_traces_is_gone_as_well(void **state)
{
    (void)state;
    assert_gone_when_closed("traced");
}

static void a_passt_that_dies_is_started_again_and_the_link_is_down_meanwhile(void **state)
{
    struct netdev *netdev = must_open("echo");
    pid_t first = passt_of();
    uint8_t packet[HEADER + 60] = {0};
    int fd = netdev_fd(netdev, 0);

    (void)state;
    assert_true(first > 0);
    kill(first, SIGKILL);
    assert_true(link_becomes(netdev, false));
    assert_int_equal(send_frame(netdev, packet, sizeof(packet)), -EIO);
    assert_true(link_becomes(netdev, true));
    assert_int_equal(netdev_fd(netdev, 0), fd);
    assert_int_not_equal(passt_of(), first);
    assert_echoes(netdev);
    netdev_close(netdev);
}

static void what_was_under_way_when_it_died_is_not_taken_for_something_else(void **state)
{
    struct netdev *netdev = must_open("half");
    uint8_t got[4096];

    (void)state;
    assert_int_equal(receive(netdev, got, sizeof(got), 5000), -EAGAIN);
    setenv("FAKE_PASST", "echo", 1);
    kill(passt_of(), SIGKILL);
    assert_true(link_becomes(netdev, false));
    assert_true(link_becomes(netdev, true));
    assert_echoes(netdev);
    netdev_close(netdev);
}

static void assert_ended_for(const char *what)
{
    struct netdev *netdev = must_open(what);
    pid_t first = passt_of();
    uint8_t got[4096];

    setenv("FAKE_PASST", "echo", 1);
    assert_int_equal(receive(netdev, got, sizeof(got), 5000), -EAGAIN);
    assert_int_equal(receive(netdev, got, sizeof(got), 0), -EAGAIN);
    assert_true(link_becomes(netdev, false));
    assert_true(link_becomes(netdev, true));
    assert_int_not_equal(passt_of(), first);
    assert_echoes(netdev);
    netdev_close(netdev);
}

static void one_that_sends_what_is_no_frame_is_ended_and_another_started(void **state)
{
    (void)state;
    assert_ended_for("zero");
    assert_ended_for("4g");
}

static void one_that_sends_half_a_frame_hangs_nobody(void **state)
{
    struct netdev *netdev = must_open("half");
    uint8_t got[4096];

    (void)state;
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(receive(netdev, got, sizeof(got), 10), -EAGAIN);
    assert_false(netdev_more(netdev, 0));
    netdev_close(netdev);
}

static void one_that_cannot_start_again_is_tried_ever_more_rarely(void **state)
{
    struct netdev *netdev = must_open("once");
    unsigned starts = 0;

    (void)state;
    kill(passt_of(), SIGKILL);
    assert_true(link_becomes(netdev, false));
    for (unsigned i = 0; i < 60; i++) {
        pid_t before = passt_of();
        struct pollfd news = {.fd = netdev_link_fd(netdev), .events = POLLIN};

        (void)poll(&news, 1, 20);
        netdev_link_drain(netdev);
        starts += passt_of() != before && passt_of() > 0;
        assert_false(netdev_link_up(netdev));
    }
    assert_in_range(starts, 1, 5);
    netdev_close(netdev);
}

static void its_words_are_told_when_it_does_not_start(void **state)
{
    (void)state;
    assert_refused("words", NULL, ECANCELED, "passt: no good; and?no way");
}

static void one_that_says_nothing_is_given_up(void **state)
{
    (void)state;
    assert_refused("nothing", NULL, ETIMEDOUT, "passt says nothing for");
    assert_int_equal(passt_of(), 0);
}

static void one_that_talks_for_ever_hangs_nobody(void **state)
{
    struct netdev *netdev = must_open("talks");

    (void)state;
    for (unsigned i = 0; i < 200; i++)
        netdev_link_drain(netdev);
    assert_true(netdev_link_up(netdev));
    netdev_close(netdev);
}

static void one_that_closes_its_stderr_is_not_listened_to_any_more(void **state)
{
    struct netdev *netdev = must_open("mute");
    struct pollfd news = {.fd = netdev_link_fd(netdev), .events = POLLIN};

    (void)state;
    assert_echoes(netdev);
    netdev_link_drain(netdev);
    assert_int_equal(poll(&news, 1, 100), 0); /* a hang-up that lasted would keep us busy */
    assert_true(netdev_link_up(netdev));
    netdev_close(netdev);
}

static void one_that_is_not_there_is_told_with_the_cure(void **state)
{
    const struct user_net_params params = {.id = "net net0", .mtu = 1500};
    struct error err;

    (void)state;
    setenv("PATH", "/nowhere", 1);
    assert_refused("echo", NULL, ENOENT, "passt is not installed; as root: apt install passt");
    assert_int_equal(user_net_check(&params, &err), -ENOENT);
    setenv("PATH", folder, 1);
    assert_int_equal(user_net_check(&params, &err), 0);
}

static int occupy(int type, uint16_t *ret_port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(at);
    int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    if (type == SOCK_STREAM)
        assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &len), 0);
    *ret_port = ntohs(at.sin_port);
    return fd;
}

static void a_port_that_is_taken_is_told_before_anything_starts(void **state)
{
    static const int types[] = {SOCK_STREAM, SOCK_DGRAM};

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        uint16_t port;
        int fd = occupy(types[i], &port);
        char forwards[40], words[120];

        snprintf(forwards, sizeof(forwards), "%s:%u:80", i ? "udp" : "tcp", port);
        snprintf(words, sizeof(words), "hostfwd: \"%s\": port %u of the host is taken", forwards,
                 port);
        assert_refused("echo", forwards, EADDRINUSE, words);
        snprintf(forwards, sizeof(forwards), "%s:127.0.0.1:%u:80", i ? "udp" : "tcp", port);
        assert_refused("echo", forwards, EADDRINUSE, "is taken");
        close(fd);
    }
    assert_refused("echo", "tcp:192.0.2.77:8080:80", EADDRNOTAVAIL, "no address 192.0.2.77");
}

static void it_dies_with_whoever_started_it_even_when_it_hears_nothing(void **state)
{
    int ends[2];
    pid_t passt = 0;

    (void)state;
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    assert_int_equal(pipe(ends), 0);
    pid_t vmm = fork();
    if (vmm == 0) {
        must_open("half"); /* it never looks at its socket again */
        passt = passt_of();
        (void)!write(ends[1], &passt, sizeof(passt));
        raise(SIGKILL);
    }
    assert_int_equal(waitpid(vmm, NULL, 0), vmm);
    assert_int_equal(read(ends[0], &passt, sizeof(passt)), sizeof(passt));
    int end = 0;
    assert_int_equal(waitpid(passt, &end, 0), passt);
    assert_true(WIFSIGNALED(end));
    close(ends[0]);
    close(ends[1]);
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 0), 0);
}

static void after_a_move_the_link_is_down_for_a_moment(void **state)
{
    struct netdev *netdev = must_open("echo");
    pid_t first = passt_of();

    (void)state;
    netdev_moved(netdev);
    assert_false(netdev_link_up(netdev));
    assert_true(link_becomes(netdev, true));
    assert_int_equal(passt_of(), first);
    assert_echoes(netdev);
    netdev_close(netdev);
}

static void assert_arguments(const char *forwards, const char *expected)
{
    char text[500] = "", **argv;
    struct error err;

    assert_int_equal(passt_arguments(forwards, 1500, &argv, &err), 0);
    for (unsigned i = 0; argv[i]; i++)
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s ", argv[i]);
    free(argv);
    assert_true(strncmp(text, "passt --foreground --quiet --fd 3 ", 34) == 0);
    assert_non_null(strstr(text, "--mtu 1500 "));
    assert_string_equal(strstr(text, "1500 ") + 5, expected);
}

static void passt_is_told_of_forwards_in_its_own_words(void **state)
{
    struct error err;
    char **argv;

    (void)state;
    assert_arguments(NULL, "");
    assert_arguments("", "");
    assert_arguments("tcp:8080:80", "-t 8080:80 -u none ");
    assert_arguments("udp:53:5353", "-u 53:5353 ");
    assert_arguments("tcp:127.0.0.1:1:2 udp:[::1]:3:4 tcp:65535:65535",
                     "-t 127.0.0.1/1:2 -u ::1/3:4 -t 65535:65535 ");
    assert_int_equal(passt_arguments("tcp:80", 1500, &argv, &err), -EINVAL);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_go_to_passt_and_come_from_it),
        cmocka_unit_test(passt_may_wait_for_the_wire_and_nothing_is_lost),
        cmocka_unit_test(passt_is_gone_when_the_netdev_is_closed),
        cmocka_unit_test(one_that_another_process_traces_is_gone_as_well),
        cmocka_unit_test(a_passt_that_dies_is_started_again_and_the_link_is_down_meanwhile),
        cmocka_unit_test(what_was_under_way_when_it_died_is_not_taken_for_something_else),
        cmocka_unit_test(one_that_sends_what_is_no_frame_is_ended_and_another_started),
        cmocka_unit_test(one_that_sends_half_a_frame_hangs_nobody),
        cmocka_unit_test(one_that_cannot_start_again_is_tried_ever_more_rarely),
        cmocka_unit_test(its_words_are_told_when_it_does_not_start),
        cmocka_unit_test(one_that_says_nothing_is_given_up),
        cmocka_unit_test(one_that_talks_for_ever_hangs_nobody),
        cmocka_unit_test(one_that_closes_its_stderr_is_not_listened_to_any_more),
        cmocka_unit_test(one_that_is_not_there_is_told_with_the_cure),
        cmocka_unit_test(a_port_that_is_taken_is_told_before_anything_starts),
        cmocka_unit_test(it_dies_with_whoever_started_it_even_when_it_hears_nothing),
        cmocka_unit_test(after_a_move_the_link_is_down_for_a_moment),
        cmocka_unit_test(passt_is_told_of_forwards_in_its_own_words),
    };

    if (argc > 1 && strcmp(argv[0], "passt") == 0)
        return be_passt(getenv("FAKE_PASST"));
    return cmocka_run_group_tests(tests, setup, folder_leave);
}
