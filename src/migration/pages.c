/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pages: RAM to frames and back.
 *
 * The guest writes while its pages are sent, and a checksum of what changes would match nothing. So
 * each page is copied once, in small batches that stay in the CPU's cache; the other side receives
 * straight into the guest's memory, but for what is compressed.
 */
#include "pages.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "snapfile_format.h"
#include "vmrun/bytes.h"

#define WORDS (FRAME_PAGES_MAX / 64)
#define BATCH 64u /* pages; with the head before them they fit the cache of a CPU */
#define BUFFER_BYTES (FRAME_PAGES_HEADER_BYTES + BATCH * GUEST_PAGE_SIZE)
#define LEVEL 1 /* of compression: the network waits */

struct head {
    uint32_t region, pages;
    uint64_t first;
    uint64_t present[WORDS], zero[WORDS];
};

static bool bit(const uint64_t *map, uint64_t n)
{
    return map[n / 64] >> n % 64 & 1;
}

static void set_bit(uint64_t *map, uint64_t n)
{
    map[n / 64] |= UINT64_C(1) << n % 64;
}

/* Sending */

static void put_head(const struct head *head, uint8_t *at)
{
    snapfile_put_le(at, head->region, 4);
    snapfile_put_le(at + 4, head->pages, 4);
    snapfile_put_le(at + 8, head->first, 8);
    for (size_t w = 0; w < WORDS; w++) {
        snapfile_put_le(at + 16 + 8 * w, head->present[w], 8);
        snapfile_put_le(at + 16 + 8 * (WORDS + w), head->zero[w], 8);
    }
}

int pages_sender_init(struct pages_sender *sender, struct frame_stream *stream,
                      const struct zstd *zstd, struct error *err)
{
    *sender = (struct pages_sender){.stream = stream, .zstd = zstd};
    sender->buffer = malloc(BUFFER_BYTES);
    if (zstd) {
        sender->packed = malloc(ZSTD_COMPRESSBOUND(BUFFER_BYTES));
        sender->packer = zstd->create_packer();
        if (sender->packer)
            (void)zstd->set(sender->packer, ZSTD_c_compressionLevel, LEVEL);
    }
    if (sender->buffer && (!zstd || (sender->packed && sender->packer)))
        return 0;
    pages_sender_fini(sender);
    return error_set(err, ENOMEM, "out of memory");
}

void pages_sender_fini(struct pages_sender *sender)
{
    if (sender->packer)
        sender->zstd->free_packer(sender->packer);
    free(sender->packed);
    free(sender->buffer);
    *sender = (struct pages_sender){.stream = NULL};
}

/* What is gathered; then the next is to begin. used: pages behind the head. */
static int flush(struct pages_sender *sender, struct head *head, unsigned *used, struct error *err)
{
    struct iovec body = {sender->buffer,
                         FRAME_PAGES_HEADER_BYTES + (size_t)*used * GUEST_PAGE_SIZE};
    uint16_t flags = 0;

    put_head(head, sender->buffer);
    if (sender->zstd) {
        size_t packed =
            sender->zstd->pack_all(sender->packer, sender->packed, ZSTD_COMPRESSBOUND(BUFFER_BYTES),
                                   body.iov_base, body.iov_len);

        if (!sender->zstd->is_error(packed) && packed < body.iov_len) {
            body = (struct iovec){sender->packed, packed};
            flags = FRAME_ZSTD;
        }
    }
    memset(head->present, 0, sizeof(head->present));
    memset(head->zero, 0, sizeof(head->zero));
    *used = 0;
    return frame_send(sender->stream, FRAME_PAGES, flags, &body, 1, err);
}

