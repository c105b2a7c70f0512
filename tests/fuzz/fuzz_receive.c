/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_receive: hostile connections, into the side that waits for a machine.
 *
 * An input is a byte of choices (frame_mend.h), and then connections in the order in which they
 * come, each with its length in three bytes before it. The channels are pieces of memory and the
 * machine is a fake of two chunks and a bit.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../../src/migration/frame.h"
#include "frame_mend.h"
#include "vmrun/log.h"
#include "vmrun/machine.h"
#include "vmrun/migration.h"

#define PAGES (2 * 512 + 40)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct channel {
    uint8_t *in;
    size_t len, at;
};

struct machine {
    struct guest_memory *memory;
    unsigned loads, takes;
};

static struct machine machine;
static struct {
    const uint8_t *data;
    size_t len;
    unsigned choices;
} left;

/* The connections */

int channel_listen(const struct channel_security *security, const char *url,
                   struct channel_listener **ret_listener, struct error *err)
{
    (void)security, (void)url, (void)err;
    *ret_listener = (struct channel_listener *)&left;
    return 0;
}

const char *channel_listener_url(const struct channel_listener *listener)
{
    (void)listener;
    return "tcp://127.0.0.1:1";
}

int channel_accept(struct channel_listener *listener, int timeout_ms, struct channel **ret_channel,
                   struct error *err)
{
    struct channel *channel;
    size_t len;

    (void)listener, (void)timeout_ms;
    if (left.len < 3)
        return error_set(err, EMFILE, "nobody comes any more");
    len = left.data[0] | (size_t)left.data[1] << 8 | (size_t)left.data[2] << 16;
    left.data += 3;
    left.len -= 3;
    len = len < left.len ? len : left.len;
    channel = calloc(1, sizeof(*channel));
    if (!channel)
        abort();
    channel->in = malloc(len + 1);
    if (!channel->in)
        abort();
    memcpy(channel->in, left.data, len);
    channel->len = len;
    frame_mend(channel->in, len, left.choices);
    left.data += len;
    left.len -= len;
    *ret_channel = channel;
    return 0;
}

void channel_listener_destroy(struct channel_listener *listener)
{
    (void)listener;
}

void channel_destroy(struct channel *channel)
{
    if (channel)
        free(channel->in);
    free(channel);
}

void channel_set_patience(struct channel *channel, int ms)
{
    (void)channel, (void)ms;
}

void channel_set_timeout(struct channel *channel, int timeout_ms)
{
    (void)channel, (void)timeout_ms;
}

int channel_send(struct channel *channel, const struct iovec *iov, unsigned count,
                 struct error *err)
{
    (void)channel, (void)iov, (void)count, (void)err;
    return 0;
}

int channel_recv(struct channel *channel, const struct iovec *iov, unsigned count,
                 struct error *err)
{
    for (unsigned i = 0; i < count; i++) {
        if (channel->len - channel->at < iov[i].iov_len) {
            channel->at = channel->len;
            return error_set(err, EPIPE, "the other side closed the connection");
        }
        if (iov[i].iov_len)
            memcpy(iov[i].iov_base, channel->in + channel->at, iov[i].iov_len);
        channel->at += iov[i].iov_len;
    }
    return 0;
}

bool channel_readable(struct channel *channel, int timeout_ms)
{
    (void)timeout_ms;
    return channel->at < channel->len;
}

void channel_interrupt(struct channel *channel)
{
    (void)channel; /* who reads it does not wait */
}

void channel_end_interrupt(struct channel *channel)
{
    (void)channel;
}

const char *channel_peer(const struct channel *channel)
{
    (void)channel;
    return "tcp://127.0.0.1:2";
}

/* The machine */

int machine_create_from(const struct vm_config *config, struct loop *loop,
                        const struct machine_image *image, struct machine **ret_machine,
                        struct error *err)
{
    const struct memory_layout layout = {.size = PAGES * GUEST_PAGE_SIZE,
                                         .hole_start = UINT64_C(3) << 30,
                                         .hole_end = UINT64_C(4) << 30};

    (void)config, (void)loop;
    if (!image->disks_elsewhere || image->ram_fd != -1)
        abort();
    *ret_machine = &machine;
    return guest_memory_create(&layout, &machine.memory, err);
}

void machine_destroy(struct machine *m)
{
    guest_memory_destroy(m->memory);
    *m = (struct machine){.memory = NULL};
}

struct guest_memory *machine_memory(struct machine *m)
{
    return m->memory;
}

int machine_disks_shared(struct machine *m, const uint8_t *session, struct error *err)
{
    (void)m, (void)session, (void)err;
    return 0;
}

int machine_load_state(struct machine *m, const void *state, size_t len,
                       machine_advance_fn *advance, void *opaque, struct error *err)
{
    (void)advance(opaque, 1);
    m->loads++;
    return ((const uint8_t *)state)[len - 1] == '!' ? error_set(err, EPROTO, "not to my taste") : 0;
}

bool machine_load_extra(struct machine *m, const char *name, const void *data, size_t len)
{
    (void)m;
    return strlen(name) + (len ? ((const uint8_t *)data)[len - 1] : 0) > 7;
}

void machine_tell_moved(struct machine *m)
{
    if (!m->loads)
        abort();
}

int machine_handover_take(struct machine *m, const uint8_t *session, uint64_t times,
                          bool *ret_arbiter, struct error *err)
{
    (void)session;
    if (!m->loads || m->takes++)
        abort();
    *ret_arbiter = true;
    return times == 1 ? error_set(err, EAGAIN, "the source has it") : 0;
}

int machine_dirty_harvest(struct machine *m, unsigned region, uint64_t *bitmap, struct error *err)
{
    (void)m, (void)region, (void)bitmap, (void)err;
    abort();
}

int machine_dirty_clear(struct machine *m, unsigned region, uint64_t first_page, uint64_t pages,
                        const uint64_t *bitmap, struct error *err)
{
    (void)m, (void)region, (void)first_page, (void)pages, (void)bitmap, (void)err;
    abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct channel_security security = {.insecure = false};
    struct receive *receive;
    struct machine *m = NULL;
    const char *description;
    size_t len;
    struct error err = {0};

    log_set_level(LOG_LEVEL_ERROR);
    left.choices = size ? data[0] : 0;
    left.data = data + (size != 0);
    left.len = size - (size != 0);
    if (receive_listen("tcp://127.0.0.1:0", &security, &receive, &err) < 0)
        abort();
    int r = receive_accept(receive, &description, &len, &err);
    if (r == 0)
        r = receive_build(receive, NULL, NULL, &m, &err);
    if (r == 0)
        r = receive_take(receive, &err);
    if (r == 0) {
        if (machine.takes != 1)
            abort();
        receive_done(receive);
    } else if (err.code != -r || memchr(err.msg, '\n', strlen(err.msg))) {
        abort();
    }
    receive_destroy(receive);
    if (m)
        machine_destroy(m);
    return 0;
}
