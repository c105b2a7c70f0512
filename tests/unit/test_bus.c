/* SPDX-License-Identifier: Apache-2.0 */
/* bus: what a guest reaches at which address, however it asks. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "vmrun/bus.h"

/* Bytes that can be read and written, and the last call. */
struct ram_device {
    struct device dev;
    struct bus *bus; /* to unmap itself from, on a write of 0xdd to offset 0 */
    uint8_t bytes[16];
    unsigned calls, last_region, last_size;
    uint64_t last_offset;
};

static uint64_t ram_read(struct device *dev, unsigned region, uint64_t offset, unsigned size)
{
    struct ram_device *d = container_of(dev, struct ram_device, dev);
    uint64_t value = UINT64_MAX; /* the bits above are not the guest's business */

    d->calls++;
    d->last_region = region;
    d->last_offset = offset;
    d->last_size = size;
    assert_true(offset + size <= sizeof(d->bytes));
    memcpy(&value, d->bytes + offset, size);
    return value;
}

static void ram_write(struct device *dev, unsigned region, uint64_t offset, unsigned size,
                      uint64_t value)
{
    struct ram_device *d = container_of(dev, struct ram_device, dev);

    d->calls++;
    d->last_region = region;
    d->last_offset = offset;
    d->last_size = size;
    assert_true(offset + size <= sizeof(d->bytes));
    memcpy(d->bytes + offset, &value, size);
    if (d->bus && offset == 0 && value == 0xdd)
        bus_unmap(d->bus, dev);
}

static void ram_destroy(struct device *dev)
{
    device_fini(dev);
}

static const struct device_ops ram_ops = {
    .type = "ram", .read = ram_read, .write = ram_write, .destroy = ram_destroy};

static struct fixture {
    struct bus *bus;
    struct ram_device a, b;
    struct error err;
} f;

static void ram_init(struct ram_device *d, const char *id)
{
    memset(d, 0, sizeof(*d));
    device_init(&d->dev, &ram_ops, id);
    for (unsigned i = 0; i < sizeof(d->bytes); i++)
        d->bytes[i] = (uint8_t)(i + 1);
}

static int setup_kind(enum bus_kind kind)
{
    memset(&f, 0, sizeof(f));
    ram_init(&f.a, "a");
    ram_init(&f.b, "b");
    return bus_create(kind, &f.bus, &f.err);
}

static int setup_pio(void **state)
{
    (void)state;
    return setup_kind(BUS_PIO);
}

static int setup_mmio(void **state)
{
    (void)state;
    return setup_kind(BUS_MMIO);
}

static int teardown(void **state)
{
    (void)state;
    bus_destroy(f.bus);
    device_destroy(&f.a.dev);
    device_destroy(&f.b.dev);
    return 0;
}

static void map(struct ram_device *d, uint64_t base, uint64_t len, unsigned region)
{
    assert_int_equal(bus_map(f.bus, base, len, &d->dev, region, &f.err), 0);
}

static void an_access_reaches_its_device_at_its_offset(void **state)
{
    (void)state;
    map(&f.a, 0x3f8, 8, 0);
    map(&f.b, 0x2f8, 8, 7);

    assert_int_equal(bus_read(f.bus, 0x2fa, 2), 0x0403);
    assert_int_equal(f.b.last_region, 7);
    assert_int_equal(f.b.last_offset, 2);
    bus_write(f.bus, 0x3ff, 1, 0x1234);
    assert_int_equal(f.a.bytes[7], 0x34);
    assert_int_equal(f.a.bytes[8], 9);
    assert_int_equal(bus_unmapped_count(f.bus), 0);
}

static void every_width_reads_its_own_bits_only(void **state)
{
    static const uint64_t expected[] = {0x01, 0x0201, 0x04030201, 0x0807060504030201};

    (void)state;
    map(&f.a, 0x1000, 16, 0);
    for (unsigned i = 0; i < 4; i++)
        assert_true(bus_read(f.bus, 0x1000, 1u << i) == expected[i]);
}

static void where_nothing_is_mapped_reads_give_ones_and_writes_are_dropped(void **state)
{
    (void)state;
    assert_true(bus_read(f.bus, 0xe0000000, 1) == 0xff);
    assert_true(bus_read(f.bus, 0xe0000000, 4) == 0xffffffff);
    assert_true(bus_read(f.bus, 0xe0000000, 8) == UINT64_MAX);
    bus_write(f.bus, 0xe0000000, 8, 0);
    assert_int_equal(bus_unmapped_count(f.bus), 4);
}

static void an_access_that_straddles_two_devices_is_split_into_bytes(void **state)
{
    (void)state;
    map(&f.a, 0x100, 2, 0);
    map(&f.b, 0x102, 2, 0);

    assert_int_equal(bus_read(f.bus, 0x101, 2), 0x0102);
    assert_int_equal(f.a.last_size, 1);
    assert_int_equal(f.b.last_size, 1);
    bus_write(f.bus, 0x100, 4, 0xddccbbaa);
    assert_memory_equal(f.a.bytes, "\xaa\xbb\x03", 3);
    assert_memory_equal(f.b.bytes, "\xcc\xdd\x03", 3);
}

