/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmrun run, and restore and receive when they know what is to come: the process that is the
 * machine.
 *
 *   options and file -> name claimed -> machine built -> served -> started
 *                                         loop, until the machine has ended
 *   name released <- machine destroyed (terminal restored) <- server closed
 *
 * Signals come through a descriptor on the loop, so there is one way out and it
 * is this one. What is to be printed waits until the terminal is back.
 */
#include "run.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "detach.h"
#include "lobby.h"
#include "tty.h"
#include "vmrun/console.h"
#include "vmrun/log.h"
#include "vmrun/loop.h"
#include "vmrun/machine.h"

/* An option that names a key of the configuration sets it. */
static int set_option(struct vm_config *config, const struct cli_args *args,
                      const struct cli_value *v, struct error *err)
{
    char words[sizeof(err->msg)];

    if (!v->option->config || config_set(config, v->option->name, v->option->config,
                                         v->text ? v->text : "true", err) == 0)
        return CLI_OK;
    if (err->code == ENOMEM)
        return CLI_FAILED;
    memcpy(words, err->msg, sizeof(words));
    return cli_wrong(args, err, "%s", words);
}

int run_set_options(struct run *run, const struct cli_args *args, struct error *err)
{
    int status = CLI_OK;

    for (size_t i = 0; status == CLI_OK && i < args->value_count; i++)
        status = set_option(&run->config, args, &args->values[i], err);
    return status;
}

int run_leave_terminal(struct run *run, const struct cli_args *args, struct error *err)
{
    if (!cli_has(args, "--detach"))
        return CLI_OK;
    if (run->config.serial.kind == CONFIG_CONSOLE_STDIO) {
        /* Only who asked for both gets a refusal: a file's default must not stand in the way. */
        if (cli_has(args, "--console"))
            return cli_wrong(args, err,
                             "--console stdio and --detach exclude each other; 'vmrun console' "
                             "attaches later");
        run->config.serial.kind = CONFIG_CONSOLE_NONE;
    }
    if (run->config.virtio_console.kind == CONFIG_CONSOLE_STDIO)
        return cli_wrong(args, err,
                         "\"console.virtio\" is stdio, which --detach takes away; set it to pty");
    return CLI_OK;
}

static int configure(struct run *run, const struct cli_args *args, struct error *err)
{
    if (args->operand_count && config_load(&run->config, args->operands[0], err) < 0)
        return CLI_FAILED;
    int status = run_set_options(run, args, err);
    if (status == CLI_OK)
        status = run_leave_terminal(run, args, err);
    if (status != CLI_OK)
        return status;
    if (config_validate(&run->config, err) == 0)
        return CLI_OK;
    if (args->operand_count)
        error_prefix(err, "%s", args->operands[0]);
    return CLI_FAILED;
}

/* The guest's end may be the file's fault. */
static char *crash_report(const struct run *run, const char *detail)
{
    char *report = NULL;

    if (!run->restore || !restore_file_was_cut(run->restore) || strstr(detail, "was cut off"))
        return strdup(detail);
    if (asprintf(&report, "the snapshot was cut off while the machine ran from it\n%s", detail) < 0)
        return NULL;
    return report;
}

static void listen_to_machine(void *opaque, const struct machine_news *news)
{
    struct run *run = opaque;

    if (news->event == MACHINE_EVENT_CRASH && !run->report)
        run->report = crash_report(run, news->detail);
    control_server_event(run->server, news);
    if (machine_state(run->machine) == MACHINE_ENDED)
        loop_stop(run->loop);
}

/* The terminal's size is the guest's when hvc0 is on it. */
static void pass_on_size(struct run *run)
{
    struct winsize size;

    if (run->config.virtio_console.kind == CONFIG_CONSOLE_STDIO &&
        ioctl(STDIN_FILENO, TIOCGWINSZ, &size) == 0)
        machine_resize_virtio_console(run->machine, size.ws_col, size.ws_row);
}

