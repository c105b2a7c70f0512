/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_driver: the guest's half of virtio over PCI, on the fake platform.
 *
 * It knows of the device what the specification lets a driver know; the one shortcut is the
 * slot, which it is told. The rings are written with the order that a real driver owes them, so
 * that devices on threads of their own can be driven by it.
 */
#include "virtio_driver.h"

#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define ECAM UINT64_C(0xe0000000)
#define MSI_ADDRESS UINT64_C(0xfee00000)
#define FIRST_GPA 0x1000
#define WAIT_NS UINT64_C(5000000000)
#define CAPABILITIES 48 /* that fit into configuration space: more is a loop */

int virtio_machine_try(struct virtio_machine *m, struct fake_platform *fake, struct error *err)
{
    static const struct pci_host_params params = {
        .ecam_base = ECAM,
        .mmio32_base = 0xc0000000,
        .mmio32_size = 0x10000000,
        .mmio64_base = UINT64_C(0x10000000000),
        .mmio64_size = 0x10000000,
        .intx_gsi = {16, 17, 18, 19},
    };
    static const struct memory_layout layout = {
        .size = VIRTIO_RAM_LOW + VIRTIO_RAM_HIGH,
        .hole_start = VIRTIO_RAM_LOW,
        .hole_end = VIRTIO_RAM_HIGH_AT,
    };
    int r = 0;

    *m = (struct virtio_machine){.fake = fake ? fake : &m->own, .next_gpa = FIRST_GPA};
    if (!fake)
        fake_platform_init(&m->own);
    m->platform = &m->fake->platform;
    m->memory = m->platform->memory;
    m->memory_is_lent = m->memory;
    if (!m->memory)
        r = guest_memory_create(&layout, &m->memory, err);
    if (r == 0)
        r = loop_create(&m->loop, err);
    m->platform->memory = m->memory;
    if (r == 0)
        r = pci_host_create(m->platform, &params, &m->host, err);
    if (r < 0)
        virtio_machine_fini(m);
    return r;
}

void virtio_machine_init(struct virtio_machine *m, struct fake_platform *fake)
{
    struct error err = {.msg = ""};

    virtio_machine_try(m, fake, &err);
    assert_string_equal(err.msg, "");
}

void virtio_machine_fini(struct virtio_machine *m)
{
    device_destroy(m->host);
    assert_int_equal(m->fake->msi_count, 0);
    assert_int_equal(m->fake->doorbell_count, 0);
    loop_destroy(m->loop);
    if (!m->memory_is_lent)
        guest_memory_destroy(m->memory);
    m->platform->memory = NULL;
}

static void stop_loop(void *opaque)
{
    loop_stop(opaque);
}

void virtio_machine_run(struct virtio_machine *m)
{
    struct error err;

    assert_int_equal(loop_post(m->loop, stop_loop, m->loop), 0);
    assert_int_equal(loop_run(m->loop, &err), 0);
}

void *virtio_machine_at(struct virtio_machine *m, uint64_t gpa, uint64_t bytes)
{
    void *at = guest_memory_at(m->memory, gpa, bytes);

    assert_non_null(at);
    return at;
}

uint64_t virtio_machine_alloc(struct virtio_machine *m, uint64_t bytes)
{
    uint64_t gpa = m->next_gpa;

    m->next_gpa = (gpa + bytes + 15) & ~UINT64_C(15);
    assert_true(m->next_gpa <= VIRTIO_RAM_LOW);
    memset(virtio_machine_at(m, gpa, bytes), 0, bytes);
    return gpa;
}

void virtio_machine_rewind(struct virtio_machine *m)
{
    m->next_gpa = FIRST_GPA;
}

/* Registers */

uint64_t virtio_driver_read(struct virtio_driver *d, uint64_t address, unsigned size)
{
    return fake_read(d->m->fake, BUS_MMIO, address, size);
}

void virtio_driver_write(struct virtio_driver *d, uint64_t address, unsigned size, uint64_t value)
{
    fake_write(d->m->fake, BUS_MMIO, address, size, value);
}

uint32_t virtio_driver_pci_read(struct virtio_driver *d, unsigned offset, unsigned size)
{
    return (uint32_t)virtio_driver_read(d, ECAM + (d->slot << 15) + offset, size);
}

