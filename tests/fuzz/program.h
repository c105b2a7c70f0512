/* SPDX-License-Identifier: Apache-2.0 */
/*
 * program: an input that is read as a program, step by step: what to do, and its operands. Missing
 * bytes read as zero. The targets that play a guest have this in common.
 */
#ifndef PROGRAM_H
#define PROGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void program_begin(const uint8_t *data, size_t size);
bool program_goes_on(void);
void program_next(void *to, size_t want);
unsigned program_number(unsigned bytes);

/* Or it is a crash that the fuzzer keeps. */
void require(bool holds);

#endif
