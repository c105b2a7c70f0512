/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What migration asks of a machine, answered by fakes. The source's calls and the target's are told
 * apart by what is asked: neither is asked what the other is.
 */
#include "moving.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "vmrun/thread.h"

#define LAST_STATE "the last state"

struct moving moving;

const char *moving_step_name(enum moving_step step)
{
    static const char *const names[] = {
        "nothing", "mark",          "describe",      "cpuid",         "create",        "shared",
        "harvest", "rehearse-sync", "rehearse-hold", "rehearse-save", "rehearse-load", "hold",
        "sync",    "save",          "load",          "offer",         "take"};

    _Static_assert(sizeof(names) / sizeof(names[0]) == MOVING_STEPS, "a name for each");
    return names[step];
}

static int at(enum moving_step step, struct error *err)
{
    if (step != moving.step)
        return 0;
    if (moving.act)
        moving.act();
    return moving.fails ? error_set(err, EIO, "%s: told to", moving_step_name(step)) : 0;
}

/* Any machine */

enum machine_state machine_state(const struct machine *m)
{
    return m->state;
}

void machine_info(const struct machine *m, struct machine_info *ret_info)
{
    (void)m;
    *ret_info = (struct machine_info){.memory_host_bytes = MOVING_SIZE};
}

int machine_refuse(const struct machine *m, const char *verb, struct error *err)
{
    return error_set(err, EBUSY, "cannot %s: state %d", verb, (int)m->state);
}

struct guest_memory *machine_memory(struct machine *m)
{
    return m->guest.memory;
}

bool machine_has_arbiter(const struct machine *m)
{
    return m->has_disks;
}

int machine_resume(struct machine *m, struct error *err)
{
    (void)err;
    m->state = MACHINE_RUNNING;
    return 0;
}

int machine_pause(struct machine *m, struct error *err)
{
    (void)err;
    m->state = MACHINE_PAUSED;
    return 0;
}

void machine_kill(struct machine *m)
{
    m->killed = true;
    m->state = MACHINE_ENDED;
    loop_stop(m->loop);
}

void machine_crash(struct machine *m, const char *report)
{
    (void)m;
    fail_msg("%s", report);
}

/* The source */

int machine_dirty_log(struct machine *m, bool on, struct error *err)
{
    (void)err;
    fake_guest_log(&m->guest, on);
    return 0;
}

int machine_dirty_harvest(struct machine *m, unsigned region, uint64_t *bitmap, struct error *err)
{
    if (region == 0 && !m->held && m->writes)
        fake_guest_write_many(&m->guest, m->writes(m, ++m->harvests));
    fake_guest_log_look(&m->guest, region, bitmap);
    return region == 0 ? at(MOVING_HARVEST, err) : 0;
}

int machine_dirty_clear(struct machine *m, unsigned region, uint64_t first_page, uint64_t pages,
                        const uint64_t *bitmap, struct error *err)
{
    (void)err;
    fake_guest_log_clear(&m->guest, region, first_page, pages, bitmap);
    return 0;
}

/* Before a stop it is rehearsed. */
static bool rehearsed(const struct machine *m)
{
    return m->saves >= MOVING_REHEARSALS;
}

int machine_hold(struct machine *m, struct error *err)
{
    int r = at(rehearsed(m) ? MOVING_HOLD : MOVING_REHEARSE_HOLD, err);

    if (r < 0)
        return r;
    if (m->state == MACHINE_RUNNING && rehearsed(m))
        fake_guest_write_many(&m->guest, m->writes_at_hold);
    m->held = true;
    return 0;
}

void machine_leave(struct machine *m, enum machine_leaving leaving)
{
    assert_true(m->held);
    m->leaving = leaving;
}

void machine_release(struct machine *m)
{
    m->leaving = MACHINE_STAYS;
    if (m->held && m->state == MACHINE_RUNNING)
        fake_guest_write_many(&m->guest, 50); /* nothing of this may be anywhere else */
    m->held = false;
}

