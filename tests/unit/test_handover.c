/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who runs: what holds for every state and event, and that the tables in the specification are
 * those of the code. Whether the tables are right is for tests/model to find out.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../src/migration/handover.h"

#define SPECIFICATION VMRUN_TEST_DATA "/../../../docs/migration-protocol.md"

#define SOURCE_STATES (SOURCE_UNCERTAIN + 1)
#define SOURCE_EVENTS (SOURCE_PERSON_KILL + 1)
#define TARGET_STATES (TARGET_GAVE_UP + 1)
#define TARGET_EVENTS (TARGET_LOCK_DENIED + 1)

static const char *const source_events[SOURCE_EVENTS] = {
    [SOURCE_SENT_ALL] = "all is sent",
    [SOURCE_READY] = "READY",
    [SOURCE_DONE] = "DONE",
    [SOURCE_REFUSED] = "REFUSED",
    [SOURCE_BROKEN] = "broken, timeout, garbage",
    [SOURCE_CANCEL] = "cancel",
    [SOURCE_LOCK_DENIED] = "the target has it",
    [SOURCE_LOCK_GOT] = "got, all as it was",
    [SOURCE_LOCK_USELESS] = "got, but not as it was; or no answer",
    [SOURCE_PERSON_RESUME] = "a person: resume",
    [SOURCE_PERSON_KILL] = "a person: kill",
};
static const char *const source_actions[] = {
    [SOURCE_NOTHING] = "–",
    [SOURCE_COMMIT] = "stamps, unlocks, sends COMMIT",
    [SOURCE_ASK_ARBITER] = "asks",
    [SOURCE_RESUME] = "runs on",
    [SOURCE_END] = "ends",
    [SOURCE_STAY_PAUSED] = "stays paused",
    [SOURCE_REFUSE] = "refuses: too late",
};
static const char *const target_events[TARGET_EVENTS] = {
    [TARGET_LOADED_ALL] = "all is loaded",
    [TARGET_FAILED] = "failure, a person, a signal",
    [TARGET_BROKEN] = "broken, timeout, garbage",
    [TARGET_COMMIT] = "COMMIT",
    [TARGET_LOCK_GOT] = "all locks got",
    [TARGET_LOCK_DENIED] = "a lock denied, an image touched",
};
static const char *const target_actions[] = {
    [TARGET_NOTHING] = "–",
    [TARGET_SEND_READY] = "sends READY",
    [TARGET_TAKE_LOCK] = "takes the locks",
    [TARGET_RUN] = "runs, sends DONE",
    [TARGET_DISCARD] = "discards it, ends",
    [TARGET_REFUSE_AND_DISCARD] = "sends REFUSED, discards it, ends",
};

struct text {
    char *bytes;
    size_t len;
    FILE *file;
};

static void text_open(struct text *text)
{
    text->file = open_memstream(&text->bytes, &text->len);
    assert_non_null(text->file);
}

/* What changes nothing and does nothing is left out. */
static void print_row(FILE *to, const char *const names[2], const char *event, const char *when,
                      const char *action)
{
    if (names[0] != names[1] || strcmp(action, "–") != 0)
        (void)fprintf(to, "| %s | %s%s | %s | %s |\n", names[0], event, when, action, names[1]);
}

static void print_source(FILE *to, enum source_state state, enum source_event event)
{
    static const char *const when[2] = {"; no arbiter", "; an arbiter"};
    enum source_state next[2] = {state, state};
    enum source_action action[2];

    for (int arbiter = 0; arbiter < 2; arbiter++)
        action[arbiter] = handover_source(&next[arbiter], event, arbiter);
    bool same = next[0] == next[1] && action[0] == action[1];

    for (int arbiter = 1; arbiter >= same; arbiter--) {
        const char *names[2] = {handover_source_name(state), handover_source_name(next[arbiter])};

        print_row(to, names, source_events[event], same ? "" : when[arbiter],
                  source_actions[action[arbiter]]);
    }
}

static void print_target(FILE *to, enum target_state state, enum target_event event)
{
    enum target_state next[2] = {state, state};
    enum target_action action = handover_target(&next[0], event, false);

    assert_int_equal(handover_target(&next[1], event, true), action);
    assert_int_equal(next[0], next[1]); /* it is the same with an arbiter and without */
    print_row(to,
              (const char *const[2]){handover_target_name(state), handover_target_name(next[0])},
              target_events[event], "", target_actions[action]);
}

static char *read_specification(void)
{
    FILE *file = fopen(SPECIFICATION, "r");
    struct text text;
    char line[4096];

    if (!file)
        fail_msg("%s is missing", SPECIFICATION);
    text_open(&text);
    while (fgets(line, sizeof(line), file))
        (void)fputs(line, text.file);
    (void)fclose(file);
    (void)fclose(text.file);
    return text.bytes;
}

static void assert_specified(struct text *table)
{
    char *specification = read_specification();

    (void)fclose(table->file);
    if (!strstr(specification, table->bytes))
        fail_msg("%s does not have this table:\n%s", SPECIFICATION, table->bytes);
    free(specification);
    free(table->bytes);
}

static void the_source_does_what_the_specification_says(void **state)
{
    struct text table;

    (void)state;
    text_open(&table);
    (void)fputs("| it is | what happens | what it does | it is then |\n|---|---|---|---|\n",
                table.file);
    for (int s = 0; s < SOURCE_STATES; s++)
        for (int event = 0; event < SOURCE_EVENTS; event++)
            print_source(table.file, s, event);
    assert_specified(&table);
}

