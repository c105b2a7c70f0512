/* SPDX-License-Identifier: Apache-2.0 */
#include "config_text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "folder.h"

void config_text_load(struct vm_config *config, const char *path, const char *text)
{
    struct error err = {.msg = ""};

    folder_write(path, text, strlen(text));
    config_init(config);
    config_load(config, path, &err);
    assert_string_equal(err.msg, "");
}

char *config_text_print(const struct vm_config *config)
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);
    struct error err = {.msg = ""};

    assert_non_null(out);
    config_print(config, out, &err);
    assert_string_equal(err.msg, "");
    fclose(out);
    return text;
}