int machine_sync_disks(struct machine *m, struct error *err)
{
    m->stopped = m->held;
    return at(m->held ? MOVING_SYNC : MOVING_REHEARSE_SYNC, err);
}

/* Another one each time. */
int machine_save_state(struct machine *m, struct writer *w, struct error *err)
{
    int r = at(m->stopped ? MOVING_SAVE : MOVING_REHEARSE_SAVE, err);

    assert_true(m->held);
    assert_int_equal(m->leaving, m->stopped ? MACHINE_LEAVES : MACHINE_STAYS);
    fake_guest_write(&m->guest, 7); /* what is written by saving belongs to it */
    put_bytes(w, m->stopped ? LAST_STATE : "a rehearsal", m->stopped ? strlen(LAST_STATE) : 11);
    m->saves++;
    return r;
}

/* A console with a byte that no text has, and one without a word. */
bool machine_save_extra(struct machine *m, unsigned index, const char **ret_name, uint64_t *from,
                        struct writer *w)
{
    assert_in_range(index, 0, MACHINE_MAX_EXTRAS - 1);
    *ret_name = index == 0 ? "console" : "console.hvc0";
    if (index != 0)
        return true;
    put_bytes(w, m->said + *from, m->said_len - *from);
    if (m->stopped)
        m->said_in_stop += m->said_len - *from;
    *from = m->said_len;
    return true;
}

void moving_say(struct machine *m, const void *text, size_t len)
{
    m->said = realloc(m->said, m->said_len + len);
    assert_non_null(m->said);
    memcpy(m->said + m->said_len, text, len);
    m->said_len += len;
}

int machine_save_cpuid(const struct machine *m, struct writer *w, struct error *err)
{
    (void)m;
    put_bytes(w, "cpuid", 5);
    return at(MOVING_CPUID, err);
}

int machine_describe(const struct machine *m, char **ret_text, struct error *err)
{
    int r = at(MOVING_DESCRIBE, err);

    (void)m;
    if (r == 0)
        *ret_text = strdup("{\"config\":{}}");
    return r;
}

int machine_throttle(struct machine *m, unsigned percent, struct error *err)
{
    (void)err;
    m->throttle = percent;
    m->throttles++;
    m->most_throttle = percent > m->most_throttle ? percent : m->most_throttle;
    return 0;
}

int machine_handover_mark(struct machine *m, const uint8_t *session, struct error *err)
{
    int r = at(MOVING_MARK, err);

    memcpy(m->session, session, sizeof(m->session));
    m->marked = r == 0;
    return r;
}

void machine_handover_unmark(struct machine *m, const uint8_t *session)
{
    assert_memory_equal(m->session, session, sizeof(m->session));
    m->marked = false;
}

uint64_t machine_handover_offer(struct machine *m, const uint8_t *session)
{
    struct error err;

    assert_memory_equal(m->session, session, sizeof(m->session));
    assert_true(m->held);
    assert_int_equal(m->leaving, MACHINE_IS_GIVEN);
    (void)at(MOVING_OFFER, &err);
    m->offered = true;
    return 0x1122334455667788;
}

int machine_handover_ask(struct machine *m, const uint8_t *session,
                         enum block_handover_answer *ret_answer, struct error *why,
                         struct error *err)
{
    assert_memory_equal(m->session, session, sizeof(m->session));
    assert_true(m->offered);
    m->asked++;
    if (moving.taking)
        return error_set(err, EAGAIN, "the target is about to");
    *ret_answer = moving.answer;
    if (moving.answer == HANDOVER_AS_IT_WAS)
        m->offered = false;
    else
        error_set(why, EBUSY, "the disks say so");
    return 0;
}

void machine_set_uncertain(struct machine *m, const char *words)
{
    m->held = false;
    m->state = MACHINE_UNCERTAIN;
    snprintf(m->words, sizeof(m->words), "%s", words);
}

/* The target */

