/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmrun stats: a machine's counters, or what they grow by in each second.
 *
 * A queue's five counters are one row of a table, and its latency of another; every other counter
 * is a line. Which is which the names say: "disk.root.q0.requests" is the first of a queue's.
 */
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "stats_latency.h"
#include "verbs.h"

static const struct timespec one_second = {.tv_sec = 1};

/* The counters of a queue, as they are called and as columns. */
static const struct column {
    const char *name, *title;
} columns[] = {
    {"requests", "requests"}, {"bytes_out", "bytes from guest"}, {"bytes_in", "bytes to guest"},
    {"kicks", "kicks"},       {"interrupts", "interrupts"},
};
#define COLUMNS (sizeof(columns) / sizeof(columns[0]))
#define COLUMN_WIDTH 16
#define NAME_MAX_BYTES 128

struct report {
    FILE *out;
    const json_t *before; /* NULL: totals */
    json_t *now;
    double seconds; /* between the two */
};

static double seconds_between(const json_t *before, const json_t *now)
{
    json_int_t ns = json_integer_value(json_object_get(now, "time_ns")) -
                    json_integer_value(json_object_get(before, "time_ns"));

    return ns > 0 ? (double)ns / 1e9 : 1;
}

static json_int_t total(const json_t *stats, const char *name)
{
    return json_integer_value(json_object_get(json_object_get(stats, "counters"), name));
}

static double rate(const struct report *r, const char *name)
{
    return (double)(total(r->now, name) - total(r->before, name)) / r->seconds;
}

/*
 * The queue that a counter belongs to, as far as its last dot: the length of "disk.root.q0" of
 * "disk.root.q0.kicks". 0: it is no queue's, for those have a counter of every column.
 */
static size_t queue_length(const json_t *counters, const char *name)
{
    const char *dot = strrchr(name, '.');
    char sibling[NAME_MAX_BYTES];

    if (!dot)
        return 0;
    for (size_t i = 0; i < COLUMNS; i++) {
        snprintf(sibling, sizeof(sibling), "%.*s.%s", (int)(dot - name), name, columns[i].name);
        if (!json_object_get(counters, sibling))
            return 0;
    }
    return (size_t)(dot - name);
}

static bool is_in_table(const json_t *counters, const char *name)
{
    return stats_is_latency(name) || queue_length(counters, name);
}

static void print_plain(const struct report *r)
{
    json_t *counters = json_object_get(r->now, "counters"), *value;
    const char *name;
    int width = 0;

    json_object_foreach(counters, name, value)
    {
        if ((int)strlen(name) > width && !is_in_table(counters, name))
            width = (int)strlen(name);
    }
    if (r->before)
        fprintf(r->out, "%-*s %12s %15s\n", width, "", "per second", "total");
    json_object_foreach(counters, name, value)
    {
        if (is_in_table(counters, name))
            continue;
        fprintf(r->out, "%-*s", width, name);
        if (r->before)
            fprintf(r->out, " %12.1f", rate(r, name));
        fprintf(r->out, " %15lld\n", json_integer_value(value));
    }
}

static void print_queue(const struct report *r, const char *queue, int length, int width)
{
    char name[NAME_MAX_BYTES];

    fprintf(r->out, "%-*.*s", width, length, queue);
    for (size_t i = 0; i < COLUMNS; i++) {
        snprintf(name, sizeof(name), "%.*s.%s", length, queue, columns[i].name);
        if (r->before)
            fprintf(r->out, " %*.1f", COLUMN_WIDTH, rate(r, name));
        else
            fprintf(r->out, " %*lld", COLUMN_WIDTH, total(r->now, name));
    }
    fprintf(r->out, "\n");
}

static void print_queues(const struct report *r)
{
    const char *title = r->before ? "per second" : "queue", *name;
    json_t *counters = json_object_get(r->now, "counters"), *value;
    int width = 0;

    json_object_foreach(counters, name, value)
    {
        size_t length = queue_length(counters, name);
        if ((int)length > width)
            width = (int)length;
    }
    if (width == 0)
        return;
    if (width < (int)strlen(title))
        width = (int)strlen(title);
    fprintf(r->out, "\n%-*s", width, title);
    for (size_t i = 0; i < COLUMNS; i++)
        fprintf(r->out, " %*s", COLUMN_WIDTH, columns[i].title);
    fprintf(r->out, "\n");
    json_object_foreach(counters, name, value)
    {
        size_t length = queue_length(counters, name);

        if (length && strcmp(name + length + 1, columns[0].name) == 0)
            print_queue(r, name, (int)length, width);
    }
}

static void print_report(const struct report *r)
{
    print_plain(r);
    print_queues(r);
    stats_print_latency(r->out, json_object_get(r->before, "counters"),
                        json_object_get(r->now, "counters"));
}

static void print_totals(json_t *stats)
{
    const struct report r = {.out = stdout, .now = stats};

    print_report(&r);
}

/*
 * A report over the one before, as far as the terminal reaches: a line that wraps, or one too many,
 * would make it scroll each time.
 */
