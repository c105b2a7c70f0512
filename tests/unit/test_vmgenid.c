/* SPDX-License-Identifier: Apache-2.0 */
/* vmgenid: 16 bytes that a guest reads, that it cannot change, and that are new after a restore. */
#include "vmrun/vmgenid.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "conformance.h"

#define PAGE UINT64_C(0xfeb00000)

struct fixture {
    struct fake_platform fake;
    struct device *dev;
    unsigned changes;
};

static void changed(void *opaque)
{
    ++*(unsigned *)opaque;
}

static int create(void *opaque, struct platform *platform, struct device **ret_dev,
                  struct error *err)
{
    const struct vmgenid_params params = {.gpa = PAGE, .changed = changed, .opaque = opaque};

    return vmgenid_create(platform, &params, ret_dev, err);
}

static int setup(void **state)
{
    static struct fixture f;
    struct error err;

    f.changes = 0;
    fake_platform_init(&f.fake);
    *state = &f;
    return create(&f.changes, &f.fake.platform, &f.dev, &err);
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    device_destroy(f->dev);
    return 0;
}

static void read_id(struct fake_platform *fake, uint64_t id[2])
{
    id[0] = fake_read(fake, BUS_MMIO, PAGE, 8);
    id[1] = fake_read(fake, BUS_MMIO, PAGE + 8, 8);
}

static void two_machines_have_two_ids(void **state)
{
    struct fixture *f = *state;
    uint64_t one[2], other[2];
    struct fake_platform fake;
    struct device *dev;
    unsigned changes = 0;
    struct error err;

    fake_platform_init(&fake);
    assert_int_equal(create(&changes, &fake.platform, &dev, &err), 0);
    read_id(&f->fake, one);
    read_id(&fake, other);
    assert_memory_not_equal(one, other, 16);
    assert_int_equal(changes, 0);
    device_destroy(dev);
}

static void a_change_is_another_id_and_one_event(void **state)
{
    struct fixture *f = *state;
    uint64_t before[2], after[2];
    struct error err;

    read_id(&f->fake, before);
    assert_int_equal(vmgenid_change(f->dev, &err), 0);
    read_id(&f->fake, after);
    assert_memory_not_equal(before, after, 16);
    assert_int_equal(f->changes, 1);
}

static void it_reads_alike_in_any_width_and_as_zero_behind_its_end(void **state)
{
    struct fixture *f = *state;
    uint64_t id[2];

    read_id(&f->fake, id);
    for (unsigned size = 1; size <= 8; size *= 2) {
        uint8_t bytes[16];

        for (unsigned at = 0; at < 16; at += size) {
            uint64_t value = fake_read(&f->fake, BUS_MMIO, PAGE + at, size);

            memcpy(bytes + at, &value, size);
        }
        assert_memory_equal(bytes, id, 16);
    }
    assert_int_equal(fake_read(&f->fake, BUS_MMIO, PAGE + 12, 8), id[1] >> 32);
    for (unsigned at = 16; at < VMGENID_PAGE; at += 8)
        assert_int_equal(fake_read(&f->fake, BUS_MMIO, PAGE + at, 8), 0);
}

static void neither_a_write_nor_a_reset_changes_it(void **state)
{
    struct fixture *f = *state;
    uint64_t before[2], after[2];

    read_id(&f->fake, before);
    fake_write(&f->fake, BUS_MMIO, PAGE, 8, ~before[0]);
    fake_write(&f->fake, BUS_MMIO, PAGE + 12, 4, 0);
    device_reset(f->dev);
    read_id(&f->fake, after);
    assert_memory_equal(before, after, 16);
    assert_int_equal(f->changes, 0);
}

static void a_machine_that_moves_keeps_it_until_somebody_changes_it(void **state)
{
    struct fixture *f = *state;
    uint64_t before[2], after[2];
    struct fake_platform fake;
    struct writer w = {0};
    struct device *dev;
    unsigned changes = 0;
    struct error err;

    fake_platform_init(&fake);
    assert_int_equal(create(&changes, &fake.platform, &dev, &err), 0);
    assert_int_equal(state_save(f->dev->ops->state, f->dev, &w, &err), 0);
    struct reader r = {.data = w.data, .len = w.len};
    assert_int_equal(state_load(dev->ops->state, dev, &r, &err), 0);
    read_id(&f->fake, before);
    read_id(&fake, after);
    assert_memory_equal(before, after, 16);
    assert_int_equal(changes, 0);
    assert_int_equal(vmgenid_change(dev, &err), 0);
    read_id(&fake, after);
    assert_memory_not_equal(before, after, 16);
    free(w.data);
    device_destroy(dev);
}

static void it_does_what_every_device_does(void **state)
{
    unsigned changes = 0;

    (void)state;
    conformance_run(&(struct conformance_case){.create = create, .opaque = &changes});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(two_machines_have_two_ids, setup, teardown),
        cmocka_unit_test_setup_teardown(a_change_is_another_id_and_one_event, setup, teardown),
        cmocka_unit_test_setup_teardown(it_reads_alike_in_any_width_and_as_zero_behind_its_end,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(neither_a_write_nor_a_reset_changes_it, setup, teardown),
        cmocka_unit_test_setup_teardown(a_machine_that_moves_keeps_it_until_somebody_changes_it,
                                        setup, teardown),
        cmocka_unit_test(it_does_what_every_device_does),
    };

    return cmocka_run_group_tests_name("vmgenid", tests, NULL, NULL);
}