int machine_create_from(const struct vm_config *config, struct loop *loop,
                        const struct machine_image *image, struct machine **ret_machine,
                        struct error *err)
{
    int r = at(MOVING_CREATE, err);

    (void)config, (void)loop;
    assert_true(image->disks_elsewhere);
    assert_int_equal(image->cpuid_len, 5);
    assert_memory_equal(image->cpuid, "cpuid", 5);
    if (r < 0)
        return r;
    *ret_machine = calloc(1, sizeof(**ret_machine));
    assert_non_null(*ret_machine);
    fake_guest_create(&(*ret_machine)->guest, moving.other_memory ? 5 * MOVING_MIB : MOVING_SIZE,
                      MOVING_LOW);
    (*ret_machine)->state = MACHINE_CREATED;
    return 0;
}

void machine_destroy(struct machine *m)
{
    if (!m)
        return;
    fake_guest_destroy(&m->guest);
    free(m->said);
    if (m != &moving.source)
        free(m);
}

int machine_disks_shared(struct machine *m, const uint8_t *session, struct error *err)
{
    memcpy(m->session, session, sizeof(m->session));
    return at(MOVING_SHARED, err);
}

int machine_load_state(struct machine *m, const void *state, size_t len,
                       machine_advance_fn *advance, void *opaque, struct error *err)
{
    bool last = len == strlen(LAST_STATE) && memcmp(state, LAST_STATE, len) == 0;
    int r = at(last ? MOVING_LOAD : MOVING_REHEARSE_LOAD, err);

    if (m->loads++ < 32 && moving.slow_loads >> (m->loads - 1) & 1)
        nanosleep(&(struct timespec){.tv_nsec = MOVING_SLOW_NS}, NULL);
    if (r == 0 && len >= sizeof(m->loaded))
        r = error_set(err, EPROTO, "no state");
    if (r < 0)
        return r;
    memcpy(m->loaded, state, len);
    m->loaded[len] = '\0';
    m->advanced_ns = advance(opaque, 0);
    return 0;
}

bool machine_load_extra(struct machine *m, const char *name, const void *data, size_t len)
{
    if (strcmp(name, "console") != 0)
        return false;
    moving_say(m, data, len);
    return true;
}

void machine_tell_moved(struct machine *m)
{
    m->told_moved = true;
}

int machine_handover_take(struct machine *m, const uint8_t *session, uint64_t times,
                          bool *ret_arbiter, struct error *err)
{
    int r = at(MOVING_TAKE, err);

    assert_memory_equal(m->session, session, sizeof(m->session));
    m->times = times;
    *ret_arbiter = true;
    return r;
}

/* Both */

static void take_progress(void *opaque, const struct migration_progress *progress)
{
    (void)opaque;
    assert_true(progress->done_bytes <= progress->round_bytes);
}

static void take_end(void *opaque, const struct migration_report *report)
{
    (void)opaque;
    moving.report = *report;
    moving.ended++;
    if (report->outcome != MIGRATION_THERE)
        loop_stop(moving.loop);
}

static const struct migration_listener listener = {take_progress, take_end};

int moving_setup(void **state)
{
    struct error err;

    moving = (struct moving){.answer = HANDOVER_AS_IT_WAS};
    *state = &moving;
    fake_guest_create(&moving.source.guest, MOVING_SIZE, MOVING_LOW);
    moving.source.state = MACHINE_RUNNING;
    if (loop_create(&moving.loop, &err) < 0 ||
        migration_create(&moving.source, moving.loop, &moving.migration, &err) < 0)
        return -1;
    moving.source.loop = moving.loop;
    moving.source.has_disks = true;
    fake_guest_write_many(&moving.source.guest, MOVING_PAGES / 2);
    moving_say(&moving.source, "boot\0\n", 6);
    migration_set_listener(moving.migration, &listener, NULL);
    return 0;
}

int moving_teardown(void **state)
{
    (void)state;
    migration_destroy(moving.migration);
    loop_destroy(moving.loop);
    machine_destroy(&moving.source);
    machine_destroy(moving.target);
    receive_destroy(moving.receive);
    return 0;
}

