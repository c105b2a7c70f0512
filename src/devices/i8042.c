/* SPDX-License-Identifier: Apache-2.0 */
/*
 * i8042: the keyboard controller, with no keyboard.
 *
 * It is here because guests reboot through it and probe it as they boot: what
 * counts is that every command with an answer is answered at once. Linux waits
 * half a second for each that is not.
 */
#include "vmrun/i8042.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "vmrun/error.h"

enum region { REGION_DATA, REGION_COMMAND, REGION_SYSTEM };

/* Port 0x64, read: status */
enum {
    STATUS_OUTPUT_FULL = 1 << 0,
    STATUS_SYSTEM = 1 << 2,  /* as in the command byte */
    STATUS_COMMAND = 1 << 3, /* the last write went to port 0x64 */
    STATUS_UNLOCKED = 1 << 4,
    STATUS_TIMEOUT = 1 << 6,
};
#define STATUS_KEPT (STATUS_OUTPUT_FULL | STATUS_COMMAND | STATUS_TIMEOUT)

/* Port 0x64, write: commands */
enum {
    COMMAND_READ_BYTE = 0x20,
    COMMAND_WRITE_BYTE = 0x60,
    COMMAND_DISABLE_AUX = 0xa7,
    COMMAND_ENABLE_AUX = 0xa8,
    COMMAND_TEST_AUX = 0xa9,
    COMMAND_SELF_TEST = 0xaa,
    COMMAND_TEST_KEYBOARD = 0xab,
    COMMAND_DISABLE_KEYBOARD = 0xad,
    COMMAND_ENABLE_KEYBOARD = 0xae,
    COMMAND_READ_OUTPUT_PORT = 0xd0,
    COMMAND_WRITE_OUTPUT_PORT = 0xd1,
    COMMAND_ECHO_KEYBOARD = 0xd2,
    COMMAND_ECHO_AUX = 0xd3,
    COMMAND_WRITE_AUX = 0xd4,
    COMMAND_PULSE = 0xf0, /* to 0xff: pulse low the output lines whose bits are 0 */
};

/* The command byte */
enum {
    BYTE_SYSTEM = 1 << 2,
    BYTE_KEYBOARD_OFF = 1 << 4,
    BYTE_AUX_OFF = 1 << 5,
    BYTE_TRANSLATE = 1 << 6,
};
#define BYTE_RESET (BYTE_SYSTEM | BYTE_KEYBOARD_OFF | BYTE_AUX_OFF | BYTE_TRANSLATE)

/* The output port, and port 0x92 */
enum {
    OUTPUT_NOT_RESET = 1 << 0,
    OUTPUT_A20 = 1 << 1,
    SYSTEM_RESET = 1 << 0,
    SYSTEM_A20 = 1 << 1,
};

#define SELF_TEST_PASSED 0x55
#define CLOCK_LINE_STUCK 0x01 /* of an auxiliary port that is not there */
#define RESEND 0xfe

struct i8042 {
    struct device dev;
    struct platform *platform;

    uint8_t command_byte;
    uint8_t status;      /* STATUS_KEPT; the rest is derived */
    uint8_t output;      /* buffer, valid while STATUS_OUTPUT_FULL */
    uint8_t awaiting;    /* command whose data byte comes next on port 0x60, or 0 */
    uint8_t output_port; /* as last written */
    uint8_t system_port; /* port 0x92, as last written */
};
static_assert(offsetof(struct i8042, dev) == 0, "state offsets count from the device");

static struct i8042 *self(struct device *dev)
{
    return container_of(dev, struct i8042, dev);
}

static void request_reset(struct i8042 *k)
{
    k->platform->ops->request(k->platform, GUEST_RESET, 0);
}

static void answer(struct i8042 *k, uint8_t value)
{
    k->output = value;
    k->status |= STATUS_OUTPUT_FULL;
    k->status &= (uint8_t)~STATUS_TIMEOUT;
}

static void write_output_port(struct i8042 *k, uint8_t value)
{
    k->output_port = value;
    if (!(value & OUTPUT_NOT_RESET))
        request_reset(k);
}

static void write_command(struct i8042 *k, uint8_t command)
{
    k->status |= STATUS_COMMAND;
    k->awaiting = 0;

    switch (command) {
    case COMMAND_READ_BYTE: answer(k, k->command_byte); break;
    case COMMAND_DISABLE_AUX: k->command_byte |= BYTE_AUX_OFF; break;
    case COMMAND_ENABLE_AUX: k->command_byte &= (uint8_t)~BYTE_AUX_OFF; break;
    case COMMAND_TEST_AUX: answer(k, CLOCK_LINE_STUCK); break;
    case COMMAND_SELF_TEST: answer(k, SELF_TEST_PASSED); break;
    case COMMAND_TEST_KEYBOARD: answer(k, 0); break;
    case COMMAND_DISABLE_KEYBOARD: k->command_byte |= BYTE_KEYBOARD_OFF; break;
    case COMMAND_ENABLE_KEYBOARD: k->command_byte &= (uint8_t)~BYTE_KEYBOARD_OFF; break;
    case COMMAND_READ_OUTPUT_PORT: answer(k, k->output_port); break;
    case COMMAND_WRITE_BYTE:
    case COMMAND_WRITE_OUTPUT_PORT:
    case COMMAND_ECHO_KEYBOARD:
    case COMMAND_ECHO_AUX:
    case COMMAND_WRITE_AUX: k->awaiting = command; break;
    default:
        if (command >= COMMAND_PULSE && !(command & OUTPUT_NOT_RESET))
            request_reset(k);
    }
}

