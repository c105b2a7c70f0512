/* SPDX-License-Identifier: Apache-2.0 */
/* Frames: what is sent is received, and what was not sent so is refused with the frame named. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "../../src/migration/frame.h"
#include "memory_channel.h"

#define TYPES FRAME_REHEARSED
#define HEADER FRAME_HEADER_BYTES

static uint8_t big[64u << 20];

/* A small body that is allowed for each type. */
static uint32_t small_length(enum frame_type type)
{
    switch (type) {
    case FRAME_MEMORY: return 32;
    case FRAME_PAGES: return FRAME_PAGES_HEADER_BYTES + 40;
    case FRAME_MARK:
    case FRAME_COMMIT: return 8;
    default: return 10 + (uint32_t)type;
    }
}

static void send(struct frame_stream *s, enum frame_type type, uint16_t flags, const void *body,
                 size_t len)
{
    struct iovec iov = {(void *)(uintptr_t)body, len};
    struct error err;

    if (frame_send(s, type, flags, &iov, 1, &err) < 0)
        fail_msg("%s", err.msg);
}

/* One frame of each type; where each ends. */
static struct channel record(size_t ends[TYPES + 1])
{
    struct channel channel = {0};
    struct frame_stream s = {.channel = &channel};

    for (size_t i = 0; i < 1024; i++)
        big[i] = (uint8_t)(i * 7 + i / 256);
    ends[0] = 0;
    for (unsigned type = 1; type <= TYPES; type++) {
        send(&s, type, 0, big + type, small_length(type));
        ends[type] = channel.out_len;
    }
    return channel;
}

/* All that is there to receive; how many frames it took. */
static unsigned receive_all(const uint8_t *data, size_t len, struct error *err)
{
    struct channel channel = {.in = data, .in_len = len};
    struct frame_stream s = {.channel = &channel};
    unsigned frames = 0;
    struct frame frame;

    for (err->code = 0; channel.in_at < len; frames++) {
        if (frame_recv(&s, &frame, err) < 0)
            return frames;
        assert_in_range(frame.length, 0, frame_max_bytes(frame.type));
        void *body = malloc((size_t)frame.length + 1);
        struct iovec iov = {body, frame.length};
        int r = frame_recv_body(&s, &iov, 1, err);

        if (r == 0)
            r = frame_recv_end(&s, err);
        free(body);
        if (r < 0)
            return frames;
    }
    return frames;
}

static void assert_blames(const struct error *err, unsigned frame)
{
    char words[16];

    (void)snprintf(words, sizeof(words), "frame %u", frame);
    if (strncmp(err->msg, words, strlen(words)) != 0 || !strchr(": ", err->msg[strlen(words)]))
        fail_msg("not of frame %u: %s", frame, err->msg);
}

/* Another writer of headers, as the specification says. */
static size_t craft(uint8_t *to, unsigned type, unsigned flags, uint32_t sequence, uint32_t length,
                    const void *body, size_t there)
{
    uint8_t header[HEADER] = {
        0x76, 0x6d, (uint8_t)type, (uint8_t)(type >> 8), (uint8_t)flags, (uint8_t)(flags >> 8)};
    uint64_t sum;

    for (unsigned i = 0; i < 4; i++) {
        header[8 + i] = (uint8_t)(length >> (8 * i));
        header[12 + i] = (uint8_t)(sequence >> (8 * i));
    }
    sum = XXH3_64bits(header, HEADER);
    header[6] = (uint8_t)sum;
    header[7] = (uint8_t)(sum >> 8);
    memcpy(to, header, HEADER);
    if (there)
        memcpy(to + HEADER, body, there);
    sum = XXH3_64bits(to, HEADER + there);
    for (unsigned i = 0; i < 8; i++)
        to[16 + i] = (uint8_t)(sum >> (8 * i));
    return HEADER + there;
}

