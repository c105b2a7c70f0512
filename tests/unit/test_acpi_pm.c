/* SPDX-License-Identifier: Apache-2.0 */
/* acpi-pm: the PM1 blocks, the power button, soft-off and the reset register. */
#include "vmrun/acpi_pm.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "conformance.h"
#include "vmrun/log.h"

#define STATUS 0x600
#define ENABLE 0x602
#define CONTROL 0x604
#define GPE_STATUS 0x60a
#define GPE_ENABLE 0x60b
#define RESET 0xcf9
#define RESET_VALUE 6
#define S5_TYPE 5
#define SCI 9

enum { PWRBTN = 1 << 8, GBL = 1 << 5, RTC = 1 << 10, TMR = 1 << 0 };
enum { SCI_EN = 1 << 0, SLP_EN = 1 << 13, SLP_TYP_SHIFT = 10 };

static const struct acpi_pm_params params = {
    .pm1_event = STATUS,
    .pm1_control = CONTROL,
    .gpe0 = GPE_STATUS,
    .reset_port = RESET,
    .reset_value = RESET_VALUE,
    .s5_type = S5_TYPE,
    .sci = SCI,
};

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
    return acpi_pm_create(&f.fake.platform, &params, &f.dev, &err);
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    device_destroy(f->dev);
    return 0;
}

static uint16_t in16(struct fixture *f, uint16_t port)
{
    return (uint16_t)fake_read(&f->fake, BUS_PIO, port, 2);
}

static void out16(struct fixture *f, uint16_t port, uint16_t value)
{
    fake_write(&f->fake, BUS_PIO, port, 2, value);
}

static bool sci(const struct fixture *f)
{
    return f->fake.irqs[SCI].level;
}

static void acpi_mode_is_always_on(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(in16(f, CONTROL), SCI_EN);
    out16(f, CONTROL, 0);
    assert_int_equal(in16(f, CONTROL), SCI_EN);
}

static void after_reset_no_status_bit_is_set(void **state)
{
    struct fixture *f = *state;

    out16(f, ENABLE, PWRBTN);
    acpi_pm_press_power_button(f->dev);
    device_reset(f->dev);

    assert_int_equal(in16(f, STATUS), 0);
    assert_int_equal(in16(f, ENABLE), 0);
    assert_false(sci(f));
}

static void the_power_button_interrupts_when_enabled(void **state)
{
    struct fixture *f = *state;

    out16(f, ENABLE, PWRBTN);
    assert_false(sci(f));
    acpi_pm_press_power_button(f->dev);
    assert_int_equal(in16(f, STATUS), PWRBTN);
    assert_true(sci(f));
}

static void a_button_pressed_while_masked_interrupts_on_enable(void **state)
{
    struct fixture *f = *state;

    acpi_pm_press_power_button(f->dev);
    assert_false(sci(f));
    out16(f, ENABLE, PWRBTN);
    assert_true(sci(f));
    out16(f, ENABLE, 0);
    assert_false(sci(f));
}

static void a_one_clears_a_status_bit_and_a_zero_does_not(void **state)
{
    struct fixture *f = *state;

    out16(f, ENABLE, PWRBTN);
    acpi_pm_press_power_button(f->dev);
    out16(f, STATUS, (uint16_t)~PWRBTN);
    assert_int_equal(in16(f, STATUS), PWRBTN);
    assert_true(sci(f));
    out16(f, STATUS, PWRBTN);
    assert_int_equal(in16(f, STATUS), 0);
    assert_false(sci(f));
}

static void the_line_is_driven_only_when_it_changes(void **state)
{
    struct fixture *f = *state;

    out16(f, ENABLE, PWRBTN | RTC);
    acpi_pm_press_power_button(f->dev);
    acpi_pm_press_power_button(f->dev);
    out16(f, ENABLE, PWRBTN);
    assert_int_equal(f->fake.irqs[SCI].sets, 1);
}

static void only_defined_bits_can_be_enabled(void **state)
{
    struct fixture *f = *state;

    out16(f, ENABLE, 0xffff);
    assert_int_equal(in16(f, ENABLE), TMR | GBL | PWRBTN | RTC);
}

static void bytes_and_double_words_reach_the_event_block_too(void **state)
{
    struct fixture *f = *state;

    fake_outb(&f->fake, ENABLE + 1, PWRBTN >> 8);
    acpi_pm_press_power_button(f->dev);
    assert_true(sci(f));
    assert_int_equal(fake_read(&f->fake, BUS_PIO, STATUS, 4), (uint32_t)PWRBTN << 16 | PWRBTN);
    fake_outb(&f->fake, STATUS, 0xff); /* the other byte */
    assert_true(sci(f));
    fake_write(&f->fake, BUS_PIO, STATUS, 4, (uint32_t)RTC << 16 | PWRBTN);
    assert_false(sci(f));
    assert_int_equal(in16(f, ENABLE), RTC);
}

static void soft_off_takes_the_right_type_and_the_enable_bit(void **state)
{
    struct fixture *f = *state;

    out16(f, CONTROL, S5_TYPE << SLP_TYP_SHIFT); /* as ACPICA does it: type first */
    assert_int_equal(f->fake.requests, 0);
    out16(f, CONTROL, S5_TYPE << SLP_TYP_SHIFT | SLP_EN);
    assert_int_equal(f->fake.requests, 1);
    assert_int_equal(f->fake.request, GUEST_POWEROFF);
    assert_int_equal(in16(f, CONTROL) & SLP_EN, 0);
}

static void soft_off_works_with_the_high_byte_alone(void **state)
{
    struct fixture *f = *state;

    fake_outb(&f->fake, CONTROL + 1, (S5_TYPE << SLP_TYP_SHIFT | SLP_EN) >> 8);
    assert_int_equal(f->fake.requests, 1);
    assert_int_equal(f->fake.request, GUEST_POWEROFF);
}

