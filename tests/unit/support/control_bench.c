/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine is a fake: the functions of machine.h are defined here, and whoever
 * uses this bench is linked with them instead of the real ones.
 */
#include "control_bench.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmrun/console.h"
#include "vmrun/log.h"

const char *machine_state_name(enum machine_state state)
{
    static const char *const names[] = {"created", "running", "paused", "uncertain", "ended"};

    return names[state];
}

static int fake_enter(struct machine *m, enum machine_state state)
{
    m->state = state;
    if (m->listener)
        m->listener(m->opaque, &(struct machine_news){.event = MACHINE_EVENT_STATE,
                                                      .detail = machine_state_name(state)});
    return 0;
}

int machine_pause(struct machine *m, struct error *err)
{
    (void)err;
    return fake_enter(m, MACHINE_PAUSED);
}

int machine_resume(struct machine *m, struct error *err)
{
    if (m->state == MACHINE_UNCERTAIN)
        return error_set(err, EBUSY, "look there first");
    return fake_enter(m, MACHINE_RUNNING);
}

int machine_resume_anyway(struct machine *m, struct error *err)
{
    (void)err;
    return fake_enter(m, MACHINE_RUNNING);
}

int machine_reset(struct machine *m, struct error *err)
{
    (void)m;
    return error_set(err, EIO, "reset: vmlinuz: \377 is gone");
}

int machine_press_power_button(struct machine *m, struct error *err)
{
    return m->state == MACHINE_RUNNING ? 0 : error_set(err, EBUSY, "the machine is paused");
}

int machine_set_link(struct machine *m, const char *id, bool up, struct error *err)
{
    if (strcmp(id, "net0") != 0)
        return error_set(err, ENODEV, "no card %s", id);
    m->link = up;
    return 0;
}

int machine_set(struct machine *m, const struct machine_pair *pairs, size_t count,
                struct error *err)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(pairs[i].key, "balloon") != 0)
            return error_set(err, EINVAL, "\"%s\" cannot be set", pairs[i].key);
    m->balloon = atoi(pairs[0].value);
    return 0;
}

void machine_refresh_disks(struct machine *m)
{
    m->refreshes++;
}

int machine_kill_here(struct machine *m, struct error *err)
{
    (void)err;
    machine_kill(m);
    return 0;
}

void machine_kill(struct machine *m)
{
    fake_enter(m, MACHINE_ENDED);
}

enum machine_state machine_state(const struct machine *m)
{
    return m->state;
}

void machine_info(const struct machine *m, struct machine_info *ret_info)
{
    *ret_info = (struct machine_info){
        .uptime_ns = 5,
        .resets = 2,
        .memory_host_bytes = 4096,
        .kernel = "ELF",
        .console = "none",
        .uncertain = m->state == MACHINE_UNCERTAIN ? "the line was cut" : NULL,
    };
}

const struct vm_config *machine_config(const struct machine *m)
{
    return &m->config;
}

struct console *machine_console(struct machine *m)
{
    return (struct console *)m; /* only console_attach() below sees it */
}

void machine_stats(const struct machine *m, machine_stat_fn *fn, void *opaque)
{
    (void)m;
    fn(opaque, "exits.pio", 7);
    fn(opaque, "exits.mmio", 9);
}

void migration_set_listener(struct migration *m, const struct migration_listener *listener,
                            void *opaque)
{
    m->listener = listener;
    m->opaque = opaque;
}

int migration_save(struct migration *m, const struct migration_save *save, struct error *err)
{
    if (strcmp(save->path, "/full") == 0)
        return error_set(err, EEXIST, "/full exists; --force replaces it");
    snprintf(m->path, sizeof(m->path), "%s", save->path);
    m->replace = save->replace;
    m->stop = save->stop;
    m->track = save->track;
    m->compress = save->compress;
    snprintf(m->base, sizeof(m->base), "%s", save->base ? save->base : "");
    m->under_way = true;
    m->listener->progress(m->opaque, &(struct migration_progress){.phase = MIGRATION_COPYING,
                                                                  .round = 1,
                                                                  .round_bytes = 8192,
                                                                  .done_bytes = 4096});
    if (save->stop) { /* this one is done at once */
        m->under_way = false;
        m->listener->ended(m->opaque, &(struct migration_report){.rounds = 2,
                                                                 .pause_ns = 3000000,
                                                                 .data_bytes = 12288,
                                                                 .file_bytes = 16384,
                                                                 .held_bytes = 20480,
                                                                 .found = MIGRATION_BY_LOG});
    }
    return 0;
}

