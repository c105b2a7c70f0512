/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of verbs, and the parser that it drives.
 *
 * Everything a person can type is in this table: help and completion are printed
 * from it (help.c), and an option with a configuration path sets that key. A new
 * verb is a row here, a function in a file of its own, and a section in the man page.
 */
#include "vmrun/cli.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "verbs.h"
#include "vmrun/text.h"

static const struct cli_option run_options[] = {
    {"--name", "NAME", "what the machine is called (default: vm and the pid)", "name"},
    {"--cpus", "N", "CPUs of the guest", "cpus"},
    {"--memory", "SIZE", "RAM of the guest: 512M, 2G", "memory"},
    {"--kernel", "FILE", "bzImage, or ELF with a PVH entry", "boot.kernel"},
    {"--initrd", "FILE", "initial RAM disk", "boot.initrd"},
    {"--cmdline", "TEXT", "the kernel's command line", "boot.cmdline"},
    {"--disk", "FILE[,KEY=VALUE]...", "a disk: readonly, cache=none|writeback, queues, iops, ...",
     "disks"},
    {"--net", "user|tap=IFNAME[,KEY=VALUE]...",
     "a network card (hostfwd; bridge, queues, vhost; mac, ...)", "nets"},
    {"--vsock", "socket=PATH[,cid=N]", "stream sockets between guest and host, through this one",
     "vsock"},
    {"--cpu", "host|x86-64-v2|x86-64-v3", "the processor that the guest sees", "cpu.model"},
    {"--console", "stdio|pty|file:PATH|none", "where the serial port leads", "console.serial"},
    {"--hvc0", "stdio|pty|file:PATH|none", "where hvc0 leads; none: there is no hvc0",
     "console.virtio"},
    {"--pages", "normal|transparent|huge", "the host's pages under the guest's RAM",
     "memory_options.pages"},
    {"--unpack", "auto|always|guest", "who unpacks a compressed kernel", "boot.unpack"},
    {"--balloon", NULL, "a balloon: the guest gives memory back", "balloon"},
    {"--limit-cpu", "PERCENT", "of the host's CPUs, by a cgroup: 150% is one and a half",
     "limits.cpu"},
    {"--limit-memory", "SIZE", "of the host's memory, guest RAM and all, by a cgroup",
     "limits.memory"},
    {"--on-reboot", "restart|exit", "what follows when the guest reboots", "on_reboot"},
    {"--debug-exit", NULL, "give a test guest the port that ends vmrun with its status",
     "debug_exit"},
    {"--detach", NULL, "run in the background; returns when the machine runs", NULL},
    {"--paused", NULL, "do not start the CPUs before 'vmrun resume'", NULL},
    {"--verbose", NULL, "say more on stderr", NULL},
    {0},
};

static const struct cli_option json_options[] = {
    {"--json", NULL, "print JSON", NULL},
    {0},
};

static const struct cli_option stop_options[] = {
    {"--timeout", "SECONDS", "how long the guest may take (default: 60)", NULL},
    {"--force", NULL, "kill the machine when that time is over", NULL},
    {0},
};

static const struct cli_option resume_options[] = {
    {"--force", NULL, "also where nobody can tell whether it runs on another host", NULL},
    {0},
};

static const struct cli_option console_options[] = {
    {"--timeout", "SECONDS", "after the end of input: detach when nothing comes for so long", NULL},
    {0},
};

static const struct cli_option stats_options[] = {
    {"--watch", NULL, "print what happens each second, until Ctrl-C", NULL},
    {"--json", NULL, "print JSON; with --watch, one line a second", NULL},
    {0},
};

static const struct cli_option snapshot_options[] = {
    {"--force", NULL, "flatten, pack, unpack: replace an older file", NULL},
    {"--json", NULL, "print JSON", NULL},
    {0},
};

static const struct cli_option save_options[] = {
    {"--force", NULL, "replace an older file", NULL},
    {"--stop", NULL, "end the machine when it is saved; its disks and the file fit together", NULL},
    {"--base", "EARLIER", "save only what changed since that file; it is needed to restore", NULL},
    {"--track", NULL, "note from now on what changes, for a save with this file as --base", NULL},
    {"--compress", NULL, "make an archive, as 'vmrun snapshot pack' does", NULL},
    {"--json", NULL, "print JSON", NULL},
    {0},
};

