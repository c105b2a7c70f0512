/* SPDX-License-Identifier: Apache-2.0 */
#include "channel_secrets.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "folder.h"

const struct channel_security secrets_psk = {.psk = "psk"};
const struct channel_security secrets_host = {
    .cert = SECRETS_DATA "host.pem", .key = "key.pem", .ca = SECRETS_DATA "ca.pem"};

void secret_write(const char *path, const char *text)
{
    folder_write(path, text, strlen(text));
    assert_int_equal(chmod(path, 0600), 0);
}

/* The key's mode is not what a checkout keeps. */
int secrets_enter(void **state)
{
    char key[4096];
    FILE *file = fopen(SECRETS_DATA "key.pem", "r");
    size_t len;

    if (!file || folder_enter(state) < 0)
        return -1;
    len = fread(key, 1, sizeof(key) - 1, file);
    fclose(file);
    key[len] = '\0';
    secret_write("key.pem", key);
    secret_write("psk", "vmrun:" KEY "\n");
    return 0;
}
