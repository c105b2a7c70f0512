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
 * A machine that was to move, and of which nobody can tell where it runs now, stands still in
 * UNCERTAIN: a person has it go on (machine_resume_anyway()) or kills it; all else is refused.
 *
 * Everything here runs on the machine thread, the one that runs the loop.
 */

#include <stdbool.h>
#include <stdint.h>

#include "vmrun/block_handover.h"
#include "vmrun/bytes.h"
#include "vmrun/config.h"
#include "vmrun/console.h"
#include "vmrun/error.h"
#include "vmrun/loop.h"
#include "vmrun/memory.h"

struct machine;

enum machine_state {
    MACHINE_CREATED,
    MACHINE_RUNNING,
    MACHINE_PAUSED,
    MACHINE_UNCERTAIN,
    MACHINE_ENDED
};
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

/* Say that its state is wrong for `verb`, and what would help. Returns -EBUSY. */
int machine_refuse(const struct machine *machine, const char *verb, struct error *err);

/*
 * Errors of these: -EBUSY, wrong state for it, or it is held (machine_hold()), in words. Of pause
 * and reset: -ETIMEDOUT, a disk has requests in flight that the host does not answer; it runs on.
 */
int machine_start(struct machine *machine, struct error *err);
int machine_pause(struct machine *machine, struct error *err);  /* already paused: 0 */
int machine_resume(struct machine *machine, struct error *err); /* already running: 0 */
/*
 * The same; and of one in UNCERTAIN, whatever was written to its disks: their locks are taken
 * again. Errors besides: -EBUSY, somebody has one, named; -ENOLCK.
 */
int machine_resume_anyway(struct machine *machine, struct error *err);
int machine_reset(struct machine *machine, struct error *err); /* stays paused when it was */
int machine_press_power_button(struct machine *machine, struct error *err);
void machine_kill(struct machine *machine);
/* For a person who means it. Errors: -EBUSY, another host may have it by now: machine_leave(). */
int machine_kill_here(struct machine *machine, struct error *err);

/* Look whether disks' images have grown, and tell the guest. */
void machine_refresh_disks(struct machine *machine);
/*
 * Whether the configuration's card can be connected on this host, as far as that can be told
 * beforehand. Errors: of tap_open() and user_net_check().
 */
int machine_check_net(const struct vm_config *config, unsigned index, struct error *err);
/*
 * Pull the cable of a network card, or put it in again. It stays so over resets. Errors: -ENODEV,
 * no card has this id, in words.
 */
int machine_set_link(struct machine *machine, const char *id, bool up, struct error *err);

/*
 * Change a machine while it is there: each pair's key is a path as in its configuration, the value
 * a text as a flag has it. All of them are set, or none (unless the kernel fails to):
 *   "balloon"                      how many bytes the guest is to give up: less than it has, in 4
 * KiB "disks[0].iops" and the like   what a disk or a network card may do in a second "limits.cpu",
 * "limits.memory"  what the process may have of the host Errors: -EINVAL, no such key or a wrong
 * value, with what would be right; -ENODEV, it has no such device; -EBUSY, it has ended, stands
 * still to be saved or moved, or nobody can tell where it runs; what the cgroup's file says.
 */
struct machine_pair {
    const char *key, *value;
};
int machine_set(struct machine *machine, const struct machine_pair *pairs, size_t count,
                struct error *err);

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
    const char *uncertain;      /* of MACHINE_UNCERTAIN: why, and what to look at; or NULL */
};
void machine_info(const struct machine *machine, struct machine_info *ret_info);
const struct vm_config *machine_config(const struct machine *machine);
struct console *machine_console(struct machine *machine);
/* Of a machine with disks_elsewhere, when it is ours: its console's terminal becomes raw. */
void machine_take_terminal(struct machine *machine);
/* The terminal that hvc0 leads to has this size now. Without hvc0 nothing happens. */
void machine_resize_virtio_console(struct machine *machine, uint16_t columns, uint16_t rows);

/*
 * For the engine that saves and moves machines (src/migration).
 *
 * The memory's regions are fixed; its contents change while the guest runs.
 */
struct guest_memory *machine_memory(struct machine *machine);
unsigned machine_cpus(const struct machine *machine); /* of the guest */

