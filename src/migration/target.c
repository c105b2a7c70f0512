/* SPDX-License-Identifier: Apache-2.0 */
/*
 * target: the side that is given a machine.
 *
 *   RECEIVING ──all loaded──▶ LOADED ──COMMIT──▶ TAKING ──the locks──▶ RUNS
 *       │                        │                  │
 *       └──── anything wrong ────┴──────────────────┴──▶ GAVE UP, never to run
 *
 * The one thing to know: until the source has said COMMIT, and the locks are taken, the machine
 * belongs to the source; handover_target() alone says when that is. Everything that comes is
 * hostile, and nothing that was asked for by it outlives it.
 */
#include "target.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "snapfile_format.h"
#include "vmrun/log.h"

#define COMMIT_MS 60000
#define MACHINE_MS 60000 /* for all that the machine is; others wait meanwhile */
#define REGION_BYTES 16u /* of MEMORY, for each */

/* Before there is a machine */

int receive_listen(const char *url, const struct channel_security *security,
                   struct receive **ret_receive, struct error *err)
{
    struct receive *r = calloc(1, sizeof(*r));
    int result;

    if (!r)
        return error_set(err, ENOMEM, "out of memory");
    pthread_mutex_init(&r->lock, NULL);
    for (unsigned i = 0; i < HELLO_MAX_CHANNELS; i++)
        r->lanes[i].receive = r;
    result = channel_listen(security, url, &r->listener, err);
    if (result == 0) {
        r->url = strdup(channel_listener_url(r->listener));
        result = r->url ? 0 : error_set(err, ENOMEM, "out of memory");
    }
    if (result < 0) {
        receive_destroy(r);
        return result;
    }
    *ret_receive = r;
    return 0;
}

const char *receive_url(const struct receive *r)
{
    return r->url;
}

void receive_forget(struct receive *r)
{
    for (unsigned i = 0; i < HELLO_MAX_CHANNELS; i++) {
        channel_destroy(r->lanes[i].stream.channel);
        r->lanes[i].stream = (struct frame_stream){.channel = NULL};
    }
    free(r->description);
    free(r->cpuid);
    free(r->regions);
    r->description = NULL;
    r->cpuid = r->regions = NULL;
    pages_target_fini(&r->pages);
}

/* Errors: -EPROTO …, this one is to be sent away. */
static int hear_machine(struct receive *r, struct error *err)
{
    struct error ignored;
    void *text;
    int result = target_hear_hello(target_control(r), &r->hello, err);

    if (result == 0 && r->hello.channel != 0)
        result = error_set(err, EPROTO, "a channel of a move that nobody began");
    /* What is not installed here is not agreed upon. */
    if (result == 0 && r->hello.zstd && !r->zstd.library)
        r->hello.zstd = zstd_open(&r->zstd, &ignored) == 0;
    if (result == 0)
        result = hello_welcome(target_control(r), &r->hello, err);
    if (result == 0) {
        channel_set_patience(target_control(r)->channel, MACHINE_MS);
        result = frame_expect(target_control(r), FRAME_MACHINE, &text, &r->description_len, err);
    }
    if (result == 0) {
        r->description = text;
        result = frame_expect(target_control(r), FRAME_CPUID, &r->cpuid, &r->cpuid_len, err);
    }
    if (result == 0)
        result = frame_expect(target_control(r), FRAME_MEMORY, &r->regions, &r->regions_len, err);
    channel_set_patience(target_control(r)->channel, -1);
    return result;
}

int receive_accept(struct receive *r, const char **ret_description, size_t *ret_len,
                   struct error *err)
{
    for (;;) {
        int result = channel_accept(r->listener, -1, &target_control(r)->channel, err);

        if (result < 0 && result != -EPROTO)
            return result;
        if (result == 0)
            result = hear_machine(r, err);
        if (result == 0)
            break;
        if (target_control(r)->channel)
            frame_refuse(target_control(r), err);
        log_warn_limited(&r->warned, "%s: somebody was sent away: %s", receive_url(r), err->msg);
        receive_forget(r);
    }
    *ret_description = r->description;
    *ret_len = r->description_len;
    return 0;
}

bool receive_is_check(const struct receive *r)
{
    return r->hello.check;
}

const void *receive_cpuid(const struct receive *r, size_t *ret_len)
{
    *ret_len = r->cpuid_len;
    return r->cpuid;
}

void receive_refuse(struct receive *r, const struct error *why)
{
    if (target_control(r)->channel)
        frame_refuse(target_control(r), why);
}

/* The machine */

static int check_memory(const struct receive *r, const struct guest_memory *mem, struct error *err)
{
    struct reader regions = {.data = r->regions, .len = r->regions_len};
    bool same = r->regions_len == (size_t)mem->count * REGION_BYTES;

    for (unsigned i = 0; same && i < mem->count; i++)
        same = get_uint(&regions, 8) == mem->regions[i].gpa &&
               get_uint(&regions, 8) == mem->regions[i].size;
    return same ? 0
                : error_set(err, EPROTO,
                            "MEMORY: not the memory of the machine that MACHINE describes");
}

int receive_build(struct receive *r, const struct vm_config *config, struct loop *loop,
                  struct machine **ret_machine, struct error *err)
{
    const struct machine_image image = {
        .cpuid = r->cpuid, .cpuid_len = r->cpuid_len, .ram_fd = -1, .disks_elsewhere = true};
    struct machine *machine;
    int result = machine_create_from(config, loop, &image, &machine, err);

