/* SPDX-License-Identifier: Apache-2.0 */
/* virtio_console: hvc0 over a fake console, by VIRTIO 1.2 "Console Device". */
#include <linux/virtio_config.h>
#include <linux/virtio_console.h>
#include <linux/virtio_ids.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fake_console.h"
#include "virtio_hostile.h"
#include "vmrun/virtio_devices.h"

#define ALL UINT64_MAX
enum { RX = 0, TX = 1 };

struct fixture {
    struct virtio_machine m;
    struct fake_console console;
    struct device *dev;
    struct virtio_driver d;
};

static int setup(void **state)
{
    static struct fixture f;
    struct error err = {.msg = ""};

    virtio_machine_init(&f.m, NULL);
    virtio_console_create(f.m.platform, f.m.host, f.m.loop, fake_console_init(&f.console), &f.dev,
                          &err);
    assert_string_equal(err.msg, "");
    virtio_driver_init(&f.d, &f.m, f.dev);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    device_destroy(f->dev);
    assert_null(f->console.device.readable);
    virtio_machine_fini(&f->m);
    return 0;
}

static void run(struct fixture *f)
{
    virtio_machine_run(&f->m);
}

/* One request; not kicked. */
static void add_tx(struct fixture *f, const void *data, uint32_t len)
{
    const struct virtio_buffer buffer = {virtio_machine_alloc(&f->m, len), len, false};

    memcpy(virtio_machine_at(&f->m, buffer.gpa, len), data, len);
    virtio_driver_add(&f->d, TX, &buffer, 1);
}

static void print(struct fixture *f, const void *data, uint32_t len)
{
    add_tx(f, data, len);
    virtio_driver_kick(&f->d, TX);
    run(f);
}

static uint64_t give_buffer(struct fixture *f, uint32_t len)
{
    const struct virtio_buffer buffer = {virtio_machine_alloc(&f->m, len), len, true};

    virtio_driver_add(&f->d, RX, &buffer, 1);
    virtio_driver_kick(&f->d, RX);
    run(f);
    return buffer.gpa;
}

static void assert_printed(struct fixture *f, const char *text)
{
    assert_int_equal(f->console.out_len, strlen(text));
    assert_memory_equal(f->console.out, text, strlen(text));
}

static void it_is_a_console_of_one_port(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(virtio_driver_pci_read(&f->d, 2, 2), 0x1040 + VIRTIO_ID_CONSOLE);
    assert_int_equal(f->d.queue_count, 2);
    assert_int_equal(virtio_driver_offered(&f->d) & 0xffffff,
                     1 << VIRTIO_CONSOLE_F_SIZE | 1 << VIRTIO_CONSOLE_F_EMERG_WRITE);
    assert_int_equal(virtio_driver_config_read(&f->d, 4, 4), 1);
}

static void what_the_guest_prints_goes_to_the_console(void **state)
{
    struct fixture *f = *state;

    virtio_driver_start(&f->d, 0);
    print(f, "hello", 5);
    print(f, ", world", 7);
    assert_printed(f, "hello, world");
    assert_int_equal(virtio_driver_wait(&f->d, TX, NULL), 0);
    assert_int_equal(virtio_driver_wait(&f->d, TX, NULL), 0);
    assert_int_equal(virtio_driver_interrupts(&f->d, TX + 1), 2);
}

static void output_may_lie_in_several_buffers(void **state)
{
    struct fixture *f = *state;
    uint64_t gpa;

    virtio_driver_start(&f->d, ALL);
    gpa = virtio_machine_alloc(&f->m, 16);
    memcpy(virtio_machine_at(&f->m, gpa, 16), "0123456789abcdef", 16);
    const struct virtio_buffer buffers[] = {
        {gpa, 3, false}, {gpa + 3, 1, false}, {gpa + 4, 12, false}};
    virtio_driver_request(&f->d, TX, buffers, 3);
    assert_printed(f, "0123456789abcdef");
}

