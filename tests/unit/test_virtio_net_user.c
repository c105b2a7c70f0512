/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A card on the user's backend: its driver here, and there a passt that is this program, which
 * sends what it gets straight back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "folder.h"
#include "nic_bench.h"
#include "vmrun/loop.h"

#define WIRE 3
#define FRAMES 200
#define BYTES (HEADER + 60)

/* Hold everything back until there are so many frames, so that they come in one piece. */
static int be_passt(void)
{
    static char bytes[FRAMES * (4 + 60)];
    size_t have = 0;

    dprintf(STDERR_FILENO, "%d\n", getpid());
    for (;;) {
        ssize_t n = recv(WIRE, bytes + have, sizeof(bytes) - have, 0);

        if (n <= 0)
            return n < 0;
        have += (size_t)n;
        if (have == sizeof(bytes) && send(WIRE, bytes, have, MSG_NOSIGNAL) > 0)
            have = 0;
    }
}

static int setup(void **state)
{
    char self[512] = "", path[400];

    assert_int_equal(folder_enter(state), 0);
    assert_true(readlink("/proc/self/exe", self, sizeof(self) - 1) > 0);
    assert_int_equal(symlink(self, "passt"), 0);
    assert_non_null(getcwd(path, sizeof(path)));
    setenv("PATH", path, 1);
    return 0;
}

static void all_frames_of_one_piece_reach_the_guest(void **state)
{
    const struct user_net_params params = {.id = "net net0", .mtu = 1500};
    static struct nic_bench f;
    struct netdev *netdev;
    struct error err = {.msg = ""};
    uint8_t packet[BYTES], got[2048];
    unsigned sent = 0, received = 0;

    (void)state;
    user_net_open(&params, &netdev, &err);
    assert_string_equal(err.msg, "");
    virtio_machine_init(&f.m, NULL);
    nic_create(&f.m, netdev, 1, NULL, &f.dev, &err);
    assert_string_equal(err.msg, "");
    virtio_driver_init(&f.d, &f.m, f.dev);
    assert_true(virtio_driver_offered(&f.d) & BIT(VIRTIO_NET_F_CSUM));
    assert_false(virtio_driver_offered(&f.d) & BIT(VIRTIO_NET_F_HOST_TSO4));
    virtio_driver_start(&f.d, ALL);
    nic_give_rx(&f, 250, 1536);
    for (; sent < FRAMES; sent++) {
        nic_fill_packet(packet, sizeof(packet), nic_mac, (uint8_t)sent);
        nic_add_tx(&f, TX, packet, sizeof(packet));
    }
    virtio_driver_kick(&f.d, TX);
    uint64_t until_ns = loop_now_ns() + UINT64_C(20000000000);

    while (received < FRAMES && loop_now_ns() < until_ns) {
        size_t len;

        nic_run(&f);
        while ((len = nic_take_rx(&f, RX, got)) > 0) {
            nic_fill_packet(packet, sizeof(packet), nic_mac, (uint8_t)received++);
            assert_int_equal(len, sizeof(packet));
            assert_int_equal(got[0], VIRTIO_NET_HDR_F_DATA_VALID);
            assert_memory_equal(got + HEADER, packet + HEADER, sizeof(packet) - HEADER);
        }
    }
    assert_int_equal(received, FRAMES);
    assert_int_equal(nic_stats(&f).rx_frames, FRAMES);
    assert_int_equal(nic_stats(&f).tx_frames, FRAMES);
    device_destroy(f.dev);
    netdev_close(netdev);
    virtio_machine_fini(&f.m);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(all_frames_of_one_piece_reach_the_guest)};

    if (argc > 1 && strcmp(argv[0], "passt") == 0)
        return be_passt();
    return cmocka_run_group_tests_name("virtio_net_user", tests, setup, folder_leave);
}