static const struct cli_option restore_options[] = {
    {"--name", "NAME", "what the machine is called (default: as before)", "name"},
    {"--mode", "lazy|prefetch|eager", "whether RAM is read as it is touched, or before", NULL},
    {"--record", "[SECONDS]", "note in FILE what the guest touches first (default: 5)", NULL},
    {"--clock", "advance|freeze", "whether the time between has passed for the guest", NULL},
    {"--console", "stdio|pty|file:PATH|none", "where the serial port leads", "console.serial"},
    {"--hvc0", "stdio|pty|file:PATH", "where hvc0 leads", "console.virtio"},
    {"--set", "KEY=VALUE", "other names: disks[0].path, nets[0].ifname, vsock.socket", NULL},
    {"--detach", NULL, "run in the background; returns when the machine runs", NULL},
    {"--paused", NULL, "do not start the CPUs before 'vmrun resume'", NULL},
    {"--verbose", NULL, "say more on stderr", NULL},
    {0},
};

static const struct cli_option migrate_options[] = {
    {"--check", NULL, "do all but move, and say what a move would be like", NULL},
    {"--channels", "N", "connections (default: as many as pay)", NULL},
    {"--compress", NULL, "RAM by zstd: pays on a network of less than some 300 MB/s", NULL},
    {"--bandwidth", "SIZE", "bytes a second at most: 100M", NULL},
    {"--max-downtime", "MS", "the guest is not to stand still for longer (default: 300)", NULL},
    {"--timeout", "SECONDS", "for the rounds to come to that (default: 600)", NULL},
    {"--on-timeout", "cancel|force", "then: the machine stays (default), or stands still longer",
     NULL},
    {"--insecure", NULL, "without TLS, also where others may listen", NULL},
    {"--tls-cert", "FILE", "a certificate, in PEM", NULL},
    {"--tls-key", "FILE", "its key", NULL},
    {"--tls-ca", "FILE", "who signed the other side's certificate", NULL},
    {"--tls-psk", "FILE", "instead: a key that both sides have, IDENTITY:HEX", NULL},
    {"--report", "FILE", "write what happened, as JSON", NULL},
    {"--json", NULL, "print JSON", NULL},
    {0},
};

static const struct cli_option receive_options[] = {
    {"--name", "NAME", "what the machine is called (default: as before)", "name"},
    {"--console", "stdio|pty|file:PATH|none", "where the serial port leads", "console.serial"},
    {"--hvc0", "stdio|pty|file:PATH", "where hvc0 leads", "console.virtio"},
    {"--set", "KEY=VALUE", "other names: disks[0].path, nets[0].ifname, vsock.socket", NULL},
    {"--insecure", NULL, "without TLS, also where others may listen", NULL},
    {"--tls-cert", "FILE", "a certificate, in PEM", NULL},
    {"--tls-key", "FILE", "its key", NULL},
    {"--tls-ca", "FILE", "who signed the other side's certificate", NULL},
    {"--tls-psk", "FILE", "instead: a key that both sides have, IDENTITY:HEX", NULL},
    {"--paused", NULL, "do not start the CPUs before 'vmrun resume'", NULL},
    {"--detach", NULL, "run in the background; returns when the machine runs", NULL},
    {"--verbose", NULL, "say more on stderr", NULL},
    {0},
};

static const struct cli_option help_options[] = {
    {"--completion", "bash", "print the completion script of a shell", NULL},
    {0},
};

static const char *const config_words[] = {"check", "schema", "show", NULL};
static const char *const snapshot_words[] = {"diff",   "flatten", "info", "pack",
                                             "unpack", "verify",  NULL};

