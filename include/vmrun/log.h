/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_LOG_H
#define VMRUN_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "vmrun/error.h"

/*
 * One line a call on stderr, "vmrun: " and the words; any thread. A function
 * either logs or returns an error, never both.
 */
enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* Lines above this level are dropped. LOG_LEVEL_INFO until it is set. */
void log_set_level(enum log_level level);

void log_error(const char *fmt, ...) PRINTF_LIKE(1, 2);
void log_warn(const char *fmt, ...) PRINTF_LIKE(1, 2);
void log_info(const char *fmt, ...) PRINTF_LIKE(1, 2);
void log_debug(const char *fmt, ...) PRINTF_LIKE(1, 2);

/*
 * For lines that the guest, or a peer, can cause at will: at most one in five
 * seconds for each `struct log_limit`, with the number left out in between.
 * Keep it where its owner lives and start it as {0}; the owner's lock guards it.
 * Returns whether it was this one's turn.
 */
struct log_limit {
    uint64_t quiet_until_ns; /* CLOCK_MONOTONIC */
    unsigned left_out;
};
bool log_warn_limited(struct log_limit *limit, const char *fmt, ...) PRINTF_LIKE(2, 3);

#endif