void virtio_driver_pci_write(struct virtio_driver *d, unsigned offset, unsigned size,
                             uint32_t value)
{
    virtio_driver_write(d, ECAM + (d->slot << 15) + offset, size, value);
}

uint64_t virtio_driver_config_read(struct virtio_driver *d, unsigned offset, unsigned size)
{
    return virtio_driver_read(d, d->config + offset, size);
}

void virtio_driver_config_write(struct virtio_driver *d, unsigned offset, unsigned size,
                                uint64_t value)
{
    virtio_driver_write(d, d->config + offset, size, value);
}

static uint64_t common_read(struct virtio_driver *d, unsigned offset, unsigned size)
{
    return virtio_driver_read(d, d->common + offset, size);
}

static void common_write(struct virtio_driver *d, unsigned offset, unsigned size, uint64_t value)
{
    virtio_driver_write(d, d->common + offset, size, value);
}

/* Discovery */

static uint64_t bar_address(struct virtio_driver *d, unsigned bar)
{
    unsigned at = PCI_BASE_ADDRESS_0 + 4 * bar;
    uint64_t low = virtio_driver_pci_read(d, at, 4);

    if ((low & PCI_BASE_ADDRESS_MEM_TYPE_MASK) == PCI_BASE_ADDRESS_MEM_TYPE_64)
        low |= (uint64_t)virtio_driver_pci_read(d, at + 4, 4) << 32;
    return low & ~UINT64_C(15);
}

static void take_structure(struct virtio_driver *d, unsigned cap)
{
    uint64_t at = bar_address(d, virtio_driver_pci_read(d, cap + VIRTIO_PCI_CAP_BAR, 1)) +
                  virtio_driver_pci_read(d, cap + VIRTIO_PCI_CAP_OFFSET, 4);

    switch (virtio_driver_pci_read(d, cap + VIRTIO_PCI_CAP_CFG_TYPE, 1)) {
    case VIRTIO_PCI_CAP_COMMON_CFG: d->common = at; break;
    case VIRTIO_PCI_CAP_NOTIFY_CFG:
        d->notify = at;
        d->notify_multiplier = virtio_driver_pci_read(d, cap + VIRTIO_PCI_NOTIFY_CAP_MULT, 4);
        break;
    case VIRTIO_PCI_CAP_ISR_CFG: d->isr = at; break;
    case VIRTIO_PCI_CAP_DEVICE_CFG:
        d->config = at;
        d->config_bytes = virtio_driver_pci_read(d, cap + VIRTIO_PCI_CAP_LENGTH, 4);
        break;
    case VIRTIO_PCI_CAP_PCI_CFG: d->window = cap; break;
    default: break;
    }
}

static void take_msix(struct virtio_driver *d, unsigned cap)
{
    uint32_t table = virtio_driver_pci_read(d, cap + PCI_MSIX_TABLE, 4);

    d->msix_cap = cap;
    d->msix_vectors =
        (virtio_driver_pci_read(d, cap + PCI_MSIX_FLAGS, 2) & PCI_MSIX_FLAGS_QSIZE) + 1;
    d->msix_table = bar_address(d, table & PCI_MSIX_TABLE_BIR) + (table & PCI_MSIX_TABLE_OFFSET);
}