static void refresh(const char *text)
{
    struct winsize size = {0};
    unsigned lines = 0;

    (void)ioctl(STDOUT_FILENO, TIOCGWINSZ, &size); /* zeros: it does not know, and all is shown */
    size_t width = size.ws_col ? size.ws_col : SIZE_MAX;
    for (const char *c = text; *c; c++)
        lines += *c == '\n';
    unsigned shown = size.ws_row && lines >= size.ws_row ? size.ws_row - 1u : lines;
    printf("\033[H");
    for (unsigned i = 0; i < shown; i++) {
        size_t len = strcspn(text, "\n");

        if (i + 1 == shown && shown < lines)
            printf("(%u more)\033[K\n", lines - i);
        else if (len < width)
            printf("%.*s\033[K\n", (int)len, text);
        else
            printf("%.*s\n", (int)width, text);
        text += len + 1;
    }
    printf("\033[J");
}

static int print_rates(const json_t *before, json_t *now, struct error *err)
{
    struct report r = {
        .out = stdout, .before = before, .now = now, .seconds = seconds_between(before, now)};
    bool terminal = isatty(STDOUT_FILENO);
    char *text = NULL;
    size_t len;

    if (terminal)
        r.out = open_memstream(&text, &len);
    if (r.out)
        print_report(&r);
    if (!terminal) {
        putchar('\n');
        return 0;
    }
    if (!r.out || fclose(r.out) != 0)
        return error_set(err, ENOMEM, "out of memory");
    refresh(text);
    free(text);
    return 0;
}

static void print_rates_json(const json_t *before, json_t *now)
{
    const struct report r = {.before = before, .now = now, .seconds = seconds_between(before, now)};
    json_t *counters = json_object_get(now, "counters"), *rates = json_object(), *value;
    const char *name;

    json_object_foreach(counters, name, value)
        json_object_set_new(rates, name, json_real(rate(&r, name)));
    cli_print_json(json_pack("{s:O, s:O, s:o}", "time_ns", json_object_get(now, "time_ns"),
                             "counters", counters, "per_second", rates));
}

/*
 * What ends the watch is taken between two reports, so that none is cut short and the terminal
 * is left at the beginning of a line.
 */
static void hold_signals(sigset_t *set)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
    struct sigaction action;

    sigemptyset(set);
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        if (sigaction(signals[i], NULL, &action) == 0 && action.sa_handler != SIG_IGN)
            sigaddset(set, signals[i]);
    sigprocmask(SIG_BLOCK, set, NULL);
}

/* Rest for a second. Returns the signal that came meanwhile, or 0. */
static int rest(const sigset_t *signals)
{
    int signal;

    do
        signal = sigtimedwait(signals, NULL, &one_second);
    while (signal < 0 && errno == EINTR);
    return signal > 0 ? signal : 0;
}

/* Returns an exit status: Ctrl-C is how a watch ends well. */
static int watch(struct control_client *client, bool json, struct error *err)
{
    json_t *before = NULL, *now = NULL;
    int r = 0, signal = 0;
    sigset_t signals;

    hold_signals(&signals);
    if (!json && isatty(STDOUT_FILENO))
        printf("\033[H\033[J");
    while (!signal && (r = control_client_call(client, "vm.stats", NULL, CLI_CALL_TIMEOUT_MS, &now,
                                               err)) == 0) {
        if (before && json)
            print_rates_json(before, now);
        else if (before)
            r = print_rates(before, now, err);
        json_decref(before);
        before = now;
        if (r < 0 || fflush(stdout) != 0)
            break; /* main says why */
        signal = rest(&signals);
    }
    json_decref(before);
    if (signal == SIGINT && isatty(STDOUT_FILENO))
        putchar('\n'); /* after the ^C */
    if (signal)
        return signal == SIGINT ? CLI_OK : 128 + signal;
    if (r == -EPIPE) { /* the machine ended: so does the watch */
        *err = (struct error){0};
        return CLI_OK;
    }
    return r < 0 ? CLI_FAILED : CLI_OK;
}

/*
 * A guest is asked what it says of its memory by whoever reads its counters, and answers a moment
 * later: who reads them once waits for that, for a little while.
 */
static int call_stats(struct control_client *client, json_t **ret_stats, struct error *err)
{
    const struct timespec moment = {.tv_nsec = 20000000};
    int r = control_client_call(client, "vm.stats", NULL, CLI_CALL_TIMEOUT_MS, ret_stats, err);

    for (unsigned i = 0; r == 0 && i < 25 && total(*ret_stats, "balloon.guest.asked"); i++) {
        json_t *later = NULL;

        nanosleep(&moment, NULL);
        r = control_client_call(client, "vm.stats", NULL, CLI_CALL_TIMEOUT_MS, &later, err);
        json_decref(*ret_stats);
        *ret_stats = later;
    }
    return r;
}

int cli_stats(const struct cli_args *args, struct error *err)
{
    struct control_client *client;
    json_t *stats = NULL;
    bool json = cli_has(args, "--json");

    if (cli_open(args->operands[0], &client, err) < 0)
        return CLI_FAILED;
    if (cli_has(args, "--watch")) {
        int status = watch(client, json, err);
        control_client_close(client);
        return status;
    }
    int r = call_stats(client, &stats, err);
    control_client_close(client);
    if (r < 0)
        return CLI_FAILED;
    if (json) {
        cli_print_json(stats);
        return CLI_OK;
    }
    print_totals(stats);
    json_decref(stats);
    return CLI_OK;
}
