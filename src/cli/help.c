/* SPDX-License-Identifier: Apache-2.0 */
/* Help and completion, printed from the table of verbs. */
#include <ctype.h>
#include <string.h>

#include "verbs.h"
#include "vmrun/text.h"

void cli_print_usage(FILE *out)
{
    fprintf(out, "Usage: vmrun VERB [OPTIONS] [ARGUMENTS]\n\nVerbs:\n");
    for (const struct cli_verb *v = cli_verbs; v->name; v++)
        fprintf(out, "  %-9s %s\n", v->name, v->summary);
    fprintf(out, "\n'vmrun help VERB' says more.\n");
}

/* "--memory SIZE", "--record[=SECONDS]" */
static void option_text(const struct cli_option *o, char *text, size_t size)
{
    if (cli_is_optional(o))
        snprintf(text, size, "%s[=%s", o->name, o->argument + 1);
    else
        snprintf(text, size, "%s%s%s", o->name, o->argument ? " " : "",
                 o->argument ? o->argument : "");
}

void cli_print_verb(const struct cli_verb *verb, FILE *out)
{
    char text[64];
    int width = 6;

    fprintf(out, "Usage: vmrun %s%s%s%s\n\n%c%s.\n", verb->name, verb->options ? " [OPTIONS]" : "",
            *verb->operands ? " " : "", verb->operands, toupper((unsigned char)verb->summary[0]),
            verb->summary + 1);
    if (verb->details)
        fprintf(out, "\n%s\n", verb->details);
    fprintf(out, "\nOptions:\n");
    for (const struct cli_option *o = verb->options; o && o->name; o++) {
        option_text(o, text, sizeof(text));
        width = (int)strlen(text) > width ? (int)strlen(text) : width;
    }
    for (const struct cli_option *o = verb->options; o && o->name; o++) {
        option_text(o, text, sizeof(text));
        fprintf(out, "  %-*s  %s\n", width, text, o->help);
    }
    fprintf(out, "  %-*s  this help\n", width, "--help");
}

/* "stdio|pty|file:PATH" → "stdio pty file:"; nothing for "SIZE". */
static void print_choices(const char *argument, FILE *out)
{
    while (*argument) {
        size_t len = strcspn(argument, "|"), fixed = 0;

        while (fixed < len && !isupper((unsigned char)argument[fixed]))
            fixed++;
        if (fixed)
            fprintf(out, " %.*s", (int)fixed, argument);
        argument += len + (argument[len] == '|');
    }
}

static void print_completion_of_values(const struct cli_verb *verb, FILE *out)
{
    for (const struct cli_option *o = verb->options; o && o->name; o++) {
        if (!o->argument || cli_is_optional(o))
            continue;
        fprintf(out, "        '%s %s') ", verb->name, o->name);
        if (strncmp(o->argument, "FILE", 4) == 0) {
            fprintf(out, "_vmrun_files; return ;;\n");
            continue;
        }
        fprintf(out, "_vmrun_words \"");
        print_choices(o->argument, out);
        fprintf(out, "\"; return ;;\n");
    }
}

static void print_completion_of_verb(const struct cli_verb *verb, FILE *out)
{
    fprintf(out, "        %s) options=\"--help", verb->name);
    for (const struct cli_option *o = verb->options; o && o->name; o++)
        fprintf(out, " %s", o->name);
    fprintf(out, "\"; operands=\"");
    for (const char *const *w = verb->words; w && *w; w++)
        fprintf(out, " %s", *w);
    fprintf(out, "\"; kind=%s ;;\n",
            verb->completes == CLI_FILES      ? "files"
            : verb->completes == CLI_MACHINES ? "machines"
            : verb->completes == CLI_VERBS    ? "verbs"
                                              : "none");
}

void cli_print_bash_completion(FILE *out)
{
    fprintf(out, "# Bash completion for vmrun, printed by 'vmrun help --completion bash'.\n"
                 "_vmrun_words() { mapfile -t COMPREPLY < <(compgen -W \"$1\" -- \"$cur\"); }\n"
                 "_vmrun_files() { compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "
                 "\"$cur\"); }\n"
                 "_vmrun() {\n"
                 "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}\n"
                 "    local verb=${COMP_WORDS[1]} options='' operands='' kind=none verbs='");
    for (const struct cli_verb *v = cli_verbs; v->name; v++)
        fprintf(out, "%s%s", v == cli_verbs ? "" : " ", v->name);
    fprintf(out, "'\n"
                 "    COMPREPLY=()\n"
                 "    if ((COMP_CWORD == 1)); then _vmrun_words \"$verbs\"; return; fi\n"
                 "    case \"$verb $prev\" in\n");
    for (const struct cli_verb *v = cli_verbs; v->name; v++)
        print_completion_of_values(v, out);
    fprintf(out, "    esac\n"
                 "    case $verb in\n");
    for (const struct cli_verb *v = cli_verbs; v->name; v++)
        print_completion_of_verb(v, out);
    fprintf(out, "    esac\n"
                 "    if [[ $cur == -* ]]; then _vmrun_words \"$options\"; return; fi\n"
                 "    if [[ $operands ]] && ((COMP_CWORD == 2)); then\n"
                 "        _vmrun_words \"$operands\"; return\n"
                 "    fi\n"
                 "    case $kind in\n"
                 "        files) _vmrun_files ;;\n"
                 "        machines) _vmrun_words \"$(vmrun list 2>/dev/null | awk 'NR > 1 { print "
                 "$1 }')\" ;;\n"
                 "        verbs) _vmrun_words \"$verbs\" ;;\n"
                 "    esac\n"
                 "}\n"
                 "complete -F _vmrun vmrun\n");
}

int cli_help(const struct cli_args *args, struct error *err)
{
    const char *shell = cli_get(args, "--completion");

    if (shell) {
        if (strcmp(shell, "bash") != 0)
            return cli_wrong(args, err, "--completion: \"%.40s\" is not one of bash", shell);
        cli_print_bash_completion(stdout);
        return CLI_OK;
    }
    if (args->operand_count == 0) {
        cli_print_usage(stdout);
        return CLI_OK;
    }
    const struct cli_verb *verb = cli_find_verb(args->operands[0]);
    if (!verb) {
        const char *names[64] = {0};
        size_t count = 0;

        for (const struct cli_verb *v = cli_verbs; v->name && count < 63; v++)
            names[count++] = v->name;
        const char *near = text_nearest(args->operands[0], names);
        return near ? cli_wrong(args, err, "unknown verb '%.64s', did you mean '%s'?",
                                args->operands[0], near)
                    : cli_wrong(args, err, "unknown verb '%.64s'", args->operands[0]);
    }
    cli_print_verb(verb, stdout);
    return CLI_OK;
}