    if (result == 0) {
        r->machine = machine;
        result = check_memory(r, machine_memory(machine), err);
        if (result == 0)
            result = machine_disks_shared(machine, r->hello.session, err);
        if (result == 0)
            result = pages_target_init(&r->pages, machine_memory(machine),
                                       r->hello.zstd ? &r->zstd : NULL, err);
        if (result < 0)
            machine_destroy(machine);
    }
    if (result == 0)
        *ret_machine = machine;
    return result;
}

/* State, and whose machine it is */

/* Whatever it is. */
static void take_extra(struct receive *r, const char *body, size_t len)
{
    size_t name = strnlen(body, len) + 1;

    if (name > len)
        return;
    if (strcmp(body, HELLO_PAUSED) == 0)
        r->paused = true;
    else
        (void)machine_load_extra(r->machine, body, body + name, len - name);
}

int target_take_extra(struct receive *r, const struct frame *frame, struct error *err)
{
    char *body = NULL;
    int result = target_take_body(target_control(r), frame, &body, err);

    if (result == 0)
        take_extra(r, body, frame->length);
    free(body);
    return result;
}

/* STATE, and before it what this version may not even know. */
static int take_state(struct receive *r, char **ret_state, size_t *ret_len, struct error *err)
{
    for (;;) {
        struct frame frame = {0};
        char *body = NULL;
        int result = frame_recv(target_control(r), &frame, err);

        if (result == 0)
            result = target_take_body(target_control(r), &frame, &body, err);
        if (result == 0 && frame.type == FRAME_STATE) {
            *ret_state = body;
            *ret_len = frame.length;
            return 0;
        }
        if (result == 0 && frame.type == FRAME_EXTRA) {
            take_extra(r, body, frame.length);
        } else if (result == 0) {
            result = frame.type == FRAME_REFUSED
                         ? frame_refusal(body, frame.length, err)
                         : error_set(err, EPROTO, "frame %u (%s) came where STATE was expected",
                                     frame.number, frame_name(frame.type));
        }
        free(body);
        if (result < 0)
            return result;
    }
}

static int load(struct receive *r, struct error *err)
{
    uint64_t start;
    char *state;
    size_t len;
    int result = take_state(r, &state, &len, err);

    if (result < 0)
        return result;
    start = loop_now_ns();
    result = machine_load_state(r->machine, state, len, target_advance, r, err);
    free(state);
    if (result < 0)
        return result;
    machine_tell_moved(r->machine);
    (void)handover_target(&r->at, TARGET_LOADED_ALL, true);
    return hello_send_json(target_control(r), FRAME_READY,
                           json_pack("{s:I}", "load_ns", (json_int_t)(loop_now_ns() - start)), err);
}

/* COMMIT, and then the locks. */
static int take_over(struct receive *r, struct error *err)
{
    uint64_t times;
    void *body;
    size_t len;
    bool arbiter;
    int result;

    channel_set_timeout(target_control(r)->channel, COMMIT_MS);
    result = frame_expect(target_control(r), FRAME_COMMIT, &body, &len, err);
    if (result < 0)
        return result;
    times = snapfile_get_le(body, sizeof(times));
    free(body);
    r->commit_ns = loop_now_ns();
    if (!receive_end(r)) {
        (void)handover_target(&r->at, TARGET_FAILED, true);
        return error_set(err, ECANCELED, "killed there");
    }
    if (handover_target(&r->at, TARGET_COMMIT, true) != TARGET_TAKE_LOCK)
        return error_set(err, EPROTO, "COMMIT of nothing");
    result = machine_handover_take(r->machine, r->hello.session, times, &arbiter, err);
    (void)handover_target(&r->at, result < 0 ? TARGET_LOCK_DENIED : TARGET_LOCK_GOT, true);
    return result;
}

/* Something could not be sent: the source may have said before why it went. */
static int hear_last_words(struct receive *r, struct error *err)
{
    struct error words;

    if (channel_readable(target_control(r)->channel, TARGET_LOOK_MS) &&
        target_hear_end(r, &words) == -ECONNREFUSED)
        *err = words;
    return -err->code;
}

int receive_take(struct receive *r, struct error *err)
{
    int result = hello_send_json(target_control(r), FRAME_PREPARED, json_pack("{}"), err);

    if (result == 0)
        result = target_join(r, err);
    if (result == 0)
        result = target_receive_ram(r, err);
    if (result == 0)
        result = load(r, err);
    if (result == 0)
        result = take_over(r, err);
    if (result == -EPIPE || result == -ECONNRESET)
        result = hear_last_words(r, err);
    if (result < 0 && result != -ECONNREFUSED)
        receive_refuse(r, err);
    return result;
}

bool receive_end(struct receive *r)
{
    return !atomic_exchange(&r->ended, true);
}

bool receive_was_paused(const struct receive *r)
{
    return r->paused;
}

const char *receive_from(const struct receive *r)
{
    return channel_peer(r->lanes[0].stream.channel);
}

void receive_done(struct receive *r)
{
    struct error err;

    if (hello_send_json(target_control(r), FRAME_DONE,
                        json_pack("{s:I}", "resume_ns", (json_int_t)(loop_now_ns() - r->commit_ns)),
                        &err) < 0)
        log_warn("the other side may not have heard that the machine runs here: %s", err.msg);
}

void receive_destroy(struct receive *r)
{
    if (!r)
        return;
    receive_forget(r);
    pages_target_fini(&r->pages);
    zstd_close(&r->zstd);
    channel_listener_destroy(r->listener);
    free(r->url);
    pthread_mutex_destroy(&r->lock);
    free(r);
}
