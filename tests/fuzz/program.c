/* SPDX-License-Identifier: Apache-2.0 */
#include "program.h"

#include <stdlib.h>
#include <string.h>

static struct {
    const uint8_t *data;
    size_t left;
} input;

void program_begin(const uint8_t *data, size_t size)
{
    input.data = data;
    input.left = size;
}

bool program_goes_on(void)
{
    return input.left > 0;
}

void program_next(void *to, size_t want)
{
    size_t len = want < input.left ? want : input.left;

    memset(to, 0, want);
    memcpy(to, input.data, len);
    input.data += len;
    input.left -= len;
}

unsigned program_number(unsigned bytes)
{
    unsigned value = 0;

    program_next(&value, bytes);
    return value;
}

void require(bool holds)
{
    if (!holds)
        abort();
}
