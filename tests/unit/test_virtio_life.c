/* SPDX-License-Identifier: Apache-2.0 */
/* The life of a virtio device: doorbells, interrupts, pause, what travels, threads. */
#include <errno.h>
#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "virtio_probe.h"

/* Doorbells */

static void each_queue_has_a_doorbell_where_it_says(void **state)
{
    struct virtio_bench *f = *state;

    virtio_driver_start(&f->d, 0);
    assert_int_equal(f->m.fake->doorbell_count, PROBE_QUEUES);
    for (unsigned i = 0; i < PROBE_QUEUES; i++) {
        bool there = false;

        for (unsigned j = 0; j < PROBE_QUEUES; j++)
            there |= f->m.fake->doorbells[j].addr == f->d.queues[i].notify &&
                     !f->m.fake->doorbells[j].match;
        assert_true(there);
    }
    memset(f->probe->kicks, 0, sizeof(f->probe->kicks));
    virtio_machine_run(&f->m);
    assert_int_equal(f->probe->kicks[0] + f->probe->kicks[1] + f->probe->kicks[2], PROBE_QUEUES);
    memset(f->probe->kicks, 0, sizeof(f->probe->kicks));
    virtio_driver_kick(&f->d, 2);
    virtio_driver_kick(&f->d, 2);
    virtio_machine_run(&f->m);
    assert_int_equal(f->probe->kicks[2], 1); /* two rings, one look */
    assert_int_equal(f->probe->kicks[0] + f->probe->kicks[1], 0);
}

static void doorbells_follow_the_bar(void **state)
{
    struct virtio_bench *f = *state;
    uint32_t bar = virtio_driver_pci_read(&f->d, PCI_BASE_ADDRESS_0, 4);

    virtio_driver_start(&f->d, 0);
    virtio_driver_pci_write(&f->d, PCI_BASE_ADDRESS_0, 4, bar + 0x4000);
    assert_int_equal(f->m.fake->doorbell_count, PROBE_QUEUES);
    for (unsigned i = 0; i < PROBE_QUEUES; i++)
        assert_int_equal(f->m.fake->doorbells[i].addr & 0x7000, 0x7000);
    virtio_driver_pci_write(&f->d, PCI_COMMAND, 2, 0);
    assert_int_equal(f->m.fake->doorbell_count, 0);
    virtio_driver_pci_write(&f->d, PCI_BASE_ADDRESS_0, 4, bar);
    virtio_driver_decode(&f->d);
    virtio_driver_start(&f->d, 0);
    struct virtio_buffer b = virtio_bench_buffer(f);
    assert_int_equal(virtio_driver_request(&f->d, 0, &b, 1), 32);
}

