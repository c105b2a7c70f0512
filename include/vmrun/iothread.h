/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_IOTHREAD_H
#define VMRUN_IOTHREAD_H

#include "vmrun/loop.h"

/*
 * A thread that runs an event loop: one per disk (and per NIC), so that a slow
 * one holds up nobody else. All signals are blocked in it.
 */
struct iothread;

/* name: at most 15 characters, for ps and perf ("disk root"). Errors: -ENOMEM, -EAGAIN, -EMFILE. */
int iothread_create(const char *name, struct iothread **ret_thread, struct error *err);
/* Stops the loop, joins the thread. Its watches and timers must be gone. NULL is fine. */
void iothread_destroy(struct iothread *thread);
struct loop *iothread_loop(struct iothread *thread);

/*
 * Run fn(opaque) on the loop and wait until it has returned. Cannot fail. Any
 * thread but this one, and with no lock held that a callback of the loop takes.
 */
void iothread_call(struct iothread *thread, loop_fn *fn, void *opaque);

#endif
