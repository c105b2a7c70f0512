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
#include "vmrun/machine.h"

#ifdef __aarch64__
#define ARCHITECTURE SNAPFILE_AARCH64
#else
#define ARCHITECTURE SNAPFILE_X86_64
#endif

/* Options */

static int parse_choice(const struct cli_args *args, const char *option, const char *first,
                        const char *second, bool *ret_second, struct error *err)
{
    const char *text = cli_get(args, option);

    if (text && strcmp(text, first) != 0 && strcmp(text, second) != 0)
        return cli_wrong(args, err, "%s: \"%.40s\" is neither %s nor %s", option, text, first,
                         second);
    *ret_second = text && strcmp(text, second) == 0;
    return CLI_OK;
}

static int parse_options(struct run *run, const struct cli_args *args, struct error *err)
{
    bool eager = false;
    int status = parse_choice(args, "--mode", "lazy", "eager", &eager, err);

    if (status == CLI_OK)
        status =
            parse_choice(args, "--clock", "advance", "freeze", &run->restore_params.freeze, err);
    if (status == CLI_OK)
        run->restore_params.mode = eager ? RESTORE_EAGER : RESTORE_LAZY;
    return status;
}

static int restore_file(struct run *run, const struct cli_args *args, struct error *err)
{
    struct incoming_reasons reasons = {.what = args->operands[0], .done = "restored"};
    size_t len, cpuid_len;
    const char *description = snapfile_section(run->file, "machine", &len);
    const void *cpuid = snapfile_section(run->file, "cpuid", &cpuid_len);
    struct error why;
    int status;

    if (!description) {
        error_set(err, EPROTO, "%s: section 'machine': missing", args->operands[0]);
        return CLI_FAILED;
    }
    status = incoming_configure(run, args, args->operands[0], description, len, err);
    if (status != CLI_OK)
        return status;
    if (snapfile_architecture(run->file) != ARCHITECTURE) {
        /* Nothing else of it means anything here. */
        incoming_reason(&reasons, "it is a machine of another architecture");
    } else {
        incoming_check(run, cpuid, cpuid_len, &reasons);
        if (machine_check_disks("disks", description, len, &run->config, &why) < 0)
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