static void a_platform_without_doorbells_does_as_well(void **state)
{
    struct virtio_bench *f = *state;

    virtio_driver_pci_write(&f->d, PCI_COMMAND, 2, 0);
    f->m.fake->calls_until_failure = 2; /* the BARs, then no doorbell... */
    virtio_driver_pci_write(&f->d, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    f->m.fake->calls_until_failure = -1;
    if (!fake_is_mapped(f->m.fake, BUS_MMIO, f->d.common, 4))
        virtio_driver_decode(&f->d);
    assert_true(f->m.fake->doorbell_count < PROBE_QUEUES);
    virtio_driver_start(&f->d, 0);
    for (unsigned i = 0; i < PROBE_QUEUES; i++) {
        struct virtio_buffer b = virtio_bench_buffer(f);

        assert_int_equal(virtio_driver_request(&f->d, i, &b, 1), 32);
        assert_true(virtio_bench_is_filled(f, b.gpa));
    }
}

static void a_request_from_before_driver_ok_is_served_after_it(void **state)
{
    struct virtio_bench *f = *state;
    struct virtio_buffer b;

    assert_true(virtio_driver_negotiate(&f->d, UINT64_C(1) << VIRTIO_F_VERSION_1));
    virtio_driver_setup_queue(&f->d, 1, 4);
    b = virtio_bench_buffer(f);
    virtio_driver_add(&f->d, 1, &b, 1);
    virtio_driver_kick(&f->d, 1);
    virtio_machine_run(&f->m);
    assert_false(virtio_driver_take(&f->d, 1, NULL, NULL));
    assert_int_equal(f->probe->kicks[1], 0);
    virtio_driver_set_status(&f->d, VIRTIO_CONFIG_S_DRIVER_OK);
    assert_int_equal(virtio_driver_wait(&f->d, 1, NULL), 32);
    assert_true(virtio_bench_is_filled(f, b.gpa));
}

static void a_queue_that_is_enabled_late_works_and_one_that_is_not_does_not(void **state)
{
    struct virtio_bench *f = *state;
    struct virtio_buffer b;

    assert_true(virtio_driver_negotiate(&f->d, virtio_driver_offered(&f->d)));
    virtio_driver_setup_queue(&f->d, 0, 0);
    virtio_driver_set_status(&f->d, VIRTIO_CONFIG_S_DRIVER_OK);
    virtio_driver_setup_queue(&f->d, 2, 8);
    b = virtio_bench_buffer(f);
    assert_int_equal(virtio_driver_request(&f->d, 2, &b, 1), 32);
    virtio_driver_write(&f->d, f->d.notify + 4, 2, 1);
    virtio_machine_run(&f->m);
    assert_int_equal(f->probe->kicks[1], 0);
}

static void with_event_idx_the_driver_knows_when_to_ring(void **state)
{
    struct virtio_bench *f = *state;
    struct virtio_buffer b;

    virtio_driver_start(&f->d, UINT64_MAX);
    b = virtio_bench_buffer(f);
    for (uint16_t i = 0; i < 100; i++) {
        virtio_driver_add(&f->d, 0, &b, 1);
        assert_true(virtio_driver_wants_kick(&f->d, 0, i));
        virtio_driver_kick(&f->d, 0);
        virtio_driver_wait(&f->d, 0, NULL);
    }
}

/* Interrupts */

static void a_request_raises_its_queue_s_vector(void **state)
{
    struct virtio_bench *f = *state;

    virtio_driver_start(&f->d, 0);
    for (unsigned i = 0; i < PROBE_QUEUES; i++) {
        struct virtio_buffer b = virtio_bench_buffer(f);

        virtio_driver_request(&f->d, i, &b, 1);
        for (unsigned j = 0; j <= PROBE_QUEUES; j++)
            assert_int_equal(virtio_driver_interrupts(&f->d, j), j > 0 && j <= i + 1);
    }
    assert_false(virtio_bench_intx(f));
    assert_int_equal(virtio_driver_read(&f->d, f->d.isr, 1), 0);
}

static void queues_may_share_a_vector_or_have_none(void **state)
{
    struct virtio_bench *f = *state;
    struct virtio_buffer b;

    virtio_driver_start(&f->d, 0);
    virtio_bench_set_common(f, VIRTIO_PCI_COMMON_Q_SELECT, 2, 0);
    virtio_bench_set_common(f, VIRTIO_PCI_COMMON_Q_MSIX, 2, 3);
    virtio_bench_set_common(f, VIRTIO_PCI_COMMON_Q_SELECT, 2, 1);
    virtio_bench_set_common(f, VIRTIO_PCI_COMMON_Q_MSIX, 2, VIRTIO_MSI_NO_VECTOR);
    b = virtio_bench_buffer(f);
    for (unsigned i = 0; i < PROBE_QUEUES; i++)
        virtio_driver_request(&f->d, i, &b, 1);
    assert_int_equal(virtio_driver_interrupts(&f->d, 1), 0);
    assert_int_equal(virtio_driver_interrupts(&f->d, 2), 0);
    assert_int_equal(virtio_driver_interrupts(&f->d, 3), 2);
}

static void a_vector_that_does_not_exist_reads_back_as_none(void **state)
{
    struct virtio_bench *f = *state;
    const uint16_t bad[] = {PROBE_QUEUES + 1, 64, 0x8000, 0xfffe, 0xffff};

    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        virtio_bench_set_common(f, VIRTIO_PCI_COMMON_MSIX, 2, 1);
        virtio_bench_set_common(f, VIRTIO_PCI_COMMON_Q_MSIX, 2, PROBE_QUEUES);
        assert_int_equal(virtio_bench_common(f, VIRTIO_PCI_COMMON_MSIX, 2), 1);
        assert_int_equal(virtio_bench_common(f, VIRTIO_PCI_COMMON_Q_MSIX, 2), PROBE_QUEUES);
        virtio_bench_set_common(f, VIRTIO_PCI_COMMON_MSIX, 2, bad[i]);
        virtio_bench_set_common(f, VIRTIO_PCI_COMMON_Q_MSIX, 2, bad[i]);
        assert_int_equal(virtio_bench_common(f, VIRTIO_PCI_COMMON_MSIX, 2), 0xffff);
        assert_int_equal(virtio_bench_common(f, VIRTIO_PCI_COMMON_Q_MSIX, 2), 0xffff);
    }
}

