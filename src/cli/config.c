/* SPDX-License-Identifier: Apache-2.0 */
/* vmrun config: check a description, show it with its defaults, or print the schema. */
#include "vmrun/config.h"

#include <string.h>

#include "verbs.h"

static int check_or_show(const char *path, bool check, struct error *err)
{
    struct vm_config config;

    config_init(&config);
    int r = config_load(&config, path, err);
    if (r == 0 && check) {
        r = config_validate(&config, err);
        if (r < 0)
            error_prefix(err, "%s", path);
    } else if (r == 0) {
        r = config_print(&config, stdout, err);
    }
    config_fini(&config);
    return r < 0 ? CLI_FAILED : CLI_OK;
}

int cli_config(const struct cli_args *args, struct error *err)
{
    const char *action = args->operands[0];

    if (strcmp(action, "schema") == 0) {
        if (args->operand_count > 1)
            return cli_wrong(args, err, "one argument too many: '%.64s'", args->operands[1]);
        return config_print_schema(stdout, err) < 0 ? CLI_FAILED : CLI_OK;
    }
    if (args->operand_count < 2)
        return cli_wrong(args, err, "%s: FILE is missing", action);
    return check_or_show(args->operands[1], strcmp(action, "check") == 0, err);
}
