/* SPDX-License-Identifier: Apache-2.0 */
/*
 * frame: what travels over a channel, in pieces that can be trusted to be what the other side sent.
 *
 * The other side is hostile until the end: a length is compared with its type's bound before
 * anything is allocated or received by it. The small check over the header is not for that but for
 * a network that damages: a wrong length would else be noticed only when the bytes it promises do
 * not come.
 */
#include "frame.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#define MAGIC 0x6d76u
#define PIECE_BYTES (128u << 10) /* received, then hashed while it is in the cache */
#define PIECE_PARTS 64u
#define OPTIONAL_MAX_BYTES (4u << 20) /* of a type that is unknown and skipped */

/* Offsets in the header. */
enum {
    AT_MAGIC = 0,
    AT_TYPE = 2,
    AT_FLAGS = 4,
    AT_CHECK = 6,
    AT_LENGTH = 8,
    AT_SEQUENCE = 12,
    AT_CHECKSUM = 16
};

static const struct kind {
    const char *name;
    uint32_t min, max; /* bytes of a body that is not compressed */
    uint16_t flags;    /* that it may have */
} kinds[] = {
    [FRAME_HELLO] = {"HELLO", 2, 64u << 10, FRAME_CRITICAL},
    [FRAME_WELCOME] = {"WELCOME", 2, 64u << 10, FRAME_CRITICAL},
    [FRAME_MACHINE] = {"MACHINE", 2, 16u << 20, FRAME_CRITICAL},
    [FRAME_CPUID] = {"CPUID", 1, 1u << 20, FRAME_CRITICAL},
    [FRAME_MEMORY] = {"MEMORY", 16, 64, FRAME_CRITICAL},
    [FRAME_PREPARED] = {"PREPARED", 2, 64u << 10, FRAME_CRITICAL},
    [FRAME_PAGES] = {"PAGES", FRAME_PAGES_HEADER_BYTES,
                     FRAME_PAGES_HEADER_BYTES + FRAME_PAGES_MAX * 4096,
                     FRAME_CRITICAL | FRAME_ZSTD},
    [FRAME_MARK] = {"MARK", 8, 8, FRAME_CRITICAL},
    [FRAME_STATE] = {"STATE", 1, 64u << 20, FRAME_CRITICAL},
    [FRAME_EXTRA] = {"EXTRA", 1, OPTIONAL_MAX_BYTES, FRAME_CRITICAL},
    [FRAME_READY] = {"READY", 2, 64u << 10, FRAME_CRITICAL},
    [FRAME_COMMIT] = {"COMMIT", 8, 8, FRAME_CRITICAL},
    [FRAME_DONE] = {"DONE", 2, 64u << 10, FRAME_CRITICAL},
    [FRAME_REFUSED] = {"REFUSED", 2, 64u << 10, FRAME_CRITICAL},
    [FRAME_PING] = {"PING", 0, 1u << 20, FRAME_CRITICAL},
    [FRAME_PONG] = {"PONG", 0, 1u << 20, FRAME_CRITICAL},
    [FRAME_REHEARSAL] = {"REHEARSAL", 1, 64u << 20, FRAME_CRITICAL},
    [FRAME_REHEARSED] = {"REHEARSED", 2, 64u << 10, FRAME_CRITICAL},
};

static const struct kind *kind_of(unsigned type)
{
    return type > 0 && type < sizeof(kinds) / sizeof(kinds[0]) ? &kinds[type] : NULL;
}

const char *frame_name(enum frame_type type)
{
    const struct kind *kind = kind_of(type);

    return kind ? kind->name : "?";
}

uint32_t frame_max_bytes(enum frame_type type)
{
    const struct kind *kind = kind_of(type);

    return kind ? kind->max : 0;
}

/* The header */

static void put_le(uint8_t *to, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        to[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t get_le(const uint8_t *from, unsigned bytes)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < bytes; i++)
        value |= (uint64_t)from[i] << (8 * i);
    return value;
}

/* Of a header whose check and checksum count as zero. */
static uint16_t header_check(const uint8_t *header)
{
    uint8_t bytes[FRAME_HEADER_BYTES];

    memcpy(bytes, header, sizeof(bytes));
    put_le(bytes + AT_CHECK, 0, 2);
    put_le(bytes + AT_CHECKSUM, 0, 8);
    return (uint16_t)checksum_of(bytes, sizeof(bytes));
}

static void hash_begin(struct checksum *hash, const uint8_t *header)
{
    uint8_t bytes[FRAME_HEADER_BYTES];

    memcpy(bytes, header, sizeof(bytes));
    put_le(bytes + AT_CHECKSUM, 0, 8);
    checksum_begin(hash);
    checksum_add(hash, bytes, sizeof(bytes));
}

