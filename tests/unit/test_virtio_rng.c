/* SPDX-License-Identifier: Apache-2.0 */
/* virtio_rng: random bytes into the guest's buffers, and the two suites of every virtio device. */
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "virtio_hostile.h"
#include "vmrun/virtio_devices.h"

#define ALL UINT64_MAX

struct fixture {
    struct virtio_machine m;
    struct device *dev;
    struct virtio_driver driver;
};

static int setup(void **state)
{
    static struct fixture f;
    struct error err = {.msg = ""};

    virtio_machine_init(&f.m, NULL);
    virtio_rng_create(f.m.platform, f.m.host, f.m.loop, &f.dev, &err);
    assert_string_equal(err.msg, "");
    virtio_driver_init(&f.driver, &f.m, f.dev);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    device_destroy(f->dev);
    virtio_machine_fini(&f->m);
    return 0;
}

static unsigned zeros(struct virtio_machine *m, uint64_t gpa, unsigned bytes)
{
    const uint8_t *at = virtio_machine_at(m, gpa, bytes);
    unsigned count = 0;

    for (unsigned i = 0; i < bytes; i++)
        count += at[i] == 0;
    return count;
}

static void it_is_an_entropy_source_without_configuration(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(virtio_driver_pci_read(&f->driver, 2, 2), 0x1040 + VIRTIO_ID_RNG);
    assert_int_equal(f->driver.queue_count, 1);
    assert_int_equal(f->driver.config, 0);
}

static void every_buffer_of_a_request_is_filled(void **state)
{
    struct fixture *f = *state;
    uint64_t gpa;

    virtio_driver_start(&f->driver, ALL);
    gpa = virtio_machine_alloc(&f->m, 1024);
    const struct virtio_buffer buffers[] = {{gpa, 400, true}, {gpa + 512, 300, true}};

    assert_int_equal(virtio_driver_request(&f->driver, 0, buffers, 2), 700);
    assert_true(zeros(&f->m, gpa, 400) < 40); /* 1.6 on average */
    assert_true(zeros(&f->m, gpa + 512, 300) < 40);
    assert_int_equal(zeros(&f->m, gpa + 400, 112), 112);
    assert_int_equal(zeros(&f->m, gpa + 812, 212), 212);
    assert_int_equal(virtio_driver_interrupts(&f->driver, 1), 1);
}

static void two_requests_get_different_bytes(void **state)
{
    struct fixture *f = *state;
    uint64_t gpa;

    virtio_driver_start(&f->driver, ALL);
    gpa = virtio_machine_alloc(&f->m, 128);
    for (unsigned i = 0; i < 2; i++) {
        const struct virtio_buffer buffer = {gpa + 64 * i, 64, true};

        assert_int_equal(virtio_driver_request(&f->driver, 0, &buffer, 1), 64);
    }
    assert_memory_not_equal(virtio_machine_at(&f->m, gpa, 64),
                            virtio_machine_at(&f->m, gpa + 64, 64), 64);
}

static void a_large_request_gets_only_so_much(void **state)
{
    struct fixture *f = *state;
    uint64_t gpa;
    uint32_t written;

    virtio_driver_start(&f->driver, ALL);
    gpa = virtio_machine_alloc(&f->m, 1 << 20);
    const struct virtio_buffer buffer = {gpa, 1 << 20, true};
    written = virtio_driver_request(&f->driver, 0, &buffer, 1);
    assert_in_range(written, 256, 65536);
    assert_int_equal(zeros(&f->m, gpa + written, (1 << 20) - written), (1 << 20) - written);
}

static void a_request_without_room_for_bytes_gets_none(void **state)
{
    struct fixture *f = *state;

    virtio_driver_start(&f->driver, ALL);
    const struct virtio_buffer buffer = {virtio_machine_alloc(&f->m, 16), 16, false};
    assert_int_equal(virtio_driver_request(&f->driver, 0, &buffer, 1), 0);
    assert_int_equal(zeros(&f->m, buffer.gpa, 16), 16);
}

static void bytes_come_through_a_ring_that_wraps(void **state)
{
    struct fixture *f = *state;
    struct virtio_buffer buffer = {.bytes = 8, .write = true};

    virtio_driver_start(&f->driver, 0);
    buffer.gpa = virtio_machine_alloc(&f->m, 8);
    for (unsigned i = 0; i < 70000; i++) /* the 16-bit indices wrap as well */
        assert_int_equal(virtio_driver_request(&f->driver, 0, &buffer, 1), 8);
    assert_int_equal(virtio_driver_interrupts(&f->driver, 1), 70000);
}

/* The suites */

static int create(void *opaque, struct virtio_machine *m, struct device **ret_dev,
                  struct error *err)
{
    (void)opaque;
    return virtio_rng_create(m->platform, m->host, m->loop, ret_dev, err);
}

static void works(void *opaque, struct virtio_driver *d)
{
    const struct virtio_buffer buffer = {virtio_machine_alloc(d->m, 64), 64, true};

    (void)opaque;
    assert_int_equal(virtio_driver_request(d, 0, &buffer, 1), 64);
    assert_true(zeros(d->m, buffer.gpa, 64) < 32);
}

static const struct virtio_kind kind = {.create = create, .works = works};

static void it_keeps_the_promises_of_every_device(void **state)
{
    (void)state;
    virtio_conformance_run(&kind);
}

static void a_hostile_driver_gets_nowhere(void **state)
{
    (void)state;
    hostile_run(&kind);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(it_is_an_entropy_source_without_configuration, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(every_buffer_of_a_request_is_filled, setup, teardown),
        cmocka_unit_test_setup_teardown(two_requests_get_different_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(a_large_request_gets_only_so_much, setup, teardown),
        cmocka_unit_test_setup_teardown(a_request_without_room_for_bytes_gets_none, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(bytes_come_through_a_ring_that_wraps, setup, teardown),
        cmocka_unit_test(it_keeps_the_promises_of_every_device),
        cmocka_unit_test(a_hostile_driver_gets_nowhere),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
