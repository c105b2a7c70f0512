/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmrun restore: a machine out of a file (incoming.c), then one like any other (run.c).
 *
 * Nothing runs, and nothing is taken away from anybody, before all reasons against it are told.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "incoming.h"
#include "vmrun/log.h"
#include "vmrun/machine.h"
#include "vmrun/working_set.h"

#ifdef __aarch64__
#define ARCHITECTURE SNAPFILE_AARCH64
#else
#define ARCHITECTURE SNAPFILE_X86_64
#endif

/* Options */

#define RECORD_SECONDS 5
#define RECORD_MAX_SECONDS 3600

static int parse_clock(const struct cli_args *args, struct restore_params *params,
                       struct error *err)
{
    const char *text = cli_get(args, "--clock");

    params->freeze = text && strcmp(text, "freeze") == 0;
    return !text || params->freeze || strcmp(text, "advance") == 0
               ? CLI_OK
               : cli_wrong(args, err, "--clock: \"%.40s\" is neither advance nor freeze", text);
}

static int parse_mode(const struct cli_args *args, struct restore_params *params, struct error *err)
{
    static const char *const names[] = {
        [RESTORE_LAZY] = "lazy", [RESTORE_PREFETCH] = "prefetch", [RESTORE_EAGER] = "eager"};
    const char *text = cli_get(args, "--mode");

    params->mode = RESTORE_LAZY;
    for (unsigned i = 0; text && i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(text, names[i]) == 0) {
            params->mode = (enum restore_mode)i;
            return CLI_OK;
        }
    }
    return text
               ? cli_wrong(args, err, "--mode: \"%.40s\" is not one of lazy, prefetch, eager", text)
               : CLI_OK;
}

static int parse_record(const struct cli_args *args, struct restore_params *params,
                        struct error *err)
{
    int status;

    if (!cli_has(args, "--record"))
        return CLI_OK;
    status = cli_get_seconds(args, "--record", RECORD_MAX_SECONDS, RECORD_SECONDS,
                             &params->record_seconds, err);
    if (status != CLI_OK)
        return status;
    if (params->mode != RESTORE_LAZY)
        return cli_wrong(args, err,
                         "--record wants --mode lazy: with another the guest does not touch "
                         "pages first");
    if (cli_has(args, "--paused"))
        return cli_wrong(args, err,
                         "--record and --paused exclude each other: a guest that stands still "
                         "touches nothing");
    params->record_path = args->operands[0];
    if (!cli_has(args, "--verbose"))
        log_set_level(LOG_LEVEL_INFO); /* how it went is to be told */
    return CLI_OK;
}

static int parse_options(struct run *run, const struct cli_args *args, struct error *err)
{
    int status = parse_mode(args, &run->restore_params, err);

    if (status == CLI_OK)
        status = parse_clock(args, &run->restore_params, err);
    return status == CLI_OK ? parse_record(args, &run->restore_params, err) : status;
}

static int restore_file(struct run *run, const struct cli_args *args, struct error *err)
{
    struct incoming_reasons reasons = {.what = args->operands[0], .done = "restored"};
    struct incoming in;
    struct working_set set;
    struct error why;
    int status;

    in.description = snapfile_section(run->file, "machine", &in.description_len);
    in.cpuid = snapfile_section(run->file, "cpuid", &in.cpuid_len);
    if (!in.description) {
        error_set(err, EPROTO, "%s: section 'machine': missing", args->operands[0]);
        return CLI_FAILED;
    }
    status = incoming_configure(run, args, args->operands[0], &in, err);
    if (status != CLI_OK)
        return status;
    if (snapfile_architecture(run->file) != ARCHITECTURE) {
        /* Nothing else of it means anything here. */
        incoming_reason(&reasons, "it is a machine of another architecture");
    } else {
        if (run->restore_params.mode == RESTORE_PREFETCH &&
            working_set_find(run->file, &set, &why) < 0)
            incoming_reason(&reasons, "%s", why.msg);
        incoming_check(run, &in, &reasons);
        if (machine_check_disks("disks", in.description, in.description_len, &run->config, &why) <
            0)
            incoming_reason(&reasons, "%s", why.msg);
    }
    status = incoming_tell_reasons(&reasons) ? CLI_FAILED : CLI_OK;
    return status == CLI_OK ? run_to_the_end(run, args, err) : status;
}

int cli_restore(const struct cli_args *args, struct error *err)
{
    struct snapfile *file = NULL;
    struct run run;

    run_init(&run, args);
    int status = parse_options(&run, args, err);
    if (status == CLI_OK) {
        status = snapfile_open(args->operands[0], &file, err) < 0 ? CLI_FAILED : CLI_OK;
        run.file = file;
    }
    if (status == CLI_OK)
        status = restore_file(&run, args, err);
    config_fini(&run.config);
    snapfile_close(file);
    return status;
}
