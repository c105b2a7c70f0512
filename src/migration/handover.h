/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MIGRATION_HANDOVER_H
#define MIGRATION_HANDOVER_H

/*
 * Who runs. Two pure state machines, one for each side: what happened goes in, what is to be done
 * comes out. source.c and target.c do nothing about running, locks and the words that matter but by
 * these; tests/model explores every interleaving of the very same code, and finds a violation when
 * any of the orders below is changed. docs/migration-protocol.md has both tables.
 *
 * has_arbiter: there is a writable image whose locks reach both hosts, and whose time may be set.
 */
#include <stdbool.h>

enum source_state {
    SOURCE_COPYING,
    SOURCE_STOPPED,   /* the machine is held; all is on its way */
    SOURCE_COMMITTED, /* from here on only the target may run it, until proved otherwise */
    SOURCE_ASKING,    /* the arbiter */
    SOURCE_RUNS,
    SOURCE_GONE,
    SOURCE_UNCERTAIN, /* paused, until a late word or a person decides */
};

enum source_event {
    SOURCE_SENT_ALL, /* held; last pages and state are on their way */
    SOURCE_READY,    /* the target says so */
    SOURCE_DONE,
    SOURCE_REFUSED, /* the target says: it will never run there */
    SOURCE_BROKEN,  /* connection lost, timeout, garbage */
    SOURCE_CANCEL,
    SOURCE_LOCK_DENIED,  /* the target has the arbiter and all else: it runs there, or will */
    SOURCE_LOCK_GOT,     /* the arbiter; the images are as they were, and are locked again */
    SOURCE_LOCK_USELESS, /* an image was touched or is locked by others; or nobody could be asked */
    SOURCE_PERSON_RESUME, /* only once the images' locks were taken again, and their times set */
    SOURCE_PERSON_KILL,
};

enum source_action {
    SOURCE_NOTHING,
    /*
     * In this order: set the time of each image that is written to a stamp that no write leaves,
     * let go of their locks, send COMMIT with the stamps. (Once the locks are gone a stranger could
     * write, and a stamp would hide it.)
     */
    SOURCE_COMMIT,
    /*
     * In this order: the arbiter, which is kept while this process lives; the images' locks; are
     * their times still the stamps?; set them anew, so that a target that wakes up when this
     * process has died finds another. At the first no: an event. Where the target has the arbiter,
     * but not yet all it needs, ask again.
     */
    SOURCE_ASK_ARBITER,
    SOURCE_RESUME,
    SOURCE_END, /* the process, and with it the machine here */
    SOURCE_STAY_PAUSED,
    SOURCE_REFUSE, /* the event: too late, or nothing to decide */
};

enum target_state {
    TARGET_RECEIVING,
    TARGET_LOADED, /* READY was said */
    TARGET_TAKING, /* the arbiter and the images' locks; nothing but a denial stops it now */
    TARGET_RUNS,
    TARGET_GAVE_UP,
};

enum target_event {
    TARGET_LOADED_ALL, /* everything is loaded and read back; read-only images are locked */
    TARGET_FAILED,     /* to load; a person, a signal */
    TARGET_BROKEN,     /* connection lost, timeout, garbage */
    TARGET_COMMIT,
    TARGET_LOCK_GOT,
    TARGET_LOCK_DENIED, /* any of it: also when it could not be asked */
};

enum target_action {
    TARGET_NOTHING,
    TARGET_SEND_READY,
    /*
     * Without an arbiter there is nothing to take: at once TARGET_LOCK_GOT. Else in this order:
     * the arbiter, kept while this process lives; the images' locks; are their times
     * the stamps of COMMIT?; set them anew: from now on it counts as having run; the arbiter's
     * second lock, which says so. At the first no let go of all: TARGET_LOCK_DENIED.
     */
    TARGET_TAKE_LOCK,
    TARGET_RUN,                /* and then send DONE */
    TARGET_DISCARD,            /* the machine; the process ends */
    TARGET_REFUSE_AND_DISCARD, /* let go of every lock, send REFUSED, end */
};

/* Every event is allowed in every state. *state becomes what it is afterwards. */
enum source_action handover_source(enum source_state *state, enum source_event event,
                                   bool has_arbiter);
enum target_action handover_target(enum target_state *state, enum target_event event,
                                   bool has_arbiter);

/* "copying", … "handover-uncertain": for people. */
const char *handover_source_name(enum source_state state);
const char *handover_target_name(enum target_state state);

#endif
