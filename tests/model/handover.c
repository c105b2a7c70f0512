/* SPDX-License-Identifier: Apache-2.0 */
/*
 * handover: can a machine that moves run twice, or never, or with RAM that its disk has outlived?
 *
 * Both sides are driven by the very tables of src/migration/handover.c; what those leave to
 * source.c and target.c there, the order of single steps, stands in source.c and target.c here.
 * Around them is all that may happen: a process that is killed between any two steps or stopped for
 * any time, words that are late or lost, timeouts at any moment, locks that cannot be asked for, a
 * person, and a stranger who takes the image while nobody holds it.
 *
 * A mutant is the same with one mistake; a model that finds nothing wrong with it is no good.
 */
#include <stdio.h>
#include <string.h>

#include "../../src/migration/handover.h"
#include "search.h"
#include "world.h"

enum mutation mutation;
bool with_arbiter;

void say(struct world *w, struct line *line, enum word word)
{
    unsigned i = 0;

    while (i < WORDS && line->words[i] != NO_WORD)
        i++;
    if (line->cut || i == WORDS)
        w->lost = 1;
    else
        line->words[i] = word;
}

enum word hear(struct line *line)
{
    enum word word = line->words[0];

    memmove(line->words, line->words + 1, WORDS - 1);
    line->words[WORDS - 1] = NO_WORD;
    return word;
}

void drop_locks(struct world *w, enum holder holder)
{
    w->arbiter = w->arbiter == holder ? NOBODY : w->arbiter;
    w->promised = w->promised && holder != TARGET;
    w->image = w->image == holder ? NOBODY : w->image;
}

/* Around both sides */

static bool lose_last(struct world *w, struct line *line)
{
    unsigned i = WORDS;

    while (i > 0 && line->words[i - 1] == NO_WORD)
        i--;
    if (!line->cut || i == 0)
        return false;
    line->words[i - 1] = NO_WORD;
    w->lost = 1;
    return true;
}

static bool loses_for_target(void *opaque)
{
    struct world *w = opaque;

    return lose_last(w, &w->to_target);
}

static bool loses_for_source(void *opaque)
{
    struct world *w = opaque;

    return lose_last(w, &w->to_source);
}

static bool cuts_to_target(void *opaque)
{
    struct world *w = opaque;
    bool possible = !w->to_target.cut;

    w->to_target.cut = 1;
    return possible;
}

static bool cuts_to_source(void *opaque)
{
    struct world *w = opaque;
    bool possible = !w->to_source.cut;

    w->to_source.cut = 1;
    return possible;
}

static bool stranger_takes(void *opaque)
{
    struct world *w = opaque;

    if (!with_arbiter || w->image != NOBODY)
        return false;
    w->image = STRANGER;
    w->stranger_took = 1;
    return true;
}

static bool stranger_writes(void *opaque)
{
    struct world *w = opaque;

    if (w->image != STRANGER)
        return false;
    w->stamped = 0;
    w->written_by |= 1u << STRANGER;
    return true;
}

static bool stranger_leaves(void *opaque)
{
    struct world *w = opaque;

    if (w->image != STRANGER)
        return false;
    w->image = NOBODY;
    return true;
}

static const struct search_step steps[] = {
    {"the source stops the machine and sends all that is left", source_sends_all, true},
    {"the source goes on with what it has to do", source_works, true},
    {"the source hears a word", source_hears, true},
    {"the source waits in vain, or its connection breaks", source_waits_in_vain, true},
    {"the target goes on with what it has to do", target_works, true},
    {"the target hears a word", target_hears, true},
    {"the target waits in vain, or its connection breaks", target_waits_in_vain, true},
    {"a person cancels", source_is_cancelled, false},
    {"the source cannot ask for a lock", source_cannot_ask, false},
    {"the machine writes to its disk at the source", source_writes, false},
    {"the source is killed", source_is_killed, false},
    {"a person says: resume", person_resumes, false},
    {"a person says: kill", person_kills, false},
    {"somebody wants the target to give up", target_fails, false},
    {"the target cannot ask for a lock", target_cannot_ask, false},
    {"the machine writes to its disk at the target", target_writes, false},
    {"the target is killed", target_is_killed, false},
    {"the line to the target is cut", cuts_to_target, false},
    {"the line to the source is cut", cuts_to_source, false},
    {"the last word on the cut line to the target is lost", loses_for_target, false},
    {"the last word on the cut line to the source is lost", loses_for_source, false},
    {"a stranger locks the image", stranger_takes, false},
    {"the stranger writes to the image", stranger_writes, false},
    {"the stranger lets go of the image", stranger_leaves, false},
};

