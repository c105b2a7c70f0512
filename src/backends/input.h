/* SPDX-License-Identifier: Apache-2.0 */
#ifndef INPUT_H
#define INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The queue of bytes that wait for the guest to read them. {0} is empty. It
 * has one producer, which asks for the room first and puts no more than that.
 */
#define INPUT_ROOM 65536

struct input {
    uint8_t data[INPUT_ROOM];
    size_t start, len;
    bool escape; /* the last key was the escape key */
};

/* What keys asked of the machine itself; a set. */
enum input_wish { INPUT_QUIT = 1, INPUT_HELP = 2 };

extern const char input_help[]; /* what the keys do, in lines */

size_t input_room(const struct input *in);
void input_put(struct input *in, const uint8_t *data, size_t len);
/* As input_put(), but takes out the escape key (Ctrl-A) and the key after it. Returns wishes. */
unsigned input_put_keys(struct input *in, const uint8_t *data, size_t len);
/* Up to len bytes; returns how many. */
size_t input_take(struct input *in, uint8_t *data, size_t len);

#endif