static void other_sleep_types_are_ignored(void **state)
{
    struct fixture *f = *state;

    log_set_level(LOG_LEVEL_ERROR);
    for (uint16_t type = 0; type < 8; type++)
        if (type != S5_TYPE)
            out16(f, CONTROL, (uint16_t)(type << SLP_TYP_SHIFT | SLP_EN));
    assert_int_equal(f->fake.requests, 0);
}

static void the_reset_register_acts_on_its_value_only(void **state)
{
    struct fixture *f = *state;

    fake_outb(&f->fake, RESET, RESET_VALUE + 1);
    assert_int_equal(f->fake.requests, 0);
    fake_outb(&f->fake, RESET, RESET_VALUE);
    assert_int_equal(f->fake.requests, 1);
    assert_int_equal(f->fake.request, GUEST_RESET);
}

static void a_button_pressed_in_pause_interrupts_on_resume(void **state)
{
    struct fixture *f = *state;

    out16(f, ENABLE, PWRBTN);
    device_pause(f->dev);
    acpi_pm_press_power_button(f->dev);
    assert_false(sci(f));
    device_resume(f->dev);
    assert_true(sci(f));
}

/* General-purpose events */

static void an_event_interrupts_when_enabled_and_until_it_is_cleared(void **state)
{
    struct fixture *f = *state;

    for (unsigned n = 0; n < 8; n++) {
        uint8_t bit = (uint8_t)(1 << n);

        acpi_pm_raise_gpe(f->dev, n);
        assert_int_equal(fake_inb(&f->fake, GPE_STATUS), bit);
        assert_false(sci(f));
        fake_outb(&f->fake, GPE_ENABLE, bit);
        assert_true(sci(f));
        fake_outb(&f->fake, GPE_STATUS, (uint8_t)~bit);
        assert_true(sci(f));
        fake_outb(&f->fake, GPE_STATUS, bit);
        assert_false(sci(f));
        assert_int_equal(fake_inb(&f->fake, GPE_STATUS), 0);
        assert_int_equal(fake_inb(&f->fake, GPE_ENABLE), bit);
        fake_outb(&f->fake, GPE_ENABLE, 0);
    }
}

static void a_word_reaches_status_and_enable_of_events(void **state)
{
    struct fixture *f = *state;

    acpi_pm_raise_gpe(f->dev, 3);
    out16(f, GPE_STATUS, 0xff << 8); /* enables, clears nothing */
    assert_int_equal(in16(f, GPE_STATUS), 0xff08);
    assert_true(sci(f));
    out16(f, GPE_STATUS, 0x08);
    assert_int_equal(in16(f, GPE_STATUS), 0);
    assert_false(sci(f));
}

static void events_and_the_button_share_the_line(void **state)
{
    struct fixture *f = *state;

    out16(f, ENABLE, PWRBTN);
    fake_outb(&f->fake, GPE_ENABLE, 1);
    acpi_pm_press_power_button(f->dev);
    acpi_pm_raise_gpe(f->dev, 0);
    out16(f, STATUS, PWRBTN);
    assert_true(sci(f));
    fake_outb(&f->fake, GPE_STATUS, 1);
    assert_false(sci(f));
    assert_int_equal(f->fake.irqs[SCI].sets, 2);
}

static void an_event_in_pause_interrupts_on_resume_and_reset_forgets_it(void **state)
{
    struct fixture *f = *state;

    fake_outb(&f->fake, GPE_ENABLE, 1);
    device_pause(f->dev);
    acpi_pm_raise_gpe(f->dev, 0);
    assert_false(sci(f));
    device_resume(f->dev);
    assert_true(sci(f));
    device_reset(f->dev);
    assert_false(sci(f));
    assert_int_equal(in16(f, GPE_STATUS), 0);
}

static int create(void *opaque, struct platform *platform, struct device **ret_dev,
                  struct error *err)
{
    (void)opaque;
    return acpi_pm_create(platform, &params, ret_dev, err);
}

static void disturb(void *opaque, struct device *dev, uint32_t random)
{
    (void)opaque;
    if (random % 8 == 0)
        acpi_pm_press_power_button(dev);
    else if (random % 8 == 1)
        acpi_pm_raise_gpe(dev, random / 8 % 8);
}

static void it_conforms(void **state)
{
    (void)state;
    log_set_level(LOG_LEVEL_ERROR);
    conformance_run(&(struct conformance_case){.create = create, .disturb = disturb});
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(acpi_mode_is_always_on),
        TEST(after_reset_no_status_bit_is_set),
        TEST(the_power_button_interrupts_when_enabled),
        TEST(a_button_pressed_while_masked_interrupts_on_enable),
        TEST(a_one_clears_a_status_bit_and_a_zero_does_not),
        TEST(the_line_is_driven_only_when_it_changes),
        TEST(only_defined_bits_can_be_enabled),
        TEST(bytes_and_double_words_reach_the_event_block_too),
        TEST(soft_off_takes_the_right_type_and_the_enable_bit),
        TEST(soft_off_works_with_the_high_byte_alone),
        TEST(other_sleep_types_are_ignored),
        TEST(the_reset_register_acts_on_its_value_only),
        TEST(a_button_pressed_in_pause_interrupts_on_resume),
        TEST(an_event_interrupts_when_enabled_and_until_it_is_cleared),
        TEST(a_word_reaches_status_and_enable_of_events),
        TEST(events_and_the_button_share_the_line),
        TEST(an_event_in_pause_interrupts_on_resume_and_reset_forgets_it),
        cmocka_unit_test(it_conforms),
    };

    return cmocka_run_group_tests_name("acpi-pm", tests, NULL, NULL);
}
