/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmrun save: asks the machine to write itself, and watches.
 *
 * The machine does all the work; Ctrl-C asks it to give up, and again Ctrl-C leaves it to itself.
 * Signals are blocked and looked for between two events, so that the last word is always heard.
 */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "verbs.h"
#include "vmrun/text.h"

#define LOOK_MS 100
#define GONE_MS 10000
#define BAR 30

struct watch {
    struct control_client *client;
    sigset_t signals;
    int signal;    /* that came, or 0 */
    bool terminal; /* show a bar */
    bool drawn;
};

/* The machine's process has a working folder of its own. Returns 0 or -errno. */
static int make_absolute(const char *path, char *buf, size_t len, struct error *err)
{
    char folder[PATH_MAX];
    int n;

    if (path[0] == '/')
        n = snprintf(buf, len, "%s", path);
    else if (!getcwd(folder, sizeof(folder)))
        return error_errno(err, errno, "the working folder");
    else
        n = snprintf(buf, len, "%s/%s", folder, path);
    return n < 0 || (size_t)n >= len ? error_errno(err, ENAMETOOLONG, "%.64s", path) : 0;
}

static void hold_signals(struct watch *w)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
    struct sigaction action;

    sigemptyset(&w->signals);
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        if (sigaction(signals[i], NULL, &action) == 0 && action.sa_handler != SIG_IGN)
            sigaddset(&w->signals, signals[i]);
    sigprocmask(SIG_BLOCK, &w->signals, NULL);
}

static int64_t figure(const json_t *event, const char *name)
{
    return (int64_t)json_integer_value(json_object_get(event, name));
}

static void draw(struct watch *w, const json_t *event)
{
    const char *phase = json_string_value(json_object_get(event, "detail"));
    double all = (double)figure(event, "round_bytes"), done = (double)figure(event, "done_bytes");
    double seconds = (double)figure(event, "elapsed_ns") / 1e9;
    double part = all > 0 && done < all ? done / all : 1;
    char written[24], bar[BAR + 1];

    if (!w->terminal)
        return;
    for (int i = 0; i < BAR; i++)
        bar[i] = i < (int)(part * BAR) ? '#' : '.';
    bar[BAR] = '\0';
    text_format_size((uint64_t)figure(event, "written_bytes") >> 20 << 20, written,
                     sizeof(written));
    if (phase && strcmp(phase, "copying") == 0)
        fprintf(stderr, "\r\033[Kround %lld [%s] %3.0f %%, %s in %.1f s",
                (long long)figure(event, "round"), bar, part * 100, written, seconds);
    else
        fprintf(stderr, "\r\033[Kto the disk: %s in %.1f s", written, seconds);
    w->drawn = true;
}

static void clear(struct watch *w)
{
    if (w->drawn)
        fputs("\r\033[K", stderr);
    w->drawn = false;
}

/* -EINTR: it was told to give up, and told again. */
static int take_signals(struct watch *w, struct error *err)
{
    struct error ignored;
    int signal = sigtimedwait(&w->signals, NULL, &(struct timespec){0});

    if (signal < 0)
        return 0;
    if (w->signal)
        return error_set(err, EINTR, "not waiting for the machine to give it up");
    w->signal = signal;
    /* When it is over already the answer is on its way. */
    (void)control_client_notify(w->client, "vm.save.cancel", NULL, CLI_CALL_TIMEOUT_MS, &ignored);
    return 0;
}

/* Until the end is told. */
static int wait_for_end(struct watch *w, json_t **ret_end, struct error *err)
{
    for (;;) {
        json_t *event = NULL;
        const char *type;
        int r = take_signals(w, err);

        if (r == 0)
            r = control_client_next_event(w->client, LOOK_MS, &event, err);
        if (r == -ETIMEDOUT)
            continue;
        if (r < 0)
            return r;
        type = json_string_value(json_object_get(event, "type"));
        if (type && (strcmp(type, "saved") == 0 || strcmp(type, "save_failed") == 0)) {
            *ret_end = event;
            return 0;
        }
        if (type && strcmp(type, "save") == 0)
            draw(w, event);
        json_decref(event);
    }
}

static void print_end(const char *path, json_t *end, bool json, bool stopped)
{
    char ram[24], file[24];

    if (json) {
        cli_print_json(json_pack(
            "{s:s, s:O, s:O, s:O, s:O, s:O, s:O, s:O}", "path", path, "rounds",
            json_object_get(end, "rounds"), "total_ns", json_object_get(end, "total_ns"),
            "pause_ns", json_object_get(end, "pause_ns"), "pause_bytes",
            json_object_get(end, "pause_bytes"), "written_bytes",
            json_object_get(end, "written_bytes"), "data_bytes", json_object_get(end, "data_bytes"),
            "file_bytes", json_object_get(end, "file_bytes")));
        return;
    }
    text_format_size((uint64_t)figure(end, "data_bytes"), ram, sizeof(ram));
    text_format_size((uint64_t)figure(end, "file_bytes"), file, sizeof(file));
    printf("%s: %s of RAM in %.1f s, %lld round%s", path, ram,
           (double)figure(end, "total_ns") / 1e9, (long long)figure(end, "rounds"),
           figure(end, "rounds") == 1 ? "" : "s");
    if (stopped)
        printf("; the machine has ended\n");
    else if (figure(end, "pause_ns"))
        printf("; the guest stood still for %.1f ms\n", (double)figure(end, "pause_ns") / 1e6);
    else
        printf("; the machine was paused and still is\n");
}

/* Begin, and see it through. Returns an exit status. */
static int save(struct watch *w, const struct cli_args *args, const char *path, struct error *err)
{
    bool stop = cli_has(args, "--stop");
    json_t *end = NULL;
    int status = CLI_FAILED;
    json_t *params = json_pack("{s:s, s:b, s:b}", "path", path, "replace",
                               (int)cli_has(args, "--force"), "stop", (int)stop);

    if (!params) {
        error_set(err, EINVAL, "a path must be UTF-8");
        return CLI_FAILED;
    }
    hold_signals(w);
    int r =
        control_client_call(w->client, "events.subscribe", NULL, CLI_CALL_TIMEOUT_MS, NULL, err);
    if (r < 0)
        json_decref(params);
    else
        r = control_client_call(w->client, "vm.save", params, CLI_CALL_TIMEOUT_MS, NULL, err);
    if (r == 0)
        r = wait_for_end(w, &end, err);
    clear(w);
    if (r < 0)
        return w->signal ? 128 + w->signal : CLI_FAILED;
    if (json_object_get(end, "errno")) {
        error_set(err, (int)figure(end, "errno"), "nothing was saved: %s",
                  json_string_value(json_object_get(end, "detail")));
        status = w->signal ? 128 + w->signal : CLI_FAILED;
    } else if (!stop || control_client_wait_gone(w->client, GONE_MS, err) == 0) {
        print_end(path, end, cli_has(args, "--json"), stop);
        status = CLI_OK;
    }
    json_decref(end);
    return status;
}

int cli_save(const struct cli_args *args, struct error *err)
{
    struct watch w = {.terminal = isatty(STDERR_FILENO)};
    char path[PATH_MAX];

    if (make_absolute(args->operands[1], path, sizeof(path), err) < 0 ||
        cli_open(args->operands[0], &w.client, err) < 0)
        return CLI_FAILED;
    int status = save(&w, args, path, err);
    control_client_close(w.client);
    return status;
}
