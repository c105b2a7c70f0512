/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_STATS_LATENCY_H
#define CLI_STATS_LATENCY_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

/* Whether a counter is a bucket of a queue's latency, and so no line of its own. */
bool stats_is_latency(const char *name);
/*
 * A table: of each queue how many requests took how long. before: NULL, or the counters from which
 * on they count. Nothing is printed where there were none.
 */
void stats_print_latency(FILE *out, const json_t *before, json_t *now);

#endif