/* Promises */

static const char *judge_any(const struct world *w)
{
    bool source_gone = w->source_dead || w->source_ended;
    bool target_gone = w->target_dead || w->target_ended;

    if (w->source_runs && w->target_runs)
        return "it runs on both sides";
    if (w->stale)
        return "it goes on with RAM that its disk, or the machine itself, has outlived";
    if (w->target_runs && !w->committed)
        return "the target runs it without COMMIT";
    if (with_arbiter &&
        ((w->source_runs && w->image != SOURCE) || (w->target_runs && w->image != TARGET)))
        return "it runs without the lock of its image";
    if ((source_gone && (w->image == SOURCE || w->arbiter == SOURCE)) ||
        (target_gone && (w->image == TARGET || w->arbiter == TARGET)))
        return "who is gone holds a lock";
    return NULL;
}

/* Nothing more happens, but for what nobody can rely on. */
static const char *judge_end(const struct world *w)
{
    bool runs = w->source_runs || w->target_runs;
    bool disturbed = w->stranger_took || w->lock_failed || w->person;
    bool killed = w->source_dead || w->target_dead;

    if (w->source == SOURCE_UNCERTAIN && !with_arbiter && !w->lost && !killed)
        return "it is uncertain though every answer was heard";
    if (!runs && !killed && !w->person && !with_arbiter && w->source != SOURCE_UNCERTAIN)
        return "it runs nowhere, and nobody was killed";
    if (!runs && !killed && with_arbiter && !disturbed)
        return "it runs nowhere, and nobody was killed";
    if (w->source == SOURCE_UNCERTAIN && with_arbiter && !disturbed &&
        !(w->target_dead && !w->stamped) && !w->source_dead)
        return "it is uncertain in spite of the arbiter";
    if (w->source_ended && !runs && !w->person && !w->target_dead)
        return "it runs nowhere, and nobody was killed";
    if (w->source_ended && !runs && w->target_dead && !w->person && with_arbiter &&
        !w->target_promised)
        return "the source ended though the target had not promised to run it";
    if (w->target_denied && !w->asked && !disturbed)
        return "the target was denied what nobody else had asked for";
    return NULL;
}

static const char *judge(const void *state, bool ended)
{
    const char *broken = judge_any(state);

    return broken || !ended ? broken : judge_end(state);
}

static void describe_side(char *buf, size_t len, const char *state, bool dead, bool runs,
                          unsigned task)
{
    static const char *const tasks[] = {
        [IDLE] = "",
        [SET_STAMP] = ", to set the stamp",
        [DROP_IMAGE] = ", to let go of the image",
        [SEND_COMMIT] = ", to send COMMIT",
        [TRY_ARBITER] = ", to take the arbiter",
        [TRY_IMAGE] = ", to take the image",
        [LOOK_AT_TIME] = ", to look at the image's time",
        [SET_TIME_ANEW] = ", to set its time anew",
        [MARK_IMAGE] = ", to set its time anew",
        [PROMISE] = ", to promise",
        [RUN] = ", to run",
        [SEND_READY] = ", to send READY",
        [SEND_DONE] = ", to send DONE",
        [DROP_ALL] = ", to let go of all",
        [SEND_REFUSED] = ", to send REFUSED",
        [END] = ", to end",
    };

    (void)snprintf(buf, len, "%s%s%s", dead ? "dead" : state, runs ? " and RUNNING" : "",
                   tasks[task]);
}

