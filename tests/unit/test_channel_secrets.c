/* SPDX-License-Identifier: Apache-2.0 */
/* The files that TLS proves itself with: which are taken, and what is said of the others. */
#include <dlfcn.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "channel_pair.h"
#include "channel_secrets.h"
#include "folder.h"

static struct channel_pair pair;

static int pair_teardown(void **state)
{
    (void)state;
    channel_pair_close(&pair);
    return 0;
}

static void refused(const struct channel_security *security, int code, const char *words)
{
    struct channel_listener *listener = NULL;
    struct channel *channel = NULL;
    struct error err = {.msg = ""};

    assert_int_equal(channel_listen(security, "tcp://127.0.0.1:0", &listener, &err), -code);
    assert_non_null(strstr(err.msg, words));
    assert_int_equal(channel_connect(security, "tcp://127.0.0.1:1", 100, &channel, &err), -code);
}

static void a_key_file_that_makes_no_sense_is_refused(void **state)
{
    static const char *const wrong[][2] = {
        {"", "no key"},
        {"\n", "no key"},
        {KEY, "no key"},
        {":" KEY, "no key"},
        {"vm run:" KEY, "a character"},
        {"vmrun:", "128 to 512 bits"},
        {"vmrun:00112233445566778899aabbccddee", "128 to 512 bits"},
        {"vmrun:" KEY "0", "pairs of hexadecimal digits"},
        {"vmrun:" KEY "xy", "pairs of hexadecimal digits"},
        {"vmrun: " KEY, "pairs of hexadecimal digits"},
        {"vmrun:" KEY "\r\n", "pairs of hexadecimal digits"},
        {"vmrun:" KEY "\n\n", "pairs of hexadecimal digits"},
        {"vmrun:" KEY "\nother:" KEY "\n", "pairs of hexadecimal digits"},
        {"vmrun:" KEY KEY KEY KEY "00", "128 to 512 bits"},
    };
    const struct channel_security s = {.psk = "wrong"};
    char longest[300];

    (void)state;
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        secret_write("wrong", wrong[i][0]);
        refused(&s, EINVAL, wrong[i][1]);
        refused(&s, EINVAL, "wrong: ");
        refused(&s, EINVAL, "openssl rand");
    }
    snprintf(longest, sizeof(longest), "%0128d:%s", 0, KEY);
    secret_write("wrong", longest);
    refused(&s, EINVAL, "its identity is too long");
    folder_write("wrong", "vmrun:" KEY "\0" KEY, 71);
    refused(&s, EINVAL, "no key");
    secret_write("wrong", "vmrun:" KEY); /* without a newline it is right */
    channel_pair_open(&pair, &s, &secrets_psk);
}

static void a_secret_that_others_can_read_is_refused(void **state)
{
    const struct channel_security s = {.psk = "shown"};
    struct channel_security shown_key = secrets_host;

    (void)state;
    secret_write("shown", "vmrun:" KEY);
    for (mode_t bit = 1; bit <= 0100; bit <<= 1)
        if (bit & 0027) {
            assert_int_equal(chmod("shown", 0600 | bit), 0);
            refused(&s, EPERM, "chmod 600");
        }
    assert_int_equal(chmod("shown", 0640), 0); /* a group on purpose */
    channel_pair_open(&pair, &s, &s);
    folder_write("key-of-everybody", "", 0);
    assert_int_equal(chmod("key-of-everybody", 0644), 0);
    shown_key.key = "key-of-everybody";
    refused(&shown_key, EPERM, "key-of-everybody: its mode 0644");
}

static void files_that_are_not_there_or_no_such_files_are_refused(void **state)
{
    struct channel_security s = {.psk = "nowhere"};

    (void)state;
    refused(&s, ENOENT, "nowhere");
    s.psk = ".";
    assert_int_equal(chmod(".", 0700), 0);
    refused(&s, EISDIR, ".: ");
    s = secrets_host;
    s.ca = "nowhere";
    refused(&s, ENOENT, "nowhere");
    s.ca = "psk";
    refused(&s, EINVAL, "psk: ");
    s = secrets_host;
    s.cert = "psk";
    refused(&s, EINVAL, "psk with key.pem");
    s = secrets_host;
    s.cert = SECRETS_DATA "ca.pem"; /* of another key */
    refused(&s, EINVAL, "key.pem");
    s = secrets_host;
    s.key = "/dev/zero";
    refused(&s, EPERM, "/dev/zero");
    s = secrets_host;
    s.ca = "/dev/zero";
    refused(&s, EFBIG, "over 1 MiB");
}

static void options_that_contradict_each_other_are_refused(void **state)
{
    struct channel_security s = secrets_host;

    (void)state;
    s.psk = "psk";
    refused(&s, EINVAL, "give one");
    s = secrets_host;
    s.insecure = true;
    refused(&s, EINVAL, "--insecure");
    s = secrets_host;
    s.ca = NULL;
    refused(&s, EINVAL, "--tls-ca is missing");
    s = secrets_host;
    s.key = NULL;
    refused(&s, EINVAL, "--tls-key is missing");
    s = (struct channel_security){.ca = SECRETS_DATA "ca.pem"};
    refused(&s, EINVAL, "--tls-cert is missing");
}

int main(void)
{
#define WITH_PAIR(test) cmocka_unit_test_teardown(test, pair_teardown)
    const struct CMUnitTest tests[] = {
        WITH_PAIR(a_key_file_that_makes_no_sense_is_refused),
        WITH_PAIR(a_secret_that_others_can_read_is_refused),
        WITH_PAIR(files_that_are_not_there_or_no_such_files_are_refused),
        WITH_PAIR(options_that_contradict_each_other_are_refused),
    };

    if (!dlopen("libgnutls.so.30", RTLD_NOW)) {
        puts("skipped: libgnutls.so.30 is not installed");
        return 0;
    }
    return cmocka_run_group_tests(tests, secrets_enter, folder_leave);
}
