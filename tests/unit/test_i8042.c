/* SPDX-License-Identifier: Apache-2.0 */
/* i8042: resets by three ways, answers every command at once, has no keyboard. */
#include "vmrun/i8042.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "conformance.h"

#define DATA 0x60
#define COMMAND 0x64
#define SYSTEM 0x92

enum { OUTPUT_FULL = 0x01, INPUT_FULL = 0x02, AUX_DATA = 0x20, TIMEOUT = 0x40 };

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
    return i8042_create(&f.fake.platform, &f.dev, &err);
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    device_destroy(f->dev);
    return 0;
}

/* Send a command, and read its answer, which must be there at once. */
static uint8_t ask(struct fixture *f, uint8_t command)
{
    fake_outb(&f->fake, COMMAND, command);
    assert_int_equal(fake_inb(&f->fake, COMMAND) & (OUTPUT_FULL | INPUT_FULL), OUTPUT_FULL);
    uint8_t value = fake_inb(&f->fake, DATA);
    assert_int_equal(fake_inb(&f->fake, COMMAND) & OUTPUT_FULL, 0);
    return value;
}

static void assert_reset_requested(const struct fixture *f, unsigned times)
{
    assert_int_equal(f->fake.requests, times);
    if (times)
        assert_int_equal(f->fake.request, GUEST_RESET);
}

static void command_fe_pulses_the_reset_line(void **state)
{
    struct fixture *f = *state;

    fake_outb(&f->fake, COMMAND, 0xfe);
    assert_reset_requested(f, 1);
    fake_outb(&f->fake, COMMAND, 0xf0); /* all four lines, reset among them */
    assert_reset_requested(f, 2);
}

static void pulsing_other_lines_does_not_reset(void **state)
{
    struct fixture *f = *state;

    fake_outb(&f->fake, COMMAND, 0xff);
    fake_outb(&f->fake, COMMAND, 0xfd);
    assert_reset_requested(f, 0);
}

static void the_output_port_resets_when_its_bit_0_is_low(void **state)
{
    struct fixture *f = *state;

    fake_outb(&f->fake, COMMAND, 0xd1);
    fake_outb(&f->fake, DATA, 0xdf); /* A20 on, as guests do at start */
    assert_reset_requested(f, 0);
    assert_int_equal(ask(f, 0xd0), 0xdf);

    fake_outb(&f->fake, COMMAND, 0xd1);
    fake_outb(&f->fake, DATA, 0xfe);
    assert_reset_requested(f, 1);
}

static void port_92_resets_and_remembers_a20(void **state)
{
    struct fixture *f = *state;

    fake_outb(&f->fake, SYSTEM, 0x00);
    assert_int_equal(fake_inb(&f->fake, SYSTEM), 0x00);
    fake_outb(&f->fake, SYSTEM, 0x02);
    assert_int_equal(fake_inb(&f->fake, SYSTEM), 0x02);
    assert_reset_requested(f, 0);
    fake_outb(&f->fake, SYSTEM, 0x03);
    assert_reset_requested(f, 1);
}

static void the_tests_pass(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(ask(f, 0xaa), 0x55);
    assert_int_equal(ask(f, 0xab), 0x00);
}

static void the_command_byte_can_be_written_and_read_back(void **state)
{
    struct fixture *f = *state;

    fake_outb(&f->fake, COMMAND, 0x60);
    fake_outb(&f->fake, DATA, 0x47);
    assert_int_equal(ask(f, 0x20), 0x47);
}

static void interfaces_are_disabled_by_command_byte_bits(void **state)
{
    struct fixture *f = *state;

    fake_outb(&f->fake, COMMAND, 0xa8);
    fake_outb(&f->fake, COMMAND, 0xae);
    assert_int_equal(ask(f, 0x20) & 0x30, 0x00);
    fake_outb(&f->fake, COMMAND, 0xad);
    assert_int_equal(ask(f, 0x20) & 0x30, 0x10);
    fake_outb(&f->fake, COMMAND, 0xa7);
    assert_int_equal(ask(f, 0x20) & 0x30, 0x30);
}

