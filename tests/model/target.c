/* SPDX-License-Identifier: Apache-2.0 */
/* target: the side that gets the machine; the order of its single steps is that of handover.h. */
#include "../../src/migration/handover.h"
#include "world.h"

static void target_event(struct world *w, enum target_event event)
{
    enum target_state before = w->target, state = before;
    enum target_action action = handover_target(&state, event, with_arbiter);

    if (mutation == RUNS_BEFORE_LOCK && action == TARGET_TAKE_LOCK)
        action = TARGET_RUN;
    if (mutation == RUNS_ON_BREAK && before == TARGET_LOADED && event == TARGET_BROKEN) {
        state = with_arbiter ? TARGET_TAKING : TARGET_RUNS;
        action = with_arbiter ? TARGET_TAKE_LOCK : TARGET_RUN;
    }
    if (mutation == GIVES_UP_TAKING && before == TARGET_TAKING && event == TARGET_FAILED) {
        state = TARGET_GAVE_UP;
        action = TARGET_REFUSE_AND_DISCARD;
    }
    w->target = state;
    switch (action) {
    case TARGET_SEND_READY: w->target_task = SEND_READY; break;
    case TARGET_TAKE_LOCK:
        w->target_task = !with_arbiter                      ? PROMISE
                         : mutation == IMAGE_BEFORE_ARBITER ? TRY_IMAGE
                         : mutation == NO_ARBITER_AT_TARGET ? TRY_IMAGE
                                                            : TRY_ARBITER;
        break;
    case TARGET_RUN: w->target_task = RUN; break;
    case TARGET_DISCARD: w->target_task = END; break;
    case TARGET_REFUSE_AND_DISCARD: w->target_task = DROP_ALL; break;
    case TARGET_NOTHING: break;
    }
}

static void target_is_denied(struct world *w)
{
    w->target_denied = 1;
    w->target_task = IDLE;
    target_event(w, TARGET_LOCK_DENIED);
}

static void target_lock(struct world *w)
{
    switch (w->target_task) {
    case TRY_ARBITER:
        if (w->arbiter == SOURCE) {
            target_is_denied(w);
            return;
        }
        w->arbiter = TARGET;
        w->target_task = mutation == IMAGE_BEFORE_ARBITER ? LOOK_AT_TIME : TRY_IMAGE;
        return;
    case TRY_IMAGE:
        if (w->image != NOBODY) {
            target_is_denied(w);
            return;
        }
        w->image = TARGET;
        w->target_task = mutation == IMAGE_BEFORE_ARBITER ? TRY_ARBITER : LOOK_AT_TIME;
        return;
    default:
        if (!w->stamped && mutation != NO_LOOK_AT_TARGET) {
            target_is_denied(w);
            return;
        }
        w->target_task = MARK_IMAGE;
    }
}

bool target_works(void *opaque)
{
    struct world *w = opaque;
    enum task task = w->target_task;

    if (w->target_dead || task == IDLE)
        return false;
    w->target_task = IDLE;
    switch (task) {
    case SEND_READY: say(w, &w->to_source, WORD_READY); break;
    case MARK_IMAGE:
        w->stamped = w->stamped && mutation == NO_MARK_BY_TARGET;
        w->target_task = PROMISE;
        break;
    case PROMISE:
        w->promised = w->target_promised = 1;
        target_event(w, TARGET_LOCK_GOT);
        break;
    case RUN:
        w->target_runs = w->target_began = 1;
        if (w->resumed || w->written_by & (1u << SOURCE | 1u << STRANGER))
            w->stale = TARGET;
        w->target_task = SEND_DONE;
        break;
    case SEND_DONE: say(w, &w->to_source, WORD_DONE); break;
    case DROP_ALL:
        drop_locks(w, TARGET);
        w->target_task = SEND_REFUSED;
        break;
    case SEND_REFUSED:
        say(w, &w->to_source, WORD_REFUSED);
        w->target_task = END;
        break;
    case END:
        w->target_ended = 1;
        drop_locks(w, TARGET);
        break;
    default: w->target_task = task; target_lock(w);
    }
    return true;
}

static bool target_is_there(const struct world *w)
{
    return !w->target_dead && !w->target_ended;
}

bool target_hears(void *opaque)
{
    struct world *w = opaque;

    if (!target_is_there(w) || w->target_task != IDLE || w->to_target.words[0] == NO_WORD)
        return false;
    target_event(w, hear(&w->to_target) == WORD_COMMIT ? TARGET_COMMIT : TARGET_LOADED_ALL);
    return true;
}

/* Also while it takes the locks: then it must not matter. */
static bool target_may_be_disturbed(const struct world *w)
{
    return target_is_there(w) && (w->target_task == IDLE || w->target == TARGET_TAKING);
}

bool target_waits_in_vain(void *opaque)
{
    struct world *w = opaque;

    if (!target_may_be_disturbed(w) || w->target > TARGET_TAKING)
        return false;
    target_event(w, TARGET_BROKEN);
    return true;
}

bool target_fails(void *opaque)
{
    struct world *w = opaque;

    if (!target_may_be_disturbed(w))
        return false;
    target_event(w, TARGET_FAILED);
    return true;
}

bool target_cannot_ask(void *opaque)
{
    struct world *w = opaque;

    if (!target_is_there(w) || w->target_task < TRY_ARBITER || w->target_task > PROMISE)
        return false;
    w->lock_failed = 1;
    target_is_denied(w);
    return true;
}

bool target_writes(void *opaque)
{
    struct world *w = opaque;

    if (!w->target_runs || !with_arbiter)
        return false;
    w->stamped = 0;
    w->written_by |= 1u << TARGET;
    return true;
}

bool target_is_killed(void *opaque)
{
    struct world *w = opaque;

    if (!target_is_there(w))
        return false;
    w->target_dead = 1;
    w->target_runs = 0;
    w->target_task = IDLE;
    drop_locks(w, TARGET);
    return true;
}
