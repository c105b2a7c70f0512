/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hello: what both sides say first, as JSON, so that a version to come can add to it.
 *
 * Who sends names the range of versions that it speaks; who receives takes the newest of its own
 * that lies in it.
 */
#include "hello.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EARLY_EXTRA "early-extra"

int hello_send_json(struct frame_stream *stream, enum frame_type type, json_t *body,
                    struct error *err)
{
    char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    int r;

    json_decref(body);
    if (!text)
        return error_set(err, ENOMEM, "out of memory");
    r = frame_send(stream, type, 0, &(struct iovec){text, strlen(text)}, 1, err);
    free(text);
    return r;
}

int hello_expect_json(struct frame_stream *stream, enum frame_type type, json_t **ret_body,
                      struct error *err)
{
    void *text;
    size_t len;
    json_t *body;
    int r = frame_expect(stream, type, &text, &len, err);

    if (r < 0)
        return r;
    body = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    free(text);
    if (!json_is_object(body)) {
        json_decref(body);
        return error_set(err, EPROTO, "frame %u (%s): no JSON object", stream->received - 1,
                         frame_name(type));
    }
    *ret_body = body;
    return 0;
}

uint64_t hello_number(const json_t *body, const char *name)
{
    json_int_t value = json_integer_value(json_object_get(body, name));

    return value < 0 ? 0 : (uint64_t)value;
}

static void put_hex(const uint8_t *bytes, size_t count, char *text)
{
    for (size_t i = 0; i < count; i++)
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
}

static bool get_hex(const char *text, uint8_t *bytes, size_t count)
{
    if (!text || strlen(text) != 2 * count || strspn(text, "0123456789abcdef") != 2 * count)
        return false;
    for (size_t i = 0; i < count; i++) {
        const char digits[3] = {text[2 * i], text[2 * i + 1]};

        bytes[i] = (uint8_t)strtoul(digits, NULL, 16);
    }
    return true;
}

static json_t *features(const struct hello *hello)
{
    json_t *list = json_array();

    if (hello->zstd)
        json_array_append_new(list, json_string("zstd"));
    if (hello->early)
        json_array_append_new(list, json_string(EARLY_EXTRA));
    return list;
}

static bool has_feature(const json_t *body, const char *name)
{
    const json_t *list = json_object_get(body, "features");
    const json_t *feature;
    size_t i;

    json_array_foreach(list, i, feature)
    {
        const char *text = json_string_value(feature);

        if (text && strcmp(text, name) == 0)
            return true;
    }
    return false;
}

int hello_send(struct frame_stream *stream, const struct hello *hello, struct error *err)
{
    char session[2 * HANDOVER_SESSION_BYTES + 1];

    put_hex(hello->session, sizeof(hello->session), session);
    return hello_send_json(stream, FRAME_HELLO,
                           json_pack("{s:[i,i], s:o, s:s, s:s, s:i, s:i, s:s}", "versions",
                                     PROTOCOL_OLDEST, PROTOCOL_VERSION, "features", features(hello),
                                     "purpose", hello->check ? "check" : "move", "session", session,
                                     "channel", (int)hello->channel, "channels",
                                     (int)hello->channels, "vmrun", VMRUN_VERSION),
                           err);
}

static int read_hello(const json_t *body, struct hello *ret_hello, struct error *err)
{
    const json_t *versions = json_object_get(body, "versions");
    json_int_t oldest = json_integer_value(json_array_get(versions, 0));
    json_int_t newest = json_integer_value(json_array_get(versions, 1));
    const char *vmrun = json_string_value(json_object_get(body, "vmrun"));
    const char *purpose = json_string_value(json_object_get(body, "purpose"));

    if (oldest < 1 || newest < oldest)
        return error_set(err, EPROTO, "frame 0 (HELLO): no versions");
    if (oldest > PROTOCOL_VERSION || newest < PROTOCOL_OLDEST)
        return error_set(err, ENOTSUP,
                         "vmrun %.20s there speaks the protocol's versions %lld to %lld, vmrun %s "
                         "here %d to %d",
                         vmrun ? vmrun : "?", (long long)oldest, (long long)newest, VMRUN_VERSION,
                         PROTOCOL_OLDEST, PROTOCOL_VERSION);
    if (!get_hex(json_string_value(json_object_get(body, "session")), ret_hello->session,
                 sizeof(ret_hello->session)))
        return error_set(err, EPROTO, "frame 0 (HELLO): no session");
    uint64_t channel = hello_number(body, "channel"), channels = hello_number(body, "channels");
    if (channels < 1 || channels > HELLO_MAX_CHANNELS || channel >= channels)
        return error_set(err, EPROTO, "frame 0 (HELLO): no such channel");
    ret_hello->channel = (unsigned)channel;
    ret_hello->channels = (unsigned)channels;
    ret_hello->check = purpose && strcmp(purpose, "check") == 0;
    ret_hello->zstd = has_feature(body, "zstd");
    ret_hello->early = has_feature(body, EARLY_EXTRA);
    return 0;
}

int hello_receive(struct frame_stream *stream, struct hello *ret_hello, struct error *err)
{
    json_t *body = NULL;
    int r = hello_expect_json(stream, FRAME_HELLO, &body, err);

    if (r < 0)
        return r;
    r = read_hello(body, ret_hello, err);
    json_decref(body);
    return r;
}

int hello_welcome(struct frame_stream *stream, const struct hello *hello, struct error *err)
{
    return hello_send_json(stream, FRAME_WELCOME,
                           json_pack("{s:i, s:o, s:s}", "version", PROTOCOL_VERSION, "features",
                                     features(hello), "vmrun", VMRUN_VERSION),
                           err);
}

int hello_expect_welcome(struct frame_stream *stream, struct hello *hello, struct error *err)
{
    json_t *body = NULL;
    int r = hello_expect_json(stream, FRAME_WELCOME, &body, err);

    if (r < 0)
        return r;
    uint64_t version = hello_number(body, "version");
    bool agreed = !hello->zstd || has_feature(body, "zstd");
    hello->early = hello->early && has_feature(body, EARLY_EXTRA);
    json_decref(body);
    if (version < PROTOCOL_OLDEST || version > PROTOCOL_VERSION)
        return error_set(err, EPROTO, "frame 0 (WELCOME): version %llu was not asked for",
                         (unsigned long long)version);
    return agreed ? 0
                  : error_set(err, ENOTSUP,
                              "the other host cannot take what is compressed: install libzstd "
                              "there, or leave out --compress");
}