static void a_byte_for_the_keyboard_times_out_at_once(void **state)
{
    struct fixture *f = *state;

    fake_outb(&f->fake, DATA, 0xf2); /* identify */
    assert_int_equal(fake_inb(&f->fake, COMMAND) & (OUTPUT_FULL | TIMEOUT), OUTPUT_FULL | TIMEOUT);
    assert_int_equal(fake_inb(&f->fake, DATA), 0xfe);
    assert_int_equal(fake_inb(&f->fake, COMMAND) & (OUTPUT_FULL | TIMEOUT), 0);
}

static void a_byte_for_the_mouse_is_not_answered(void **state)
{
    struct fixture *f = *state;

    fake_outb(&f->fake, COMMAND, 0xd4);
    fake_outb(&f->fake, DATA, 0xf2);
    assert_int_equal(fake_inb(&f->fake, COMMAND) & OUTPUT_FULL, 0);
}

/* Linux takes an echo without the auxiliary bit, and then a failed test, for "no such port". */
static void linux_finds_no_auxiliary_port_without_waiting(void **state)
{
    struct fixture *f = *state;

    fake_outb(&f->fake, COMMAND, 0xd3);
    fake_outb(&f->fake, DATA, 0x5a);
    assert_int_equal(fake_inb(&f->fake, COMMAND) & (OUTPUT_FULL | AUX_DATA), OUTPUT_FULL);
    assert_int_equal(fake_inb(&f->fake, DATA), 0x5a);
    uint8_t result = ask(f, 0xa9);
    assert_true(result != 0x00 && result != 0xfa && result != 0xff);
}

static void a_command_abandons_one_that_waits_for_data(void **state)
{
    struct fixture *f = *state;

    fake_outb(&f->fake, COMMAND, 0xd1);
    fake_outb(&f->fake, COMMAND, 0xae);
    fake_outb(&f->fake, DATA, 0x00); /* for the keyboard now, not the output port */
    assert_reset_requested(f, 0);
}

static void a_command_that_waits_for_data_travels(void **state)
{
    struct fixture *f = *state;
    struct writer w = {0};
    struct error err;

    fake_outb(&f->fake, COMMAND, 0xd1);
    assert_int_equal(state_save(f->dev->ops->state, f->dev, &w, &err), 0);
    device_reset(f->dev);
    struct reader r = {.data = w.data, .len = w.len};
    assert_int_equal(state_load(f->dev->ops->state, f->dev, &r, &err), 0);
    fake_outb(&f->fake, DATA, 0xfe);
    assert_reset_requested(f, 1);
    free(w.data);
}

static void reset_forgets_what_was_pending(void **state)
{
    struct fixture *f = *state;

    fake_outb(&f->fake, COMMAND, 0xaa);
    device_reset(f->dev);
    assert_int_equal(fake_inb(&f->fake, COMMAND) & OUTPUT_FULL, 0);
}

static int create(void *opaque, struct platform *platform, struct device **ret_dev,
                  struct error *err)
{
    (void)opaque;
    return i8042_create(platform, ret_dev, err);
}

static void it_conforms(void **state)
{
    (void)state;
    conformance_run(&(struct conformance_case){.create = create});
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(command_fe_pulses_the_reset_line),
        TEST(pulsing_other_lines_does_not_reset),
        TEST(the_output_port_resets_when_its_bit_0_is_low),
        TEST(port_92_resets_and_remembers_a20),
        TEST(the_tests_pass),
        TEST(the_command_byte_can_be_written_and_read_back),
        TEST(interfaces_are_disabled_by_command_byte_bits),
        TEST(a_byte_for_the_keyboard_times_out_at_once),
        TEST(a_byte_for_the_mouse_is_not_answered),
        TEST(linux_finds_no_auxiliary_port_without_waiting),
        TEST(a_command_abandons_one_that_waits_for_data),
        TEST(a_command_that_waits_for_data_travels),
        TEST(reset_forgets_what_was_pending),
        cmocka_unit_test(it_conforms),
    };

    return cmocka_run_group_tests_name("i8042", tests, NULL, NULL);
}
