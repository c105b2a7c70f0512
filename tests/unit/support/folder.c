/* SPDX-License-Identifier: Apache-2.0 */
#include "folder.h"

#include <dirent.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

int folder_enter(void **state)
{
    char *path = strdup("/tmp/vmrun-test-XXXXXX");

    if (!path || !mkdtemp(path) || chmod(path, 0755) < 0 || chdir(path) < 0) {
        free(path);
        return -1;
    }
    *state = path;
    return 0;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

int folder_leave(void **state)
{
    char *path = *state;
    int r = chdir("/") < 0 || nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS) < 0;

    free(path);
    return r;
}

void folder_write(const char *path, const void *data, size_t len)
{
    FILE *file = fopen(path, "wb");

    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
}

unsigned folder_count(void)
{
    DIR *dir = opendir(".");
    unsigned count = 0;

    assert_non_null(dir);
    while (readdir(dir))
        count++;
    closedir(dir);
    return count - 2;
}