static void write_data(struct i8042 *k, uint8_t value)
{
    uint8_t command = k->awaiting;

    k->status &= (uint8_t)~STATUS_COMMAND;
    k->awaiting = 0;

    switch (command) {
    case COMMAND_WRITE_BYTE: k->command_byte = value; break;
    case COMMAND_WRITE_OUTPUT_PORT: write_output_port(k, value); break;
    /* The echo of the auxiliary port lacks the bit that would mark it as such: no such port. */
    case COMMAND_ECHO_KEYBOARD:
    case COMMAND_ECHO_AUX: answer(k, value); break;
    case COMMAND_WRITE_AUX: break;
    default: answer(k, RESEND); k->status |= STATUS_TIMEOUT;
    }
}

static uint64_t i8042_read(struct device *dev, unsigned region, uint64_t offset, unsigned size)
{
    struct i8042 *k = self(dev);

    (void)offset, (void)size;
    switch (region) {
    case REGION_DATA:
        k->status &= (uint8_t) ~(STATUS_OUTPUT_FULL | STATUS_TIMEOUT);
        return k->output;
    case REGION_COMMAND:
        return k->status | STATUS_UNLOCKED | (k->command_byte & BYTE_SYSTEM ? STATUS_SYSTEM : 0);
    default: return k->system_port;
    }
}

static void i8042_write(struct device *dev, unsigned region, uint64_t offset, unsigned size,
                        uint64_t value)
{
    struct i8042 *k = self(dev);

    (void)offset, (void)size;
    switch (region) {
    case REGION_DATA: write_data(k, (uint8_t)value); break;
    case REGION_COMMAND: write_command(k, (uint8_t)value); break;
    default:
        k->system_port = (uint8_t)value & (SYSTEM_A20 | SYSTEM_RESET);
        if (k->system_port & SYSTEM_RESET)
            request_reset(k);
    }
}

static void i8042_reset(struct device *dev)
{
    struct i8042 *k = self(dev);

    k->command_byte = BYTE_RESET;
    k->status = 0;
    k->output = 0;
    k->awaiting = 0;
    k->output_port = OUTPUT_NOT_RESET | OUTPUT_A20;
    k->system_port = SYSTEM_A20;
}

static void i8042_destroy(struct device *dev)
{
    struct i8042 *k = self(dev);

    k->platform->ops->unmap(k->platform, dev);
    device_fini(dev);
    free(k);
}

static int i8042_post_load(void *obj, struct error *err)
{
    const struct i8042 *k = obj;

    if (k->status & ~STATUS_KEPT)
        return error_set(err, EPROTO, "status: 0x%x has bits that are derived", k->status);
    if (k->system_port & ~(SYSTEM_A20 | SYSTEM_RESET))
        return error_set(err, EPROTO, "system_port: 0x%x has unknown bits", k->system_port);
    switch (k->awaiting) {
    case 0:
    case COMMAND_WRITE_BYTE:
    case COMMAND_WRITE_OUTPUT_PORT:
    case COMMAND_ECHO_KEYBOARD:
    case COMMAND_ECHO_AUX:
    case COMMAND_WRITE_AUX: return 0;
    default: return error_set(err, EPROTO, "awaiting: command 0x%x takes no data", k->awaiting);
    }
}

static const struct state_field i8042_fields[] = {
    STATE(struct i8042, command_byte),
    STATE(struct i8042, status),
    STATE(struct i8042, output),
    STATE(struct i8042, awaiting),
    STATE(struct i8042, output_port),
    STATE(struct i8042, system_port),
    STATE_END,
};

static const struct state_desc i8042_state = {
    .name = "i8042",
    .version = 1,
    .fields = i8042_fields,
    .post_load = i8042_post_load,
};

static const struct device_ops i8042_ops = {
    .type = "i8042",
    .read = i8042_read,
    .write = i8042_write,
    .reset = i8042_reset,
    .destroy = i8042_destroy,
    .state = &i8042_state,
};

int i8042_create(struct platform *platform, struct device **ret_dev, struct error *err)
{
    static const uint16_t ports[] = {
        [REGION_DATA] = 0x60, [REGION_COMMAND] = 0x64, [REGION_SYSTEM] = 0x92};
    struct i8042 *k = calloc(1, sizeof(*k));
    int r;

    if (!k)
        return error_set(err, ENOMEM, "i8042: out of memory");
    device_init(&k->dev, &i8042_ops, "i8042");
    k->platform = platform;

    for (unsigned region = REGION_DATA; region <= REGION_SYSTEM; region++) {
        r = platform->ops->map(platform, BUS_PIO, ports[region], 1, &k->dev, region, err);
        if (r < 0)
            goto fail;
    }

    i8042_reset(&k->dev);
    *ret_dev = &k->dev;
    return 0;

fail:
    i8042_destroy(&k->dev);
    return r;
}
