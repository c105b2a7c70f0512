/* SPDX-License-Identifier: Apache-2.0 */
/* vmrun set: change a machine while it runs. What there is to set, the machine knows. */
#include <errno.h>
#include <string.h>

#include "verbs.h"

static int add_pair(const struct cli_args *args, const char *text, json_t *pairs, struct error *err)
{
    size_t len = strcspn(text, "=");
    char key[80];

    if (!text[len] || len == 0)
        return cli_wrong(args, err, "\"%.40s\" is not KEY=VALUE, such as balloon=256M", text);
    if (len >= sizeof(key))
        return cli_wrong(args, err, "\"%.40s\": no such key", text);
    snprintf(key, sizeof(key), "%.*s", (int)len, text);
    if (json_object_get(pairs, key))
        return cli_wrong(args, err, "\"%s\" is there twice", key);
    if (json_object_set_new(pairs, key, json_string(text + len + 1)) < 0)
        return cli_wrong(args, err, "\"%.40s\" is not UTF-8", text);
    return CLI_OK;
}

int cli_set(const struct cli_args *args, struct error *err)
{
    json_t *pairs = json_object();
    int status = CLI_OK;

    for (size_t i = 1; status == CLI_OK && i < args->operand_count; i++)
        status = add_pair(args, args->operands[i], pairs, err);
    if (status != CLI_OK) {
        json_decref(pairs);
        return status;
    }
    return cli_call_with(args->operands[0], "vm.set", pairs, NULL, err) < 0 ? CLI_FAILED : CLI_OK;
}
