/* SPDX-License-Identifier: Apache-2.0 */
/* What is told without being asked for: the machine's news, and how a save or a move does. */
#include "rpc.h"

#include <jansson.h>
#include <time.h>

/* Takes more, members that an event of this kind has besides; may be NULL. */
static char *event_line(const struct machine *machine, const char *type, const char *detail,
                        json_t *more)
{
    struct timespec now;
    json_t *params;

    clock_gettime(CLOCK_REALTIME, &now);
    params = json_pack("{s:s, s:s, s:o, s:f}", "type", type, "state",
                       machine_state_name(machine_state(machine)), "detail", rpc_text(detail),
                       "time", (double)now.tv_sec + (double)now.tv_nsec / 1e9);
    if (params && more)
        json_object_update(params, more);
    json_decref(more);
    return rpc_line(
        json_pack("{s:s, s:s, s:o}", "jsonrpc", "2.0", "method", "event", "params", params));
}

static json_t *io_error_object(const struct machine_io_error *e)
{
    return json_pack("{s:o, s:o, s:I, s:I, s:i, s:I}", "device", rpc_text(e->device), "op",
                     rpc_text(e->op), "offset", (json_int_t)e->offset, "bytes",
                     (json_int_t)e->bytes, "errno", e->code, "left_out", (json_int_t)e->left_out);
}

char *rpc_event_line(const struct machine *machine, const struct machine_news *news)
{
    static const char *const types[] = {
        [MACHINE_EVENT_STATE] = "state",
        [MACHINE_EVENT_RESET] = "reset",
        [MACHINE_EVENT_CRASH] = "crash",
        [MACHINE_EVENT_IO_ERROR] = "io_error",
    };

    return event_line(machine, types[news->event], news->detail,
                      news->io_error ? io_error_object(news->io_error) : NULL);
}

static json_t *progress_object(const struct migration_progress *p)
{
    json_t *figures = json_pack("{s:i, s:I, s:I, s:I, s:I}", "round", (int)p->round, "round_bytes",
                                (json_int_t)p->round_bytes, "done_bytes", (json_int_t)p->done_bytes,
                                "written_bytes", (json_int_t)p->written_bytes, "elapsed_ns",
                                (json_int_t)p->elapsed_ns);

    if (figures && p->kind == MIGRATION_MOVE) {
        json_object_set_new(figures, "dirty_rate", json_integer((json_int_t)p->dirty_rate));
        json_object_set_new(figures, "send_rate", json_integer((json_int_t)p->send_rate));
        json_object_set_new(figures, "predicted_pause_ns",
                            json_integer((json_int_t)p->predicted_pause_ns));
        json_object_set_new(figures, "throttle_percent", json_integer(p->throttle_percent));
    }
    return figures;
}

char *rpc_progress_line(const struct machine *machine, const struct migration_progress *p)
{
    static const char *const phases[] = {
        [MIGRATION_CONNECTING] = "connecting", [MIGRATION_COPYING] = "copying",
        [MIGRATION_WRITING] = "writing",       [MIGRATION_HANDOVER] = "handover",
        [MIGRATION_PACKING] = "packing",
    };

    return event_line(machine, p->kind == MIGRATION_MOVE ? "migrate" : "save", phases[p->phase],
                      progress_object(p));
}

static json_t *rounds_array(const struct migration_report *report)
{
    unsigned count = report->rounds < MIGRATION_MAX_ROUNDS ? report->rounds : MIGRATION_MAX_ROUNDS;
    json_t *list = json_array();

    for (unsigned i = 0; i < count; i++) {
        const struct migration_round *r = &report->round[i];

        json_array_append_new(
            list,
            json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:i}", "ns", (json_int_t)r->ns, "bytes",
                      (json_int_t)r->bytes, "zero_bytes", (json_int_t)r->zero_bytes, "dirty_bytes",
                      (json_int_t)r->dirty_bytes, "owed_bytes", (json_int_t)r->owed_bytes,
                      "deferred_bytes", (json_int_t)r->deferred_bytes, "predicted_pause_ns",
                      (json_int_t)r->predicted_pause_ns, "throttle_percent",
                      (int)r->throttle_percent));
    }
    return list;
}