static void a_slow_console_loses_nothing(void **state)
{
    static char text[3000], expected[3001];
    struct fixture *f = *state;
    unsigned taken = 0;

    for (size_t i = 0; i < sizeof(text); i++)
        expected[i] = text[i] = (char)('a' + i % 23);
    virtio_driver_start(&f->d, ALL);
    fake_console_make_room(&f->console, 0);
    for (unsigned i = 0; i < 30; i++)
        add_tx(f, text + 100 * i, 100);
    virtio_driver_kick(&f->d, TX);
    run(f);
    for (unsigned sent = 0; sent < 3000; sent += 7) {
        assert_int_equal(f->console.out_len, sent);
        while (virtio_driver_take(&f->d, TX, NULL, NULL))
            taken++;
        assert_int_equal(taken, sent / 100);
        fake_console_make_room(&f->console, 7);
    }
    fake_console_make_room(&f->console, 7);
    while (virtio_driver_take(&f->d, TX, NULL, NULL))
        taken++;
    assert_int_equal(taken, 30);
    assert_printed(f, expected);
}

static void a_flood_leaves_the_thread_to_others(void **state)
{
    struct fixture *f = *state;
    struct virtio_buffer buffers[64];
    unsigned rounds = 0;
    uint64_t gpa;

    virtio_driver_start(&f->d, ALL);
    gpa = virtio_machine_alloc(&f->m, 1 << 20);
    for (unsigned i = 0; i < 64; i++)
        buffers[i] = (struct virtio_buffer){gpa, 1 << 20, false};
    virtio_driver_add(&f->d, TX, buffers, 64);
    virtio_driver_kick(&f->d, TX);
    while (!virtio_driver_take(&f->d, TX, NULL, NULL)) {
        size_t before = f->console.out_len;

        run(f);
        assert_in_range(f->console.out_len - before, 1, 1 << 20);
        rounds++;
    }
    assert_int_equal(f->console.out_len, 64 << 20);
    assert_true(rounds >= 64);
}

static void input_goes_to_the_guest_as_it_is_there(void **state)
{
    struct fixture *f = *state;
    uint64_t gpa;

    virtio_driver_start(&f->d, ALL);
    gpa = give_buffer(f, 4096);
    assert_false(virtio_driver_take(&f->d, RX, NULL, NULL));
    fake_console_type(&f->console, "ls\n", 3);
    assert_int_equal(virtio_driver_wait(&f->d, RX, NULL), 3);
    assert_memory_equal(virtio_machine_at(&f->m, gpa, 3), "ls\n", 3);
    assert_int_equal(virtio_driver_interrupts(&f->d, RX + 1), 1);
}

static void input_waits_for_buffers_and_for_the_driver(void **state)
{
    struct fixture *f = *state;
    char got[10];

    fake_console_type(&f->console, "0123456789", 10);
    virtio_driver_start(&f->d, ALL);
    run(f);
    for (unsigned i = 0; i < 10; i += 4) {
        uint64_t gpa = give_buffer(f, 4);
        uint32_t n = virtio_driver_wait(&f->d, RX, NULL);

        assert_int_equal(n, i < 8 ? 4 : 2);
        memcpy(got + i, virtio_machine_at(&f->m, gpa, n), n);
    }
    assert_memory_equal(got, "0123456789", 10);
}

static void a_size_that_changes_is_told(void **state)
{
    struct fixture *f = *state;

    virtio_driver_start(&f->d, ALL);
    assert_int_equal(virtio_driver_interrupts(&f->d, 0), 0); /* none is known */
    virtio_console_resize(f->dev, 132, 43);
    assert_int_equal(virtio_driver_config_read(&f->d, 0, 2), 132);
    assert_int_equal(virtio_driver_config_read(&f->d, 2, 2), 43);
    assert_int_equal(virtio_driver_interrupts(&f->d, 0), 1);
    virtio_console_resize(f->dev, 132, 43);
    assert_int_equal(virtio_driver_interrupts(&f->d, 0), 1);
    virtio_driver_start(&f->d, 0);
    virtio_console_resize(f->dev, 80, 25);
    assert_int_equal(virtio_driver_interrupts(&f->d, 0), 1);
}