/* Sending */

int frame_send(struct frame_stream *s, enum frame_type type, uint16_t flags,
               const struct iovec *body, unsigned count, struct error *err)
{
    const struct kind *kind = kind_of(type);
    struct iovec iov[FRAME_MAX_IOV + 1];
    uint8_t header[FRAME_HEADER_BYTES];
    struct checksum hash;
    size_t length = 0;
    int r;

    assert(kind && count <= FRAME_MAX_IOV);
    for (unsigned i = 0; i < count; i++) {
        length += body[i].iov_len;
        iov[i + 1] = body[i];
    }
    flags |= type == FRAME_EXTRA ? 0 : FRAME_CRITICAL;
    assert(length <= kind->max && (flags & ~kind->flags) == 0);
    put_le(header + AT_MAGIC, MAGIC, 2);
    put_le(header + AT_TYPE, type, 2);
    put_le(header + AT_FLAGS, flags, 2);
    put_le(header + AT_LENGTH, length, 4);
    put_le(header + AT_SEQUENCE, s->sent, 4);
    put_le(header + AT_CHECK, header_check(header), 2);
    hash_begin(&hash, header);
    for (unsigned i = 0; i < count; i++)
        checksum_add(&hash, body[i].iov_base, body[i].iov_len);
    put_le(header + AT_CHECKSUM, checksum_end(&hash), 8);
    iov[0] = (struct iovec){.iov_base = header, .iov_len = sizeof(header)};
    r = channel_send(s->channel, iov, count + 1, err);
    s->sent += r == 0;
    return r;
}

void frame_refuse(struct frame_stream *s, const struct error *why)
{
    /* A name in the words may be of bytes that are no text. */
    json_t *body = json_pack("{s:[s]}", "reasons", why->msg);
    char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    struct error ignored;
    struct iovec iov;

    if (!text)
        text = strdup("{\"reasons\":[]}");
    if (text) {
        iov = (struct iovec){.iov_base = text, .iov_len = strlen(text)};
        (void)frame_send(s, FRAME_REFUSED, 0, &iov, 1, &ignored);
    }
    free(text);
    json_decref(body);
}

/* Receiving */

/* "frame 12 (PAGES): " before what is wrong with the frame that is being received. */
static int blame(const struct frame_stream *s, struct error *err)
{
    if (kind_of(s->type))
        return error_prefix(err, "frame %u (%s)", s->received, frame_name(s->type));
    if (s->type)
        return error_prefix(err, "frame %u (type %u)", s->received, (unsigned)s->type);
    return error_prefix(err, "frame %u", s->received);
}

/* What the header says, as far as it can be judged by itself. */
static int check_header(const struct frame_stream *s, const uint8_t *header, struct error *err)
{
    unsigned magic = (unsigned)get_le(header + AT_MAGIC, 2);
    uint32_t sequence = (uint32_t)get_le(header + AT_SEQUENCE, 4);

    if (magic != MAGIC)
        return error_set(err, EPROTO, "begins with 0x%04x: not what vmrun sends, or damaged",
                         magic);
    if (get_le(header + AT_CHECK, 2) != header_check(header))
        return error_set(err, EPROTO, "its header was damaged on the way");
    if (sequence != s->received)
        return error_set(err, EPROTO, "has the number %u: frames are missing, or come twice",
                         sequence);
    return 0;
}

static int check_kind(const struct frame *frame, struct error *err)
{
    const struct kind *kind = kind_of(frame->type);
    uint32_t min, max;

    if (!kind && frame->flags & FRAME_CRITICAL)
        return error_set(err, EPROTO, "critical, and unknown here: sent by a newer vmrun?");
    if (kind && frame->flags & ~kind->flags)
        return error_set(err, EPROTO, "has the flags 0x%x: sent by a newer vmrun?", frame->flags);
    min = kind && !(frame->flags & FRAME_ZSTD) ? kind->min : 0;
    max = kind ? kind->max : OPTIONAL_MAX_BYTES;
    if (frame->length < min || frame->length > max)
        return error_set(err, EPROTO, "of %u bytes, where it may have %u to %u", frame->length, min,
                         max);
    return 0;
}