static void without_msix_the_line_rises_and_reading_isr_drops_it(void **state)
{
    struct virtio_bench *f = *state;
    struct virtio_buffer b;

    virtio_driver_start_intx(&f->d, 0);
    b = virtio_bench_buffer(f);
    virtio_driver_request(&f->d, 0, &b, 1);
    assert_true(virtio_bench_intx(f));
    assert_int_equal(virtio_driver_read(&f->d, f->d.isr, 1), 1);
    assert_false(virtio_bench_intx(f));
    assert_int_equal(virtio_driver_read(&f->d, f->d.isr, 1), 0);

    virtio_config_changed(&f->probe->vdev);
    virtio_driver_request(&f->d, 0, &b, 1);
    assert_int_equal(virtio_driver_read(&f->d, f->d.isr, 1), 3);
    virtio_driver_request(&f->d, 0, &b, 1);
    virtio_driver_reset(&f->d);
    assert_false(virtio_bench_intx(f));
}

static void a_change_of_configuration_is_a_new_generation_and_an_interrupt(void **state)
{
    struct virtio_bench *f = *state;
    uint64_t before = virtio_bench_common(f, VIRTIO_PCI_COMMON_CFGGENERATION, 1);

    virtio_config_changed(&f->probe->vdev); /* nobody there to tell */
    assert_int_not_equal(virtio_bench_common(f, VIRTIO_PCI_COMMON_CFGGENERATION, 1), before);
    virtio_driver_start(&f->d, 0);
    assert_int_equal(virtio_driver_interrupts(&f->d, 0), 0);
    before = virtio_bench_common(f, VIRTIO_PCI_COMMON_CFGGENERATION, 1);
    virtio_config_changed(&f->probe->vdev);
    assert_int_equal(virtio_driver_interrupts(&f->d, 0), 1);
    assert_int_not_equal(virtio_bench_common(f, VIRTIO_PCI_COMMON_CFGGENERATION, 1), before);
}

static void a_broken_ring_needs_a_reset_and_says_so(void **state)
{
    struct virtio_bench *f = *state;
    struct iovec iov[4];
    struct virtq_chain chain = {.iov = iov, .room = 4};
    unsigned kicks;
    struct virtio_buffer b = {UINT64_C(0x80000000), 16, true}, good;

    virtio_driver_start(&f->d, 0);
    virtio_driver_add(&f->d, 1, &b, 1);
    virtio_driver_kick(&f->d, 1);
    virtio_machine_run(&f->m);
    assert_true(virtio_driver_status(&f->d) & VIRTIO_CONFIG_S_NEEDS_RESET);
    assert_int_equal(virtio_driver_interrupts(&f->d, 0), 1);

    kicks = f->probe->kicks[0];
    good = virtio_bench_buffer(f);
    virtio_driver_add(&f->d, 0, &good, 1); /* no queue is served until then */
    virtio_driver_kick(&f->d, 0);
    virtio_machine_run(&f->m);
    assert_int_equal(f->probe->kicks[0], kicks);
    assert_false(virtio_driver_take(&f->d, 0, NULL, NULL));
    assert_int_equal(virtqueue_pop(&f->probe->vdev.queues[0], &chain), -EPROTO); /* nor otherwise */
    assert_int_equal(f->probe->stops, 0);
    virtio_driver_start(&f->d, 0);
    assert_int_equal(f->probe->stops, 1);
    good = virtio_bench_buffer(f);
    assert_int_equal(virtio_driver_request(&f->d, 1, &good, 1), 32);
}

/* Pause, resume, and what travels */

static void a_paused_device_leaves_requests_where_they_are(void **state)
{
    struct virtio_bench *f = *state;
    struct virtio_buffer b;

    virtio_driver_start(&f->d, 0);
    virtio_machine_run(&f->m);
    b = virtio_bench_buffer(f);
    device_pause(f->dev);
    virtio_driver_add(&f->d, 0, &b, 1);
    virtio_driver_kick(&f->d, 0);
    virtio_config_changed(&f->probe->vdev);
    virtio_machine_run(&f->m);
    assert_false(virtio_bench_is_filled(f, b.gpa));
    assert_int_equal(virtio_driver_interrupts(&f->d, 0), 0);
    device_resume(f->dev);
    assert_int_equal(virtio_driver_interrupts(&f->d, 0), 1);
    assert_int_equal(virtio_driver_wait(&f->d, 0, NULL), 32);
    assert_true(virtio_bench_is_filled(f, b.gpa));
    device_resume(f->dev);
    assert_int_equal(virtio_driver_interrupts(&f->d, 0), 1);
}