void moving_listen(void)
{
    const struct channel_security none = {.insecure = false};
    struct error err;

    if (receive_listen("tcp://127.0.0.1:0", &none, &moving.receive, &err) < 0)
        fail_msg("%s", err.msg);
}

/* As `vmrun receive` does it. */
static void *receive(void *opaque)
{
    struct error *err = &moving.taken_err;
    const char *description;
    size_t len;
    int r = receive_accept(moving.receive, &description, &len, err);

    (void)opaque;
    if (r == 0) {
        r = receive_build(moving.receive, NULL, NULL, &moving.target, err);
        if (r < 0)
            receive_refuse(moving.receive, err);
    }
    if (r == 0 && receive_is_check(moving.receive)) {
        moving.taken = receive_check(moving.receive, err);
        return NULL;
    }
    if (r == 0)
        r = receive_take(moving.receive, err);
    if (r == 0) {
        moving.target->state =
            receive_was_paused(moving.receive) ? MACHINE_PAUSED : MACHINE_RUNNING;
        receive_done(moving.receive);
    }
    moving.taken = r;
    return NULL;
}

void moving_receive(void)
{
    struct error err;

    if (thread_start(&moving.thread, "target", 0, receive, NULL, &err) < 0)
        fail_msg("%s", err.msg);
}

void moving_join(void)
{
    pthread_join(moving.thread, NULL);
    if (moving.taken < 0) {
        /* As its process would end. */
        machine_destroy(moving.target);
        receive_destroy(moving.receive);
        moving.target = NULL;
        moving.receive = NULL;
    }
}

void moving_move(const char *url, const struct migration_move *params)
{
    struct migration_move move = params ? *params : (struct migration_move){.channels = 2};
    struct error err;

    move.url = url;
    if (migration_move(moving.migration, &move, &err) < 0)
        fail_msg("%s", err.msg);
    if (loop_run(moving.loop, &err) < 0)
        fail_msg("%s", err.msg);
}

void moving_run(const struct migration_move *params)
{
    moving_listen();
    moving_receive();
    moving_move(receive_url(moving.receive), params);
    moving_join();
    assert_int_equal(moving.ended, 1);
}

static void expect_nothing_left(void)
{
    assert_int_equal(moving.ended, 1);
    assert_false(moving.source.guest.logging);
    assert_int_equal(moving.source.throttle, 0);
}

void moving_expect_here(const char *words)
{
    expect_nothing_left();
    assert_false(moving.source.held);
    assert_false(moving.source.marked);
    assert_false(moving.source.offered);
    assert_false(moving.source.killed);
    assert_int_equal(moving.report.outcome, MIGRATION_HERE);
    assert_int_equal(moving.source.state, MACHINE_RUNNING);
    if (!moving.report.error.code || !strstr(moving.report.error.msg, words))
        fail_msg("\"%s\" is not in: %s", words, moving.report.error.msg);
}

void moving_expect_there(void)
{
    if (moving.report.error.code || moving.taken < 0)
        fail_msg("%s; %s", moving.report.error.msg, moving.taken_err.msg);
    expect_nothing_left();
    assert_int_equal(moving.report.outcome, MIGRATION_THERE);
    assert_true(moving.source.killed);
    assert_true(moving.source.held); /* from the stop on, for ever */
    assert_true(moving.source.offered);
    for (unsigned i = 0; i < 2; i++)
        assert_memory_equal(moving.source.guest.memory->regions[i].host,
                            moving.target->guest.memory->regions[i].host,
                            moving.source.guest.memory->regions[i].size);
    assert_string_equal(moving.target->loaded, LAST_STATE);
    assert_int_equal(moving.target->said_len, moving.source.said_len);
    assert_memory_equal(moving.target->said, moving.source.said, moving.source.said_len);
    assert_true(moving.target->told_moved);
    assert_true(moving.target->times == 0x1122334455667788);
}