static void a_driver_that_starts_is_told_of_a_size_that_is_known(void **state)
{
    struct fixture *f = *state;

    virtio_console_resize(f->dev, 80, 25);
    virtio_driver_start(&f->d, ALL);
    assert_int_equal(virtio_driver_interrupts(&f->d, 0), 1);
    assert_int_equal(virtio_driver_config_read(&f->d, 0, 2), 80);
    assert_int_equal(virtio_driver_config_read(&f->d, 2, 2), 25);
    virtio_driver_start(&f->d, 0); /* one that does not know what a size is */
    assert_int_equal(virtio_driver_interrupts(&f->d, 0), 1);
}

static void an_emergency_is_printed_without_a_driver(void **state)
{
    struct fixture *f = *state;

    virtio_driver_config_write(&f->d, 8, 4, 'o');
    virtio_driver_config_write(&f->d, 8, 1, 'h');
    virtio_driver_config_write(&f->d, 0, 2, 'x');
    virtio_driver_config_write(&f->d, 9, 1, 'x');
    assert_printed(f, "oh");
}

static void a_receive_buffer_that_cannot_be_written_breaks_the_ring(void **state)
{
    struct fixture *f = *state;

    virtio_driver_start(&f->d, ALL);
    const struct virtio_buffer buffer = {virtio_machine_alloc(&f->m, 16), 16, false};
    virtio_driver_add(&f->d, RX, &buffer, 1);
    virtio_driver_kick(&f->d, RX);
    run(f);
    assert_true(virtio_driver_status(&f->d) & VIRTIO_CONFIG_S_NEEDS_RESET);
}

static void a_paused_console_is_silent(void **state)
{
    struct fixture *f = *state;

    virtio_driver_start(&f->d, ALL);
    give_buffer(f, 64);
    fake_console_make_room(&f->console, 2);
    print(f, "held", 4);
    device_pause(f->dev);
    fake_console_make_room(&f->console, SIZE_MAX);
    fake_console_type(&f->console, "in", 2);
    run(f);
    assert_printed(f, "he");
    assert_false(virtio_driver_take(&f->d, RX, NULL, NULL));
    device_resume(f->dev);
    assert_int_equal(virtio_driver_wait(&f->d, RX, NULL), 2);
    assert_printed(f, "held");
}

static void half_a_request_travels(void **state)
{
    struct fixture *f = *state;
    const struct state_desc *desc = f->dev->ops->state;
    struct writer w = {0};
    struct error err = {.msg = ""};

    virtio_driver_start(&f->d, ALL);
    fake_console_make_room(&f->console, 5);
    add_tx(f, "half and ", 9);
    print(f, "half", 4);
    device_pause(f->dev);
    state_save(desc, f->dev, &w, &err);
    assert_string_equal(err.msg, "");
    device_destroy(f->dev);
    assert_printed(f, "half ");

    virtio_console_create(f->m.platform, f->m.host, f->m.loop, fake_console_init(&f->console),
                          &f->dev, &err);
    assert_string_equal(err.msg, "");
    device_pause(f->dev);
    struct reader r = {.data = w.data, .len = w.len};
    state_load(desc, f->dev, &r, &err);
    assert_string_equal(err.msg, "");
    free(w.data);
    device_resume(f->dev);
    run(f);
    assert_printed(f, "and half");
    f->d.dev = f->dev;
    virtio_driver_wait(&f->d, TX, NULL);
    virtio_driver_wait(&f->d, TX, NULL);
}

/* The suites: each device has a console of its own. */

static struct bench {
    struct virtio_machine *m;
    struct device *dev;
    struct fake_console console;
} benches[4];