const struct cli_verb cli_verbs[] = {
    {"run", "[CONFIG.json]", "run a machine, described by a file, by options, or both",
     "Options override the file. In the foreground the terminal is the machine's\n"
     "serial console: Ctrl-A x ends the machine, Ctrl-A h helps.\n\n"
     "Exit status: 0 the guest powered off; 1 an error, told in one line; 2 the\n"
     "command line is wrong; 3 the guest crashed; 128+N ended by signal N; or what\n"
     "a guest wrote to the debug-exit port.",
     run_options, 0, 1, NULL, CLI_FILES, cli_run},
    {"list", "", "list the machines that run", NULL, json_options, 0, 0, NULL, CLI_NOTHING,
     cli_list},
    {"status", "NAME", "say everything about one machine", NULL, json_options, 1, 1, NULL,
     CLI_MACHINES, cli_status},
    {"pause", "NAME", "stop its CPUs", NULL, NULL, 1, 1, NULL, CLI_MACHINES, cli_pause},
    {"resume", "NAME", "let its CPUs run on", NULL, resume_options, 1, 1, NULL, CLI_MACHINES,
     cli_resume},
    {"reset", "NAME", "press its reset button", NULL, NULL, 1, 1, NULL, CLI_MACHINES, cli_reset},
    {"refresh", "NAME", "tell the guest of disk images that have grown", NULL, NULL, 1, 1, NULL,
     CLI_MACHINES, cli_refresh},
    {"set", "NAME KEY=VALUE...", "change it while it runs: balloon=256M, disks[0].iops=500",
     "balloon=SIZE: how much memory the guest is to give up (not what it is to keep); 0: none.\n"
     "It does so as far as it can. disks[N].iops, bandwidth, nets[N].rx_bandwidth, tx_bandwidth\n"
     "and the like, limits.cpu, limits.memory: as in the configuration; 0: no limit. Several are\n"
     "all set, or none of them.",
     NULL, 2, CLI_SET_MAX + 1, NULL, CLI_MACHINES, cli_set},
    {"stop", "NAME", "press its power button, and wait until it is gone",
     "The guest shuts down by itself. Ctrl-C ends the waiting, not the machine.", stop_options, 1,
     1, NULL, CLI_MACHINES, cli_stop},
    {"kill", "NAME", "end it at once", NULL, NULL, 1, 1, NULL, CLI_MACHINES, cli_kill},
    {"console", "NAME", "attach to its serial console, with what it printed before",
     "On a terminal, Ctrl-] detaches. Otherwise standard input is sent to the guest,\n"
     "and its output is copied until the machine ends, also after the end of input.",
     console_options, 1, 1, NULL, CLI_MACHINES, cli_console},
    {"stats", "NAME", "print its counters: exits by reason, disks, network cards, queues", NULL,
     stats_options, 1, 1, NULL, CLI_MACHINES, cli_stats},
    {"save", "NAME FILE", "write the machine into a file, while it runs",
     "The guest stands still for some milliseconds at the end. Ctrl-C gives the file up,\n"
     "and the machine runs on. The file holds all that the guest has in its RAM.",
     save_options, 2, 2, NULL, CLI_MACHINES, cli_save},
    {"restore", "FILE", "have a saved machine go on",
     "The file stays as it is, and may be restored any number of times, also at once with\n"
     "--name. It must not change while a machine runs from it (unless --mode eager).\n\n"
     "lazy: the guest runs at once, and RAM is verified meanwhile. prefetch: likewise, but\n"
     "first of all is read what --record noted. eager: RAM is verified before it runs.\n\n"
     "Exit status: as of 'vmrun run'.",
     restore_options, 1, 1, NULL, CLI_FILES, cli_restore},
    {"migrate", "NAME tcp://HOST:PORT", "move it to another host, while it runs",
     "There a 'vmrun receive' waits for it, and both hosts reach its disks. The guest\n"
     "stands still for some milliseconds at the end. Until the other host says that it has\n"
     "all, Ctrl-C and every failure leave the machine running here.",
     migrate_options, 2, 2, NULL, CLI_MACHINES, cli_migrate},
    {"receive", "tcp://ADDRESS:PORT", "wait for a machine that is moved here, and run it",
     "Needs no configuration: that comes with the machine. Port 0: one that is free.\n\n"
     "Exit status: as of 'vmrun run'.",
     receive_options, 1, 1, NULL, CLI_NOTHING, cli_receive},
    {"snapshot", "info|verify FILE | diff FILE FILE | flatten|pack|unpack FILE NEWFILE",
     "show a saved machine, verify it, compare two, or make another file of it",
     "Needs no KVM, and nothing of the machine but the file, with the files that it\n"
     "builds on (save --base); flatten makes one file of them all. What pack makes is\n"
     "an archive, compressed by zstd; to be restored it must be unpacked.\n\n"
     "Exit status: verify: 0 the file is whole; 1 it is not, or there was an error.",
     snapshot_options, 1, 3, snapshot_words, CLI_FILES, cli_snapshot},
    {"doctor", "", "say what this host's KVM can do, and what mends what it cannot",
     "Exit status: 0 machines run here at native speed; 1 they do not.", json_options, 0, 0, NULL,
     CLI_NOTHING, cli_doctor},
    {"config", "check FILE | show FILE | schema",
     "check a configuration, show it with defaults, or print its JSON Schema", NULL, NULL, 1, 2,
     config_words, CLI_FILES, cli_config},
    {"version", "", "print the version", NULL, json_options, 0, 0, NULL, CLI_NOTHING, cli_version},
    {"help", "[VERB]", "explain a verb, or list them", NULL, help_options, 0, 1, NULL, CLI_VERBS,
     cli_help},
    {0},
};