static void what_is_done_as_it_pauses_interrupts_when_it_resumes(void **state)
{
    struct virtio_bench *f = *state;
    struct virtio_buffer b;

    f->probe->keeps = true;
    virtio_driver_start(&f->d, 0);
    b = virtio_bench_buffer(f);
    uint16_t head = virtio_driver_add(&f->d, 0, &b, 1);
    virtio_driver_kick(&f->d, 0);
    virtio_machine_run(&f->m);
    device_pause(f->dev);
    virtqueue_push_head(&f->probe->vdev.queues[0], head, 0);
    virtio_notify(&f->probe->vdev, 0);
    assert_int_equal(virtio_driver_interrupts(&f->d, 1), 0);
    device_resume(f->dev);
    assert_int_equal(virtio_driver_interrupts(&f->d, 1), 1);
}

static struct writer save(struct virtio_probe *p)
{
    struct writer w = {0};
    struct error err = {.msg = ""};

    state_save(&virtio_probe_state, p, &w, &err);
    assert_string_equal(err.msg, "");
    return w;
}

static int load(struct virtio_probe *p, const struct writer *w)
{
    struct reader r = {.data = w->data, .len = w->len};
    struct error err;

    return state_load(&virtio_probe_state, p, &r, &err);
}

/* A copy that was loaded, paused, in `other`, with the driver and its memory. */
static struct virtio_probe *move(struct virtio_bench *f, struct virtio_machine *other)
{
    struct virtio_probe *copy;
    struct writer w;

    device_pause(f->dev);
    w = save(f->probe);
    virtio_machine_init(other, NULL);
    copy = virtio_probe_create(other, NULL);
    device_pause(&copy->vdev.pci.dev);
    memcpy(virtio_machine_at(other, 0, VIRTIO_RAM_LOW), virtio_machine_at(&f->m, 0, VIRTIO_RAM_LOW),
           VIRTIO_RAM_LOW);
    assert_int_equal(load(copy, &w), 0);
    free(w.data);
    f->d.m = other;
    return copy;
}

static void move_back(struct virtio_bench *f, struct virtio_probe *copy,
                      struct virtio_machine *other)
{
    device_destroy(&copy->vdev.pci.dev);
    virtio_machine_fini(other);
    f->d.m = &f->m;
}

/* Its eventfd was written, and KVM had not looked yet when the CPUs' state was taken. */
static void an_interrupt_that_was_lost_on_the_way_comes_again_after_a_move(void **state)
{
    struct virtio_bench *f = *state;
    struct virtio_machine other;
    struct virtio_buffer b;

    virtio_driver_start(&f->d, UINT64_MAX);
    b = virtio_bench_buffer(f);
    virtio_driver_add(&f->d, 1, &b, 1);
    virtio_driver_kick(&f->d, 1);
    virtio_machine_run(&f->m);
    struct virtio_probe *copy = move(f, &other);
    for (unsigned vector = 0; vector <= PROBE_QUEUES; vector++)
        assert_int_equal(virtio_driver_interrupts(&f->d, vector), 0);
    device_resume(&copy->vdev.pci.dev);
    for (unsigned vector = 0; vector <= PROBE_QUEUES; vector++)
        assert_int_equal(virtio_driver_interrupts(&f->d, vector), 1);
    assert_true(virtio_driver_take(&f->d, 1, NULL, NULL));
    device_pause(&copy->vdev.pci.dev); /* once, not after every pause */
    device_resume(&copy->vdev.pci.dev);
    assert_int_equal(virtio_driver_interrupts(&f->d, 2), 1);
    move_back(f, copy, &other);
}

static void a_vector_that_is_masked_is_not_made_pending_by_a_move(void **state)
{
    struct virtio_bench *f = *state;
    struct virtio_machine other;

    virtio_driver_start(&f->d, UINT64_MAX);
    virtio_driver_write(&f->d, f->d.msix_table + 2 * 16 + 12, 4, 1);
    struct virtio_probe *copy = move(f, &other);
    device_resume(&copy->vdev.pci.dev);
    virtio_driver_write(&f->d, f->d.msix_table + 2 * 16 + 12, 4, 0);
    assert_int_equal(virtio_driver_interrupts(&f->d, 2), 0);
    assert_int_equal(virtio_driver_interrupts(&f->d, 1), 1);
    move_back(f, copy, &other);
}

