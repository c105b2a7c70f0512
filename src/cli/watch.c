/* SPDX-License-Identifier: Apache-2.0 */
/*
 * watch: the client's side of what a machine does for a while: a save, a move.
 *
 * The machine does all the work; Ctrl-C asks it to give up, and again Ctrl-C leaves it to itself.
 * Signals are blocked and looked for between two events, so that the last word is always heard.
 */
#include "watch.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "vmrun/text.h"

#define LOOK_MS 100
#define BAR 30

int watch_absolute(const char *path, char *buf, size_t len, struct error *err)
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

int64_t watch_figure(const json_t *event, const char *name)
{
    return (int64_t)json_integer_value(json_object_get(event, name));
}

static void draw(struct watch *w, const json_t *event)
{
    const char *phase = json_string_value(json_object_get(event, "detail"));
    double all = (double)watch_figure(event, "round_bytes");
    double done = (double)watch_figure(event, "done_bytes");
    double seconds = (double)watch_figure(event, "elapsed_ns") / 1e9;
    double part = all > 0 && done < all ? done / all : 1;
    char written[24], rate[24], bar[BAR + 1];

    if (!w->terminal)
        return;
    for (int i = 0; i < BAR; i++)
        bar[i] = i < (int)(part * BAR) ? '#' : '.';
    bar[BAR] = '\0';
    text_format_size((uint64_t)watch_figure(event, "written_bytes") >> 20 << 20, written,
                     sizeof(written));
    if (phase && strcmp(phase, "copying") == 0)
        fprintf(stderr, "\r\033[Kround %lld [%s] %3.0f %%, %s in %.1f s",
                (long long)watch_figure(event, "round"), bar, part * 100, written, seconds);
    else if (phase && strcmp(phase, "packing") == 0)
        fprintf(stderr, "\r\033[Kpacking [%s] %3.0f %% in %.1f s", bar, part * 100, seconds);
    else
        fprintf(stderr, "\r\033[K%s: %s in %.1f s", phase ? phase : "?", written, seconds);
    if (watch_figure(event, "dirty_rate")) {
        text_format_size((uint64_t)watch_figure(event, "dirty_rate") >> 20 << 20, rate,
                         sizeof(rate));
        fprintf(stderr, ", the guest writes %s/s, pause %.1f ms", rate,
                (double)watch_figure(event, "predicted_pause_ns") / 1e6);
    }
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
    (void)control_client_notify(w->client, w->cancel, NULL, CLI_CALL_TIMEOUT_MS, &ignored);
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
        if (type && (strcmp(type, w->ended) == 0 || strcmp(type, w->failed) == 0 ||
                     (w->also && strcmp(type, w->also) == 0))) {
            *ret_end = event;
            return 0;
        }
        if (type && strcmp(type, w->progress) == 0)
            draw(w, event);
        json_decref(event);
    }
}

int watch_to_the_end(struct watch *w, const char *method, json_t *params, json_t **ret_end,
                     struct error *err)
{
    int r;

    if (!params) {
        error_set(err, EINVAL, "a path must be UTF-8");
        return CLI_FAILED;
    }
    w->terminal = isatty(STDERR_FILENO);
    hold_signals(w);
    r = control_client_call(w->client, "events.subscribe", NULL, CLI_CALL_TIMEOUT_MS, NULL, err);
    if (r < 0)
        json_decref(params);
    else
        r = control_client_call(w->client, method, params, CLI_CALL_TIMEOUT_MS, NULL, err);
    if (r == 0)
        r = wait_for_end(w, ret_end, err);
    clear(w);
    return r == 0 ? CLI_OK : w->signal ? 128 + w->signal : CLI_FAILED;
}