int pages_send(struct pages_sender *sender, const struct rounds_chunk *chunk, struct error *err)
{
    struct head head = {.region = chunk->region, .pages = chunk->pages, .first = chunk->first};
    unsigned used = 0, gathered = 0;
    int r = 0;

    for (unsigned i = 0; r == 0 && i < chunk->pages; i++) {
        const uint8_t *page = chunk->host + (size_t)i * GUEST_PAGE_SIZE;

        if (!bit(chunk->bits, i))
            continue;
        set_bit(head.present, i);
        gathered++;
        /* The guest may write between the look and the copy: then the page is sent once more. */
        if (snapfile_is_zero_page(page)) {
            set_bit(head.zero, i);
            sender->counts.zero++;
            continue;
        }
        memcpy(sender->buffer + FRAME_PAGES_HEADER_BYTES + (size_t)used++ * GUEST_PAGE_SIZE, page,
               GUEST_PAGE_SIZE);
        sender->counts.data++;
        if (used == BATCH) {
            r = flush(sender, &head, &used, err);
            gathered = 0;
        }
    }
    return r == 0 && gathered ? flush(sender, &head, &used, err) : r;
}

/* Receiving */

int pages_target_init(struct pages_target *target, struct guest_memory *memory,
                      const struct zstd *zstd, struct error *err)
{
    *target = (struct pages_target){.memory = memory, .zstd = zstd};
    for (unsigned i = 0; i < memory->count; i++) {
        /* Whole chunks, so that no two threads share a word. */
        size_t words = guest_memory_bitmap_words(memory, i) + WORDS;

        target->filled[i] = calloc(words, sizeof(uint64_t));
        if (!target->filled[i]) {
            pages_target_fini(target);
            return error_set(err, ENOMEM, "out of memory");
        }
    }
    return 0;
}

void pages_target_fini(struct pages_target *target)
{
    for (unsigned i = 0; i < MEMORY_MAX_REGIONS; i++) {
        free(target->filled[i]);
        target->filled[i] = NULL;
    }
}

static int wrong(const struct frame *frame, struct error *err, const char *what)
{
    return error_set(err, EPROTO, "frame %u (PAGES): %s", frame->number, what);
}

/* ret_data: how many pages follow. */
static int get_head(const struct pages_target *target, const struct frame *frame, const uint8_t *at,
                    struct head *ret_head, uint64_t *ret_data, struct error *err)
{
    struct head head = {.region = (uint32_t)snapfile_get_le(at, 4),
                        .pages = (uint32_t)snapfile_get_le(at + 4, 4),
                        .first = snapfile_get_le(at + 8, 8)};
    uint64_t data = 0, all;

    if (head.region >= target->memory->count)
        return wrong(frame, err, "no such region");
    all = target->memory->regions[head.region].size / GUEST_PAGE_SIZE;
    if (head.first % FRAME_PAGES_MAX != 0 || head.pages == 0 || head.pages > FRAME_PAGES_MAX ||
        head.first >= all || head.pages > all - head.first)
        return wrong(frame, err, "no such pages");
    for (size_t w = 0; w < WORDS; w++) {
        head.present[w] = snapfile_get_le(at + 16 + 8 * w, 8);
        head.zero[w] = snapfile_get_le(at + 16 + 8 * (WORDS + w), 8);
        if (head.zero[w] & ~head.present[w])
            return wrong(frame, err, "zeros that are not present");
        data += (uint64_t)__builtin_popcountll(head.present[w] & ~head.zero[w]);
    }
    for (uint64_t i = head.pages; i < FRAME_PAGES_MAX; i++)
        if (bit(head.present, i))
            return wrong(frame, err, "pages behind the last one");
    *ret_head = head;
    *ret_data = data;
    return 0;
}

static void clear_zeros(struct pages_target *target, const struct head *head, uint8_t *host)
{
    const uint64_t *filled = target->filled[head->region] + head->first / 64;
    uint64_t gpa = target->memory->regions[head->region].gpa + head->first * GUEST_PAGE_SIZE;
    uint64_t zero[WORDS], at = 0, length;

    for (size_t w = 0; w < WORDS; w++)
        zero[w] = head->zero[w] & filled[w];
    /* The guest may have given them back meanwhile: then they cost no memory here either. */
    for (; rounds_next_run(zero, &at, head->pages, &length); at += length)
        if (guest_memory_give_back(target->memory, gpa + at * GUEST_PAGE_SIZE,
                                   length * GUEST_PAGE_SIZE) == 0)
            memset(host + at * GUEST_PAGE_SIZE, 0, length * GUEST_PAGE_SIZE);
}

