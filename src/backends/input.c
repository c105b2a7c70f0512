/* SPDX-License-Identifier: Apache-2.0 */
/* input: a ring of bytes, and the escape key of the terminal. */
#include "input.h"

#include <assert.h>

#define ESCAPE_KEY 0x01 /* Ctrl-A */

/* The terminal's output processing is on: it adds the carriage returns. */
const char input_help[] = "\nCtrl-A x        end the machine\nCtrl-A h        this help\n"
                          "Ctrl-A Ctrl-A   send Ctrl-A\n";

size_t input_room(const struct input *in)
{
    return INPUT_ROOM - in->len;
}

void input_put(struct input *in, const uint8_t *data, size_t len)
{
    assert(len <= input_room(in));
    for (size_t i = 0; i < len; i++)
        in->data[(in->start + in->len++) % INPUT_ROOM] = data[i];
}

unsigned input_put_keys(struct input *in, const uint8_t *data, size_t len)
{
    unsigned wishes = 0;

    for (size_t i = 0; i < len; i++) {
        bool after_escape = in->escape;

        in->escape = data[i] == ESCAPE_KEY && !after_escape;
        if (in->escape)
            continue;
        if (!after_escape || data[i] == ESCAPE_KEY)
            input_put(in, &data[i], 1);
        else if (data[i] == 'x')
            wishes |= INPUT_QUIT;
        else if (data[i] == 'h')
            wishes |= INPUT_HELP;
    }
    return wishes;
}

size_t input_take(struct input *in, uint8_t *data, size_t len)
{
    size_t n = 0;

    for (; n < len && in->len; n++) {
        data[n] = in->data[in->start];
        in->start = (in->start + 1) % INPUT_ROOM;
        in->len--;
    }
    return n;
}