const struct cli_verb *cli_find_verb(const char *name)
{
    for (const struct cli_verb *v = cli_verbs; v->name; v++)
        if (strcmp(v->name, name) == 0)
            return v;
    return NULL;
}

int cli_wrong(const struct cli_args *args, struct error *err, const char *fmt, ...)
{
    char words[384];
    va_list list;

    va_start(list, fmt);
    vsnprintf(words, sizeof(words), fmt, list);
    va_end(list);
    error_set(err, EINVAL, "%s: %s (see 'vmrun help %s')", args->verb->name, words,
              args->verb->name);
    return CLI_WRONG_LINE;
}

static int wrong_verb(const char *name, struct error *err)
{
    const char *names[64] = {0};
    size_t count = 0;

    for (const struct cli_verb *v = cli_verbs; v->name && count < 63; v++)
        names[count++] = v->name;
    const char *near = text_nearest(name, names);
    if (near)
        error_set(err, EINVAL, "unknown verb '%.64s', did you mean '%s'? (see 'vmrun help')", name,
                  near);
    else
        error_set(err, EINVAL, "unknown verb '%.64s' (see 'vmrun help')", name);
    return CLI_WRONG_LINE;
}

static int wrong_option(const struct cli_args *args, const char *text, size_t len,
                        struct error *err)
{
    const char *names[64] = {0};
    char name[64];
    size_t count = 0;

    snprintf(name, sizeof(name), "%.*s", len < sizeof(name) ? (int)len : (int)sizeof(name) - 1,
             text);
    for (const struct cli_option *o = args->verb->options; o && o->name && count < 62; o++)
        names[count++] = o->name;
    names[count] = "--help";
    const char *near = text_nearest(name, names);
    if (near)
        return cli_wrong(args, err, "unknown option '%s', did you mean '%s'?", name, near);
    return cli_wrong(args, err, "unknown option '%s'", name);
}

bool cli_is_optional(const struct cli_option *option)
{
    return option->argument && option->argument[0] == '[';
}

static const struct cli_option *find_option(const struct cli_verb *verb, const char *name,
                                            size_t len)
{
    for (const struct cli_option *o = verb->options; o && o->name; o++)
        if (strlen(o->name) == len && memcmp(o->name, name, len) == 0)
            return o;
    return NULL;
}

/* argv[*at] is an option; *at moves on when its value is the next word. */
static int parse_option(struct cli_args *args, int argc, char *const argv[], int *at,
                        struct error *err)
{
    const char *word = argv[*at], *value = NULL;
    size_t len = strcspn(word, "=");

    if (strcmp(word, "-h") == 0 || strcmp(word, "--help") == 0) {
        args->help = true;
        return CLI_OK;
    }
    const struct cli_option *option = find_option(args->verb, word, len);
    if (!option)
        return wrong_option(args, word, len, err);
    if (!option->argument && word[len])
        return cli_wrong(args, err, "%s takes no value", option->name);
    if (option->argument && word[len])
        value = word + len + 1;
    else if (option->argument && !cli_is_optional(option) && *at + 1 < argc)
        value = argv[++*at];
    else if (option->argument && !cli_is_optional(option))
        return cli_wrong(args, err, "%s needs a value: %s %s", option->name, option->name,
                         option->argument);
    args->values[args->value_count++] = (struct cli_value){.option = option, .text = value};
    return CLI_OK;
}

