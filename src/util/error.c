/* SPDX-License-Identifier: Apache-2.0 */
#include "vmrun/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int error_set(struct error *err, int code, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    vsnprintf(err->msg, sizeof(err->msg), fmt, args);
    va_end(args);
    err->code = code;
    return -code;
}

int error_errno(struct error *err, int code, const char *fmt, ...)
{
    char reason[128];
    va_list args;

    va_start(args, fmt);
    vsnprintf(err->msg, sizeof(err->msg), fmt, args);
    va_end(args);
    size_t len = strlen(err->msg);
    snprintf(err->msg + len, sizeof(err->msg) - len, ": %s",
             strerror_r(code, reason, sizeof(reason)));
    err->code = code;
    return -code;
}

int error_prefix(struct error *err, const char *fmt, ...)
{
    char cause[sizeof(err->msg)];
    va_list args;

    memcpy(cause, err->msg, sizeof(cause));
    va_start(args, fmt);
    vsnprintf(err->msg, sizeof(err->msg), fmt, args);
    va_end(args);
    size_t len = strlen(err->msg);
    snprintf(err->msg + len, sizeof(err->msg) - len, ": %s", cause);
    return -err->code;
}
