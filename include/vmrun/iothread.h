/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_IOTHREAD_H
#define VMRUN_IOTHREAD_H

#include <stdbool.h>

#include "vmrun/loop.h"

/*
 * A thread that runs an event loop: one per disk (and per NIC), so that a slow
 * one holds up nobody else. All signals but SIGBUS are blocked in it.
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

/*
 * Whether the thread, when something wakes it, leaves the CPU it wakes on to who runs there until
 * that waits or has had its time (SCHED_BATCH), or takes it at once, as at first. On the thread
 * itself. Nothing happens where the operator gave the process another scheduling policy.
 */
void iothread_give_way(struct iothread *thread, bool give_way);

#endif
