/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_MIGRATION_H
#define VMRUN_MIGRATION_H

/*
 * The engine that takes a machine's RAM and state elsewhere while it runs: into a file, or to
 * another host.
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

enum migration_kind { MIGRATION_SAVE, MIGRATION_MOVE };

enum migration_phase {
    MIGRATION_CONNECTING, /* to another host, until a machine is built there */
    MIGRATION_COPYING,    /* rounds, the machine runs */
    MIGRATION_WRITING,    /* what was copied while it stood still, checksums, the disk */
    MIGRATION_HANDOVER,   /* it stands still, and the other host takes it over */
    MIGRATION_PACKING,    /* the archive; round_bytes and done_bytes are the snapshot's */
};

struct migration_progress {
    enum migration_kind kind;
    enum migration_phase phase;
    unsigned round;         /* from 1 */
    uint64_t round_bytes;   /* of RAM to look at in this round */
    uint64_t done_bytes;    /* of these */
    uint64_t written_bytes; /* of pages, in all rounds */
    uint64_t elapsed_ns;
    /* Of a move, as of the last round; 0: not known yet. */
    uint64_t dirty_rate;         /* bytes a second that the guest writes */
    uint64_t send_rate;          /* bytes a second that arrive */
    uint64_t predicted_pause_ns; /* if it were stopped now */
    unsigned throttle_percent;   /* of the time that the guest is kept from running */
};

/* A round of a move, for the report. */
struct migration_round {
    uint64_t ns, bytes;   /* how long it took; of pages that were copied */
    uint64_t zero_bytes;  /* of these, that were zeros */
    uint64_t dirty_bytes; /* that the guest wrote meanwhile */
    uint64_t owed_bytes;  /* still to be copied, deferred ones included */
    uint64_t deferred_bytes;
    uint64_t predicted_pause_ns;
    unsigned throttle_percent;
};
#define MIGRATION_MAX_ROUNDS 64

/* Where the machine is after a move. */
enum migration_outcome {
    MIGRATION_HERE,      /* as before; report.error says why */
    MIGRATION_THERE,     /* the process here is to end */
    MIGRATION_UNCERTAIN, /* paused here; report.error says what to look at */
};

/* The parts of a move's pause, in their order. */
struct migration_pause {
    uint64_t stop_ns;   /* vCPUs and devices stand still, disks are synced */
    uint64_t state_ns;  /* their state is taken */
    uint64_t pages_ns;  /* the last pages and the state are sent */
    uint64_t load_ns;   /* until the other side says that all is loaded and read back */
    uint64_t commit_ns; /* locks given up, and until it says that it runs */
};

/* How it was known what changed since the base of a snapshot. */
enum migration_found {
    MIGRATION_ALL,           /* it has none */
    MIGRATION_BY_LOG,        /* the log was on since that was written */
    MIGRATION_BY_MAPPINGS,   /* RAM is mapped from it; Linux knows what it had to copy */
    MIGRATION_BY_COMPARISON, /* RAM was compared with it, page by page */
};

struct migration_report {
    enum migration_kind kind;
    struct error error; /* code 0: it went well */
    unsigned rounds;
    uint64_t total_ns;
    uint64_t pause_ns;      /* how long the guest stood still; 0 when it was paused anyway */
    uint64_t pause_bytes;   /* of pages copied in that time */
    uint64_t written_bytes; /* of pages, in all rounds */
    uint64_t data_bytes;    /* of pages in the file that are not zero */
    uint64_t file_bytes;    /* its length, holes included */
    uint64_t held_bytes;    /* of pages that the file has an own word on, zero or not */
    enum migration_found found;

    /* Of a move. */
    enum migration_outcome outcome;
    uint64_t sent_bytes;         /* through all channels */
    uint64_t rtt_ns;             /* to the other host and back */
    uint64_t predicted_pause_ns; /* before the stop */
    struct migration_pause pause;
    const struct migration_round *round; /* of each; until the listener returns */
    unsigned channels;
    unsigned throttle_percent; /* at last */
    bool checked;              /* only: what is here is what a move would be like */
    struct migration_check {
        uint64_t bandwidth;  /* bytes a second, of one connection */
        uint64_t dirty_rate; /* bytes a second that the guest writes */
        uint64_t ram_bytes;  /* that are to be sent, without what was never touched */
        uint64_t total_ns, pause_ns;
        unsigned rounds;
        bool converges; /* or it would have to be slowed down */
    } check;
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
    /*
     * An earlier snapshot of it, or of another: only pages that differ are saved, and the file
     * builds on that one. NULL: all.
     */
    const char *base;
    /*
     * Keep the log of written pages on afterwards: a save whose base is this file then knows what
     * changed. Any other job ends that, and so does one that fails.
     */
    bool track;
    bool compress; /* what gets the name is an archive: snapfile_publish_archive() */
};
/*
 * Begin to save; the listener hears of the end. When it fails or is cancelled there is no file, and
 * the machine goes on as before. Errors at once: -EBUSY, something is under way or the machine has
 * ended or never ran; -EEXIST and others of snapfile_create() or, with a base, snapfile_open() and
 * snapfile_create_on(); -EINVAL, the base is of a machine with other memory, or stop with track.
 */
int migration_save(struct migration *migration, const struct migration_save *params,
                   struct error *err);
/* The machine's RAM is mapped from this file: it was restored lazily, and has not run before. */
struct snapfile;
void migration_set_origin(struct migration *migration, const struct snapfile *file);

/* How a stranger is kept out; all NULL and !insecure: only loopback addresses are accepted. Read
 * during the call only. */