static void what_is_sent_is_received(void **state)
{
    size_t ends[TYPES + 1];
    struct channel sent = record(ends);
    struct channel channel = {.in = sent.out, .in_len = sent.out_len};
    struct frame_stream s = {.channel = &channel};
    struct error err;
    size_t len;
    void *body;

    (void)state;
    for (unsigned type = 1; type <= TYPES; type++) {
        if (frame_expect(&s, type, &body, &len, &err) < 0)
            fail_msg("%s", err.msg);
        assert_int_equal(len, small_length(type));
        assert_memory_equal(body, big + type, len);
        assert_int_equal(((uint8_t *)body)[len], 0);
        free(body);
    }
    assert_int_equal(channel.in_at, sent.out_len);
    assert_int_equal(s.received, TYPES);
    free(sent.out);
}

static void the_bytes_are_those_of_the_specification(void **state)
{
    static const uint8_t stamp[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    static const uint8_t golden[] = {0x76, 0x6d, 0x0c, 0x00, 0x01, 0x00, 0x6a, 0x58,
                                     0x08, 0x00, 0x00, 0x00, 0x05, 0x00, 0x00, 0x00,
                                     0x9b, 0x22, 0x89, 0xb8, 0x2a, 0x8e, 0xa7, 0x2d,
                                     0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08};
    struct channel channel = {0};
    struct frame_stream s = {.channel = &channel, .sent = 5};
    uint8_t crafted[64];

    (void)state;
    send(&s, FRAME_COMMIT, 0, stamp, sizeof(stamp));
    assert_int_equal(channel.out_len, sizeof(golden));
    craft(crafted, FRAME_COMMIT, FRAME_CRITICAL, 5, 8, stamp, 8);
    assert_memory_equal(channel.out, crafted, sizeof(golden));
    assert_memory_equal(channel.out, golden, sizeof(golden));
    free(channel.out);
}

static void a_body_may_be_given_and_taken_in_pieces(void **state)
{
    const size_t length = FRAME_PAGES_HEADER_BYTES + FRAME_PAGES_MAX * 4096;
    struct iovec out[FRAME_MAX_IOV], in[FRAME_MAX_IOV];
    struct channel channel = {0};
    struct frame_stream s = {.channel = &channel};
    uint8_t *got = calloc(1, length), *body = malloc(length);
    struct frame frame;
    struct error err;
    size_t at = 0, piece = length / FRAME_MAX_IOV;

    (void)state;
    for (size_t i = 0; i < length; i++)
        body[i] = (uint8_t)(i ^ i >> 9);
    for (unsigned i = 0; i < FRAME_MAX_IOV; i++, at += piece)
        out[i] = (struct iovec){body + at, i + 1 < FRAME_MAX_IOV ? piece : length - at};
    assert_int_equal(frame_send(&s, FRAME_PAGES, 0, out, FRAME_MAX_IOV, &err), 0);
    channel.in = channel.out;
    channel.in_len = channel.out_len;
    assert_int_equal(frame_recv(&s, &frame, &err), 0);
    assert_int_equal(frame.length, length);
    /* The header of PAGES; then pages to many places, none and one at once. */
    in[0] = (struct iovec){got, FRAME_PAGES_HEADER_BYTES};
    assert_int_equal(frame_recv_body(&s, in, 1, &err), 0);
    assert_int_equal(frame_recv_body(&s, in, 0, &err), 0);
    for (unsigned i = 0; i < 200; i++)
        in[i] = (struct iovec){got + FRAME_PAGES_HEADER_BYTES + (size_t)i * 4096, i % 7 ? 4096 : 0};
    for (unsigned i = 0; i < 200; i += 7) /* the holes of length 0 come out of the next one */
        in[i] = (struct iovec){in[i].iov_base, 4096};
    assert_int_equal(frame_recv_body(&s, in, 200, &err), 0);
    at = FRAME_PAGES_HEADER_BYTES + (size_t)200 * 4096;
    in[0] = (struct iovec){got + at, 0};
    in[1] = (struct iovec){got + at, length - at};
    assert_int_equal(frame_recv_body(&s, in, 2, &err), 0);
    assert_int_equal(frame_recv_end(&s, &err), 0);
    assert_memory_equal(got, body, length);
    free(channel.out);
    free(body);
    free(got);
}

static void what_is_not_taken_of_a_body_is_dropped_and_still_checked(void **state)
{
    struct channel channel = {0};
    struct frame_stream s = {.channel = &channel};
    struct frame frame;
    struct error err;
    uint8_t begin[5];
    struct iovec iov = {begin, 5};

    (void)state;
    send(&s, FRAME_PING, 0, big, 100000);
    send(&s, FRAME_PING, 0, big, 100000);
    channel.in = channel.out;
    channel.in_len = channel.out_len;
    channel.out[2 * HEADER + 199999] ^= 1;
    assert_int_equal(frame_recv(&s, &frame, &err), 0);
    assert_int_equal(frame_recv_body(&s, &iov, 1, &err), 0);
    assert_int_equal(frame_recv_end(&s, &err), 0);
    assert_int_equal(frame_recv(&s, &frame, &err), 0);
    assert_int_equal(frame_recv_end(&s, &err), -EPROTO);
    assert_string_equal(err.msg, "frame 1 (PING): does not match its checksum: damaged on the way");
    free(channel.out);
}

static void every_byte_that_is_flipped_is_noticed_in_its_frame(void **state)
{
    static const uint8_t flips[] = {0x01, 0x80, 0xff};
    size_t ends[TYPES + 1];
    struct channel sent = record(ends);
    struct error err;

    (void)state;
    assert_int_equal(receive_all(sent.out, sent.out_len, &err), TYPES);
    for (unsigned frame = 0; frame < TYPES; frame++) {
        for (size_t at = ends[frame]; at < ends[frame + 1]; at++) {
            for (unsigned i = 0; i < sizeof(flips); i++) {
                sent.out[at] ^= flips[i];
                assert_int_equal(receive_all(sent.out, sent.out_len, &err), frame);
                assert_int_equal(err.code, EPROTO);
                assert_blames(&err, frame);
                sent.out[at] ^= flips[i];
            }
        }
    }
    free(sent.out);
}

static void a_stream_cut_anywhere_is_refused_in_the_frame_that_is_cut(void **state)
{
    size_t ends[TYPES + 1];
    struct channel sent = record(ends);
    struct error err;

    (void)state;
    for (unsigned frame = 0; frame < TYPES; frame++) {
        for (size_t len = ends[frame] + 1; len < ends[frame + 1]; len++) {
            assert_int_equal(receive_all(sent.out, len, &err), frame);
            assert_int_equal(err.code, EPIPE);
            assert_blames(&err, frame);
        }
    }
    free(sent.out);
}

static void an_end_between_frames_is_told_as_one(void **state)
{
    struct channel channel = {0};
    struct frame_stream s = {.channel = &channel, .received = 7};
    struct frame frame;
    struct error err;

    (void)state;
    assert_int_equal(frame_recv(&s, &frame, &err), -EPIPE);
    assert_string_equal(err.msg, "frame 7: the other side closed the connection");
}

static void a_length_out_of_bounds_is_refused_before_its_body_is_touched(void **state)
{
    (void)state;
    for (unsigned type = 1; type <= TYPES; type++) {
        uint32_t lengths[] = {frame_max_bytes(type) + 1, UINT32_MAX, UINT32_C(1) << 31, 1};
        bool fixed = type == FRAME_MARK || type == FRAME_COMMIT || type == FRAME_MEMORY ||
                     type == FRAME_PAGES;

        for (unsigned i = 0; i < (fixed ? 4 : 3); i++) {
            uint8_t frame_bytes[HEADER + 64];
            struct channel channel = {.in = frame_bytes, .in_len = sizeof(frame_bytes)};
            struct frame_stream s = {.channel = &channel};
            struct frame frame;
            struct error err;

            craft(frame_bytes, type, FRAME_CRITICAL, 0, lengths[i], big, 64);
            assert_int_equal(frame_recv(&s, &frame, &err), -EPROTO);
            assert_int_equal(channel.in_at, HEADER);
            assert_blames(&err, 0);
            assert_non_null(strstr(err.msg, frame_name(type)));
            assert_non_null(strstr(err.msg, "where it may have"));
        }
    }
}

static void the_longest_body_of_each_type_is_taken(void **state)
{
    (void)state;
    for (unsigned type = 1; type <= TYPES; type++) {
        struct channel channel = {0};
        struct frame_stream s = {.channel = &channel};
        struct error err;

        send(&s, type, 0, big, frame_max_bytes(type));
        assert_int_equal(receive_all(channel.out, channel.out_len, &err), 1);
        assert_int_equal(err.code, 0);
        free(channel.out);
    }
}

static void frames_in_another_order_missing_or_twice_are_refused(void **state)
{
    static const unsigned orders[][3] = {{1, 0, 2}, {0, 2, 1}, {0, 0, 1}, {0, 2, 2}, {1, 2, 0}};
    uint8_t frames[3][HEADER + 8], stream[3 * (HEADER + 8)];
    struct error err;

    (void)state;
    for (unsigned i = 0; i < 3; i++)
        craft(frames[i], FRAME_MARK, FRAME_CRITICAL, i, 8, big, 8);
    for (unsigned k = 0; k < sizeof(orders) / sizeof(orders[0]); k++) {
        unsigned good = 0;

        for (unsigned i = 0; i < 3; i++)
            memcpy(stream + i * sizeof(frames[0]), frames[orders[k][i]], sizeof(frames[0]));
        while (orders[k][good] == good)
            good++;
        assert_int_equal(receive_all(stream, sizeof(stream), &err), good);
        assert_int_equal(err.code, EPROTO);
        assert_blames(&err, good);
        assert_non_null(strstr(err.msg, "has the number"));
    }
}

static void what_is_unknown_is_skipped_unless_it_is_critical(void **state)
{
    static const struct {
        unsigned type, flags;
        uint32_t length;
        unsigned frames; /* that were taken after it */
    } cases[] = {
        {19, 0, 300, 1}, {999, 0, 0, 1},         {0xffff, 0xfffe, 5000, 1},  {0, 0, 8, 1},
        {19, 1, 300, 0}, {0xffff, 0xffff, 4, 0}, {19, 0, (4u << 20) + 1, 0}, {19, 0, UINT32_MAX, 0},
    };
    uint8_t *stream = malloc(HEADER + 5000 + HEADER + 8);
    struct error err;

    (void)state;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t there = cases[i].length > 5000 ? 0 : cases[i].length;
        size_t len = craft(stream, cases[i].type, cases[i].flags, 0, cases[i].length, big, there);

        len += craft(stream + len, FRAME_MARK, FRAME_CRITICAL, 1, 8, big, 8);
        assert_int_equal(receive_all(stream, len, &err), cases[i].frames);
        assert_int_equal(err.code, cases[i].frames ? 0 : EPROTO);
        if (!cases[i].frames)
            assert_non_null(strstr(err.msg, cases[i].type == 19 ? "(type 19)" : "(type 65535)"));
        if (!cases[i].frames || there == 0)
            continue;
        stream[HEADER + there - 1] ^= 4; /* it is skipped, but not unseen */
        assert_int_equal(receive_all(stream, len, &err), 0);
        assert_int_equal(err.code, EPROTO);
        assert_blames(&err, 0);
    }
    free(stream);
}

