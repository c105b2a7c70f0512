/* SPDX-License-Identifier: Apache-2.0 */
/* fake_console: buffers, and callbacks when the test changes them; see the header for `weak`. */
#include "fake_console.h"

#include <string.h>

struct console *fake_console_init(struct fake_console *fake)
{
    memset(fake, 0, sizeof(*fake));
    fake->room = SIZE_MAX;
    return (struct console *)fake;
}

static void call(const struct fake_console *fake, void (*fn)(void *opaque))
{
    if (!fn)
        return;
    pthread_mutex_lock(fake->device.lock);
    fn(fake->device.opaque);
    pthread_mutex_unlock(fake->device.lock);
}

void fake_console_make_room(struct fake_console *fake, size_t room)
{
    bool tell = fake->device_waits;

    fake->room = room;
    fake->device_waits = false;
    if (tell)
        call(fake, fake->device.writable);
}

void fake_console_type(struct fake_console *fake, const void *data, size_t len)
{
    bool tell = fake->device_hungry;

    fake->in = data;
    fake->in_len = len;
    fake->in_at = 0;
    fake->device_hungry = false;
    if (tell)
        call(fake, fake->device.readable);
}

__attribute__((weak)) void console_set_device(struct console *console,
                                              const struct console_device *device)
{
    ((struct fake_console *)console)->device = *device;
}

__attribute__((weak)) size_t console_write(struct console *console, const uint8_t *data, size_t len)
{
    struct fake_console *fake = (struct fake_console *)console;
    size_t taken = len < fake->room ? len : fake->room;

    fake->writes++;
    if (fake->room != SIZE_MAX)
        fake->room -= taken;
    for (size_t i = 0; i < taken; i++, fake->out_len++)
        if (fake->out_len < sizeof(fake->out))
            fake->out[fake->out_len] = data[i];
    fake->device_waits = taken < len;
    return taken;
}

__attribute__((weak)) size_t console_read(struct console *console, uint8_t *data, size_t len)
{
    struct fake_console *fake = (struct fake_console *)console;
    size_t left = fake->in_len - fake->in_at, given = len < left ? len : left;

    fake->reads++;
    for (size_t i = 0; i < given; i++)
        data[i] = fake->in[fake->in_at++];
    fake->device_hungry = given < len;
    return given;
}
