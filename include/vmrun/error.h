/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_ERROR_H
#define VMRUN_ERROR_H

/*
 * One failure, told in words an operator can act on.
 *
 * The caller owns it, on its stack; nothing is allocated. A function that can
 * fail takes a non-NULL `struct error *err` last and returns 0, or a negative
 * errno with err filled. It touches err in no other case.
 */
struct error {
    int code;      /* positive errno */
    char msg[512]; /* "context: cause", one line, NUL-terminated */
};

#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))

/* Fill err with the given words. Returns -code. */
int error_set(struct error *err, int code, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* As error_set(), then ": " and strerror(code): for a failed system call. */
int error_errno(struct error *err, int code, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* Put "context: " before a message that is already there. Returns -err->code. */
int error_prefix(struct error *err, const char *fmt, ...) PRINTF_LIKE(2, 3);

#endif