static void flags_that_a_type_does_not_have_are_refused(void **state)
{
    uint8_t stream[HEADER + 8];
    struct error err;

    (void)state;
    craft(stream, FRAME_COMMIT, FRAME_CRITICAL | FRAME_ZSTD, 0, 8, big, 8);
    assert_int_equal(receive_all(stream, sizeof(stream), &err), 0);
    assert_string_equal(err.msg, "frame 0 (COMMIT): has the flags 0x3: sent by a newer vmrun?");
    craft(stream, FRAME_PAGES, FRAME_CRITICAL | 4, 0, 8, big, 8);
    assert_int_equal(receive_all(stream, sizeof(stream), &err), 0);
    craft(stream, FRAME_PAGES, FRAME_CRITICAL | FRAME_ZSTD, 0, 8, big, 8);
    assert_int_equal(receive_all(stream, sizeof(stream), &err), 1); /* compressed: it is shorter */
}

static int expect(const uint8_t *stream, size_t len, enum frame_type type, struct error *err)
{
    struct channel channel = {.in = stream, .in_len = len};
    struct frame_stream s = {.channel = &channel};
    void *body = NULL;
    size_t got = 0;
    int r = frame_expect(&s, type, &body, &got, err);

    assert_true((r == 0) == (body != NULL)); /* outputs are for success alone */
    free(body);
    return r;
}