/* The runs of pages that are to come. */
static unsigned gather(struct pages_target *target, const struct head *head, uint8_t *host,
                       struct iovec *iov)
{
    uint64_t *filled = target->filled[head->region] + head->first / 64;
    uint64_t data[WORDS], at = 0, length;
    unsigned count = 0;

    for (size_t w = 0; w < WORDS; w++) {
        data[w] = head->present[w] & ~head->zero[w];
        filled[w] |= data[w];
    }
    for (; rounds_next_run(data, &at, head->pages, &length); at += length)
        iov[count++] = (struct iovec){host + at * GUEST_PAGE_SIZE, length * GUEST_PAGE_SIZE};
    return count;
}

/* The frame, unpacked: malloc()ed, of *ret_len bytes. */
static int unpack(const struct zstd *zstd, struct frame_stream *stream, const struct frame *frame,
                  uint8_t **ret_body, size_t *ret_len, struct error *err)
{
    size_t room = frame_max_bytes(FRAME_PAGES), len = 0;
    uint8_t *packed = malloc(frame->length), *body = malloc(room);
    ZSTD_DCtx *unpacker = zstd->create_unpacker();
    int r = packed && body && unpacker ? 0 : error_set(err, ENOMEM, "out of memory");

    if (r == 0)
        r = frame_recv_body(stream, &(struct iovec){packed, frame->length}, 1, err);
    if (r == 0)
        r = frame_recv_end(stream, err);
    if (r == 0) {
        len = zstd->unpack_all(unpacker, body, room, packed, frame->length);
        if (zstd->is_error(len))
            r = wrong(frame, err, zstd->error_name(len));
    }
    zstd->free_unpacker(unpacker);
    free(packed);
    if (r < 0) {
        free(body);
        return r;
    }
    *ret_body = body;
    *ret_len = len;
    return 0;
}

static int receive_packed(struct pages_target *target, struct frame_stream *stream,
                          const struct frame *frame, struct error *err)
{
    struct iovec iov[FRAME_PAGES_MAX / 2];
    uint64_t data = 0;
    struct head head = {0};
    uint8_t *body;
    size_t len;
    int r = unpack(target->zstd, stream, frame, &body, &len, err);

    if (r < 0)
        return r;
    r = len < FRAME_PAGES_HEADER_BYTES ? wrong(frame, err, "cut off")
                                       : get_head(target, frame, body, &head, &data, err);
    if (r == 0 && len != FRAME_PAGES_HEADER_BYTES + data * GUEST_PAGE_SIZE)
        r = wrong(frame, err, "not as many pages as it says");
    if (r == 0) {
        const uint8_t *from = body + FRAME_PAGES_HEADER_BYTES;
        uint8_t *host = target->memory->regions[head.region].host + head.first * GUEST_PAGE_SIZE;
        unsigned count = gather(target, &head, host, iov);

        for (unsigned i = 0; i < count; from += iov[i++].iov_len)
            memcpy(iov[i].iov_base, from, iov[i].iov_len);
        clear_zeros(target, &head, host);
    }
    free(body);
    return r;
}

int pages_receive(struct pages_target *target, struct frame_stream *stream,
                  const struct frame *frame, struct error *err)
{
    uint8_t bytes[FRAME_PAGES_HEADER_BYTES];
    struct iovec iov[FRAME_PAGES_MAX / 2] = {{bytes, sizeof(bytes)}};
    struct head head = {0};
    uint64_t data = 0;
    int r;

    if (frame->flags & FRAME_ZSTD)
        return target->zstd ? receive_packed(target, stream, frame, err)
                            : wrong(frame, err, "compressed, and that was not agreed upon");
    r = frame_recv_body(stream, iov, 1, err);
    if (r == 0)
        r = get_head(target, frame, bytes, &head, &data, err);
    if (r < 0)
        return r;
    if (frame->length != sizeof(bytes) + data * GUEST_PAGE_SIZE)
        return wrong(frame, err, "not as many pages as it says");

    uint8_t *host = target->memory->regions[head.region].host + head.first * GUEST_PAGE_SIZE;
    unsigned count = gather(target, &head, host, iov);
    r = count ? frame_recv_body(stream, iov, count, err) : 0;
    if (r == 0)
        r = frame_recv_end(stream, err);
    if (r == 0)
        clear_zeros(target, &head, host);
    return r;
}
