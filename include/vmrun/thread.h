/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_THREAD_H
#define VMRUN_THREAD_H

#include <pthread.h>
#include <stddef.h>

#include "vmrun/error.h"

/*
 * Start a thread that fn(opaque) is the work of; whoever starts it joins it. Signals to the process
 * are the main thread's: this one is born with all blocked but SIGBUS, which is raised in the
 * thread that touches guest memory when the file behind it fails, and would end the process
 * if it were blocked. name: at most 15 characters, for ps and perf. stack_bytes: 0 for the
 * system's own. Errors: -EAGAIN, the name in words.
 */
int thread_start(pthread_t *ret_thread, const char *name, size_t stack_bytes, void *(*fn)(void *),
                 void *opaque, struct error *err);

#endif
