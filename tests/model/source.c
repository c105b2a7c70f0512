/* SPDX-License-Identifier: Apache-2.0 */
/* source: the side that has the machine; the order of its single steps is that of handover.h. */
#include "../../src/migration/handover.h"
#include "world.h"

static void source_event(struct world *w, enum source_event event)
{
    enum source_state state = w->source;
    bool in_doubt = w->source == SOURCE_COMMITTED;
    enum source_action action = handover_source(&state, event, with_arbiter);

    if (in_doubt && event == SOURCE_BROKEN &&
        (mutation == RESUMES_ON_TIMEOUT ||
         (mutation == GUESSES_WITHOUT_ARBITER && !with_arbiter))) {
        state = SOURCE_RUNS;
        action = SOURCE_RESUME;
    }
    if (in_doubt && event == SOURCE_BROKEN && mutation == ENDS_ON_TIMEOUT) {
        state = SOURCE_GONE;
        action = SOURCE_END;
    }
    if (in_doubt && event == SOURCE_CANCEL && mutation == LATE_CANCEL) {
        state = SOURCE_RUNS;
        action = SOURCE_RESUME;
    }
    w->source = state;
    switch (action) {
    case SOURCE_COMMIT:
        w->committed = 1;
        w->source_task = !with_arbiter                   ? SEND_COMMIT
                         : mutation == STAMPS_AFTER_DROP ? DROP_IMAGE
                                                         : SET_STAMP;
        break;
    case SOURCE_ASK_ARBITER: w->source_task = TRY_ARBITER; break;
    case SOURCE_RESUME: w->source_task = RUN; break;
    case SOURCE_END: w->source_task = END; break;
    case SOURCE_NOTHING:
    case SOURCE_STAY_PAUSED:
    case SOURCE_REFUSE: break;
    }
}

static bool source_lock(struct world *w)
{
    switch (w->source_task) {
    case TRY_ARBITER:
        if (w->arbiter == TARGET && !w->promised && mutation != NO_PROMISE)
            return false; /* it asks again, as long as it takes */
        w->asked = 1;
        w->source_task = IDLE;
        if (w->arbiter == TARGET) {
            source_event(w, SOURCE_LOCK_DENIED);
            return true;
        }
        w->arbiter = mutation == GIVES_ARBITER_BACK ? NOBODY : SOURCE;
        w->source_task = TRY_IMAGE;
        return true;
    case TRY_IMAGE:
        w->source_task = IDLE;
        if (w->image != NOBODY && w->image != SOURCE) {
            source_event(w, SOURCE_LOCK_USELESS);
            return true;
        }
        w->image = SOURCE;
        w->source_task = LOOK_AT_TIME;
        return true;
    case LOOK_AT_TIME:
        w->source_task = SET_TIME_ANEW;
        if (!w->stamped && mutation != NO_LOOK_AT_SOURCE) {
            w->image = NOBODY;
            w->source_task = IDLE;
            source_event(w, SOURCE_LOCK_USELESS);
        }
        return true;
    default:
        w->stamped = w->stamped && mutation == NO_NEW_TIME;
        w->source_task = IDLE;
        source_event(w, SOURCE_LOCK_GOT);
        return true;
    }
}

static void source_run(struct world *w)
{
    w->source_runs = 1;
    w->resumed = w->committed;
    if (!w->person && (w->target_began || w->written_by & 1u << STRANGER))
        w->stale = SOURCE;
}

bool source_works(void *opaque)
{
    struct world *w = opaque;
    enum task task = w->source_task;

    if (w->source_dead || task == IDLE)
        return false;
    w->source_task = IDLE;
    switch (task) {
    case SET_STAMP:
        w->stamped = 1;
        w->source_task = mutation == STAMPS_AFTER_DROP ? SEND_COMMIT : DROP_IMAGE;
        break;
    case DROP_IMAGE:
        w->image = w->image == SOURCE ? NOBODY : w->image;
        w->source_task = mutation == STAMPS_AFTER_DROP ? SET_STAMP : SEND_COMMIT;
        break;
    case SEND_COMMIT: say(w, &w->to_target, WORD_COMMIT); break;
    case RUN: source_run(w); break;
    case END:
        w->source_ended = 1;
        drop_locks(w, SOURCE);
        break;
    default: w->source_task = task; return source_lock(w);
    }
    return true;
}

static bool source_is_free(const struct world *w)
{
    return !w->source_dead && !w->source_ended && w->source_task == IDLE;
}

bool source_sends_all(void *opaque)
{
    struct world *w = opaque;

    if (!source_is_free(w) || w->source != SOURCE_COPYING)
        return false;
    w->source_runs = 0;
    if (mutation == DROPS_AT_STOP)
        drop_locks(w, SOURCE);
    say(w, &w->to_target, WORD_STATE);
    source_event(w, SOURCE_SENT_ALL);
    return true;
}

bool source_hears(void *opaque)
{
    struct world *w = opaque;

    /* Between two tries to get the arbiter it listens as well. */
    if ((!source_is_free(w) && (w->source_dead || w->source_task != TRY_ARBITER)) ||
        w->to_source.words[0] == NO_WORD)
        return false;
    switch (hear(&w->to_source)) {
    case WORD_READY: source_event(w, SOURCE_READY); break;
    case WORD_DONE: source_event(w, SOURCE_DONE); break;
    default: source_event(w, SOURCE_REFUSED);
    }
    return true;
}

bool source_waits_in_vain(void *opaque)
{
    struct world *w = opaque;

    if (!source_is_free(w) || w->source > SOURCE_COMMITTED)
        return false;
    source_event(w, SOURCE_BROKEN);
    return true;
}

bool source_is_cancelled(void *opaque)
{
    struct world *w = opaque;

    if (!source_is_free(w))
        return false;
    source_event(w, SOURCE_CANCEL);
    return true;
}

bool source_cannot_ask(void *opaque)
{
    struct world *w = opaque;

    if (w->source_dead || (w->source_task != TRY_ARBITER && w->source_task != TRY_IMAGE &&
                           w->source_task != LOOK_AT_TIME))
        return false;
    w->lock_failed = w->asked = 1;
    w->source_task = IDLE;
    source_event(w, SOURCE_LOCK_USELESS);
    return true;
}

/* Without an arbiter a person can be wrong: nothing is promised then. */
bool person_resumes(void *opaque)
{
    struct world *w = opaque;

    if (!source_is_free(w) || !with_arbiter || w->source != SOURCE_UNCERTAIN ||
        (w->image != NOBODY && w->image != SOURCE))
        return false;
    w->image = SOURCE;
    w->stamped = w->stamped && mutation == NO_NEW_TIME;
    w->person = 1;
    source_event(w, SOURCE_PERSON_RESUME);
    return true;
}

bool person_kills(void *opaque)
{
    struct world *w = opaque;

    if (!source_is_free(w) || w->source != SOURCE_UNCERTAIN)
        return false;
    w->person = 1;
    source_event(w, SOURCE_PERSON_KILL);
    return true;
}

bool source_writes(void *opaque)
{
    struct world *w = opaque;

    if (!w->source_runs || !with_arbiter)
        return false;
    w->stamped = 0;
    w->written_by |= (uint8_t)(w->committed << SOURCE);
    return true;
}

bool source_is_killed(void *opaque)
{
    struct world *w = opaque;

    if (w->source_dead || w->source_ended)
        return false;
    w->source_dead = 1;
    w->source_runs = 0;
    w->source_task = IDLE;
    drop_locks(w, SOURCE);
    return true;
}
