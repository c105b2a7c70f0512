/* SPDX-License-Identifier: Apache-2.0 */
/* A machine that was elsewhere before: out of a file, or from another host. */
#ifndef CLI_INCOMING_H
#define CLI_INCOMING_H

#include "run.h"

#define INCOMING_MAX_REASONS 24

/* Why it cannot be. For people: what, "FILE", cannot be done, "restored", here. */
struct incoming_reasons {
    const char *what, *done;
    unsigned count;
    char text[INCOMING_MAX_REASONS][512];
};

/* What is said of it; cpuid: NULL, nothing. */
struct incoming {
    const char *description;
    const void *cpuid;
    size_t description_len, cpuid_len;
};

/* The description under what the command line says; where: names it. Returns an exit status. */
int incoming_configure(struct run *run, const struct cli_args *args, const char *where,
                       const struct incoming *in, struct error *err);
/* The CPUs, what KVM must be able to do, and network cards, against this host. */
void incoming_check(const struct run *run, const struct incoming *in,
                    struct incoming_reasons *reasons);
void incoming_reason(struct incoming_reasons *reasons, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* On stderr, one a line. Returns how many. */
unsigned incoming_tell_reasons(const struct incoming_reasons *reasons);
/* All in one error, for the other side. */
void incoming_join_reasons(const struct incoming_reasons *reasons, struct error *err);

#endif
