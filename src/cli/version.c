/* SPDX-License-Identifier: Apache-2.0 */
/* vmrun version. */
#include "verbs.h"

int cli_version(const struct cli_args *args, struct error *err)
{
    (void)err;
    if (cli_has(args, "--json")) {
        cli_print_json(json_pack("{s:s}", "version", VMRUN_VERSION));
        return CLI_OK;
    }
    printf("vmrun %s\n", VMRUN_VERSION);
    return CLI_OK;
}
