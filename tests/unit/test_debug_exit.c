/* SPDX-License-Identifier: Apache-2.0 */
/* debug-exit: a write ends the machine with an odd status. */
#include "vmrun/debug_exit.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "conformance.h"

#define PORT 0x501

struct fixture {
    struct fake_platform fake;
    struct device *dev;
};

static int setup(void **state)
{
    static struct fixture f;
    struct error err;

    fake_platform_init(&f.fake);
    *state = &f;
    return debug_exit_create(&f.fake.platform, PORT, &f.dev, &err);
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    device_destroy(f->dev);
    return 0;
}

static void a_write_ends_the_machine_with_an_odd_status(void **state)
{
    struct fixture *f = *state;

    fake_outb(&f->fake, PORT, 0x10);

    assert_int_equal(f->fake.requests, 1);
    assert_int_equal(f->fake.request, GUEST_EXIT);
    assert_int_equal(f->fake.argument, 0x21);
}

static void the_status_is_one_byte(void **state)
{
    struct fixture *f = *state;

    fake_outb(&f->fake, PORT, 0xff);
    assert_int_equal(f->fake.argument, 0xff);
    fake_outb(&f->fake, PORT, 0x80);
    assert_int_equal(f->fake.argument, 0x01);
}

static void a_wide_write_counts_by_its_low_byte(void **state)
{
    struct fixture *f = *state;

    fake_write(&f->fake, BUS_PIO, PORT, 4, 0x12345601);

    assert_int_equal(f->fake.requests, 1);
    assert_int_equal(f->fake.argument, 0x03);
}

static void a_read_gives_the_last_value_until_reset(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(fake_inb(&f->fake, PORT), 0);
    fake_outb(&f->fake, PORT, 7);
    assert_int_equal(fake_inb(&f->fake, PORT), 7);
    device_reset(f->dev);
    assert_int_equal(fake_inb(&f->fake, PORT), 0);
    assert_int_equal(f->fake.requests, 1);
}

static void a_taken_port_is_refused_by_name(void **state)
{
    struct fixture *f = *state;
    struct device *second = NULL;
    struct error err;

    assert_int_equal(debug_exit_create(&f->fake.platform, PORT, &second, &err), -EEXIST);
    assert_string_equal(err.msg, "debug-exit: 0x501 is taken by debug-exit");
    assert_null(second);
}

static int create(void *opaque, struct platform *platform, struct device **ret_dev,
                  struct error *err)
{
    (void)opaque;
    return debug_exit_create(platform, PORT, ret_dev, err);
}

static void it_conforms(void **state)
{
    (void)state;
    conformance_run(&(struct conformance_case){.create = create});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_write_ends_the_machine_with_an_odd_status, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(the_status_is_one_byte, setup, teardown),
        cmocka_unit_test_setup_teardown(a_wide_write_counts_by_its_low_byte, setup, teardown),
        cmocka_unit_test_setup_teardown(a_read_gives_the_last_value_until_reset, setup, teardown),
        cmocka_unit_test_setup_teardown(a_taken_port_is_refused_by_name, setup, teardown),
        cmocka_unit_test(it_conforms),
    };

    return cmocka_run_group_tests_name("debug-exit", tests, NULL, NULL);
}
