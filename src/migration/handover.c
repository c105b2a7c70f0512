/* SPDX-License-Identifier: Apache-2.0 */
/*
 * handover: the two tables. The rule behind them: before COMMIT the source may always go on, and
 * the target never; after it the other way round, until a DONE, a REFUSED or the arbiter says
 * otherwise.
 *
 * Before changing an arrow run tests/model: it says in words how both sides come to run.
 */
#include "handover.h"

#include <assert.h>

struct source_arrow {
    enum source_state next;
    enum source_action action;
};

struct target_arrow {
    enum target_state next;
    enum target_action action;
};

/* A cell: without an arbiter, with one. */
#define EITHER(state, action, with_state, with_action) \
    { \
        {state, action}, \
        { \
            with_state, with_action \
        } \
    }
#define ALWAYS(state, action) EITHER(state, action, state, action)

static const struct source_arrow source_arrows[SOURCE_UNCERTAIN + 1][SOURCE_PERSON_KILL + 1][2] =
    {
        [SOURCE_COPYING] =
            {
                [SOURCE_SENT_ALL] = ALWAYS(SOURCE_STOPPED, SOURCE_NOTHING),
                [SOURCE_READY] = ALWAYS(SOURCE_RUNS, SOURCE_RESUME),
                [SOURCE_DONE] = ALWAYS(SOURCE_RUNS, SOURCE_RESUME),
                [SOURCE_REFUSED] = ALWAYS(SOURCE_RUNS, SOURCE_RESUME),
                [SOURCE_BROKEN] = ALWAYS(SOURCE_RUNS, SOURCE_RESUME),
                [SOURCE_CANCEL] = ALWAYS(SOURCE_RUNS, SOURCE_RESUME),
                [SOURCE_LOCK_DENIED] = ALWAYS(SOURCE_COPYING, SOURCE_NOTHING),
                [SOURCE_LOCK_GOT] = ALWAYS(SOURCE_COPYING, SOURCE_NOTHING),
                [SOURCE_LOCK_USELESS] = ALWAYS(SOURCE_COPYING, SOURCE_NOTHING),
                [SOURCE_PERSON_RESUME] = ALWAYS(SOURCE_COPYING, SOURCE_REFUSE),
                [SOURCE_PERSON_KILL] = ALWAYS(SOURCE_COPYING, SOURCE_REFUSE),
            },
        [SOURCE_STOPPED] =
            {
                [SOURCE_SENT_ALL] = ALWAYS(SOURCE_STOPPED, SOURCE_NOTHING),
                [SOURCE_READY] = ALWAYS(SOURCE_COMMITTED, SOURCE_COMMIT),
                [SOURCE_DONE] =
                    ALWAYS(SOURCE_RUNS, SOURCE_RESUME), /* it holds no lock: it does not */
                [SOURCE_REFUSED] = ALWAYS(SOURCE_RUNS, SOURCE_RESUME),
                [SOURCE_BROKEN] = ALWAYS(SOURCE_RUNS, SOURCE_RESUME),
                [SOURCE_CANCEL] = ALWAYS(SOURCE_RUNS, SOURCE_RESUME),
                [SOURCE_LOCK_DENIED] = ALWAYS(SOURCE_STOPPED, SOURCE_NOTHING),
                [SOURCE_LOCK_GOT] = ALWAYS(SOURCE_STOPPED, SOURCE_NOTHING),
                [SOURCE_LOCK_USELESS] = ALWAYS(SOURCE_STOPPED, SOURCE_NOTHING),
                [SOURCE_PERSON_RESUME] = ALWAYS(SOURCE_STOPPED, SOURCE_REFUSE),
                [SOURCE_PERSON_KILL] = ALWAYS(SOURCE_STOPPED, SOURCE_REFUSE),
            },
        [SOURCE_COMMITTED] =
            {
                [SOURCE_SENT_ALL] = ALWAYS(SOURCE_COMMITTED, SOURCE_NOTHING),
                [SOURCE_READY] = EITHER(SOURCE_UNCERTAIN, SOURCE_STAY_PAUSED, /* garbage */
                                        SOURCE_ASKING, SOURCE_ASK_ARBITER),
                [SOURCE_DONE] = ALWAYS(SOURCE_GONE, SOURCE_END),
                [SOURCE_REFUSED] = EITHER(SOURCE_RUNS, SOURCE_RESUME, /* its word is an answer */
                                          SOURCE_ASKING, SOURCE_ASK_ARBITER),
                [SOURCE_BROKEN] =
                    EITHER(SOURCE_UNCERTAIN, SOURCE_STAY_PAUSED, SOURCE_ASKING, SOURCE_ASK_ARBITER),
                [SOURCE_CANCEL] = ALWAYS(SOURCE_COMMITTED, SOURCE_REFUSE),
                [SOURCE_LOCK_DENIED] = ALWAYS(SOURCE_COMMITTED, SOURCE_NOTHING),
                [SOURCE_LOCK_GOT] = ALWAYS(SOURCE_COMMITTED, SOURCE_NOTHING),
                [SOURCE_LOCK_USELESS] = ALWAYS(SOURCE_COMMITTED, SOURCE_NOTHING),
                [SOURCE_PERSON_RESUME] = ALWAYS(SOURCE_COMMITTED, SOURCE_REFUSE),
                [SOURCE_PERSON_KILL] = ALWAYS(SOURCE_COMMITTED, SOURCE_REFUSE),
            },
        [SOURCE_ASKING] =
            {
                [SOURCE_SENT_ALL] = ALWAYS(SOURCE_ASKING, SOURCE_NOTHING),
                [SOURCE_READY] = ALWAYS(SOURCE_ASKING, SOURCE_NOTHING),
                [SOURCE_DONE] = ALWAYS(SOURCE_GONE, SOURCE_END),
                [SOURCE_REFUSED] = ALWAYS(SOURCE_ASKING, SOURCE_NOTHING),
                [SOURCE_BROKEN] = ALWAYS(SOURCE_ASKING, SOURCE_NOTHING),
                [SOURCE_CANCEL] = ALWAYS(SOURCE_ASKING, SOURCE_REFUSE),
                [SOURCE_LOCK_DENIED] = ALWAYS(SOURCE_GONE, SOURCE_END),
                [SOURCE_LOCK_GOT] = ALWAYS(SOURCE_RUNS, SOURCE_RESUME),
                [SOURCE_LOCK_USELESS] = ALWAYS(SOURCE_UNCERTAIN, SOURCE_STAY_PAUSED),
                [SOURCE_PERSON_RESUME] = ALWAYS(SOURCE_ASKING, SOURCE_REFUSE),
                [SOURCE_PERSON_KILL] = ALWAYS(SOURCE_ASKING, SOURCE_REFUSE),
            },
        [SOURCE_RUNS] =
            {
                [SOURCE_SENT_ALL] = ALWAYS(SOURCE_RUNS, SOURCE_NOTHING),
                [SOURCE_READY] = ALWAYS(SOURCE_RUNS, SOURCE_NOTHING),
                [SOURCE_DONE] = ALWAYS(SOURCE_RUNS, SOURCE_NOTHING),
                [SOURCE_REFUSED] = ALWAYS(SOURCE_RUNS, SOURCE_NOTHING),
                [SOURCE_BROKEN] = ALWAYS(SOURCE_RUNS, SOURCE_NOTHING),
                [SOURCE_CANCEL] = ALWAYS(SOURCE_RUNS, SOURCE_REFUSE),
                [SOURCE_LOCK_DENIED] = ALWAYS(SOURCE_RUNS, SOURCE_NOTHING),
                [SOURCE_LOCK_GOT] = ALWAYS(SOURCE_RUNS, SOURCE_NOTHING),
                [SOURCE_LOCK_USELESS] = ALWAYS(SOURCE_RUNS, SOURCE_NOTHING),
                [SOURCE_PERSON_RESUME] = ALWAYS(SOURCE_RUNS, SOURCE_REFUSE),
                [SOURCE_PERSON_KILL] = ALWAYS(SOURCE_RUNS, SOURCE_REFUSE),
            },
        [SOURCE_GONE] =
            {
                [SOURCE_SENT_ALL] = ALWAYS(SOURCE_GONE, SOURCE_NOTHING),
                [SOURCE_READY] = ALWAYS(SOURCE_GONE, SOURCE_NOTHING),
                [SOURCE_DONE] = ALWAYS(SOURCE_GONE, SOURCE_NOTHING),
                [SOURCE_REFUSED] = ALWAYS(SOURCE_GONE, SOURCE_NOTHING),
                [SOURCE_BROKEN] = ALWAYS(SOURCE_GONE, SOURCE_NOTHING),
                [SOURCE_CANCEL] = ALWAYS(SOURCE_GONE, SOURCE_REFUSE),
                [SOURCE_LOCK_DENIED] = ALWAYS(SOURCE_GONE, SOURCE_NOTHING),
                [SOURCE_LOCK_GOT] = ALWAYS(SOURCE_GONE, SOURCE_NOTHING),
                [SOURCE_LOCK_USELESS] = ALWAYS(SOURCE_GONE, SOURCE_NOTHING),
                [SOURCE_PERSON_RESUME] = ALWAYS(SOURCE_GONE, SOURCE_REFUSE),
                [SOURCE_PERSON_KILL] = ALWAYS(SOURCE_GONE, SOURCE_REFUSE),
            },
        [SOURCE_UNCERTAIN] =
            {
                [SOURCE_SENT_ALL] = ALWAYS(SOURCE_UNCERTAIN, SOURCE_NOTHING),
                [SOURCE_READY] = ALWAYS(SOURCE_UNCERTAIN, SOURCE_NOTHING),
                [SOURCE_DONE] = ALWAYS(SOURCE_GONE, SOURCE_END), /* late, but an answer */
                [SOURCE_REFUSED] =
                    EITHER(SOURCE_RUNS, SOURCE_RESUME, SOURCE_ASKING, SOURCE_ASK_ARBITER),
                [SOURCE_BROKEN] = ALWAYS(SOURCE_UNCERTAIN, SOURCE_NOTHING),
                [SOURCE_CANCEL] = ALWAYS(SOURCE_UNCERTAIN, SOURCE_REFUSE),
                [SOURCE_LOCK_DENIED] = ALWAYS(SOURCE_UNCERTAIN, SOURCE_NOTHING),
                [SOURCE_LOCK_GOT] = ALWAYS(SOURCE_UNCERTAIN, SOURCE_NOTHING),
                [SOURCE_LOCK_USELESS] = ALWAYS(SOURCE_UNCERTAIN, SOURCE_NOTHING),
                [SOURCE_PERSON_RESUME] = ALWAYS(SOURCE_RUNS, SOURCE_RESUME),
                [SOURCE_PERSON_KILL] = ALWAYS(SOURCE_GONE, SOURCE_END),
            },
};