static void news_of_the_configuration_that_nobody_was_told_travel(void **state)
{
    struct virtio_bench *f = *state;
    struct virtio_machine other;

    virtio_driver_start_intx(&f->d, UINT64_MAX);
    device_pause(f->dev);
    virtio_config_changed(&f->probe->vdev);
    struct virtio_probe *copy = move(f, &other);
    assert_int_equal(virtio_driver_read(&f->d, f->d.isr, 1), 0);
    device_resume(&copy->vdev.pci.dev);
    assert_int_equal(virtio_driver_read(&f->d, f->d.isr, 1), 2);
    move_back(f, copy, &other);
}

static void a_running_device_goes_on_in_another_process(void **state)
{
    struct virtio_bench *f = *state;
    struct virtio_machine other;
    struct virtio_buffer b;

    virtio_driver_start(&f->d, UINT64_MAX);
    b = virtio_bench_buffer(f);
    for (unsigned i = 0; i < 5; i++)
        virtio_driver_request(&f->d, 1, &b, 1);
    virtio_driver_add(&f->d, 1, &b, 1); /* rung, but not served yet */
    virtio_driver_kick(&f->d, 1);
    struct virtio_probe *copy = move(f, &other);
    assert_int_equal(copy->starts, 1);
    memset(virtio_machine_at(&other, b.gpa, 32), 0, 32);
    device_resume(&copy->vdev.pci.dev);
    assert_int_equal(virtio_driver_wait(&f->d, 1, NULL), 32);
    assert_int_equal(((uint8_t *)virtio_machine_at(&other, b.gpa, 32))[31], PROBE_FILL);
    for (unsigned i = 0; i < 40; i++)
        assert_int_equal(virtio_driver_request(&f->d, 2, &b, 1), 32);
    assert_int_equal(virtio_driver_status(&f->d), 0x0f);
    move_back(f, copy, &other);
}

static void a_state_that_no_driver_can_bring_about_is_refused(void **state)
{
    struct virtio_bench *f = *state;
    struct virtio_device *v = &f->probe->vdev, kept;

    virtio_driver_start(&f->d, 0);
    device_pause(f->dev);
    kept = *v;
    for (unsigned i = 0;; i++) {
        struct writer w;
        bool last = false;

        *v = kept;
        switch (i) {
        case 0: v->status |= 0x10; break;
        case 1: v->status &= (uint8_t)~VIRTIO_CONFIG_S_FEATURES_OK; break;
        case 2: v->status = VIRTIO_CONFIG_S_NEEDS_RESET | VIRTIO_CONFIG_S_FEATURES_OK; break;
        case 3: v->negotiated |= 1u << 6; break;
        case 4: v->negotiated = 0; break;
        case 5: v->isr = 1; break;
        case 6: v->config_vector = PROBE_QUEUES + 1; break;
        case 7: v->queue_vector[VIRTIO_MAX_QUEUES - 1] = 0x100; break;
        case 8: v->queues[PROBE_QUEUES].enabled = true; break;
        case 9: v->queues[1].broken = true; break;
        case 10: v->queues[1].desc = 1; break;
        case 11: v->queues[1].used = UINT64_MAX - 3; break;
        case 12: v->queues[1].size = 3; break;
        case 13: v->queues[1].next_avail++; break;
        case 14: v->offered |= 1u << 7; break;
        default: last = true; break;
        }
        w = save(f->probe);
        *v = kept;
        assert_int_equal(load(f->probe, &w), last ? 0 : -EPROTO);
        free(w.data);
        *v = kept; /* with what belongs to the host, that a failed load has let go */
        if (last)
            break;
    }
    assert_true(f->probe->stops > 0); /* whoever loads into a running device stops it */
    assert_int_equal(f->probe->starts, 2);
    device_resume(f->dev);
    virtio_driver_start(&f->d, 0);
    struct virtio_buffer b = virtio_bench_buffer(f);
    assert_int_equal(virtio_driver_request(&f->d, 1, &b, 1), 32);
}

/* With a thread of its own */

