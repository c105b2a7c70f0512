/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stats_latency: how long requests took, of each queue a row, read off the buckets that the machine
 * tells. The one thing to know: buckets only grow, so what fell into them since the last look is a
 * difference, and so is every percentile; the longest of all time is not, and only caps them.
 */
#include "stats_latency.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define BUCKET ".latency_ns."
#define LONGEST ".latency_max_ns"
#define BUCKETS_MAX 256
#define COLUMN_WIDTH 12

struct bucket {
    json_int_t limit_ns, count;
};

struct row {
    struct bucket buckets[BUCKETS_MAX];
    size_t count;
    json_int_t requests, longest_ns;
};

static const struct {
    const char *title;
    unsigned percent;
} columns[] = {{"50 %", 50}, {"90 %", 90}, {"99 %", 99}, {"longest", 100}};
#define COLUMNS (sizeof(columns) / sizeof(columns[0]))

bool stats_is_latency(const char *name)
{
    return strstr(name, BUCKET) != NULL;
}

static int compare(const void *a, const void *b)
{
    const struct bucket *one = a, *other = b;

    return (one->limit_ns > other->limit_ns) - (one->limit_ns < other->limit_ns);
}

/* The buckets of the queue whose name is the first `length` bytes of `queue`. */
static void gather(const json_t *before, json_t *now, const char *queue, size_t length,
                   struct row *row)
{
    const char *name;
    json_t *value;

    row->count = 0;
    row->requests = 0;
    json_object_foreach(now, name, value)
    {
        const char *rest = name + length;
        json_int_t count = json_integer_value(value);

        if (strncmp(name, queue, length) != 0 || strncmp(rest, BUCKET, strlen(BUCKET)) != 0)
            continue;
        count -= json_integer_value(json_object_get(before, name));
        if (count <= 0 || row->count == BUCKETS_MAX)
            continue;
        row->buckets[row->count++] =
            (struct bucket){.limit_ns = strtoll(rest + strlen(BUCKET), NULL, 10), .count = count};
        row->requests += count;
    }
    qsort(row->buckets, row->count, sizeof(row->buckets[0]), compare);
}

/* The time within which so many of a hundred requests were done. */
static json_int_t percentile(const struct row *row, unsigned percent)
{
    double wanted = (double)row->requests * percent / 100, seen = 0;
    size_t i = 0;

    while (i + 1 < row->count && (seen += (double)row->buckets[i].count) < wanted)
        i++;
    json_int_t limit_ns = row->buckets[i].limit_ns;
    return row->longest_ns && limit_ns > row->longest_ns ? row->longest_ns : limit_ns;
}

static void print_time(FILE *out, json_int_t ns)
{
    static const char *const units[] = {"ns", "us", "ms", "s "};
    double value = (double)ns;
    unsigned unit = 0;

    while (unit < 3 && value >= 999.5) {
        value /= 1000;
        unit++;
    }
    fprintf(out, " %*.*f %s", COLUMN_WIDTH - 3, unit ? 1 : 0, value, units[unit]);
}

static size_t queue_length(const char *name)
{
    size_t len = strlen(name), tail = strlen(LONGEST);

    return len > tail && strcmp(name + len - tail, LONGEST) == 0 ? len - tail : 0;
}

void stats_print_latency(FILE *out, const json_t *before, json_t *now)
{
    static const char title[] = "latency";
    int width = (int)sizeof(title) - 1;
    bool headed = false;
    struct row row;
    const char *name;
    json_t *value;

    json_object_foreach(now, name, value) if ((int)queue_length(name) > width) width =
        (int)queue_length(name);
    json_object_foreach(now, name, value)
    {
        size_t length = queue_length(name);

        if (!length)
            continue;
        row.longest_ns = json_integer_value(value);
        gather(before, now, name, length, &row);
        if (!row.requests)
            continue;
        if (!headed) {
            fprintf(out, "\n%-*s %*s", width, title, COLUMN_WIDTH, "requests");
            for (size_t i = 0; i < COLUMNS; i++)
                fprintf(out, " %*s", COLUMN_WIDTH, columns[i].title);
            fprintf(out, "\n");
            headed = true;
        }
        fprintf(out, "%-*.*s %*lld", width, (int)length, name, COLUMN_WIDTH, row.requests);
        for (size_t i = 0; i < COLUMNS; i++)
            print_time(out, percentile(&row, columns[i].percent));
        fprintf(out, "\n");
    }
}