void virtio_driver_decode(struct virtio_driver *d)
{
    virtio_driver_pci_write(d, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

void virtio_driver_init(struct virtio_driver *d, struct virtio_machine *m, struct device *dev)
{
    unsigned caps = 0;

    *d = (struct virtio_driver){
        .m = m, .dev = dev, .slot = container_of(dev, struct pci_device, dev)->slot};
    assert_int_equal(virtio_driver_pci_read(d, PCI_VENDOR_ID, 2), 0x1af4);
    assert_true(virtio_driver_pci_read(d, PCI_DEVICE_ID, 2) > 0x1040);
    virtio_driver_decode(d);
    for (unsigned cap = virtio_driver_pci_read(d, PCI_CAPABILITY_LIST, 1); cap;
         cap = virtio_driver_pci_read(d, cap + PCI_CAP_LIST_NEXT, 1)) {
        unsigned id = virtio_driver_pci_read(d, cap, 1);

        assert_true(++caps < CAPABILITIES);
        if (id == PCI_CAP_ID_VNDR)
            take_structure(d, cap);
        else if (id == PCI_CAP_ID_MSIX)
            take_msix(d, cap);
    }
    assert_true(d->common && d->notify && d->isr && d->msix_table && d->window);
    d->queue_count = (unsigned)common_read(d, VIRTIO_PCI_COMMON_NUMQ, 2);
    assert_in_range(d->queue_count, 1, VIRTIO_MAX_QUEUES);
}

/* Initialisation */

uint8_t virtio_driver_status(struct virtio_driver *d)
{
    return (uint8_t)common_read(d, VIRTIO_PCI_COMMON_STATUS, 1);
}

void virtio_driver_set_status(struct virtio_driver *d, uint8_t bits)
{
    common_write(d, VIRTIO_PCI_COMMON_STATUS, 1, virtio_driver_status(d) | bits);
}

void virtio_driver_reset(struct virtio_driver *d)
{
    common_write(d, VIRTIO_PCI_COMMON_STATUS, 1, 0);
    assert_int_equal(virtio_driver_status(d), 0);
    memset(d->queues, 0, sizeof(d->queues));
    d->features = 0;
    virtio_machine_rewind(d->m);
}

uint64_t virtio_driver_offered(struct virtio_driver *d)
{
    uint64_t features = 0;

    for (unsigned i = 0; i < 2; i++) {
        common_write(d, VIRTIO_PCI_COMMON_DFSELECT, 4, i);
        features |= common_read(d, VIRTIO_PCI_COMMON_DF, 4) << 32 * i;
    }
    return features;
}

bool virtio_driver_negotiate(struct virtio_driver *d, uint64_t features)
{
    virtio_driver_set_status(d, VIRTIO_CONFIG_S_ACKNOWLEDGE);
    virtio_driver_set_status(d, VIRTIO_CONFIG_S_DRIVER);
    for (unsigned i = 0; i < 2; i++) {
        common_write(d, VIRTIO_PCI_COMMON_GFSELECT, 4, i);
        common_write(d, VIRTIO_PCI_COMMON_GF, 4, features >> 32 * i & UINT32_MAX);
    }
    d->features = features;
    virtio_driver_set_status(d, VIRTIO_CONFIG_S_FEATURES_OK);
    return virtio_driver_status(d) & VIRTIO_CONFIG_S_FEATURES_OK;
}

static uint64_t msi_address(const struct virtio_driver *d)
{
    return MSI_ADDRESS | d->slot << 12;
}

void virtio_driver_enable_msix(struct virtio_driver *d)
{
    for (unsigned i = 0; i < d->msix_vectors; i++) {
        uint64_t entry = d->msix_table + i * PCI_MSIX_ENTRY_SIZE;

        virtio_driver_write(d, entry + PCI_MSIX_ENTRY_LOWER_ADDR, 4, msi_address(d));
        virtio_driver_write(d, entry + PCI_MSIX_ENTRY_UPPER_ADDR, 4, 0);
        virtio_driver_write(d, entry + PCI_MSIX_ENTRY_DATA, 4, i);
        virtio_driver_write(d, entry + PCI_MSIX_ENTRY_VECTOR_CTRL, 4, 0);
    }
    virtio_driver_pci_write(d, d->msix_cap + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE);
    common_write(d, VIRTIO_PCI_COMMON_MSIX, 2, 0);
    d->msix = true;
}

void virtio_driver_setup_queue(struct virtio_driver *d, unsigned queue, uint16_t size)
{
    struct virtio_driver_queue *q = &d->queues[queue];
    uint64_t addresses[3];

    common_write(d, VIRTIO_PCI_COMMON_Q_SELECT, 2, queue);
    if (size)
        common_write(d, VIRTIO_PCI_COMMON_Q_SIZE, 2, size);
    q->size = (uint16_t)common_read(d, VIRTIO_PCI_COMMON_Q_SIZE, 2);
    q->desc = addresses[0] = virtio_machine_alloc(d->m, q->size * sizeof(struct vring_desc));
    q->avail = addresses[1] = virtio_machine_alloc(d->m, 6 + q->size * 2u);
    q->used = addresses[2] =
        virtio_machine_alloc(d->m, 6 + q->size * sizeof(struct vring_used_elem));
    q->notify = d->notify + common_read(d, VIRTIO_PCI_COMMON_Q_NOFF, 2) * d->notify_multiplier;
    q->avail_idx = q->used_idx = 0;
    q->free_head = 0;
    q->free_count = q->size;
    struct vring_desc *table = virtio_machine_at(d->m, q->desc, q->size * sizeof(*table));
    for (unsigned i = 0; i < q->size; i++)
        table[i].next = (uint16_t)(i + 1);

    for (unsigned i = 0; i < 3; i++) {
        common_write(d, VIRTIO_PCI_COMMON_Q_DESCLO + 8 * i, 4, addresses[i] & UINT32_MAX);
        common_write(d, VIRTIO_PCI_COMMON_Q_DESCHI + 8 * i, 4, addresses[i] >> 32);
    }
    if (d->msix) {
        common_write(d, VIRTIO_PCI_COMMON_Q_MSIX, 2, queue + 1);
        assert_int_equal(common_read(d, VIRTIO_PCI_COMMON_Q_MSIX, 2), queue + 1);
    }
    common_write(d, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
}

static void start(struct virtio_driver *d, uint64_t features, bool msix)
{
    virtio_driver_reset(d);
    features = (features | UINT64_C(1) << VIRTIO_F_VERSION_1) & virtio_driver_offered(d);
    assert_true(virtio_driver_negotiate(d, features));
    if (msix)
        virtio_driver_enable_msix(d);
    for (unsigned i = 0; i < d->queue_count; i++)
        virtio_driver_setup_queue(d, i, 0);
    virtio_driver_set_status(d, VIRTIO_CONFIG_S_DRIVER_OK);
    assert_int_equal(virtio_driver_status(d) & (VIRTIO_CONFIG_S_DRIVER_OK | 0xc0),
                     VIRTIO_CONFIG_S_DRIVER_OK);
}

void virtio_driver_start(struct virtio_driver *d, uint64_t features)
{
    start(d, features, true);
}

void virtio_driver_start_intx(struct virtio_driver *d, uint64_t features)
{
    start(d, features, false);
}

/* Rings */

static struct vring_desc *desc_at(struct virtio_driver *d, unsigned queue, unsigned i)
{
    struct virtio_driver_queue *q = &d->queues[queue];

    assert_true(i < q->size);
    return virtio_machine_at(d->m, q->desc + i * sizeof(struct vring_desc),
                             sizeof(struct vring_desc));
}

static void fill(struct vring_desc *desc, const struct virtio_buffer *b, bool more)
{
    desc->addr = b->gpa;
    desc->len = b->bytes;
    desc->flags = (uint16_t)((b->write ? VRING_DESC_F_WRITE : 0) | (more ? VRING_DESC_F_NEXT : 0));
}

static void publish(struct virtio_driver *d, unsigned queue, uint16_t head)
{
    struct virtio_driver_queue *q = &d->queues[queue];
    uint16_t *avail = virtio_machine_at(d->m, q->avail, 4 + q->size * 2u);

    avail[2 + q->avail_idx % q->size] = head;
    __atomic_store_n(&avail[1], ++q->avail_idx, __ATOMIC_RELEASE);
}

uint16_t virtio_driver_add(struct virtio_driver *d, unsigned queue,
                           const struct virtio_buffer *buffers, unsigned count)
{
    struct virtio_driver_queue *q = &d->queues[queue];
    uint16_t head = q->free_head;

    assert_true(count > 0 && count <= q->free_count);
    for (unsigned i = 0; i < count; i++) {
        struct vring_desc *desc = desc_at(d, queue, q->free_head);

        fill(desc, &buffers[i], i + 1 < count);
        q->free_head = desc->next;
    }
    q->free_count = (uint16_t)(q->free_count - count);
    publish(d, queue, head);
    return head;
}

uint16_t virtio_driver_add_indirect(struct virtio_driver *d, unsigned queue,
                                    const struct virtio_buffer *buffers, unsigned count)
{
    struct virtio_driver_queue *q = &d->queues[queue];
    uint64_t gpa = virtio_machine_alloc(d->m, count * sizeof(struct vring_desc));
    struct vring_desc *table = virtio_machine_at(d->m, gpa, count * sizeof(*table));
    uint16_t head = q->free_head;

    assert_true(q->free_count > 0);
    struct vring_desc *desc = desc_at(d, queue, head);

    for (unsigned i = 0; i < count; i++) {
        fill(&table[i], &buffers[i], i + 1 < count);
        table[i].next = (uint16_t)(i + 1);
    }
    desc->addr = gpa;
    desc->len = (uint32_t)(count * sizeof(*table));
    desc->flags = VRING_DESC_F_INDIRECT;
    q->free_head = desc->next;
    q->free_count--;
    publish(d, queue, head);
    return head;
}

void virtio_driver_kick(struct virtio_driver *d, unsigned queue)
{
    virtio_driver_write(d, d->queues[queue].notify, 2, queue);
}

bool virtio_driver_wants_kick(struct virtio_driver *d, unsigned queue, uint16_t since)
{
    struct virtio_driver_queue *q = &d->queues[queue];
    uint16_t *used = virtio_machine_at(d->m, q->used, 6 + q->size * 8u);

    __sync_synchronize();
    if (d->features >> VIRTIO_F_EVENT_IDX & 1)
        return vring_need_event(__atomic_load_n(&used[2 + q->size * 4], __ATOMIC_RELAXED),
                                q->avail_idx, since);
    return !(__atomic_load_n(&used[0], __ATOMIC_RELAXED) & VRING_USED_F_NO_NOTIFY);
}

/* Put a chain's descriptors back among the free ones. */
static void release(struct virtio_driver *d, unsigned queue, uint16_t head)
{
    struct virtio_driver_queue *q = &d->queues[queue];
    struct vring_desc *desc = desc_at(d, queue, head);
    uint16_t count = 1;

    while (desc->flags & VRING_DESC_F_NEXT) {
        desc = desc_at(d, queue, desc->next);
        count++;
    }
    desc->next = q->free_head;
    q->free_head = head;
    q->free_count = (uint16_t)(q->free_count + count);
    assert_true(q->free_count <= q->size);
}

bool virtio_driver_take(struct virtio_driver *d, unsigned queue, uint16_t *ret_head,
                        uint32_t *ret_written)
{
    struct virtio_driver_queue *q = &d->queues[queue];
    uint16_t *used = virtio_machine_at(d->m, q->used, 4 + q->size * 8u);
    struct vring_used_elem *ring = (struct vring_used_elem *)(used + 2);
    uint16_t idx = __atomic_load_n(&used[1], __ATOMIC_ACQUIRE);

    if (idx == q->used_idx)
        return false;
    struct vring_used_elem *e = &ring[q->used_idx++ % q->size];
    assert_true(e->id < q->size);
    if (ret_head)
        *ret_head = (uint16_t)e->id;
    if (ret_written)
        *ret_written = e->len;
    release(d, queue, (uint16_t)e->id);
    if (d->features >> VIRTIO_F_EVENT_IDX & 1) { /* an interrupt for the next one, please */
        uint16_t *event = virtio_machine_at(d->m, q->avail + 4 + q->size * 2u, 2);

        __atomic_store_n(event, q->used_idx, __ATOMIC_RELAXED);
    }
    return true;
}

uint32_t virtio_driver_wait(struct virtio_driver *d, unsigned queue, uint16_t *ret_head)
{
    uint64_t deadline_ns = loop_now_ns() + WAIT_NS;
    uint32_t written = 0;

    while (!virtio_driver_take(d, queue, ret_head, &written)) {
        if (virtio_driver_status(d) & VIRTIO_CONFIG_S_NEEDS_RESET)
            fail_msg("%s: needs a reset", d->dev->id);
        if (loop_now_ns() > deadline_ns)
            fail_msg("%s: no answer on queue %u", d->dev->id, queue);
        virtio_machine_run(d->m);
        usleep(20);
    }
    return written;
}

uint32_t virtio_driver_request(struct virtio_driver *d, unsigned queue,
                               const struct virtio_buffer *buffers, unsigned count)
{
    uint16_t head = virtio_driver_add(d, queue, buffers, count), answered;
    uint32_t written;

    virtio_driver_kick(d, queue);
    written = virtio_driver_wait(d, queue, &answered);
    assert_int_equal(answered, head);
    return written;
}

unsigned virtio_driver_interrupts(struct virtio_driver *d, unsigned vector)
{
    struct fake_msi *msi = fake_msi_find(d->m->fake, msi_address(d), vector);

    return msi ? fake_msi_fires(msi) : 0;
}