/* A vCPU whose driver starts over and over, with requests under way. */
static void *restart(void *opaque)
{
    struct virtio_driver *d = opaque;

    for (unsigned i = 0; i < 300; i++) {
        struct virtio_buffer b;

        virtio_driver_start(d, i % 2 ? UINT64_MAX : 0);
        b = (struct virtio_buffer){virtio_machine_alloc(d->m, 32), 32, true};
        for (unsigned j = 0; j < 12; j++)
            virtio_driver_add(d, j % PROBE_QUEUES, &b, 1);
        if (i % 3 == 0)
            usleep(100);
        if (i % 5 == 0) {
            device_pause(d->dev);
            device_resume(d->dev);
        }
    }
    return NULL;
}

static void resets_and_kicks_on_two_threads_do_not_wait_for_each_other(void **state)
{
    struct virtio_machine m;
    struct iothread *thread;
    struct error err;
    pthread_t vcpu;

    (void)state;
    virtio_machine_init(&m, NULL);
    assert_int_equal(iothread_create("disk", &thread, &err), 0);
    struct virtio_bench g = {.probe = virtio_probe_create(&m, thread)};
    g.dev = &g.probe->vdev.pci.dev;
    virtio_driver_init(&g.d, &m, g.dev);
    virtio_driver_start(&g.d, UINT64_MAX);
    struct virtio_buffer b = {virtio_machine_alloc(&m, 32), 32, true};
    for (unsigned i = 0; i < 200; i++)
        assert_int_equal(virtio_driver_request(&g.d, i % PROBE_QUEUES, &b, 1), 32);
    struct virtio_driver other = g.d; /* another vCPU, that only rings */

    assert_int_equal(pthread_create(&vcpu, NULL, restart, &g.d), 0);
    for (unsigned i = 0; i < 20000; i++)
        virtio_driver_write(&other, other.queues[i % PROBE_QUEUES].notify, 2, i % PROBE_QUEUES);
    pthread_join(vcpu, NULL);
    virtio_driver_start(&g.d, UINT64_MAX);
    b.gpa = virtio_machine_alloc(&m, 32);
    assert_int_equal(virtio_driver_request(&g.d, 0, &b, 1), 32);

    for (unsigned i = 0; i < 3; i++) /* it is busy when it goes */
        virtio_driver_kick(&g.d, i);
    device_destroy(g.dev);
    iothread_destroy(thread);
    virtio_machine_fini(&m);
}

static void a_reset_leaves_nothing_in_flight(void **state)
{
    struct virtio_bench *f = *state;
    struct virtio_buffer b;

    f->probe->keeps = true;
    virtio_driver_start(&f->d, 0);
    b = virtio_bench_buffer(f);
    for (unsigned i = 0; i < 16; i++)
        virtio_driver_add(&f->d, 0, &b, 1);
    virtio_driver_kick(&f->d, 0);
    virtio_machine_run(&f->m);
    assert_int_equal(f->probe->vdev.queues[0].next_avail, 16);
    virtio_driver_start(&f->d, 0);
    f->probe->keeps = false;
    b = virtio_bench_buffer(f);
    for (unsigned i = 0; i < 40; i++)
        assert_int_equal(virtio_driver_request(&f->d, 0, &b, 1), 32);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, virtio_bench_setup, virtio_bench_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(each_queue_has_a_doorbell_where_it_says),
        TEST(doorbells_follow_the_bar),
        TEST(a_platform_without_doorbells_does_as_well),
        TEST(a_request_from_before_driver_ok_is_served_after_it),
        TEST(a_queue_that_is_enabled_late_works_and_one_that_is_not_does_not),
        TEST(with_event_idx_the_driver_knows_when_to_ring),
        TEST(a_request_raises_its_queue_s_vector),
        TEST(queues_may_share_a_vector_or_have_none),
        TEST(a_vector_that_does_not_exist_reads_back_as_none),
        TEST(without_msix_the_line_rises_and_reading_isr_drops_it),
        TEST(a_change_of_configuration_is_a_new_generation_and_an_interrupt),
        TEST(a_broken_ring_needs_a_reset_and_says_so),
        TEST(what_is_done_as_it_pauses_interrupts_when_it_resumes),
        TEST(a_paused_device_leaves_requests_where_they_are),
        TEST(an_interrupt_that_was_lost_on_the_way_comes_again_after_a_move),
        TEST(a_vector_that_is_masked_is_not_made_pending_by_a_move),
        TEST(news_of_the_configuration_that_nobody_was_told_travel),
        TEST(a_running_device_goes_on_in_another_process),
        TEST(a_state_that_no_driver_can_bring_about_is_refused),
        cmocka_unit_test(resets_and_kicks_on_two_threads_do_not_wait_for_each_other),
        TEST(a_reset_leaves_nothing_in_flight),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