static void describe(const void *state, char *buf, size_t len)
{
    static const char *const holders[] = {"nobody's", "the source's", "the target's",
                                          "a stranger's"};
    const struct world *w = state;
    char source[80], target[80];

    describe_side(source, sizeof(source), handover_source_name(w->source), w->source_dead,
                  w->source_runs, w->source_task);
    describe_side(target, sizeof(target), handover_target_name(w->target), w->target_dead,
                  w->target_runs, w->target_task);
    (void)snprintf(buf, len, "source %s; target %s; arbiter %s; image %s%s", source, target,
                   holders[w->arbiter], holders[w->image], w->stamped ? ", stamped" : "");
}

static struct search_result explore(enum mutation which, bool arbiter, bool trace)
{
    const struct search_model model = {
        .state_bytes = sizeof(struct world),
        .steps = steps,
        .step_count = sizeof(steps) / sizeof(steps[0]),
        .judge = judge,
        .describe = describe,
    };
    struct world first = {.source = SOURCE_COPYING, .source_runs = 1, .target = TARGET_RECEIVING};

    first.image = arbiter ? SOURCE : NOBODY;
    mutation = which;
    with_arbiter = arbiter;
    return search_all(&model, &first, trace);
}

static const struct mutant {
    enum mutation mutation;
    bool arbiter;
    const char *words;
} mutants[] = {
    {RESUMES_ON_TIMEOUT, true, "the source resumes on a timeout after COMMIT"},
    {ENDS_ON_TIMEOUT, true, "the source ends on a timeout after COMMIT"},
    {LATE_CANCEL, true, "the source takes a cancel after COMMIT"},
    {GUESSES_WITHOUT_ARBITER, false, "without an arbiter, the source resumes on a timeout"},
    {GIVES_ARBITER_BACK, true, "the source does not keep the arbiter"},
    {DROPS_AT_STOP, true, "the source lets go of the image when it stops, not when it commits"},
    {STAMPS_AFTER_DROP, true, "the source stamps the image when it has let go of it"},
    {NO_LOOK_AT_SOURCE, true, "the source does not look at the image's time"},
    {NO_NEW_TIME, true, "the source resumes without a new time for the image"},
    {RUNS_BEFORE_LOCK, true, "the target runs before it has the locks"},
    {RUNS_ON_BREAK, false, "the target takes a broken connection for COMMIT"},
    {GIVES_UP_TAKING, true, "the target gives up while it takes the locks"},
    {IMAGE_BEFORE_ARBITER, true, "the target takes the image before the arbiter"},
    {NO_ARBITER_AT_TARGET, true, "the target takes no arbiter, only the image"},
    {NO_LOOK_AT_TARGET, true, "the target does not look at the image's time"},
    {NO_MARK_BY_TARGET, true, "the target runs without a new time for the image"},
    {NO_PROMISE, true, "the source believes the arbiter before the target has the image too"},
};

static bool check_protocol(void)
{
    bool good = true;

    for (unsigned arbiter = 0; arbiter < 2; arbiter++) {
        struct search_result result = explore(NO_MUTATION, arbiter, true);

        printf("%s an arbiter: %zu states, %zu of them ends: %s\n", arbiter ? "with" : "without",
               result.states, result.ended,
               result.broken ? result.broken : "every promise is kept");
        good = good && !result.broken;
    }
    return good;
}

static bool check_mutants(bool trace)
{
    bool good = true;

    for (unsigned i = 0; i < sizeof(mutants) / sizeof(mutants[0]); i++) {
        struct search_result result = explore(mutants[i].mutation, mutants[i].arbiter, trace);

        printf("%s: %s (%zu states)\n", mutants[i].words,
               result.broken ? result.broken : "NOT FOUND", result.states);
        good = good && result.broken;
    }
    return good;
}

/* "mutants": each is to be found; with "trace" after it, how. Else the protocol itself. */
int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "mutants") == 0)
        return check_mutants(argc > 2) ? 0 : 1;
    return check_protocol() ? 0 : 1;
}