struct channel_security {
    bool insecure;               /* plain TCP to anybody */
    const char *cert, *key, *ca; /* PEM files: both sides show certificates that ca signed */
    const char *psk;             /* a file with the pre-shared key, "identity:hex" */
};

struct migration_move {
    const char *url; /* "tcp://HOST:PORT" */
    struct channel_security security;
    uint64_t channels;     /* connections; 0: as many as pay */
    uint64_t bandwidth;    /* bytes a second at most, until it stands still; 0: no limit */
    uint64_t max_pause_ns; /* the stop is not to be longer, as far as it can be told; 0: 300 ms */
    uint64_t timeout_ns;   /* for the rounds to come to that; 0: ten minutes */
    bool check;            /* do all but move, and tell what a move would be like */
    bool compress;         /* RAM, by zstd: where the network is slower than a CPU */
    bool force;            /* then: stop for longer, instead of giving up */
};
/*
 * Begin to move it to where a `vmrun receive` listens; the listener hears of the end. params is
 * copied. Until the other side runs it, the machine goes on here when anything fails. Errors at
 * once: -EBUSY; -ENOMEM.
 */
int migration_move(struct migration *migration, const struct migration_move *params,
                   struct error *err);
/* Where the machine runs now that it has ended here for that; NULL: it did not. */
const char *migration_moved_to(const struct migration *migration);
/* Errors: -ENOENT, nothing is under way. */
int migration_cancel(struct migration *migration, struct error *err);

/*
 * A machine out of a file, to be started with machine_start() or kept with machine_pause(). The
 * file is verified before: all but RAM, or with eager RAM too; else RAM is read as it is touched,
 * and verified by a thread that ends the machine when it does not match. With prefetch that thread
 * first reads the file's working set (vmrun/working_set.h), while the machine is built and runs.
 */
struct restore;
enum restore_mode { RESTORE_LAZY, RESTORE_PREFETCH, RESTORE_EAGER };
struct restore_params {
    enum restore_mode mode;
    bool freeze; /* the guest's clock goes on from where it stood, not from now */
    /* Lazily only: record for so long what the guest touches, and put that into the file, which
     * lies at record_path. 0: do not. */
    unsigned record_seconds;
    const char *record_path;
};
/*
 * config: made of the file's section "machine"; it and file outlive the machine, and the restore
 * too, which is destroyed before the machine. Errors: those of machine_create_from(),
 * machine_load_state() and snapfile_verify_chunk(); -EPROTO, the file lacks a section or its
 * memory is not the machine's; with prefetch, those of working_set_find(); when it is to be
 * recorded, those of snapfile_create(), and -ESTALE, another file lies there by now.
 */
int restore_machine(const struct restore_params *params, const struct snapfile *file,
                    const struct vm_config *config, struct loop *loop, struct restore **ret_restore,
                    struct machine **ret_machine, struct error *err);
/*
 * NULL is fine. A recording that is under way is finished first if the guest ended by itself, and
 * given up if it did not.
 */
void restore_destroy(struct restore *restore);
/* The file has become shorter: a machine that ran from it and crashed did so for that. */
bool restore_file_was_cut(const struct restore *restore);

/*
 * A machine that comes from another host. These block, and are called in this order on the
 * machine's thread; whoever gives up in between destroys it, and the machine goes on where it was.
 */
struct receive;
/* Errors: those of channel_listen(). */
int receive_listen(const char *url, const struct channel_security *security,
                   struct receive **ret_receive, struct error *err);
const char *receive_url(const struct receive *receive); /* with the port that was chosen */
/*
 * Wait for one that comes, and what it is: the section "machine" of a snapshot, valid until
 * receive_destroy(). Nobody vouches for it. A stranger who makes no sense is sent away with
 * a warning. Errors: of the system only.
 */
int receive_accept(struct receive *receive, const char **ret_description, size_t *ret_len,
                   struct error *err);
/* It is not to come: only whether it could. Then receive_check() follows receive_build(), and
 * receive_forget(), with the machine destroyed, lets the next one come. */
bool receive_is_check(const struct receive *receive);
/* Answer what is asked until all is known. Errors: those of receive_take(). */
int receive_check(struct receive *receive, struct error *err);
void receive_forget(struct receive *receive);
const void *receive_cpuid(const struct receive *receive, size_t *ret_len);
/* Tell the other side why it cannot come here: until receive_take(), which does that itself. */
void receive_refuse(struct receive *receive, const struct error *why);
/* Build it. config: made of the description; it outlives the machine. Errors: those of
 * machine_create_from(); the disks are not the same as there. */
int receive_build(struct receive *receive, const struct vm_config *config, struct loop *loop,
                  struct machine **ret_machine, struct error *err);
/*
 * Take its RAM and state, and then itself: when this returns 0 it runs nowhere but here, and is to
 * be started at once. Errors, after which it is never to be started here: -ECONNREFUSED, the other
 * side gave up, with its words; what channels and machine_load_state() say.
 */
int receive_take(struct receive *receive, struct error *err);
/*
 * Any thread: it is not to come any more. false: too late, it is about to be, or is, our own. True
 * once: the process has to end then, and the machine goes on where it was.
 */
bool receive_end(struct receive *receive);
/* Then: it was paused there, and is to be kept with machine_pause(). */
bool receive_was_paused(const struct receive *receive);
/* "tcp://192.0.2.1:50112": who sent it. Until receive_destroy(). */
const char *receive_from(const struct receive *receive);
/* It runs: tell the other side, which need not hear it. */
void receive_done(struct receive *receive);
void receive_destroy(struct receive *receive); /* NULL is fine */

#endif
