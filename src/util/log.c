/* SPDX-License-Identifier: Apache-2.0 */
/* Each line is formatted whole and written by one write(2), so lines of several threads never mix.
 */
#include "vmrun/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "vmrun/loop.h"

#define LIMIT_NS (5 * UINT64_C(1000000000))

static _Atomic int log_max_level = LOG_LEVEL_INFO;

void log_set_level(enum log_level level)
{
    atomic_store(&log_max_level, level);
}

static void log_line(enum log_level level, unsigned left_out, const char *fmt, va_list args)
{
    static const char *const prefix[] = {
        "vmrun: ", "vmrun: warning: ", "vmrun: ", "vmrun: debug: "};
    char line[1024];

    if ((int)level > atomic_load(&log_max_level))
        return;
    size_t len = (size_t)snprintf(line, sizeof(line), "%s", prefix[level]);
    int more = vsnprintf(line + len, sizeof(line) - len, fmt, args);
    len += more > 0 ? (size_t)more : 0;
    if (left_out && len < sizeof(line))
        len += (size_t)snprintf(line + len, sizeof(line) - len, " (and %u such lines before)",
                                left_out);
    if (len > sizeof(line) - 1)
        len = sizeof(line) - 1;
    line[len++] = '\n';
    if (write(STDERR_FILENO, line, len) < 0)
        return; /* a log that cannot be written has nobody to tell */
}

#define LOG_FUNCTION(name, level) \
    void name(const char *fmt, ...) \
    { \
        va_list args; \
\
        va_start(args, fmt); \
        log_line(level, 0, fmt, args); \
        va_end(args); \
    }

LOG_FUNCTION(log_error, LOG_LEVEL_ERROR)
LOG_FUNCTION(log_warn, LOG_LEVEL_WARN)
LOG_FUNCTION(log_info, LOG_LEVEL_INFO)
LOG_FUNCTION(log_debug, LOG_LEVEL_DEBUG)

bool log_warn_limited(struct log_limit *limit, const char *fmt, ...)
{
    uint64_t now = loop_now_ns();
    va_list args;

    if (now < limit->quiet_until_ns) {
        limit->left_out++;
        return false;
    }
    va_start(args, fmt);
    log_line(LOG_LEVEL_WARN, limit->left_out, fmt, args);
    va_end(args);
    limit->left_out = 0;
    limit->quiet_until_ns = now + LIMIT_NS;
    return true;
}
