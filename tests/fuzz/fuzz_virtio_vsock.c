/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz: a hostile guest, and hostile programs, against a socket device. The input is a program:
 * each step names what to do (a packet with any header, buffers, what a program says or leaves, a
 * pause, a move of the state into itself) and its operands; missing bytes read as zero. The device
 * must go on or ask to be reset, and must work again after a reset.
 */
#include <linux/virtio_ring.h>
#include <linux/virtio_vsock.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "program.h"
#include "virtio_driver.h"
#include "vmrun/log.h"
#include "vmrun/virtio_devices.h"

#define CID 3
#define QUEUES 3
#define AREA_BYTES (128 << 10)
#define STEPS 200
#define PROGRAMS 4
#define PORTS 4

enum { RX = 0, TX = 1, EVENT = 2 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct {
    struct virtio_machine m;
    struct vsock_host *host;
    struct device *dev;
    struct virtio_driver d;
    uint64_t area;
    uint16_t next_desc[QUEUES], avail_idx[QUEUES];
    char folder[32], path[48];
    int programs[PROGRAMS], listeners[PORTS], accepted;
} world;

static int unix_socket(const char *path, struct sockaddr_un *ret_addr)
{
    *ret_addr = (struct sockaddr_un){.sun_family = AF_UNIX};
    snprintf(ret_addr->sun_path, sizeof(ret_addr->sun_path), "%s", path);
    return socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
}

static void remove_folder(void)
{
    char path[64];

    device_destroy(world.dev);
    vsock_host_close(world.host);
    for (unsigned i = 0; i < PORTS; i++) {
        snprintf(path, sizeof(path), "%s_%u", world.path, i);
        unlink(path);
    }
    rmdir(world.folder);
}

/* Programs listen at the lower half of the ports. */
static void listen_at(unsigned port)
{
    struct sockaddr_un addr;
    char path[64];

    snprintf(path, sizeof(path), "%s_%u", world.path, port);
    world.listeners[port] = unix_socket(path, &addr);
    require(bind(world.listeners[port], (struct sockaddr *)&addr, sizeof(addr)) == 0 &&
            listen(world.listeners[port], 4) == 0);
}

static void build(void)
{
    struct virtio_vsock_params params = {.cid = CID, .patience_ns = 1000000};
    struct error err;

    log_set_level(LOG_LEVEL_ERROR);
    snprintf(world.folder, sizeof(world.folder), "/tmp/vmrun-fuzz-XXXXXX");
    require(mkdtemp(world.folder));
    snprintf(world.path, sizeof(world.path), "%s/v", world.folder);
    virtio_machine_init(&world.m, NULL);
    require(vsock_host_open(world.path, &world.host, &err) == 0);
    params.host = world.host;
    params.loop = world.m.loop;
    require(virtio_vsock_create(world.m.platform, world.m.host, &params, &world.dev, &err) == 0);
    virtio_driver_init(&world.d, &world.m, world.dev);
    for (unsigned i = 0; i < PORTS / 2; i++)
        listen_at(i);
    for (unsigned i = 0; i < PROGRAMS; i++)
        world.programs[i] = -1;
    world.accepted = -1;
    atexit(remove_folder);
}

static void leave(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void start(uint64_t features)
{
    for (unsigned i = 0; i < PROGRAMS; i++)
        leave(&world.programs[i]);
    leave(&world.accepted);
    virtio_machine_run(&world.m);
    virtio_driver_start(&world.d, features);
    world.area = virtio_machine_alloc(&world.m, AREA_BYTES);
    memset(world.next_desc, 0, sizeof(world.next_desc));
    memset(world.avail_idx, 0, sizeof(world.avail_idx));
}

static void publish(unsigned queue, uint16_t head)
{
    const struct virtio_driver_queue *q = &world.d.queues[queue];
    uint16_t *avail = virtio_machine_at(&world.m, q->avail, 4 + q->size * 2u);

    avail[2 + world.avail_idx[queue] % q->size] = head;
    __atomic_store_n(&avail[1], ++world.avail_idx[queue], __ATOMIC_RELEASE);
}

/* The next descriptor of a queue. Returns its index. */
static uint16_t describe(unsigned queue, uint64_t gpa, uint32_t bytes, uint16_t flags)
{
    const struct virtio_driver_queue *q = &world.d.queues[queue];
    struct vring_desc *table = virtio_machine_at(&world.m, q->desc, q->size * sizeof(*table));
    uint16_t index = world.next_desc[queue];

    world.next_desc[queue] = (uint16_t)((index + 1) % q->size);
    table[index] = (struct vring_desc){
        .addr = gpa, .len = bytes, .flags = flags, .next = world.next_desc[queue]};
    return index;
}

/* Buffers of any kind. */
static void add_chain(unsigned queue)
{
    unsigned shape = program_number(1), count = shape % 4 + 1;
    uint16_t head = world.next_desc[queue];

    for (unsigned i = 0; i < count; i++) {
        uint16_t flags = queue == TX ? 0 : VRING_DESC_F_WRITE;

        if (i + 1 < count)
            flags |= VRING_DESC_F_NEXT;
        if (shape & 0x80)
            flags ^= (uint16_t)program_number(1) & 7;
        (void)describe(queue, world.area + program_number(2), program_number(2), flags);
    }
    publish(queue, head);
}

/* Good buffers for the guest's side. */
static void add_buffers(unsigned queue)
{
    for (unsigned i = 0; i < 8; i++)
        publish(queue, describe(queue, world.area + 65536 + i * 4096u, 4096, VRING_DESC_F_WRITE));
}

/* A packet that is mostly right: ports that exist, or of who was asked last. */
static void add_packet(void)
{
    unsigned kind = program_number(1), len = program_number(2) % 8192;
    struct virtio_vsock_hdr last, hdr;
    uint8_t *at = virtio_machine_at(&world.m, world.area, AREA_BYTES);

    memcpy(&last, at + 65536 + kind / 32 * 4096u, sizeof(last));
    hdr =
        (struct virtio_vsock_hdr){.src_cid = CID,
                                  .dst_cid = 2,
                                  .src_port = kind & 8 ? last.dst_port : program_number(1) % PORTS,
                                  .dst_port = kind & 8 ? last.src_port : program_number(1) % PORTS,
                                  .len = kind % 8 == VIRTIO_VSOCK_OP_RW ? len : 0,
                                  .type = VIRTIO_VSOCK_TYPE_STREAM,
                                  .op = kind % 8,
                                  .flags = program_number(1),
                                  .buf_alloc = program_number(3),
                                  .fwd_cnt = program_number(2)};
    if (kind & 16)
        ((uint8_t *)&hdr)[program_number(1) % sizeof(hdr)] ^= (uint8_t)program_number(1);
    memcpy(at, &hdr, sizeof(hdr));
    publish(TX, describe(TX, world.area, (uint32_t)sizeof(hdr) + len, 0));
}

static void come(int *program)
{
    struct sockaddr_un addr;

    leave(program);
    *program = unix_socket(world.path, &addr);
    (void)!connect(*program, (struct sockaddr *)&addr, sizeof(addr));
}

static void say(int program)
{
    char text[256];
    size_t len;

    if (program_number(1) & 1) {
        len = (size_t)snprintf(text, sizeof(text), "CONNECT %u\n", program_number(1) % PORTS);
    } else {
        len = program_number(1);
        program_next(text, len);
    }
    (void)!send(program, text, len, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void hear(int program)
{
    static char heard[65536];

    (void)!recv(program, heard, sizeof(heard), MSG_DONTWAIT);
}

/* The device's own state, into itself: refused only when the guest broke something. */
static void move(void)
{
    const struct state_desc *desc = world.dev->ops->state;
    struct writer w = {0};
    struct error err;

    device_pause(world.dev);
    require(state_save(desc, world.dev, &w, &err) == 0);
    struct reader r = {.data = w.data, .len = w.len};
    require(state_load(desc, world.dev, &r, &err) == 0);
    free(w.data);
    device_resume(world.dev);
}

static void step(void)
{
    unsigned op = program_number(1), of = op / 16;
    int *program = &world.programs[of % PROGRAMS];

    switch (op % 16) {
    case 0:
    case 1:
    case 2: add_packet(); break;
    case 3: add_chain(of % QUEUES); break;
    case 4: add_buffers(RX); break;
    case 5: add_buffers(EVENT); break;
    case 6: come(program); break;
    case 7: say(*program); break;
    case 8: say(world.accepted); break;
    case 9: hear(of & 8 ? world.accepted : *program); break;
    case 10: leave(of & 8 ? &world.accepted : program); break;
    case 11: shutdown(of & 8 ? world.accepted : *program, (int)(of % 3)); break;
    case 12:
        leave(&world.accepted);
        world.accepted = accept(world.listeners[of % (PORTS / 2)], NULL, NULL);
        break;
    case 13: device_pause(world.dev); break;
    case 14: device_resume(world.dev); break;
    default: move(); break;
    }
    for (unsigned i = 0; i < QUEUES; i++)
        virtio_driver_kick(&world.d, i);
    virtio_machine_run(&world.m);
}

static void require_works(void)
{
    const struct virtio_vsock_hdr hdr = {.src_cid = CID,
                                         .dst_cid = 2,
                                         .src_port = 1,
                                         .dst_port = PORTS,
                                         .type = VIRTIO_VSOCK_TYPE_STREAM,
                                         .op = VIRTIO_VSOCK_OP_REQUEST};
    struct virtio_vsock_hdr answer;

    device_resume(world.dev);
    start(UINT64_MAX);
    const struct virtio_buffer tx = {world.area, sizeof(hdr), false};
    const struct virtio_buffer rx = {world.area + 4096, 4096, true};

    memcpy(virtio_machine_at(&world.m, tx.gpa, tx.bytes), &hdr, sizeof(hdr));
    require(virtio_driver_request(&world.d, TX, &tx, 1) == 0);
    require(virtio_driver_request(&world.d, RX, &rx, 1) == sizeof(hdr));
    memcpy(&answer, virtio_machine_at(&world.m, rx.gpa, sizeof(answer)), sizeof(answer));
    require(answer.op == VIRTIO_VSOCK_OP_RST && answer.dst_port == 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint64_t features[] = {UINT64_MAX, 0, ~(UINT64_C(1) << 28), ~(UINT64_C(1) << 29)};

    if (!world.dev)
        build();
    program_begin(data, size);
    start(features[program_number(1) % 4]);
    for (unsigned i = 0; i < STEPS && program_goes_on(); i++)
        step();
    virtio_machine_run(&world.m);
    require_works();
    return 0;
}