static int recv_header(struct frame_stream *s, struct frame *frame, struct error *err)
{
    uint8_t header[FRAME_HEADER_BYTES];
    struct iovec iov = {.iov_base = header, .iov_len = sizeof(header)};
    int r;

    s->type = 0;
    s->left = 0;
    r = channel_recv(s->channel, &iov, 1, err);
    if (r == 0)
        r = check_header(s, header, err);
    if (r < 0)
        return r;
    frame->type = (enum frame_type)get_le(header + AT_TYPE, 2);
    frame->flags = (uint16_t)get_le(header + AT_FLAGS, 2);
    frame->length = (uint32_t)get_le(header + AT_LENGTH, 4);
    frame->number = s->received;
    s->type = frame->type;
    r = check_kind(frame, err);
    if (r < 0)
        return r;
    s->left = frame->length;
    s->checksum = get_le(header + AT_CHECKSUM, 8);
    hash_begin(&s->hash, header);
    return 0;
}

int frame_recv(struct frame_stream *s, struct frame *ret_frame, struct error *err)
{
    struct frame frame;

    for (;;) {
        int r = recv_header(s, &frame, err);

        if (r < 0)
            return blame(s, err);
        if (kind_of(frame.type)) {
            *ret_frame = frame;
            return 0;
        }
        r = frame_recv_end(s, err);
        if (r < 0)
            return r;
    }
}

static int recv_piece(struct frame_stream *s, const struct iovec *part, unsigned count,
                      struct error *err)
{
    int r = channel_recv(s->channel, part, count, err);

    if (r < 0)
        return blame(s, err);
    for (unsigned i = 0; i < count; i++) {
        checksum_add(&s->hash, part[i].iov_base, part[i].iov_len);
        s->left -= (uint32_t)part[i].iov_len;
    }
    return 0;
}

int frame_recv_body(struct frame_stream *s, const struct iovec *iov, unsigned count,
                    struct error *err)
{
    struct iovec part[PIECE_PARTS];
    size_t at = 0, total = 0;
    unsigned i = 0;

    for (unsigned k = 0; k < count; k++)
        total += iov[k].iov_len;
    assert(total <= s->left);
    while (i < count) {
        size_t room = PIECE_BYTES;
        unsigned parts = 0;

        while (i < count && room > 0 && parts < PIECE_PARTS) {
            size_t len = iov[i].iov_len - at < room ? iov[i].iov_len - at : room;

            part[parts++] = (struct iovec){(uint8_t *)iov[i].iov_base + at, len};
            room -= len;
            at += len;
            if (at == iov[i].iov_len) {
                i++;
                at = 0;
            }
        }
        int r = recv_piece(s, part, parts, err);
        if (r < 0)
            return r;
    }
    return 0;
}

int frame_recv_end(struct frame_stream *s, struct error *err)
{
    uint8_t dropped[4096] = {0};

    while (s->left > 0) {
        struct iovec iov = {dropped, s->left < sizeof(dropped) ? s->left : sizeof(dropped)};
        int r = recv_piece(s, &iov, 1, err);

        if (r < 0)
            return r;
    }
    if (checksum_end(&s->hash) != s->checksum) {
        (void)error_set(err, EPROTO, "does not match its checksum: damaged on the way");
        return blame(s, err);
    }
    s->received++;
    return 0;
}

int frame_refusal(const void *body, size_t len, struct error *err)
{
    json_t *root = json_loadb(body, len, 0, NULL), *reason;
    size_t i, used = 0;

    (void)error_set(err, ECONNREFUSED, "the other side refuses");
    json_array_foreach(json_object_get(root, "reasons"), i, reason)
    {
        const char *text = json_string_value(reason);

        used = strlen(err->msg);
        if (text && *text)
            (void)snprintf(err->msg + used, sizeof(err->msg) - used, "%s%s", i ? "; " : ": ", text);
    }
    /* It goes to a terminal. */
    for (char *c = err->msg; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = ' ';
    json_decref(root);
    return -ECONNREFUSED;
}

int frame_expect(struct frame_stream *s, enum frame_type type, void **ret_body, size_t *ret_len,
                 struct error *err)
{
    struct frame frame = {0};
    uint8_t *body = NULL;
    struct iovec iov;
    int r = frame_recv(s, &frame, err);

    if (r < 0)
        return r;
    if (frame.type != type && frame.type != FRAME_REFUSED) {
        (void)error_set(err, EPROTO, "came where %s was expected", frame_name(type));
        return blame(s, err);
    }
    body = malloc((size_t)frame.length + 1);
    if (!body)
        return error_set(err, ENOMEM, "no memory for %u bytes of %s", frame.length,
                         frame_name(frame.type));
    iov = (struct iovec){.iov_base = body, .iov_len = frame.length};
    r = frame_recv_body(s, &iov, 1, err);
    if (r == 0)
        r = frame_recv_end(s, err);
    if (r == 0 && frame.type != type)
        r = frame_refusal(body, frame.length, err);
    if (r < 0) {
        free(body);
        return r;
    }
    body[frame.length] = 0;
    *ret_body = body;
    *ret_len = frame.length;
    return 0;
}
