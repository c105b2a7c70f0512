/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_MACHINE_H
#define VMRUN_MACHINE_H

/*
 * A whole virtual machine: RAM, vCPUs, board and devices, and its life:
 *
 *              start            pause
 *   CREATED ----------> RUNNING -------> PAUSED
 *                       |  ^ |  <-------
 *             reset, in |  | |   resume
 *             place     +--+ | guest powers off, exits, crashes; kill
 *                            v
 *                          ENDED
 *
 * Everything here runs on the machine thread, the one that runs the loop.
 */

#include <stdbool.h>
#include <stdint.h>

#include "vmrun/config.h"
#include "vmrun/console.h"
#include "vmrun/error.h"
#include "vmrun/loop.h"

struct machine;

enum machine_state { MACHINE_CREATED, MACHINE_RUNNING, MACHINE_PAUSED, MACHINE_ENDED };
const char *machine_state_name(enum machine_state state); /* "running" … */

enum machine_end {
    MACHINE_END_NONE,
    MACHINE_END_POWEROFF, /* the guest powered off: exit status 0 */
    MACHINE_END_EXIT,     /* debug-exit: its status */
    MACHINE_END_CRASH,    /* triple fault with no reset wanted, unexpected exit: 3 */
    MACHINE_END_KILLED,   /* by the operator: 0 */
};

enum machine_event {
    MACHINE_EVENT_STATE,
    MACHINE_EVENT_RESET,
    MACHINE_EVENT_CRASH,
    MACHINE_EVENT_IO_ERROR,
};

/* An error of the host's that a disk met; the guest was told. One in five seconds for each disk. */
struct machine_io_error {
    const char *device; /* as its counters begin: "disk.root" */
    const char *op;     /* "read", "write", "flush", "discard", "write_zeroes" */
    uint64_t offset, bytes;
    int code;          /* errno */
    unsigned left_out; /* such errors before this one that were not told */
};

struct machine_news {
    enum machine_event event;
    const char *detail;                      /* words for a person, or "" */
    const struct machine_io_error *io_error; /* with MACHINE_EVENT_IO_ERROR, else NULL */
};

/* Told of each change, on the machine thread. */
typedef void machine_listener(void *opaque, const struct machine_news *news);

/*
 * Build the machine and load the kernel; nothing runs yet. config must outlive
 * the machine. Errors: what memory, boot, console and KVM say, with context.
 */
int machine_create(const struct vm_config *config, struct loop *loop, struct machine **ret_machine,
                   struct error *err);
void machine_destroy(struct machine *machine); /* NULL is fine */

void machine_set_listener(struct machine *machine, machine_listener *listener, void *opaque);

/* Errors of these: -EBUSY, wrong state for it, in words. */
int machine_start(struct machine *machine, struct error *err);
int machine_pause(struct machine *machine, struct error *err);  /* already paused: 0 */
int machine_resume(struct machine *machine, struct error *err); /* already running: 0 */
int machine_reset(struct machine *machine, struct error *err);  /* stays paused when it was */
int machine_press_power_button(struct machine *machine, struct error *err);
void machine_kill(struct machine *machine);

/* Look whether disks' images have grown, and tell the guest. */
void machine_refresh_disks(struct machine *machine);
/*
 * Pull the cable of a network card, or put it in again. It stays so over resets. Errors: -ENODEV,
 * no card has this id, in words.
 */
int machine_set_link(struct machine *machine, const char *id, bool up, struct error *err);

enum machine_state machine_state(const struct machine *machine);
/* After MACHINE_ENDED: why, and the exit status of vmrun. */
enum machine_end machine_end(const struct machine *machine, int *ret_status);

struct machine_info {
    uint64_t uptime_ns;         /* since machine_start(), pauses included */
    uint64_t resets;            /* in place, whoever asked */
    uint64_t memory_host_bytes; /* guest RAM that occupies the host's */
    const char *kernel;         /* boot_describe() */
    const char *console;        /* console_describe() */
    const char *virtio_console; /* likewise of hvc0; NULL: there is none */
};
void machine_info(const struct machine *machine, struct machine_info *ret_info);
const struct vm_config *machine_config(const struct machine *machine);
struct console *machine_console(struct machine *machine);
/* The terminal that hvc0 leads to has this size now. Without hvc0 nothing happens. */
void machine_resize_virtio_console(struct machine *machine, uint16_t columns, uint16_t rows);

/*
 * Counters by name ("exits.pio", "disk.root.q0.requests"), for `vmrun stats`: called for each. No
 * disk or network card is held up, however busy.
 */
typedef void machine_stat_fn(void *opaque, const char *name, uint64_t value);
void machine_stats(const struct machine *machine, machine_stat_fn *fn, void *opaque);

#endif