static void another_type_than_expected_is_refused_and_not_read(void **state)
{
    uint8_t stream[HEADER + 64];
    struct error err;
    size_t len = craft(stream, FRAME_STATE, FRAME_CRITICAL, 0, 64u << 20, big, 0);

    (void)state;
    assert_int_equal(expect(stream, len, FRAME_READY, &err), -EPROTO);
    assert_string_equal(err.msg, "frame 0 (STATE): came where READY was expected");
}

static void a_refusal_brings_the_other_sides_words(void **state)
{
    static const struct {
        const char *body, *words;
    } cases[] = {
        {"{\"reasons\":[\"no room\"]}", "the other side refuses: no room"},
        {"{\"reasons\":[\"a\",\"b\"]}", "the other side refuses: a; b"},
        {"{\"reasons\":[1,{},\"\"]}", "the other side refuses"},
        {"{\"reasons\":[\"\\u001b[31mred\\n\\u007f\"]}", "the other side refuses:  [31mred  "},
        {"{}", "the other side refuses"},
        {"[]", "the other side refuses"},
        {"xx", "the other side refuses"},
    };
    uint8_t stream[HEADER + 64];
    struct error err;

    (void)state;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t n = strlen(cases[i].body);
        size_t len = craft(stream, FRAME_REFUSED, FRAME_CRITICAL, 0, (uint32_t)n, cases[i].body, n);

        assert_int_equal(expect(stream, len, FRAME_READY, &err), -ECONNREFUSED);
        assert_string_equal(err.msg, cases[i].words);
        assert_int_equal(err.code, ECONNREFUSED);
    }
}

