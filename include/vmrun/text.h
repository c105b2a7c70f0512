/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_TEXT_H
#define VMRUN_TEXT_H

#include <stddef.h>
#include <stdint.h>

/*
 * "512M" → bytes. Digits, then nothing (bytes) or one of K M G T, which mean
 * powers of 1024; a trailing "iB" or "B" is allowed after the letter.
 * Errors: -EINVAL  not of that form
 *         -ERANGE  over 2^63 - 1
 */
int text_parse_size(const char *text, uint64_t *ret_bytes);

/*
 * "52:54:00:12:34:56": six bytes in hexadecimal, two digits each. Errors: -EINVAL, not of that
 * form, or the address of a group.
 */
int text_parse_mac(const char *text, uint8_t ret_mac[6]);

/* Decimal or 0x hexadecimal, the whole text. Errors: -EINVAL, -ERANGE (over max). */
int text_parse_uint(const char *text, uint64_t max, uint64_t *ret_value);

/* 536870912 → "512M": the largest unit that divides it. buf of 24 bytes is always enough. */
const char *text_format_size(uint64_t bytes, char *buf, size_t len);

/* 93784 s → "1d 2h", 62 s → "1m 2s": the two largest units. buf of 24 bytes is always enough. */
const char *text_format_duration(uint64_t seconds, char *buf, size_t len);

/*
 * The candidate (of a NULL-ended list) that someone who typed `word` most
 * likely meant, or NULL when none is near: optimal string alignment distance
 * at most a third of the word's length, at least 1.
 */
const char *text_nearest(const char *word, const char *const *candidates);

#endif