static void an_access_over_the_end_of_a_device_gives_ones_there(void **state)
{
    (void)state;
    map(&f.a, 0x100, 3, 0);
    assert_true(bus_read(f.bus, 0x102, 4) == 0xffffff03);
    assert_true(bus_read(f.bus, 0xff, 2) == 0x01ff);
    bus_write(f.bus, 0x102, 8, UINT64_MAX);
    assert_memory_equal(f.a.bytes, "\x01\x02\xff\x04", 4);
    assert_int_equal(bus_unmapped_count(f.bus), 0); /* each met a device */
}

static void an_access_of_an_odd_width_is_split_into_bytes(void **state)
{
    (void)state;
    map(&f.a, 0x1000, 16, 0);
    for (unsigned size = 1; size <= 8; size++) {
        uint64_t expected = 0;

        memcpy(&expected, f.a.bytes + 1, size);
        assert_true(bus_read(f.bus, 0x1001, size) == expected);
        assert_true((f.a.last_size & (f.a.last_size - 1)) == 0);
        bus_write(f.bus, 0x1001, size, expected);
        assert_true((f.a.last_size & (f.a.last_size - 1)) == 0);
        assert_int_equal(f.a.bytes[size + 1], size + 2);
    }
}

static void the_last_port_can_be_mapped_and_an_access_past_it_wraps(void **state)
{
    (void)state;
    map(&f.a, 0xffff, 1, 0);
    map(&f.b, 0, 1, 0);
    assert_int_equal(bus_read(f.bus, 0xffff, 1), 0x01);
    f.b.bytes[0] = 0x42;
    assert_int_equal(bus_read(f.bus, 0xffff, 2), 0x4201);
    assert_true(bus_read(f.bus, 0xfffe, 4) == 0xff4201ff);
}

static void the_whole_address_space_has_an_end(void **state)
{
    (void)state;
    map(&f.a, UINT64_MAX - 7, 8, 0);
    assert_true(bus_read(f.bus, UINT64_MAX - 7, 8) == 0x0807060504030201);
    assert_true(bus_read(f.bus, UINT64_MAX, 2) == 0xff08);
    assert_int_equal(bus_map(f.bus, UINT64_MAX - 8, 10, &f.b.dev, 0, &f.err), -EINVAL);
    assert_int_equal(bus_map(f.bus, 1, UINT64_MAX, &f.b.dev, 0, &f.err), -EEXIST);
}

static void ranges_that_are_empty_or_past_the_end_are_refused(void **state)
{
    (void)state;
    assert_int_equal(bus_map(f.bus, 0x100, 0, &f.a.dev, 0, &f.err), -EINVAL);
    assert_int_equal(bus_map(f.bus, 0x10000, 1, &f.a.dev, 0, &f.err), -EINVAL);
    assert_int_equal(bus_map(f.bus, 0xffff, 2, &f.a.dev, 0, &f.err), -EINVAL);
    assert_int_equal(bus_map(f.bus, 0xffff, UINT64_MAX, &f.a.dev, 0, &f.err), -EINVAL);
    map(&f.a, 0, 0x10000, 0);
}

static void an_overlap_is_refused_and_names_who_has_the_address(void **state)
{
    static const struct {
        uint64_t base, len;
    } overlaps[] = {{0x100, 8}, {0xff, 2}, {0x107, 1}, {0x107, 10}, {0, 0x1000}, {0x102, 2}};

    (void)state;
    map(&f.a, 0x100, 8, 0);
    for (unsigned i = 0; i < sizeof(overlaps) / sizeof(overlaps[0]); i++)
        assert_int_equal(bus_map(f.bus, overlaps[i].base, overlaps[i].len, &f.b.dev, 0, &f.err),
                         -EEXIST);
    assert_int_equal(bus_map(f.bus, 0x100, 8, &f.b.dev, 0, &f.err), -EEXIST);
    assert_string_equal(f.err.msg, "b: address 0x100 is taken by a");
    map(&f.b, 0xf8, 8, 0);
    assert_int_equal(bus_map(f.bus, 0x108, 8, &f.b.dev, 1, &f.err), 0);
}

static void unmapping_takes_every_range_of_that_device_and_no_other(void **state)
{
    (void)state;
    map(&f.a, 0x100, 4, 0);
    map(&f.b, 0x104, 4, 0);
    map(&f.a, 0x108, 4, 1);
    bus_unmap(f.bus, &f.a.dev);
    bus_unmap(f.bus, &f.a.dev);
    assert_int_equal(bus_read(f.bus, 0x100, 1), 0xff);
    assert_int_equal(bus_read(f.bus, 0x108, 1), 0xff);
    assert_int_equal(bus_read(f.bus, 0x104, 1), 0x01);
    map(&f.a, 0x108, 4, 0);
}