static void a_refusal_is_sent_whatever_the_words(void **state)
{
    static const struct {
        const char *said, *heard;
    } cases[] = {
        {"disk \"a\": locked", "the other side refuses: disk \"a\": locked"},
        {"a name like \xff\xfe", "the other side refuses"},
        {"", "the other side refuses"},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct channel channel = {0};
        struct frame_stream s = {.channel = &channel};
        struct error why, err;

        (void)error_set(&why, EIO, "%s", cases[i].said);
        frame_refuse(&s, &why);
        assert_int_equal(expect(channel.out, channel.out_len, FRAME_READY, &err), -ECONNREFUSED);
        assert_string_equal(err.msg, cases[i].heard);
        free(channel.out);
    }
}

static void every_type_has_its_name(void **state)
{
    (void)state;
    assert_string_equal(frame_name(FRAME_HELLO), "HELLO");
    assert_string_equal(frame_name(FRAME_PONG), "PONG");
    assert_string_equal(frame_name(0), "?");
    assert_string_equal(frame_name(TYPES + 1), "?");
    assert_int_equal(frame_max_bytes(0), 0);
    for (unsigned type = 1; type <= TYPES; type++)
        assert_true(frame_max_bytes(type) >= 8 && frame_name(type)[0] != '?');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_sent_is_received),
        cmocka_unit_test(the_bytes_are_those_of_the_specification),
        cmocka_unit_test(a_body_may_be_given_and_taken_in_pieces),
        cmocka_unit_test(what_is_not_taken_of_a_body_is_dropped_and_still_checked),
        cmocka_unit_test(every_byte_that_is_flipped_is_noticed_in_its_frame),
        cmocka_unit_test(a_stream_cut_anywhere_is_refused_in_the_frame_that_is_cut),
        cmocka_unit_test(an_end_between_frames_is_told_as_one),
        cmocka_unit_test(a_length_out_of_bounds_is_refused_before_its_body_is_touched),
        cmocka_unit_test(the_longest_body_of_each_type_is_taken),
        cmocka_unit_test(frames_in_another_order_missing_or_twice_are_refused),
        cmocka_unit_test(what_is_unknown_is_skipped_unless_it_is_critical),
        cmocka_unit_test(flags_that_a_type_does_not_have_are_refused),
        cmocka_unit_test(another_type_than_expected_is_refused_and_not_read),
        cmocka_unit_test(a_refusal_brings_the_other_sides_words),
        cmocka_unit_test(a_refusal_is_sent_whatever_the_words),
        cmocka_unit_test(every_type_has_its_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