static void the_target_does_what_the_specification_says(void **state)
{
    struct text table;

    (void)state;
    text_open(&table);
    (void)fputs("| it is | what happens | what it does | it is then |\n|---|---|---|---|\n",
                table.file);
    for (int s = 0; s < TARGET_STATES; s++)
        for (int event = 0; event < TARGET_EVENTS; event++)
            print_target(table.file, s, event);
    assert_specified(&table);
}

/* A cell that was forgotten is all zeros: it leads to the first state. */
static void nothing_leads_back_to_the_beginning(void **state)
{
    (void)state;
    for (int arbiter = 0; arbiter < 2; arbiter++) {
        for (int s = 1; s < SOURCE_STATES; s++) {
            for (int event = 0; event < SOURCE_EVENTS; event++) {
                enum source_state next = s;

                (void)handover_source(&next, event, arbiter);
                assert_int_not_equal(next, SOURCE_COPYING);
            }
        }
        for (int t = 1; t < TARGET_STATES; t++) {
            for (int event = 0; event < TARGET_EVENTS; event++) {
                enum target_state next = t;

                (void)handover_target(&next, event, arbiter);
                assert_int_not_equal(next, TARGET_RECEIVING);
            }
        }
    }
}

static void an_end_is_an_end(void **state)
{
    (void)state;
    for (int arbiter = 0; arbiter < 2; arbiter++) {
        for (int event = 0; event < SOURCE_EVENTS; event++) {
            bool asked = event == SOURCE_CANCEL || event >= SOURCE_PERSON_RESUME;
            enum source_state runs = SOURCE_RUNS, gone = SOURCE_GONE;

            assert_int_equal(handover_source(&runs, event, arbiter),
                             asked ? SOURCE_REFUSE : SOURCE_NOTHING);
            assert_int_equal(handover_source(&gone, event, arbiter),
                             asked ? SOURCE_REFUSE : SOURCE_NOTHING);
            assert_int_equal(runs, SOURCE_RUNS);
            assert_int_equal(gone, SOURCE_GONE);
        }
        for (int event = 0; event < TARGET_EVENTS; event++) {
            enum target_state runs = TARGET_RUNS, gave_up = TARGET_GAVE_UP;

            assert_int_equal(handover_target(&runs, event, arbiter), TARGET_NOTHING);
            assert_int_equal(handover_target(&gave_up, event, arbiter), TARGET_NOTHING);
            assert_int_equal(runs, TARGET_RUNS);
            assert_int_equal(gave_up, TARGET_GAVE_UP);
        }
    }
}

static void the_source_resumes_after_commit_only_by_an_answer_or_a_person(void **state)
{
    (void)state;
    for (int arbiter = 0; arbiter < 2; arbiter++) {
        for (int s = SOURCE_COMMITTED; s < SOURCE_STATES; s++) {
            for (int event = 0; event < SOURCE_EVENTS; event++) {
                enum source_state next = s;
                bool resumes = handover_source(&next, event, arbiter) == SOURCE_RESUME;
                bool may = (s == SOURCE_ASKING && event == SOURCE_LOCK_GOT) ||
                           (s == SOURCE_UNCERTAIN && event == SOURCE_PERSON_RESUME) ||
                           (!arbiter && event == SOURCE_REFUSED &&
                            (s == SOURCE_COMMITTED || s == SOURCE_UNCERTAIN));

                assert_int_equal(resumes, may);
            }
        }
    }
}

static void before_commit_the_source_never_ends_and_never_asks(void **state)
{
    (void)state;
    for (int arbiter = 0; arbiter < 2; arbiter++) {
        for (int s = SOURCE_COPYING; s <= SOURCE_STOPPED; s++) {
            for (int event = 0; event < SOURCE_EVENTS; event++) {
                enum source_state next = s;
                enum source_action action = handover_source(&next, event, arbiter);

                assert_true(action == SOURCE_NOTHING || action == SOURCE_RESUME ||
                            action == SOURCE_REFUSE || action == SOURCE_COMMIT);
                assert_int_equal(action == SOURCE_COMMIT,
                                 s == SOURCE_STOPPED && event == SOURCE_READY);
            }
        }
    }
}

static void the_target_runs_by_commit_and_locks_alone(void **state)
{
    (void)state;
    for (int arbiter = 0; arbiter < 2; arbiter++) {
        for (int t = 0; t < TARGET_STATES; t++) {
            for (int event = 0; event < TARGET_EVENTS; event++) {
                enum target_state next = t;
                enum target_action action = handover_target(&next, event, arbiter);

                assert_int_equal(action == TARGET_RUN,
                                 t == TARGET_TAKING && event == TARGET_LOCK_GOT);
                assert_int_equal(action == TARGET_TAKE_LOCK,
                                 t == TARGET_LOADED && event == TARGET_COMMIT);
            }
        }
    }
}

static void every_state_has_its_own_name(void **state)
{
    (void)state;
    for (int a = 0; a < SOURCE_STATES; a++)
        for (int b = 0; b < a; b++)
            assert_string_not_equal(handover_source_name(a), handover_source_name(b));
    for (int a = 0; a < TARGET_STATES; a++)
        for (int b = 0; b < a; b++)
            assert_string_not_equal(handover_target_name(a), handover_target_name(b));
    assert_string_equal(handover_source_name(SOURCE_UNCERTAIN), "handover-uncertain");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_source_does_what_the_specification_says),
        cmocka_unit_test(the_target_does_what_the_specification_says),
        cmocka_unit_test(nothing_leads_back_to_the_beginning),
        cmocka_unit_test(an_end_is_an_end),
        cmocka_unit_test(the_source_resumes_after_commit_only_by_an_answer_or_a_person),
        cmocka_unit_test(before_commit_the_source_never_ends_and_never_asks),
        cmocka_unit_test(the_target_runs_by_commit_and_locks_alone),
        cmocka_unit_test(every_state_has_its_own_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
