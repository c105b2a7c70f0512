/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz: a hostile guest, and a hostile stream, against every device of the board.
 *
 * The input is a program: each step names what to do (an access, input, time, pause, reset,
 * a load of the bytes that follow as state) and its operands. Missing bytes read as zero. After
 * each load that was taken, what the device now says must load again.
 */
#include <stdlib.h>

#include "device_load.h"
#include "fake_console.h"
#include "fake_loop.h"
#include "fake_platform.h"
#include "vmrun/acpi_pm.h"
#include "vmrun/debug_exit.h"
#include "vmrun/i8042.h"
#include "vmrun/log.h"
#include "vmrun/rtc.h"
#include "vmrun/serial.h"
#include "vmrun/vmgenid.h"

#define DEVICES 6
#define START_NS (UINT64_C(1767225600) * 1000000000)

struct board {
    struct fake_platform fake;
    struct fake_console console;
    struct fake_loop loop;
    struct device *devices[DEVICES];
    bool paused;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int r)
{
    if (r < 0)
        abort();
}

static uint64_t clock_of(void *opaque)
{
    const struct fake_loop *loop = opaque;

    return START_NS + loop->now_ns;
}

static void id_changed(void *opaque)
{
    struct board *b = opaque;

    acpi_pm_raise_gpe(b->devices[3], 0);
}

static void build(struct board *b)
{
    const struct vmgenid_params genid = {.gpa = 0xfeb00000, .changed = id_changed, .opaque = b};
    static const struct acpi_pm_params pm = {.pm1_event = 0x600,
                                             .pm1_control = 0x604,
                                             .gpe0 = 0x60a,
                                             .reset_port = 0x608,
                                             .reset_value = 1,
                                             .s5_type = 5,
                                             .sci = 9};
    struct error err;

    fake_platform_init(&b->fake);
    struct platform *p = &b->fake.platform;
    struct loop *loop = fake_loop_init(&b->loop);

    must(serial_create(p, fake_console_init(&b->console), loop, 0x3f8, 4, "serial0", &b->devices[0],
                       &err));
    must(rtc_create_with_clock(p, loop, 0x70, 8, clock_of, &b->loop, &b->devices[1], &err));
    must(i8042_create(p, &b->devices[2], &err));
    must(acpi_pm_create(p, &pm, &b->devices[3], &err));
    must(debug_exit_create(p, 0x501, &b->devices[4], &err));
    must(vmgenid_create(p, &genid, &b->devices[5], &err));
    b->paused = false;
}

static void access_device(struct board *b, struct reader *program, bool write)
{
    const struct fake_map *m = &b->fake.maps[get_uint(program, 1) % b->fake.map_count];
    unsigned where = (unsigned)get_uint(program, 1);
    unsigned size = 1u << (where >> 6);

    if (size > m->len)
        size = 1;
    uint64_t addr = m->base + (where & 63) % (m->len - size + 1);
    if (write)
        fake_write(&b->fake, m->bus, addr, size, get_uint(program, size));
    else
        (void)fake_read(&b->fake, m->bus, addr, size);
}

static void step(struct board *b, struct reader *program)
{
    static const uint8_t input[256];
    unsigned what = (unsigned)get_uint(program, 1);
    struct device *dev = b->devices[(what >> 4) % DEVICES];

    switch (what & 15) {
    case 0: device_load_bytes(dev, program); break;
    case 1: device_reset(dev); break;
    case 2: fake_console_type(&b->console, input, get_uint(program, 1)); break;
    case 3: fake_console_make_room(&b->console, get_uint(program, 1)); break;
    case 4: fake_loop_advance(&b->loop, get_uint(program, 2) * 1000000); break;
    case 5: acpi_pm_press_power_button(b->devices[3]); break;
    case 6:
        b->paused = !b->paused;
        for (unsigned i = 0; i < DEVICES; i++)
            (b->paused ? device_pause : device_resume)(b->devices[i]);
        break;
    case 7: {
        struct error err;

        must(vmgenid_change(b->devices[5], &err));
        break;
    }
    default: access_device(b, program, what & 1); break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct board b;
    struct reader program = {.data = data, .len = size};

    log_set_level(LOG_LEVEL_ERROR);
    build(&b);
    while (!program.failed && program.at < size)
        step(&b, &program);
    for (unsigned i = 0; i < DEVICES; i++)
        device_destroy(b.devices[i]);
    if (b.fake.map_count || fake_loop_timers(&b.loop))
        abort();
    return 0;
}
