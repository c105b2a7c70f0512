/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_BLOCK_HANDOVER_H
#define VMRUN_BLOCK_HANDOVER_H

/*
 * The images of a machine that moves: their locks go from one process, the source, to another, the
 * target, and decide in between which of the two runs it.
 *
 *   source                                   target
 *   mark    says which images they are       opens them with block_params.elsewhere
 *                                            check   sees the marks: same files, and locks reach
 *   offer   gives up the images
 *                                            take    the arbiter, then the images: it runs
 *   ask     when nothing is heard any more: tries to get the arbiter
 *
 * The arbiter is one exclusive lock on the first image that is written, which whoever gets it never
 * gives back while it lives: one of the two can run the machine from then on. A target that has the
 * images as well takes a second one beside it, the promise that it will run the machine. Marks,
 * arbiter and promise are bytes so far behind those that QEMU locks, and so derived from the
 * session, that no other program and no other move meets them.
 *
 * Locks go when their process dies; the images' times stay. A target that wakes up late finds
 * them changed when anybody has run the machine, or written, since they were offered.
 *
 * Images that are only read have their locks all the time, on both sides: those are shared.
 * Calls are made with the locks of all blocks' owners held. Locks may wait for a server.
 */

#include <stdbool.h>
#include <stdint.h>

#include "vmrun/block.h"
#include "vmrun/error.h"

#define HANDOVER_SESSION_BYTES 16

struct block_handover_disk {
    const char *id, *path; /* for messages */
    struct block *block;
};

/* All disks of one machine, in an order that both sides have. */
struct block_handover {
    const uint8_t *session; /* HANDOVER_SESSION_BYTES, of this one move */
    const struct block_handover_disk *disks;
    unsigned count; /* at most 64 */
};

/*
 * Source, any time before block_handover_check() there. Errors: -ENOLCK, the file system of a disk
 * has no locks.
 */
int block_handover_mark(const struct block_handover *set, struct error *err);
void block_handover_unmark(const struct block_handover *set);

/*
 * Target, while the source has the images: those are the files that the source marked. Errors:
 * -ENOTUNIQ, a disk is another file, which somebody else writes; -ENOLCK, it is another file, or
 * locks of its file system do not reach from there to here.
 */
int block_handover_check(const struct block_handover *set, struct error *err);

/*
 * Source, when nothing is in flight and all is durable: sets the time of each image to one that no
 * write leaves, and gives up its locks. Requests fail with -ENOLCK from now on. Returns a checksum
 * of these times, for the target; 0: there is none.
 */
uint64_t block_handover_offer(const struct block_handover *set);

/*
 * Target, after the source has said that it offers them, and times: what the offer returned there.
 * ret_arbiter: it was taken; false: nothing is written, so there is none. Errors, after which
 * nothing is held and the machine must not run: -EAGAIN, the source has the arbiter; -EBUSY,
 * somebody else has an image; -ESTALE, an image is of another size than it was, or was touched
 * since; -ENOLCK; what statx(2) and futimens(2) say.
 */
int block_handover_take(const struct block_handover *set, uint64_t times, bool *ret_arbiter,
                        struct error *err);

enum block_handover_answer {
    HANDOVER_TAKEN,     /* the target has it all: never run it here again */
    HANDOVER_AS_IT_WAS, /* the target never gets it; the images are locked, and nobody touched them
                         */
    HANDOVER_UNKNOWN, /* nobody can tell, or images were written: block_handover_retake() may do */
};
/*
 * Source, after block_handover_offer(), when it is in doubt. why: for HANDOVER_UNKNOWN, words.
 * Errors, and then ask again: -EAGAIN, the target has the arbiter, but not yet all that it needs;
 * what fcntl(2) or statx(2) say; no image is locked.
 */
int block_handover_ask(const struct block_handover *set, enum block_handover_answer *ret_answer,
                       struct error *why, struct error *err);

/*
 * Source, after HANDOVER_UNKNOWN, when a person has decided: the images' locks, whatever was
 * written, and new times for them. Errors: -EBUSY, somebody has one; -ENOLCK. Nothing is locked
 * then.
 */
int block_handover_retake(const struct block_handover *set, struct error *err);

#endif