/* One that does not get there; "tcp://there:1" does. */
int migration_move(struct migration *m, const struct migration_move *move, struct error *err)
{
    static const struct migration_round round = {.ns = 5, .bytes = 8192, .dirty_bytes = 4096};
    struct migration_report report = {
        .kind = MIGRATION_MOVE, .rounds = 1, .round = &round, .channels = move->channels};

    (void)err;
    m->listener->progress(m->opaque, &(struct migration_progress){.kind = MIGRATION_MOVE,
                                                                  .phase = MIGRATION_HANDOVER,
                                                                  .dirty_rate = 4096});
    if (strcmp(move->url, "tcp://there:1") == 0)
        report.outcome = MIGRATION_THERE;
    else
        error_set(&report.error, ECONNREFUSED, "%s: nobody is there", move->url);
    m->listener->ended(m->opaque, &report);
    return 0;
}

int migration_cancel(struct migration *m, struct error *err)
{
    struct migration_report report = {.rounds = 1};

    if (!m->under_way)
        return error_set(err, ENOENT, "nothing is under way");
    m->under_way = false;
    error_set(&report.error, ECANCELED, "cancelled");
    m->listener->ended(m->opaque, &report);
    return 0;
}

/* Says the scrollback and one thing more, then hangs up. Weak: a real console has its own. */
__attribute__((weak)) int console_attach(struct console *console, int fd, const void *pending,
                                         size_t pending_len, struct error *err)
{
    struct machine *m = (struct machine *)console;

    (void)err;
    snprintf(m->attached_with, sizeof(m->attached_with), "%.*s", (int)pending_len,
             (const char *)pending);
    if (send(fd, "scrollback", 10, MSG_NOSIGNAL) != 10)
        return error_set(err, EIO, "the scrollback did not fit");
    close(fd);
    return 0;
}

static void forward_event(void *opaque, const struct machine_news *news)
{
    control_server_event(((struct control_bench *)opaque)->server, news);
}

static void *run_loop(void *opaque)
{
    struct error err;

    assert_int_equal(loop_run(opaque, &err), 0);
    return NULL;
}

int control_bench_setup(void **state)
{
    struct control_bench *f = calloc(1, sizeof(*f));
    struct error err;

    log_set_level(LOG_LEVEL_ERROR);
    strcpy(f->dir, "/tmp/vmrun-test-XXXXXX");
    config_init(&f->machine.config);
    f->machine.state = MACHINE_RUNNING;
    f->machine.listener = forward_event;
    f->machine.opaque = f;
    if (!mkdtemp(f->dir) || setenv("VMRUN_DIR", f->dir, 1) < 0 || loop_create(&f->loop, &err) < 0 ||
        control_name_claim("web1", &f->name, &err) < 0 ||
        control_server_create(f->name, f->loop, &f->machine, &f->migration, &f->server, &err) < 0)
        return -1;
    *state = f;
    return pthread_create(&f->thread, NULL, run_loop, f->loop);
}

int control_bench_teardown(void **state)
{
    struct control_bench *f = *state;

    loop_stop(f->loop);
    pthread_join(f->thread, NULL);
    control_server_destroy(f->server);
    control_name_release(f->name);
    loop_destroy(f->loop);
    config_fini(&f->machine.config);
    int r = rmdir(f->dir); /* fails when something was left behind */
    free(f);
    return r;
}

int control_bench_dial(const struct control_bench *f)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    struct timeval timeout = {.tv_sec = CONTROL_BENCH_TIMEOUT_MS / 1000};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/web1.sock", f->dir);
    assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
    return fd;
}

void control_bench_say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* The next line without its newline; "" at the end of the stream. */
const char *control_bench_hear(int fd)
{
    static char line[65536];
    size_t len = 0;

    while (len < sizeof(line) - 1) {
        ssize_t n = recv(fd, line + len, 1, 0);

        if (n < 0 && errno != ECONNRESET)
            fail_msg("no answer: %s", strerror(errno));
        if (n <= 0 || line[len] == '\n')
            break;
        len++;
    }
    line[len] = '\0';
    return line;
}

void control_bench_expect_error(const char *line, int code, const char *words)
{
    char expected[64];

    snprintf(expected, sizeof(expected), "\"code\":%d,", code);
    if (!strstr(line, expected) || !strstr(line, words))
        fail_msg("expected %d and \"%s\" in: %s", code, words, line);
}

void control_bench_expect_service(const struct control_bench *f)
{
    int fd = control_bench_dial(f);

    control_bench_say(fd, CONTROL_BENCH_STATUS);
    assert_non_null(strstr(control_bench_hear(fd), "\"result\":"));
    close(fd);
}