static json_t *move_object(const struct migration_report *report)
{
    static const char *const outcomes[] = {
        [MIGRATION_HERE] = "here",
        [MIGRATION_THERE] = "there",
        [MIGRATION_UNCERTAIN] = "uncertain",
    };
    const struct migration_pause *pause = &report->pause;

    return json_pack("{s:s, s:I, s:I, s:I, s:i, s:i, s:{s:I, s:I, s:I, s:I, s:I}, s:o}", "outcome",
                     outcomes[report->outcome], "sent_bytes", (json_int_t)report->sent_bytes,
                     "rtt_ns", (json_int_t)report->rtt_ns, "predicted_pause_ns",
                     (json_int_t)report->predicted_pause_ns, "channels", (int)report->channels,
                     "throttle_percent", (int)report->throttle_percent, "pause", "stop_ns",
                     (json_int_t)pause->stop_ns, "state_ns", (json_int_t)pause->state_ns,
                     "pages_ns", (json_int_t)pause->pages_ns, "load_ns", (json_int_t)pause->load_ns,
                     "commit_ns", (json_int_t)pause->commit_ns, "round", rounds_array(report));
}

static json_t *check_object(const struct migration_report *report)
{
    const struct migration_check *c = &report->check;

    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:i, s:b}", "rtt_ns",
                     (json_int_t)report->rtt_ns, "bandwidth", (json_int_t)c->bandwidth,
                     "dirty_rate", (json_int_t)c->dirty_rate, "ram_bytes", (json_int_t)c->ram_bytes,
                     "predicted_total_ns", (json_int_t)c->total_ns, "predicted_pause_ns",
                     (json_int_t)c->pause_ns, "predicted_rounds", (int)c->rounds, "converges",
                     (int)c->converges);
}

char *rpc_ended_line(const struct machine *machine, const struct migration_report *report)
{
    static const char *const types[2][2] = {
        [MIGRATION_SAVE] = {"saved", "save_failed"},
        [MIGRATION_MOVE] = {"migrated", "migrate_failed"},
    };
    static const char *const found[] = {[MIGRATION_ALL] = "all",
                                        [MIGRATION_BY_LOG] = "log",
                                        [MIGRATION_BY_MAPPINGS] = "mappings",
                                        [MIGRATION_BY_COMPARISON] = "comparison"};
    json_t *figures = json_pack(
        "{s:i, s:I, s:I, s:I, s:I}", "rounds", (int)report->rounds, "total_ns",
        (json_int_t)report->total_ns, "pause_ns", (json_int_t)report->pause_ns, "pause_bytes",
        (json_int_t)report->pause_bytes, "written_bytes", (json_int_t)report->written_bytes);

    if (figures && report->error.code)
        json_object_set_new(figures, "errno", json_integer(report->error.code));
    if (figures && report->kind == MIGRATION_MOVE) {
        json_t *move = report->checked ? check_object(report) : move_object(report);

        json_object_update(figures, move);
        json_decref(move);
    } else if (figures && !report->error.code) {
        json_object_set_new(figures, "data_bytes", json_integer((json_int_t)report->data_bytes));
        json_object_set_new(figures, "file_bytes", json_integer((json_int_t)report->file_bytes));
        json_object_set_new(figures, "held_bytes", json_integer((json_int_t)report->held_bytes));
        json_object_set_new(figures, "found", json_string(found[report->found]));
    }
    return event_line(
        machine, report->checked ? "migrate_checked" : types[report->kind][report->error.code != 0],
        report->error.code ? report->error.msg : "", figures);
}
