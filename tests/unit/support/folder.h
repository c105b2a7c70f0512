/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_TEST_FOLDER_H
#define VMRUN_TEST_FOLDER_H

/* A fresh working folder for a group of tests, and files in it. */

#include <stddef.h>

/* Group fixtures of cmocka: create a folder below /tmp and work there; remove it with all it holds.
 */
int folder_enter(void **state);
int folder_leave(void **state);

/* Write a file of len bytes; the test fails when it cannot be written. */
void folder_write(const char *path, const void *data, size_t len);

/* How many files are in the working folder; "." and ".." do not count. */
unsigned folder_count(void);

#endif