static void unmapping_a_range_leaves_the_others_of_that_device(void **state)
{
    (void)state;
    assert_int_equal(bus_map(f.bus, 0x1000, 16, &f.a.dev, 0, &f.err), 0);
    assert_int_equal(bus_map(f.bus, 0x2000, 16, &f.a.dev, 1, &f.err), 0);
    assert_int_equal(bus_map(f.bus, 0x3000, 16, &f.b.dev, 0, &f.err), 0);

    bus_unmap_range(f.bus, 0x1000, &f.a.dev);
    bus_unmap_range(f.bus, 0x2008, &f.a.dev); /* inside it, not its base */
    bus_unmap_range(f.bus, 0x3000, &f.a.dev); /* not its own */

    assert_int_equal(bus_read(f.bus, 0x1000, 1), 0xff);
    assert_int_equal(bus_read(f.bus, 0x2000, 1), 1);
    assert_int_equal(bus_read(f.bus, 0x3000, 1), 1);
    assert_int_equal(bus_map(f.bus, 0x1000, 16, &f.b.dev, 0, &f.err), 0);
}

static void a_device_may_unmap_itself_from_inside_a_call(void **state)
{
    (void)state;
    f.a.bus = f.bus;
    map(&f.a, 0x100, 4, 0);
    bus_write(f.bus, 0x100, 1, 0xdd);
    assert_int_equal(bus_read(f.bus, 0x100, 1), 0xff);
}

static void a_device_may_vanish_in_the_middle_of_a_split_access(void **state)
{
    (void)state;
    f.a.bus = f.bus;
    map(&f.a, 0x100, 2, 0);
    bus_write(f.bus, 0x100, 4, 0x0000eedd);
    assert_int_equal(f.a.bytes[0], 0xdd);
    assert_int_equal(f.a.bytes[1], 2); /* was unmapped by then */
}

static void many_ranges_are_all_found(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 500; i++) /* neither ascending nor descending */
        map(i % 2 ? &f.a : &f.b, i * 7919 % 500 * 16, 16, (unsigned)(i * 7919 % 500));
    for (uint64_t i = 0; i < 500; i++) {
        f.a.last_region = f.b.last_region = UINT32_MAX;
        assert_int_equal(bus_read(f.bus, i * 16 + 15, 1), 16);
        assert_int_equal(f.a.last_region & f.b.last_region, i);
    }
}

static void *read_all_the_time(void *opaque)
{
    atomic_bool *stop = opaque;
    uintptr_t wrong = 0;

    while (!atomic_load(stop)) {
        uint64_t value = bus_read(f.bus, 0x100, 2);

        wrong += value != 0x0201 && value != 0xffff && value != 0xff01 && value != 0x02ff;
    }
    return (void *)wrong;
}

static void ranges_come_and_go_while_vcpus_read_them(void **state)
{
    atomic_bool stop = false;
    pthread_t readers[2];
    void *wrong;

    (void)state;
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&readers[i], NULL, read_all_the_time, &stop), 0);
    for (unsigned i = 0; i < 2000; i++) {
        map(&f.a, 0x100, 16, 0);
        map(&f.b, 0x200 + i % 7 * 16, 16, 0);
        bus_unmap(f.bus, &f.a.dev);
        bus_unmap(f.bus, &f.b.dev);
    }
    atomic_store(&stop, true);
    for (unsigned i = 0; i < 2; i++) {
        pthread_join(readers[i], &wrong);
        assert_null(wrong);
    }
}

#define TEST(name, kind) cmocka_unit_test_setup_teardown(name, setup_##kind, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_access_reaches_its_device_at_its_offset, pio),
        TEST(every_width_reads_its_own_bits_only, mmio),
        TEST(where_nothing_is_mapped_reads_give_ones_and_writes_are_dropped, mmio),
        TEST(an_access_that_straddles_two_devices_is_split_into_bytes, mmio),
        TEST(an_access_over_the_end_of_a_device_gives_ones_there, mmio),
        TEST(an_access_of_an_odd_width_is_split_into_bytes, mmio),
        TEST(the_last_port_can_be_mapped_and_an_access_past_it_wraps, pio),
        TEST(the_whole_address_space_has_an_end, mmio),
        TEST(ranges_that_are_empty_or_past_the_end_are_refused, pio),
        TEST(an_overlap_is_refused_and_names_who_has_the_address, pio),
        TEST(unmapping_takes_every_range_of_that_device_and_no_other, mmio),
        TEST(unmapping_a_range_leaves_the_others_of_that_device, mmio),
        TEST(a_device_may_unmap_itself_from_inside_a_call, mmio),
        TEST(a_device_may_vanish_in_the_middle_of_a_split_access, mmio),
        TEST(many_ranges_are_all_found, mmio),
        TEST(ranges_come_and_go_while_vcpus_read_them, mmio),
    };
    return cmocka_run_group_tests_name("bus", tests, NULL, NULL);
}
