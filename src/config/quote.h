/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_SRC_CONFIG_QUOTE_H
#define VMRUN_SRC_CONFIG_QUOTE_H

/*
 * Other people's text inside our messages: whatever a file holds, a message
 * stays one short line that a terminal shows as it is.
 */

#include <stdbool.h>
#include <stddef.h>

#define QUOTE_SIZE 112 /* a buffer that is always enough */

/*
 * In double quotes, with ", \ and what is not printable escaped as in JSON (bytes
 * that are not UTF-8 as \xNN), cut with "..." after some 60 bytes. Returns buf.
 */
const char *config_quote(const char *text, char buf[QUOTE_SIZE]);

/* As config_quote(), without the quotes and with " and \ left alone. */
const char *config_escape(const char *text, char buf[QUOTE_SIZE]);

enum config_text { CONFIG_TEXT_PRINTABLE, CONFIG_TEXT_CONTROL, CONFIG_TEXT_NOT_UTF8 };

/* The first thing wrong in text, if any. */
enum config_text config_text_check(const char *text);

#endif