/*
 * What it is, as JSON text that the caller frees: the section "machine" of a snapshot.
 *   "config"  as config_print() has it; the addresses of network cards are filled in
 *   "disks"   of each the id, path, bytes, and mtime_ns (not of block devices), as of now
 *   "host"    that it runs on: vmrun's and the kernel's release, the CPU's vendor and model
 *   "needs"   of a host's KVM, as machine_needs() has it
 * Errors: -ENOMEM; those of config_print() and virtio_blk_identity().
 */
int machine_describe(const struct machine *machine, char **ret_text, struct error *err);
/* The same of a machine that config describes; disks: of each of its disks; needs: or NULL. */
struct block_identity;
int machine_describe_config(const struct vm_config *config, const struct block_identity *disks,
                            const char *needs, char **ret_text, struct error *err);
/*
 * Read "config" over what config holds, checked as config_load() does. `where` names the text in
 * messages; nobody vouches for it. Errors: those of config_load_text(); -EPROTO, it is no such
 * description.
 */
int machine_read_description(const char *where, const char *text, size_t len,
                             struct vm_config *config, struct error *err);
/*
 * Whether the disks of config, made of the description and perhaps changed since, are as they
 * were then: of the same size and, under the same path, not written to. Errors: -ESTALE, with all
 * that differs in one message; -EPROTO, it is no such description.
 */
int machine_check_disks(const char *where, const char *text, size_t len,
                        const struct vm_config *config, struct error *err);
/*
 * After machine_load_state(), when others may go on from the same state: the guest gets another
 * VM Generation ID, and network cards are announced as after a move. Errors: those of getrandom(2).
 */
int machine_tell_restored(struct machine *machine, struct error *err);
/*
 * After machine_load_state(), when nobody else goes on from it: network cards have the guest
 * announce them when it runs again, and for one that cannot the host sends RARP frames of its own.
 */
void machine_tell_moved(struct machine *machine);

/* What a machine that goes on somewhere else begins with, in the place of a kernel. */
struct machine_image {
    const void *cpuid; /* of machine_save_cpuid() */
    size_t cpuid_len;
    int ram_fd; /* a file to map, copy-on-write; -1: RAM is to be filled in afterwards */
    uint64_t ram_offset[MEMORY_MAX_REGIONS]; /* in it, of each region */
    /*
     * The machine still runs in another process, which has the images: they are opened without
     * locks, and before machine_handover_take() it must not be started.
     */
    bool disks_elsewhere;
};
/*
 * As machine_create(), but for a machine that is to be given its RAM and its state before it
 * starts. Its kernel is looked for when the guest restarts, not before.
 */
int machine_create_from(const struct vm_config *config, struct loop *loop,
                        const struct machine_image *image, struct machine **ret_machine,
                        struct error *err);
/*
 * Take over what machine_save_state() put. advance_ns: how far the guest's clock is put on; an
 * answer to `when`, CLOCK_REALTIME of when it stood still. On failure the machine is fit only to
 * be destroyed. Errors: -EPROTO, -ENOTSUP, -EIO, with the device or register named.
 */
typedef uint64_t machine_advance_fn(void *opaque, uint64_t when_ns);
int machine_load_state(struct machine *machine, const void *state, size_t len,
                       machine_advance_fn *advance, void *opaque, struct error *err);

/*
 * Make it stand still, without a word to anybody, until it is released: for the milliseconds of a
 * live save. Meanwhile it refuses to be resumed or reset, and what changes its state (a pause, an
 * end) has its effect; a power-off, reset or crash that was under way is served before. Idempotent.
 * Errors: -EBUSY, it has ended; -ETIMEDOUT as of machine_pause().
 */
int machine_hold(struct machine *machine, struct error *err);
void machine_release(struct machine *machine);
/*
 * A held machine's state goes to another host, so nothing may change that an operator would expect
 * there: pause, power button and link are refused. When it is given away kill is, too, as the other
 * host may run it by now. Undone by machine_release().
 */
