/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_MIGRATION_H
#define VMRUN_MIGRATION_H

/*
 * The engine that takes a machine's RAM and state elsewhere while it runs: into a file.
 *
 * RAM is copied in rounds, each of what was written during the one before; when that pays no
 * longer the machine is held for the milliseconds that the rest and the devices' state take. The
 * work is done on a thread of its own; everything here is called, and calls back, on the machine's
 * thread.
 */
#include <stdbool.h>
#include <stdint.h>

#include "vmrun/error.h"
#include "vmrun/loop.h"
#include "vmrun/machine.h"

struct migration;

enum migration_phase {
    MIGRATION_COPYING, /* rounds, the machine runs */
    MIGRATION_WRITING, /* what was copied while it stood still, checksums, the disk */
};

struct migration_progress {
    enum migration_phase phase;
    unsigned round;         /* from 1 */
    uint64_t round_bytes;   /* of RAM to look at in this round */
    uint64_t done_bytes;    /* of these */
    uint64_t written_bytes; /* of pages, in all rounds */
    uint64_t elapsed_ns;
};

struct migration_report {
    struct error error; /* code 0: it went well */
    unsigned rounds;
    uint64_t total_ns;
    uint64_t pause_ns;      /* how long the guest stood still; 0 when it was paused anyway */
    uint64_t pause_bytes;   /* of pages copied in that time */
    uint64_t written_bytes; /* of pages, in all rounds */
    uint64_t data_bytes;    /* of pages in the file */
    uint64_t file_bytes;    /* its length, holes included */
};

struct migration_listener {
    void (*progress)(void *opaque, const struct migration_progress *progress);
    void (*ended)(void *opaque, const struct migration_report *report);
};

/* One for each machine. listener may be NULL; it outlives the engine. Errors: -ENOMEM. */
int migration_create(struct machine *machine, struct loop *loop, struct migration **ret_migration,
                     struct error *err);
void migration_set_listener(struct migration *migration, const struct migration_listener *listener,
                            void *opaque);
/*
 * Cancels what is under way, waits for its thread and tells the listener. Not to be followed by a
 * run of the loop. NULL is fine.
 */
void migration_destroy(struct migration *migration);

struct migration_save {
    const char *path;
    bool replace; /* a file of that name */
    bool stop;    /* pause the machine, make its disks durable; end it when the file is there */
};
/*
 * Begin to save; the listener hears of the end. When it fails or is cancelled there is no file, and
 * the machine goes on as before. Errors at once: -EBUSY, something is under way or the machine has
 * ended or never ran; -EEXIST and others of snapfile_create().
 */
int migration_save(struct migration *migration, const struct migration_save *params,
                   struct error *err);
/* Errors: -ENOENT, nothing is under way. */
int migration_cancel(struct migration *migration, struct error *err);

/*
 * A machine out of a file, to be started with machine_start() or kept with machine_pause(). The
 * file is verified before: all but RAM, or with eager RAM too; else RAM is read as it is touched,
 * and verified by a thread that ends the machine when it does not match.
 */
struct restore;
enum restore_mode { RESTORE_LAZY, RESTORE_EAGER };
struct restore_params {
    enum restore_mode mode;
    bool freeze; /* the guest's clock goes on from where it stood, not from now */
};
struct snapfile;
/*
 * config: made of the file's section "machine"; it and file outlive the machine, and the restore
 * too, which is destroyed before the machine. Errors: those of machine_create_from(),
 * machine_load_state() and snapfile_verify_chunk(); -EPROTO, the file lacks a section or its
 * memory is not the machine's.
 */
int restore_machine(const struct restore_params *params, const struct snapfile *file,
                    const struct vm_config *config, struct loop *loop, struct restore **ret_restore,
                    struct machine **ret_machine, struct error *err);
void restore_destroy(struct restore *restore); /* NULL is fine */
/* The file has become shorter: a machine that ran from it and crashed did so for that. */
bool restore_file_was_cut(const struct restore *restore);

#endif
