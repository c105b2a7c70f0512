/* SPDX-License-Identifier: Apache-2.0 */
/* vhost: what is said where a host has none of it, or keeps it from us. tests/system has the rest.
 */
#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmrun/vhost.h"

static char page[4096];
static uint64_t marks[512];

static void assert_refused(int code, const char *words)
{
    const struct vhost_region region = {.bytes = sizeof(page), .host = page};
    struct vhost *vhost = (struct vhost *)page, *untouched = vhost;
    struct error err = {0};

    assert_int_equal(vhost_open(&region, 1, marks, &vhost, &err), -code);
    assert_ptr_equal(vhost, untouched);
    assert_non_null(strstr(err.msg, words));
    assert_int_equal(vhost_check(&err), -code);
    assert_non_null(strstr(err.msg, words));
}

static void a_host_without_vhost_is_told_of(void **state)
{
    (void)state;
    if (access("/dev/vhost-net", F_OK) == 0)
        skip();
    assert_refused(ENODEV, "as root: modprobe vhost_net");
}

/* With a /dev of its own, in which there is something of that name. */
static void what_is_no_vhost_is_refused(void **state)
{
    (void)state;
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("dev", "/dev", "tmpfs", 0, NULL) < 0)
        skip();
    assert_int_equal(close(creat("/dev/vhost-net", 0600)), 0);
    const struct vhost_region region = {.bytes = sizeof(page), .host = page};
    struct vhost *vhost = NULL;
    struct error err = {0};

    assert_int_equal(vhost_open(&region, 1, marks, &vhost, &err), -ENOTTY);
    assert_non_null(strstr(err.msg, "VHOST_SET_OWNER"));
    if (seteuid(65534) < 0)
        skip();
    assert_refused(EPERM, "as root: chgrp kvm /dev/vhost-net");
    assert_int_equal(seteuid(0), 0);
}

static void closing_nothing_is_fine(void **state)
{
    (void)state;
    vhost_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_host_without_vhost_is_told_of),
        cmocka_unit_test(what_is_no_vhost_is_refused),
        cmocka_unit_test(closing_nothing_is_fine),
    };

    return cmocka_run_group_tests_name("vhost", tests, NULL, NULL);
}