enum machine_leaving { MACHINE_STAYS, MACHINE_LEAVES, MACHINE_IS_GIVEN };
void machine_leave(struct machine *machine, enum machine_leaving leaving);
/* Only while held or paused. Errors: -ENOMEM; what KVM says. */
int machine_save_state(struct machine *machine, struct writer *w, struct error *err);
/*
 * What people miss and the guest does not, to travel beside the state: named bytes, "console" and
 * "console.hvc0", the scrollbacks. save: any thread; index counts from 0; what came from *from on,
 * and *from is set behind it, 0 at first; false: there is no such; an empty or failed writer:
 * nothing to be had. load: before it starts, one after the other; false: the name means nothing
 * here.
 */
bool machine_save_extra(struct machine *machine, unsigned index, const char **ret_name,
                        uint64_t *from, struct writer *w);
bool machine_load_extra(struct machine *machine, const char *name, const void *data, size_t len);
#define MACHINE_MAX_EXTRAS 2
/* Any time. */
int machine_save_cpuid(const struct machine *machine, struct writer *w, struct error *err);
/*
 * What its state needs of a host's KVM, to be told before anything of it moves: kvm_vm_needs().
 * Any time. check: "" where this host has all of it, else words for the operator; doubts: what the
 * guest may do without. cpuid: of machine_save_cpuid(). needs ends with a NUL. Errors: -EPROTO, no
 * such words; those of opening KVM.
 */
#define MACHINE_LACKS_BYTES 300
int machine_needs(const struct machine *machine, char **ret_text, struct error *err);
int machine_check_needs(const char *needs, const void *cpuid, size_t cpuid_len,
                        char missing[MACHINE_LACKS_BYTES], char doubts[MACHINE_LACKS_BYTES],
                        struct error *err);
/* The same for what a description says, if it was not taken on a host like this one. */
int machine_check_host(const char *where, const char *text, size_t len, const void *cpuid,
                       size_t cpuid_len, char missing[MACHINE_LACKS_BYTES],
                       char doubts[MACHINE_LACKS_BYTES], struct error *err);
/* All that was written to the disks is durable. Only while held or paused. Errors: -ETIMEDOUT; what
 * fsync(2) says. */
int machine_sync_disks(struct machine *machine, struct error *err);

/*
 * Who has the disks of a machine that moves, and so who runs it: block_handover.h says how, and the
 * errors, here with the disk named. session: HANDOVER_SESSION_BYTES. mark, check on both sides, and
 * unmark: any time; offer: while held, after machine_sync_disks(). They may wait for a file server.
 */
int machine_handover_mark(struct machine *machine, const uint8_t *session, struct error *err);
void machine_handover_unmark(struct machine *machine, const uint8_t *session);
int machine_disks_shared(struct machine *machine, const uint8_t *session, struct error *err);
uint64_t machine_handover_offer(struct machine *machine, const uint8_t *session);
int machine_handover_take(struct machine *machine, const uint8_t *session, uint64_t times,
                          bool *ret_arbiter, struct error *err);
int machine_handover_ask(struct machine *machine, const uint8_t *session,
                         enum block_handover_answer *ret_answer, struct error *why,
                         struct error *err);
/*
 * Nobody can tell whether it runs on the other host: no longer held, it stands still, and a person
 * decides. words: why, and what to look at there. No effect on one that has ended.
 */
void machine_set_uncertain(struct machine *machine, const char *words);
/* Whether it has a disk that is written, so that somebody can be asked. */
bool machine_has_arbiter(const struct machine *machine);

/* As kvm_vm_dirty_log() …, with what devices wrote. harvest and clear: also on another thread. */
int machine_dirty_log(struct machine *machine, bool on, struct error *err);
int machine_dirty_harvest(struct machine *machine, unsigned region, uint64_t *bitmap,
                          struct error *err);
int machine_dirty_clear(struct machine *machine, unsigned region, uint64_t first_page,
                        uint64_t pages, const uint64_t *bitmap, struct error *err);

/* As kvm_vm_throttle(); any thread. */
int machine_throttle(struct machine *machine, unsigned percent, struct error *err);

/* End it as a crash, with words for the operator. No effect on one that has ended. */
void machine_crash(struct machine *machine, const char *report);

/*
 * Counters by name ("exits.pio", "disk.root.q0.requests"), for `vmrun stats`: called for each. No
 * disk or network card is held up, however busy.
 */
typedef void machine_stat_fn(void *opaque, const char *name, uint64_t value);
void machine_stats(const struct machine *machine, machine_stat_fn *fn, void *opaque);

#endif