static void take_signal(void *opaque, uint32_t events)
{
    struct run *run = opaque;
    struct signalfd_siginfo info = {0};

    (void)events;
    if (read(run->signal_fd, &info, sizeof(info)) < 0)
        return;
    if (info.ssi_signo == SIGWINCH) {
        pass_on_size(run);
        return;
    }
    if (!run->signal)
        run->signal = (int)info.ssi_signo;
    machine_kill(run->machine);
}

/* Block the signals that end us, so that they wait for the loop; the machine is there by then. */
static int open_signals(struct run *run, struct error *err)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH};
    struct sigaction action;
    sigset_t set;

    sigemptyset(&set);
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        /* Who started us with one ignored (nohup, a shell's &) means it. */
        if (sigaction(signals[i], NULL, &action) == 0 && action.sa_handler != SIG_IGN)
            sigaddset(&set, signals[i]);
    }
    run->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (run->signal_fd < 0)
        return error_errno(err, errno, "signals");
    sigprocmask(SIG_BLOCK, &set, NULL);
    return loop_watch_create(run->loop, run->signal_fd, EPOLLIN, NULL, take_signal, run,
                             &run->signal_watch, err);
}

static int set_default_name(struct vm_config *config, struct error *err)
{
    char name[32];

    if (config->name)
        return 0;
    snprintf(name, sizeof(name), "vm%d", (int)getpid());
    return config_set(config, "--name", "name", name, err);
}

static int build_machine(struct run *run, struct error *err)
{
    if (run->receive)
        return receive_build(run->receive, &run->config, run->loop, &run->machine, err);
    if (!run->file)
        return machine_create(&run->config, run->loop, &run->machine, err);
    return restore_machine(&run->restore_params, run->file, &run->config, run->loop, &run->restore,
                           &run->machine, err);
}

static int serve(struct run *run, struct error *err)
{
    return control_server_create(run->name, run->loop, run->machine, run->migration, &run->server,
                                 err);
}

static int build(struct run *run, struct error *err)
{
    if (set_default_name(&run->config, err) < 0 || loop_create(&run->loop, err) < 0)
        return -err->code;
    tty_guard(console_restore_terminal);
    /* Before a machine from elsewhere is ours, signals are to end this process at once. */
    if ((!run->receive && open_signals(run, err) < 0) ||
        control_name_claim(run->config.name, &run->name, err) < 0 ||
        (run->receive && lobby_open(run->receive, "receiving", run->name, &run->lobby, err) < 0) ||
        build_machine(run, err) < 0 ||
        migration_create(run->machine, run->loop, &run->migration, err) < 0 ||
        (!run->receive && serve(run, err) < 0))
        return -err->code;
    if (run->file && run->restore_params.mode != RESTORE_EAGER)
        migration_set_origin(run->migration, run->file);
    machine_set_listener(run->machine, listen_to_machine, run);
    pass_on_size(run);
    return 0;
}

/* From elsewhere: when this returns 0 it is ours. */
static int take(struct run *run, struct error *err)
{
    if (receive_take(run->receive, err) < 0 || open_signals(run, err) < 0)
        return -err->code;
    run->paused = run->paused || receive_was_paused(run->receive);
    return 0;
}

/* It runs: from here on it is as any other. */
static int arrive(struct run *run, struct error *err)
{
    receive_done(run->receive);
    if (lobby_close(run->lobby))
        machine_kill(run->machine);
    run->lobby = NULL;
    machine_take_terminal(run->machine);
    /* A terminal may be the guest's already. */
    fprintf(stderr, "vmrun: %s has come from %s, and %s%s\n", run->config.name,
            receive_from(run->receive), run->paused ? "is paused" : "runs",
            isatty(STDERR_FILENO) ? "\r" : "");
    return serve(run, err);
}