static const struct target_arrow target_arrows[TARGET_GAVE_UP + 1][TARGET_LOCK_DENIED + 1][2] = {
    [TARGET_RECEIVING] =
        {
            [TARGET_LOADED_ALL] = ALWAYS(TARGET_LOADED, TARGET_SEND_READY),
            [TARGET_FAILED] = ALWAYS(TARGET_GAVE_UP, TARGET_REFUSE_AND_DISCARD),
            [TARGET_BROKEN] = ALWAYS(TARGET_GAVE_UP, TARGET_DISCARD),
            [TARGET_COMMIT] = ALWAYS(TARGET_GAVE_UP, TARGET_REFUSE_AND_DISCARD), /* of nothing */
            [TARGET_LOCK_GOT] = ALWAYS(TARGET_RECEIVING, TARGET_NOTHING),
            [TARGET_LOCK_DENIED] = ALWAYS(TARGET_RECEIVING, TARGET_NOTHING),
        },
    [TARGET_LOADED] =
        {
            [TARGET_LOADED_ALL] = ALWAYS(TARGET_LOADED, TARGET_NOTHING),
            [TARGET_FAILED] = ALWAYS(TARGET_GAVE_UP, TARGET_REFUSE_AND_DISCARD),
            /* A connection can be broken in one direction: the word may arrive, and spare a doubt.
             */
            [TARGET_BROKEN] = ALWAYS(TARGET_GAVE_UP, TARGET_REFUSE_AND_DISCARD),
            [TARGET_COMMIT] = ALWAYS(TARGET_TAKING, TARGET_TAKE_LOCK),
            [TARGET_LOCK_GOT] = ALWAYS(TARGET_LOADED, TARGET_NOTHING),
            [TARGET_LOCK_DENIED] = ALWAYS(TARGET_LOADED, TARGET_NOTHING),
        },
    /* Who holds the arbiter has been promised the machine: no other wish or loss turns it back. */
    [TARGET_TAKING] =
        {
            [TARGET_LOADED_ALL] = ALWAYS(TARGET_TAKING, TARGET_NOTHING),
            [TARGET_FAILED] = ALWAYS(TARGET_TAKING, TARGET_NOTHING),
            [TARGET_BROKEN] = ALWAYS(TARGET_TAKING, TARGET_NOTHING),
            [TARGET_COMMIT] = ALWAYS(TARGET_TAKING, TARGET_NOTHING),
            [TARGET_LOCK_GOT] = ALWAYS(TARGET_RUNS, TARGET_RUN),
            [TARGET_LOCK_DENIED] = ALWAYS(TARGET_GAVE_UP, TARGET_REFUSE_AND_DISCARD),
        },
    [TARGET_RUNS] =
        {
            [TARGET_LOADED_ALL] = ALWAYS(TARGET_RUNS, TARGET_NOTHING),
            [TARGET_FAILED] = ALWAYS(TARGET_RUNS, TARGET_NOTHING),
            [TARGET_BROKEN] = ALWAYS(TARGET_RUNS, TARGET_NOTHING),
            [TARGET_COMMIT] = ALWAYS(TARGET_RUNS, TARGET_NOTHING),
            [TARGET_LOCK_GOT] = ALWAYS(TARGET_RUNS, TARGET_NOTHING),
            [TARGET_LOCK_DENIED] = ALWAYS(TARGET_RUNS, TARGET_NOTHING),
        },
    [TARGET_GAVE_UP] =
        {
            [TARGET_LOADED_ALL] = ALWAYS(TARGET_GAVE_UP, TARGET_NOTHING),
            [TARGET_FAILED] = ALWAYS(TARGET_GAVE_UP, TARGET_NOTHING),
            [TARGET_BROKEN] = ALWAYS(TARGET_GAVE_UP, TARGET_NOTHING),
            [TARGET_COMMIT] = ALWAYS(TARGET_GAVE_UP, TARGET_NOTHING),
            [TARGET_LOCK_GOT] = ALWAYS(TARGET_GAVE_UP, TARGET_NOTHING),
            [TARGET_LOCK_DENIED] = ALWAYS(TARGET_GAVE_UP, TARGET_NOTHING),
        },
};