static struct bench *bench_of(const struct device *dev)
{
    for (unsigned i = 0; i < 4; i++)
        if (benches[i].dev == dev)
            return &benches[i];
    fail_msg("no such device");
    return NULL;
}

static int create(void *opaque, struct virtio_machine *m, struct device **ret_dev,
                  struct error *err)
{
    struct bench *b = bench_of(NULL);
    int r = virtio_console_create(m->platform, m->host, m->loop, fake_console_init(&b->console),
                                  ret_dev, err);

    (void)opaque;
    if (r < 0)
        return r;
    b->m = m;
    b->dev = *ret_dev;
    return 0;
}

static void gone(void *opaque, struct virtio_machine *m)
{
    (void)opaque;
    for (unsigned i = 0; i < 4; i++)
        if (benches[i].m == m)
            benches[i].dev = NULL;
}

static void works(void *opaque, struct virtio_driver *d)
{
    struct bench *b = bench_of(d->dev);
    const uint64_t gpa = virtio_machine_alloc(d->m, 64);
    const struct virtio_buffer tx = {gpa, 3, false}, rx = {gpa + 16, 16, true};

    (void)opaque;
    fake_console_make_room(&b->console, SIZE_MAX);
    memcpy(virtio_machine_at(d->m, gpa, 3), "abc", 3);
    b->console.out_len = 0;
    virtio_driver_request(d, TX, &tx, 1);
    assert_int_equal(b->console.out_len, 3);
    assert_memory_equal(b->console.out, "abc", 3);
    fake_console_type(&b->console, "xyz", 3);
    assert_int_equal(virtio_driver_request(d, RX, &rx, 1), 3);
    assert_memory_equal(virtio_machine_at(d->m, rx.gpa, 3), "xyz", 3);
}

static void disturb(void *opaque, struct device *dev, uint32_t random)
{
    struct bench *b = bench_of(dev);

    (void)opaque;
    switch (random % 3) {
    case 0: fake_console_make_room(&b->console, random >> 8 & 31); break;
    case 1:
        fake_console_type(&b->console, "input of some length, over 32", random >> 8 & 29);
        break;
    default: virtio_console_resize(dev, random >> 8 & 0xff, random >> 16 & 0xff); break;
    }
}

static void settle(void *opaque, struct device *dev)
{
    struct bench *b = bench_of(dev);

    (void)opaque;
    virtio_console_resize(dev, 80, 25);
    fake_console_type(&b->console, "settled", 7);
    fake_console_make_room(&b->console, SIZE_MAX);
}

static struct virtio_kind kind = {
    .create = create, .works = works, .disturb = disturb, .settle = settle, .gone = gone};

static void hostile_printers_do_no_harm(void **state)
{
    (void)state;
    kind.queue = TX;
    hostile_run(&kind);
}

static void hostile_readers_do_no_harm(void **state)
{
    (void)state;
    kind.queue = RX;
    hostile_run(&kind);
}

static void it_conforms(void **state)
{
    (void)state;
    virtio_conformance_run(&kind);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(it_is_a_console_of_one_port),
        TEST(what_the_guest_prints_goes_to_the_console),
        TEST(output_may_lie_in_several_buffers),
        TEST(a_slow_console_loses_nothing),
        TEST(a_flood_leaves_the_thread_to_others),
        TEST(input_goes_to_the_guest_as_it_is_there),
        TEST(input_waits_for_buffers_and_for_the_driver),
        TEST(a_size_that_changes_is_told),
        TEST(a_driver_that_starts_is_told_of_a_size_that_is_known),
        TEST(an_emergency_is_printed_without_a_driver),
        TEST(a_receive_buffer_that_cannot_be_written_breaks_the_ring),
        TEST(a_paused_console_is_silent),
        TEST(half_a_request_travels),
        cmocka_unit_test(hostile_printers_do_no_harm),
        cmocka_unit_test(hostile_readers_do_no_harm),
        cmocka_unit_test(it_conforms),
    };

    return cmocka_run_group_tests_name("virtio_console", tests, NULL, NULL);
}