/* Everything up to the running machine. */
static int bring_up(struct run *run, struct error *err)
{
    char log_path[CONTROL_PATH_MAX + CONTROL_NAME_MAX];
    struct machine_info info;

    if (build(run, err) < 0) {
        if (run->receive)
            receive_refuse(run->receive, err);
        return -err->code;
    }
    if (run->receive && take(run, err) < 0)
        return -err->code;
    if ((run->paused ? machine_pause : machine_start)(run->machine, err) < 0)
        return -err->code;
    if (run->receive && arrive(run, err) < 0)
        return -err->code;

    if (run->ready_fd >= 0) {
        if (control_log_path(run->config.name, log_path, sizeof(log_path), err) < 0 ||
            detach_ready(run->ready_fd, run->config.name, log_path, err) < 0)
            return -err->code;
        close(run->ready_fd);
        run->ready_fd = -1;
    } else if (run->config.serial.kind == CONFIG_CONSOLE_PTY) {
        machine_info(run->machine, &info);
        fprintf(stderr, "vmrun: %s: the console is %s\n", run->config.name, info.console);
    }
    if (!run->detached && run->config.virtio_console.kind == CONFIG_CONSOLE_PTY) {
        machine_info(run->machine, &info);
        fprintf(stderr, "vmrun: %s: hvc0 is %s\n", run->config.name, info.virtio_console);
    }
    return 0;
}

static int exit_status(const struct run *run)
{
    int status = CLI_OK;

    if (machine_end(run->machine, &status) == MACHINE_END_KILLED && run->signal)
        return 128 + run->signal;
    return status;
}

/* A detached machine that ended well leaves nothing behind; one that did not, its log. */
static void remove_log(const struct run *run)
{
    char path[CONTROL_PATH_MAX + CONTROL_NAME_MAX];
    struct error err;

    if (control_log_path(run->config.name, path, sizeof(path), &err) == 0)
        unlink(path);
}

static int run_machine(struct run *run, struct error *err)
{
    int status = CLI_FAILED;
    char *moved_to = NULL;
    int r = bring_up(run, err);

    if (r == 0)
        r = loop_run(run->loop, err);
    if (r == 0)
        status = exit_status(run);
    if (r == 0 && migration_moved_to(run->migration))
        moved_to = strdup(migration_moved_to(run->migration));

    (void)lobby_close(run->lobby);
    migration_destroy(run->migration);
    control_server_destroy(run->server);
    loop_watch_destroy(run->signal_watch);
    restore_destroy(run->restore);
    machine_destroy(run->machine);
    if (run->report)
        fprintf(stderr, "vmrun: %s: the guest crashed: %s%s", run->config.name, run->report,
                run->report[0] && run->report[strlen(run->report) - 1] == '\n' ? "" : "\n");
    if (moved_to)
        fprintf(stderr, "vmrun: %s has moved to %s\n", run->config.name, moved_to);
    free(moved_to);
    if (run->detached && run->name && r == 0 && !run->report)
        remove_log(run);
    control_name_release(run->name);
    loop_destroy(run->loop);
    if (run->signal_fd >= 0)
        close(run->signal_fd);
    free(run->report);
    if (run->ready_fd >= 0) {
        detach_failed(run->ready_fd, status, err);
        *err = (struct error){0};
    }
    return status;
}

void run_init(struct run *run, const struct cli_args *args)
{
    *run = (struct run){.ready_fd = -1, .signal_fd = -1, .paused = cli_has(args, "--paused")};
    log_set_level(cli_has(args, "--verbose") ? LOG_LEVEL_DEBUG : LOG_LEVEL_WARN);
    config_init(&run->config);
}

int run_to_the_end(struct run *run, const struct cli_args *args, struct error *err)
{
    if (cli_has(args, "--detach")) {
        int status = detach_fork(&run->ready_fd, err);

        run->detached = run->ready_fd >= 0;
        if (!run->detached)
            return status;
    }
    return run_machine(run, err);
}

int cli_run(const struct cli_args *args, struct error *err)
{
    struct run run;

    run_init(&run, args);
    int status = configure(&run, args, err);
    if (status == CLI_OK)
        status = run_to_the_end(&run, args, err);
    config_fini(&run.config);
    return status;
}
