/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz: a driver that may put anything into its rings and memory.
 *
 * The input says where the rings are and how large, then what the memory holds, then what the
 * device does, step by step, with a word of memory changed now and then. What is popped must lie
 * in RAM; what the device is told to write, it writes.
 */
#include <linux/virtio_ring.h>
#include <string.h>

#include "program.h"
#include "vmrun/bytes.h"
#include "vmrun/virtqueue.h"

#define LOW 0x8000u
#define HIGH_AT UINT64_C(0x100000000)
#define HIGH 0x4000u
#define MAX_SIZE 64
#define ROOM 48
#define HELD 8

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct guest_memory *memory_of_zeros(void)
{
    static const struct memory_layout layout = {
        .size = LOW + HIGH, .hole_start = LOW, .hole_end = HIGH_AT};
    static struct guest_memory *memory;
    struct error err;

    if (!memory)
        require(guest_memory_create(&layout, &memory, &err) == 0);
    memset(guest_memory_at(memory, 0, LOW), 0, LOW);
    memset(guest_memory_at(memory, HIGH_AT, HIGH), 0, HIGH);
    return memory;
}

/* An address: mostly in RAM, sometimes anywhere. */
static uint64_t address(struct reader *in)
{
    uint16_t word = (uint16_t)get_uint(in, 2);

    switch (word >> 14) {
    case 0:
    case 1: return word;
    case 2: return HIGH_AT + (word & 0x3fff);
    default: return get_uint(in, 8);
    }
}

static void use(const struct guest_memory *memory, const struct virtq_chain *chain)
{
    uint64_t bytes[2] = {0, 0};

    require(chain->out + chain->in <= ROOM && chain->out + chain->in > 0);
    for (unsigned i = 0; i < chain->out + chain->in; i++) {
        const uint8_t *at = chain->iov[i].iov_base;
        uint64_t len = chain->iov[i].iov_len;
        bool inside = false;

        for (unsigned j = 0; j < memory->count; j++) {
            const struct memory_region *r = &memory->regions[j];

            inside |= at >= r->host && at < r->host + r->size &&
                      len <= (uint64_t)(r->host + r->size - at);
        }
        require(inside && len > 0);
        bytes[i >= chain->out] += len;
    }
    require(bytes[0] == chain->out_bytes && bytes[1] == chain->in_bytes);
    require(bytes[0] + bytes[1] <= UINT32_MAX);
}

struct held {
    struct virtq_chain chain;
    struct iovec iov[ROOM];
    bool used;
};

static void pop(struct virtqueue *vq, struct held *h, bool keep)
{
    if (h->used)
        return;
    h->chain = (struct virtq_chain){.iov = h->iov, .room = ROOM};
    int r = virtqueue_pop(vq, &h->chain);

    require((r < 0) == vq->broken);
    if (r != 1)
        return;
    use(vq->memory, &h->chain);
    h->used = keep;
    if (!keep)
        virtqueue_unpop(vq, &h->chain);
}

static void push(struct virtqueue *vq, struct held *h, struct reader *in)
{
    static const uint8_t bytes[256];
    uint64_t n = get_uint(in, 1);

    if (!h->used)
        return;
    n = iov_from_buf(h->iov + h->chain.out, h->chain.in, n / 2, bytes, n);
    virtqueue_push(vq, &h->chain, (uint32_t)n);
    h->used = false;
}

static void step(struct virtqueue *vq, struct held held[HELD], struct reader *in)
{
    unsigned what = (unsigned)get_uint(in, 1);
    struct held *h = &held[what >> 5];
    uint64_t gpa;
    uint16_t word;

    switch (what & 7) {
    case 0: push(vq, h, in); break;
    case 1: (void)virtqueue_needs_interrupt(vq); break;
    case 2: virtqueue_disable_kicks(vq); break;
    case 3: (void)virtqueue_enable_kicks(vq); break;
    case 4: pop(vq, h, false); break;
    case 5: /* the guest changes its mind */
        gpa = address(in);
        word = (uint16_t)get_uint(in, 2);
        (void)guest_memory_write(vq->memory, gpa, &word, sizeof(word));
        break;
    default: pop(vq, h, true); break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct held held[HELD];
    struct reader in = {.data = data, .len = size};
    struct guest_memory *memory = memory_of_zeros();
    struct virtqueue vq;
    uint64_t n;

    for (unsigned i = 0; i < HELD; i++)
        held[i].used = false;
    virtqueue_init(&vq, memory, MAX_SIZE);
    vq.size = (uint16_t)get_uint(&in, 1);
    vq.event_idx = get_uint(&in, 1) & 1;
    vq.indirect = get_uint(&in, 1) & 1;
    vq.desc = address(&in);
    vq.avail = address(&in);
    vq.used = address(&in);
    vq.enabled = true;

    /* Memory: runs of bytes, each with its place. */
    while ((n = get_uint(&in, 1)) != 0) {
        uint64_t gpa = address(&in);
        const void *bytes = get_bytes(&in, n);

        if (bytes)
            (void)guest_memory_write(memory, gpa, bytes, n);
    }
    if (virtqueue_start(&vq) < 0)
        return 0;
    while (!in.failed && in.at < in.len)
        step(&vq, held, &in);
    require((uint16_t)(vq.next_avail - vq.next_used) <= vq.size);
    return 0;
}