enum source_action handover_source(enum source_state *state, enum source_event event,
                                   bool has_arbiter)
{
    assert(*state <= SOURCE_UNCERTAIN && event <= SOURCE_PERSON_KILL);
    const struct source_arrow *arrow = &source_arrows[*state][event][has_arbiter];

    *state = arrow->next;
    return arrow->action;
}

enum target_action handover_target(enum target_state *state, enum target_event event,
                                   bool has_arbiter)
{
    assert(*state <= TARGET_GAVE_UP && event <= TARGET_LOCK_DENIED);
    const struct target_arrow *arrow = &target_arrows[*state][event][has_arbiter];

    *state = arrow->next;
    return arrow->action;
}

const char *handover_source_name(enum source_state state)
{
    static const char *const names[] = {
        [SOURCE_COPYING] = "copying",
        [SOURCE_STOPPED] = "stopped",
        [SOURCE_COMMITTED] = "committed",
        [SOURCE_ASKING] = "asking the arbiter",
        [SOURCE_RUNS] = "runs",
        [SOURCE_GONE] = "gone",
        [SOURCE_UNCERTAIN] = "handover-uncertain",
    };

    return names[state];
}

const char *handover_target_name(enum target_state state)
{
    static const char *const names[] = {
        [TARGET_RECEIVING] = "receiving", [TARGET_LOADED] = "loaded",   [TARGET_TAKING] = "taking",
        [TARGET_RUNS] = "runs",           [TARGET_GAVE_UP] = "gave up",
    };

    return names[state];
}