static int check_operands(const struct cli_args *args, struct error *err)
{
    const struct cli_verb *verb = args->verb;

    if (args->operand_count < verb->min)
        return cli_wrong(args, err, "%s is missing", verb->operands);
    if (args->operand_count > verb->max)
        return cli_wrong(args, err, "one argument too many: '%.64s'", args->operands[verb->max]);
    if (!verb->words || !args->operand_count)
        return CLI_OK;
    for (const char *const *w = verb->words; *w; w++)
        if (strcmp(*w, args->operands[0]) == 0)
            return CLI_OK;
    const char *near = text_nearest(args->operands[0], verb->words);
    if (near)
        return cli_wrong(args, err, "unknown action '%.64s', did you mean '%s'?", args->operands[0],
                         near);
    return cli_wrong(args, err, "unknown action '%.64s'", args->operands[0]);
}

static int parse_words(struct cli_args *args, int argc, char *const argv[], struct error *err)
{
    bool options = true;

    for (int i = 2; i < argc; i++) {
        if (options && strcmp(argv[i], "--") == 0) {
            options = false;
        } else if (options && argv[i][0] == '-' && argv[i][1]) {
            int status = parse_option(args, argc, argv, &i, err);
            if (status != CLI_OK)
                return status;
        } else {
            args->operands[args->operand_count++] = argv[i];
        }
    }
    return args->help ? CLI_OK : check_operands(args, err);
}

int cli_parse(int argc, char *const argv[], struct cli_args *ret_args, struct error *err)
{
    const char *name = argc > 1 ? argv[1] : "";
    struct cli_args args = {0};

    if (!*name) {
        error_set(err, EINVAL, "a verb is missing (see 'vmrun help')");
        return CLI_WRONG_LINE;
    }
    if (strcmp(name, "-h") == 0 || strcmp(name, "--help") == 0)
        name = "help";
    if (strcmp(name, "--version") == 0)
        name = "version";
    args.verb = cli_find_verb(name);
    if (!args.verb)
        return wrong_verb(name, err);

    args.values = calloc((size_t)argc, sizeof(*args.values));
    args.operands = calloc((size_t)argc, sizeof(*args.operands));
    if (!args.values || !args.operands) {
        error_set(err, ENOMEM, "command line: out of memory");
        cli_args_fini(&args);
        return CLI_FAILED;
    }
    int status = parse_words(&args, argc, argv, err);
    if (status != CLI_OK) {
        cli_args_fini(&args);
        return status;
    }
    *ret_args = args;
    return CLI_OK;
}

void cli_args_fini(struct cli_args *args)
{
    free(args->values);
    free(args->operands);
    *args = (struct cli_args){0};
}

bool cli_has(const struct cli_args *args, const char *option)
{
    for (size_t i = 0; i < args->value_count; i++)
        if (strcmp(args->values[i].option->name, option) == 0)
            return true;
    return false;
}

const char *cli_get(const struct cli_args *args, const char *option)
{
    const char *text = NULL;

    for (size_t i = 0; i < args->value_count; i++)
        if (strcmp(args->values[i].option->name, option) == 0)
            text = args->values[i].text;
    return text;
}

int cli_get_seconds(const struct cli_args *args, const char *option, unsigned max,
                    unsigned fallback, unsigned *ret_seconds, struct error *err)
{
    const char *text = cli_get(args, option);
    uint64_t seconds = fallback;

    if (text && (text_parse_uint(text, max, &seconds) < 0 || seconds == 0))
        return cli_wrong(args, err, "%s: \"%.40s\" is not a number of seconds from 1 to %u", option,
                         text, max);
    *ret_seconds = (unsigned)seconds;
    return CLI_OK;
}

int cli_execute(int argc, char *const argv[], struct error *err)
{
    struct cli_args args = {0};
    int status = cli_parse(argc, argv, &args, err);

    if (status != CLI_OK)
        return status;
    assert(args.verb);
    if (args.help && args.verb->run != cli_help)
        cli_print_verb(args.verb, stdout);
    else
        status = args.verb->run(&args, err);
    cli_args_fini(&args);
    return status;
}
