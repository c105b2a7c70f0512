/* SPDX-License-Identifier: Apache-2.0 */
/* netstream: frames over a stream socket, with anything at the other end. */
#include <errno.h>
#include <linux/virtio_net.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../src/backends/netstream.h"
#include "vmrun/netdev.h"

#define HEADER NETDEV_HEADER_BYTES

struct bench {
    struct netstream s;
    int ours, theirs;
    uint8_t got[HEADER + NETSTREAM_MAX_FRAME + 100];
};

static int setup(void **state)
{
    static struct bench b;
    struct error err;
    int ends[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    memset(&b, 0, sizeof(b));
    b.ours = ends[0];
    b.theirs = ends[1];
    assert_int_equal(netstream_init(&b.s, b.ours, &err), 0);
    *state = &b;
    return 0;
}

static int teardown(void **state)
{
    struct bench *b = *state;

    netstream_fini(&b->s);
    close(b->ours);
    close(b->theirs);
    return 0;
}

static void write_all(struct bench *b, const void *data, size_t len)
{
    assert_int_equal(send(b->theirs, data, len, MSG_NOSIGNAL), (ssize_t)len);
}

static void write_length(struct bench *b, uint32_t length)
{
    const uint8_t bytes[4] = {(uint8_t)(length >> 24), (uint8_t)(length >> 16),
                              (uint8_t)(length >> 8), (uint8_t)length};

    write_all(b, bytes, 4);
}

static void write_frame(struct bench *b, uint32_t length, uint8_t seed)
{
    uint8_t *frame = malloc(length);

    memset(frame, seed, length);
    write_length(b, length);
    write_all(b, frame, length);
    free(frame);
}

static int64_t receive(struct bench *b)
{
    /* Pieces that cut the header as well as the frame. */
    const struct iovec iov[] = {{b->got, 5}, {b->got + 5, 20}, {b->got + 25, sizeof(b->got) - 25}};

    return netstream_receive(&b->s, iov, 3);
}

static void assert_frame(struct bench *b, uint32_t length, uint8_t seed)
{
    static const uint8_t header[HEADER] = {VIRTIO_NET_HDR_F_DATA_VALID};

    memset(b->got, 0xaa, sizeof(b->got));
    assert_int_equal(receive(b), HEADER + length);
    assert_memory_equal(b->got, header, HEADER);
    for (uint32_t i = 0; i < length; i++)
        assert_int_equal(b->got[HEADER + i], seed);
    assert_int_equal(b->got[HEADER + length], 0xaa);
}

static int64_t give(struct bench *b, uint8_t *packet, size_t len)
{
    const struct iovec iov[] = {{packet, 7}, {packet + 7, len - 7}};

    return netstream_send(&b->s, iov, 2);
}

/* Receiving */

static void frames_come_as_they_were_sent_and_need_not_be_checked(void **state)
{
    struct bench *b = *state;

    write_frame(b, 60, 1);
    write_frame(b, NETSTREAM_MIN_FRAME, 2);
    write_frame(b, NETSTREAM_MAX_FRAME, 3);
    assert_frame(b, 60, 1);
    assert_true(netstream_more(&b->s));
    assert_frame(b, NETSTREAM_MIN_FRAME, 2);
    while (!netstream_more(&b->s))
        assert_int_equal(receive(b), -EAGAIN);
    assert_frame(b, NETSTREAM_MAX_FRAME, 3);
    assert_false(netstream_more(&b->s));
    assert_int_equal(receive(b), -EAGAIN);
}

static void thousands_of_frames_pass_whatever_their_lengths(void **state)
{
    struct bench *b = *state;

    for (uint32_t i = 0; i < 3000; i++) {
        uint32_t length = NETSTREAM_MIN_FRAME + i * 7919 % 9000;

        write_frame(b, length, (uint8_t)i);
        if (i % 3 == 0)
            write_frame(b, 64, (uint8_t)~i);
        assert_frame(b, length, (uint8_t)i);
        if (i % 3 == 0)
            assert_frame(b, 64, (uint8_t)~i);
    }
}

static void a_frame_in_single_bytes_is_waited_for(void **state)
{
    struct bench *b = *state;
    const uint8_t stream[] = {0, 0, 0, 14, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9};

    for (size_t i = 0; i + 1 < sizeof(stream); i++) {
        write_all(b, stream + i, 1);
        assert_int_equal(receive(b), -EAGAIN);
        assert_false(netstream_more(&b->s));
    }
    write_all(b, stream + sizeof(stream) - 1, 1);
    assert_frame(b, 14, 9);
}

static void assert_no_frame(struct bench *b, uint32_t length)
{
    netstream_reset(&b->s);
    write_length(b, length);
    assert_int_equal(receive(b), -EPROTO);
    assert_int_equal(netstream_length(&b->s), length);
    assert_int_equal(receive(b), -EPROTO); /* nor is it taken for one later */
}

static void a_length_that_no_frame_has_is_refused_before_anything_is_read_for_it(void **state)
{
    struct bench *b = *state;

    assert_no_frame(b, 0);
    assert_no_frame(b, NETSTREAM_MIN_FRAME - 1);
    assert_no_frame(b, NETSTREAM_MAX_FRAME + 1);
    assert_no_frame(b, 0x80000000);
    assert_no_frame(b, UINT32_MAX);
}

static void half_a_frame_and_then_nothing_is_no_frame_and_no_wait(void **state)
{
    struct bench *b = *state;

    write_length(b, 60000);
    write_all(b, b->got, 30000);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(receive(b), -EAGAIN);
    netstream_reset(&b->s);
    write_frame(b, 60, 4);
    assert_frame(b, 60, 4);
}

static void the_end_of_the_stream_is_said(void **state)
{
    struct bench *b = *state;

    assert_int_equal(shutdown(b->theirs, SHUT_WR), 0);
    assert_int_equal(receive(b), -EPIPE);
}

static void what_has_no_room_is_cut_off(void **state)
{
    struct bench *b = *state;
    const struct iovec iov = {b->got, 20};

    write_frame(b, 60, 1);
    write_frame(b, 61, 2);
    memset(b->got, 0xaa, sizeof(b->got));
    assert_int_equal(netstream_receive(&b->s, &iov, 1), 20);
    assert_int_equal(b->got[20], 0xaa);
    assert_frame(b, 61, 2);
}

/* Sending */

static void frames_leave_together_behind_their_lengths(void **state)
{
    struct bench *b = *state;
    uint8_t one[HEADER + 60] = {0}, two[HEADER + 300] = {0}, bytes[1000];

    memset(one + HEADER, 1, 60);
    memset(two + HEADER, 2, 300);
    assert_int_equal(give(b, one, sizeof(one)), sizeof(one));
    assert_int_equal(give(b, two, sizeof(two)), sizeof(two));
    assert_int_equal(recv(b->theirs, bytes, sizeof(bytes), 0), -1); /* not yet */
    assert_int_equal(netstream_flush(&b->s), 0);
    assert_int_equal(recv(b->theirs, bytes, sizeof(bytes), 0), 4 + 60 + 4 + 300);
    assert_memory_equal(bytes, ((uint8_t[]){0, 0, 0, 60, 1}), 5);
    assert_memory_equal(bytes + 64, ((uint8_t[]){0, 0, 1, 44, 2}), 5);
    assert_memory_equal(bytes + 68, two + HEADER, 300);
}

static void a_frame_without_its_checksum_leaves_as_it_is(void **state)
{
    struct bench *b = *state;
    static uint8_t packet[HEADER + NETSTREAM_MAX_SENT], bytes[4 + NETSTREAM_MAX_SENT + 1];

    memset(packet + HEADER, 7, NETSTREAM_MAX_SENT);
    packet[0] = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    assert_int_equal(give(b, packet, sizeof(packet)), sizeof(packet));
    assert_int_equal(netstream_flush(&b->s), 0);
    assert_int_equal(recv(b->theirs, bytes, sizeof(bytes), MSG_WAITALL), 4 + NETSTREAM_MAX_SENT);
    assert_memory_equal(bytes, ((uint8_t[]){0, 0, 0xff, 0xff}), 4);
    assert_memory_equal(bytes + 4, packet + HEADER, NETSTREAM_MAX_SENT);
}

static void a_frame_that_is_none_or_to_be_cut_up_is_refused(void **state)
{
    struct bench *b = *state;
    static uint8_t packet[HEADER + NETSTREAM_MAX_FRAME + 1];
    uint8_t byte;

    assert_int_equal(give(b, packet, HEADER), -EINVAL);
    assert_int_equal(give(b, packet, HEADER + NETSTREAM_MIN_FRAME - 1), -EINVAL);
    assert_int_equal(give(b, packet, sizeof(packet)), -EINVAL);
    assert_int_equal(give(b, packet, HEADER + NETSTREAM_MAX_SENT + 1), -EINVAL);
    packet[1] = VIRTIO_NET_HDR_GSO_TCPV4;
    assert_int_equal(give(b, packet, HEADER + 60), -EINVAL);
    packet[1] = 0;
    assert_int_equal(netstream_flush(&b->s), 0);
    assert_int_equal(recv(b->theirs, &byte, 1, 0), -1);
}

/* Whatever the other end takes and when, it gets the same bytes as if it had taken them at once. */
static void a_full_socket_delays_frames_and_harms_none(void **state)
{
    struct bench *b = *state;
    static uint8_t packet[HEADER + 40000], bytes[70001];
    unsigned sent = 0, refused = 0;
    size_t in_frame = 0, frames = 0;
    uint8_t length[4];

    while (frames < 200) {
        for (unsigned i = 0; i < 8 && sent < 200; i++) {
            memset(packet + HEADER, (int)sent, sizeof(packet) - HEADER);
            int64_t n = give(b, packet, sizeof(packet));

            if (n == -EAGAIN) {
                refused++;
                break;
            }
            assert_int_equal(n, sizeof(packet));
            int r = netstream_flush(&b->s);

            /* The guest has its buffer back, and writes to it. */
            memset(packet, 0xee, sizeof(packet));
            memset(packet, 0, HEADER);
            assert_true(r == 0 || r == -EAGAIN);
            sent++;
        }
        ssize_t n = recv(b->theirs, bytes, sizeof(bytes), 0);

        for (ssize_t i = 0; i < n; i++) {
            if (in_frame < 4) {
                length[in_frame] = bytes[i];
            } else {
                assert_int_equal(bytes[i], frames & 0xff);
            }
            if (++in_frame == 4)
                assert_memory_equal(length, ((uint8_t[]){0, 0, 0x9c, 0x40}), 4);
            if (in_frame == 4 + 40000) {
                in_frame = 0;
                frames++;
            }
        }
        int r = netstream_flush(&b->s);

        assert_true(r == 0 || r == -EAGAIN);
    }
    assert_true(refused > 0);
}

static void many_small_frames_need_no_more_room_than_there_is(void **state)
{
    struct bench *b = *state;
    uint8_t packet[HEADER + 60] = {0};
    static uint8_t bytes[100000];
    size_t got = 0;

    for (unsigned i = 0; i < 1000; i++)
        assert_int_equal(give(b, packet, sizeof(packet)), sizeof(packet));
    assert_int_equal(netstream_flush(&b->s), 0);
    for (ssize_t n; (n = recv(b->theirs, bytes, sizeof(bytes), 0)) > 0;)
        got += (size_t)n;
    assert_int_equal(got, 1000 * (4 + 60));
}

static void a_closed_other_end_is_no_signal_and_no_wait(void **state)
{
    struct bench *b = *state;
    uint8_t packet[HEADER + 60] = {0};

    close(b->theirs);
    b->theirs = dup(b->ours);
    assert_int_equal(give(b, packet, sizeof(packet)), sizeof(packet));
    assert_int_equal(netstream_flush(&b->s), -EPIPE);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(frames_come_as_they_were_sent_and_need_not_be_checked),
        TEST(thousands_of_frames_pass_whatever_their_lengths),
        TEST(a_frame_in_single_bytes_is_waited_for),
        TEST(a_length_that_no_frame_has_is_refused_before_anything_is_read_for_it),
        TEST(half_a_frame_and_then_nothing_is_no_frame_and_no_wait),
        TEST(the_end_of_the_stream_is_said),
        TEST(what_has_no_room_is_cut_off),
        TEST(frames_leave_together_behind_their_lengths),
        TEST(a_frame_without_its_checksum_leaves_as_it_is),
        TEST(a_frame_that_is_none_or_to_be_cut_up_is_refused),
        TEST(a_full_socket_delays_frames_and_harms_none),
        TEST(many_small_frames_need_no_more_room_than_there_is),
        TEST(a_closed_other_end_is_no_signal_and_no_wait),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
