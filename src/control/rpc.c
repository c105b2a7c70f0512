/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The methods of the control socket, and the shape of requests and answers.
 *
 * methods[] is the whole list: a new verb is one row and one function here, and
 * a section in docs/control.md.
 */
#include "rpc.h"

#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "vmrun/config.h"
#include "vmrun/loop.h"
#include "vmrun/text.h"

#define SET_MOST 64 /* pairs of one vm.set */

/* Words from the system may be any bytes (a path, a guest's): JSON takes only UTF-8. */
json_t *rpc_text(const char *s)
{
    json_t *value = json_string(s);
    char *plain;

    if (value || !(plain = strdup(s)))
        return value;
    for (char *p = plain; *p; p++)
        if (*p & 0x80)
            *p = '?';
    value = json_string(plain);
    free(plain);
    return value;
}

static json_t *text_or_null(const char *s)
{
    return s ? rpc_text(s) : json_null();
}

static json_t *state_object(const struct rpc_target *t)
{
    return json_pack("{s:s}", "state", machine_state_name(machine_state(t->machine)));
}

static json_t *vm_status(const struct rpc_target *t, struct error *err)
{
    const struct vm_config *config = machine_config(t->machine);
    struct machine_info info;

    (void)err;
    machine_info(t->machine, &info);
    return json_pack(
        "{s:s, s:i, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "name",
        t->name, "pid", (int)getpid(), "version", VMRUN_VERSION, "state",
        machine_state_name(machine_state(t->machine)), "cpus", (json_int_t)config->cpus,
        "memory_bytes", (json_int_t)config->memory, "memory_host_bytes",
        (json_int_t)info.memory_host_bytes, "uptime_ns", (json_int_t)info.uptime_ns, "resets",
        (json_int_t)info.resets, "kernel", text_or_null(config->boot.kernel), "initrd",
        text_or_null(config->boot.initrd), "cmdline", text_or_null(config->boot.cmdline), "boot",
        text_or_null(info.kernel), "console", text_or_null(info.console), "virtio_console",
        text_or_null(info.virtio_console), "uncertain", text_or_null(info.uncertain));
}

static json_t *vm_pause(const struct rpc_target *t, struct error *err)
{
    return machine_pause(t->machine, err) < 0 ? NULL : state_object(t);
}

static json_t *vm_resume(const struct rpc_target *t, const json_t *params, struct error *err)
{
    json_error_t where;
    int force = 0;

    if (params && json_unpack_ex((json_t *)params, &where, JSON_STRICT, "{s?b}", "force", &force)) {
        error_set(err, EINVAL, "vm.resume takes {\"force\": BOOL}: %s", where.text);
        return NULL;
    }
    int r = force ? machine_resume_anyway(t->machine, err) : machine_resume(t->machine, err);

    return r < 0 ? NULL : state_object(t);
}

static json_t *vm_reset(const struct rpc_target *t, struct error *err)
{
    return machine_reset(t->machine, err) < 0 ? NULL : state_object(t);
}

static json_t *vm_stop(const struct rpc_target *t, struct error *err)
{
    return machine_press_power_button(t->machine, err) < 0 ? NULL : state_object(t);
}

static json_t *vm_kill(const struct rpc_target *t, struct error *err)
{
    return machine_kill_here(t->machine, err) < 0 ? NULL : state_object(t);
}

static json_t *vm_disks_refresh(const struct rpc_target *t, struct error *err)
{
    (void)err;
    machine_refresh_disks(t->machine);
    return state_object(t);
}

static json_t *vm_nets_link(const struct rpc_target *t, const json_t *params, struct error *err)
{
    json_error_t where;
    const char *id;
    int up;

    if (json_unpack_ex((json_t *)params, &where, JSON_STRICT, "{s:s, s:b}", "id", &id, "up", &up)) {
        error_set(err, EINVAL, "vm.nets.link takes {\"id\": TEXT, \"up\": true or false}: %s",
                  where.text);
        return NULL;
    }
    return machine_set_link(t->machine, id, up, err) < 0 ? NULL : state_object(t);
}

static json_t *vm_set(const struct rpc_target *t, const json_t *params, struct error *err)
{
    struct machine_pair pairs[SET_MOST];
    const char *key;
    json_t *value;
    size_t count = 0;

    if (json_object_size(params) == 0 || json_object_size(params) > SET_MOST) {
        error_set(err, EINVAL, "vm.set takes {\"KEY\": TEXT, ...}, 1 to %d of them", SET_MOST);
        return NULL;
    }
    json_object_foreach((json_t *)params, key, value)
    {
        if (!json_is_string(value)) {
            error_set(err, EINVAL, "vm.set: \"%.40s\" must be a text, as on the command line", key);
            return NULL;
        }
        pairs[count++] = (struct machine_pair){key, json_string_value(value)};
    }
    return machine_set(t->machine, pairs, count, err) < 0 ? NULL : state_object(t);
}

static json_t *vm_save(const struct rpc_target *t, const json_t *params, struct error *err)
{
    json_error_t where;
    const char *path, *base = NULL;
    int replace = 0, stop = 0, track = 0, compress = 0;

    if (json_unpack_ex((json_t *)params, &where, JSON_STRICT, "{s:s, s?b, s?b, s?s, s?b, s?b}",
                       "path", &path, "replace", &replace, "stop", &stop, "base", &base, "track",
                       &track, "compress", &compress)) {
        error_set(
            err, EINVAL,
            "vm.save takes {\"path\": TEXT, \"replace\": BOOL, \"stop\": BOOL, \"base\": TEXT, "
            "\"track\": BOOL, \"compress\": BOOL}: %s",
            where.text);
        return NULL;
    }
    if (path[0] != '/' || (base && base[0] != '/')) {
        error_set(err, EINVAL,
                  "vm.save: \"%s\" must begin with /: the machine's process has a "
                  "working folder of its own",
                  path[0] != '/' ? "path" : "base");
        return NULL;
    }
    const struct migration_save save = {.path = path,
                                        .replace = replace,
                                        .stop = stop,
                                        .base = base,
                                        .track = track,
                                        .compress = compress};
    return migration_save(t->migration, &save, err) < 0 ? NULL : state_object(t);
}

/* One of vm.migrate's parameters; the member of struct migration_move with the same meaning. */
static const struct move_param {
    const char *name;
    enum { MOVE_TEXT, MOVE_NUMBER, MOVE_BOOL } kind;
    size_t offset;
} move_params[] = {
    {"url", MOVE_TEXT, offsetof(struct migration_move, url)},
    {"bandwidth", MOVE_NUMBER, offsetof(struct migration_move, bandwidth)},
    {"channels", MOVE_NUMBER, offsetof(struct migration_move, channels)},
    {"check", MOVE_BOOL, offsetof(struct migration_move, check)},
    {"compress", MOVE_BOOL, offsetof(struct migration_move, compress)},
    {"force", MOVE_BOOL, offsetof(struct migration_move, force)},
    {"insecure", MOVE_BOOL, offsetof(struct migration_move, security.insecure)},
    {"max_downtime_ns", MOVE_NUMBER, offsetof(struct migration_move, max_pause_ns)},
    {"timeout_ns", MOVE_NUMBER, offsetof(struct migration_move, timeout_ns)},
    {"tls_ca", MOVE_TEXT, offsetof(struct migration_move, security.ca)},
    {"tls_cert", MOVE_TEXT, offsetof(struct migration_move, security.cert)},
    {"tls_key", MOVE_TEXT, offsetof(struct migration_move, security.key)},
    {"tls_psk", MOVE_TEXT, offsetof(struct migration_move, security.psk)},
};

static const struct move_param *find_move_param(const char *name)
{
    for (size_t i = 0; i < sizeof(move_params) / sizeof(move_params[0]); i++)
        if (strcmp(move_params[i].name, name) == 0)
            return &move_params[i];
    return NULL;
}

/* false: not of its kind. */
static bool set_move_param(const struct move_param *param, const json_t *value,
                           struct migration_move *move)
{
    void *at = (char *)move + param->offset;
    json_int_t number = json_integer_value(value);

    switch (param->kind) {
    case MOVE_TEXT: *(const char **)at = json_string_value(value); return json_is_string(value);
    case MOVE_BOOL: *(bool *)at = json_is_true(value); return json_is_boolean(value);
    default: *(uint64_t *)at = (uint64_t)number; return json_is_integer(value) && number >= 0;
    }
}

static json_t *vm_migrate(const struct rpc_target *t, const json_t *params, struct error *err)
{
    struct migration_move move = {.url = NULL};
    const char *name;
    json_t *value;

    json_object_foreach((json_t *)params, name, value)
    {
        const struct move_param *param = find_move_param(name);

        if (!param || !set_move_param(param, value, &move)) {
            error_set(err, EINVAL, "vm.migrate: \"%.40s\" %s", name,
                      !param                     ? "is not known"
                      : param->kind == MOVE_TEXT ? "must be a text"
                      : param->kind == MOVE_BOOL ? "must be true or false"
                                                 : "must be a number from 0 up");
            return NULL;
        }
    }
    if (!move.url) {
        error_set(err, EINVAL, "vm.migrate takes {\"url\": \"tcp://HOST:PORT\"}, and more");
        return NULL;
    }
    return migration_move(t->migration, &move, err) < 0 ? NULL : state_object(t);
}

static json_t *cancel_migration(const struct rpc_target *t, struct error *err)
{
    return migration_cancel(t->migration, err) < 0 ? NULL : state_object(t);
}

static void add_stat(void *opaque, const char *name, uint64_t value)
{
    json_object_set_new(opaque, name, json_integer((json_int_t)value));
}

static json_t *vm_stats(const struct rpc_target *t, struct error *err)
{
    json_t *counters = json_object();

    (void)err;
    machine_stats(t->machine, add_stat, counters);
    return json_pack("{s:I, s:o}", "time_ns", (json_int_t)loop_now_ns(), "counters", counters);
}

static json_t *vm_config(const struct rpc_target *t, struct error *err)
{
    char *printed = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&printed, &len);
    json_t *config = NULL;

    if (!out) {
        error_set(err, ENOMEM, "configuration: out of memory");
        return NULL;
    }
    int r = config_print(machine_config(t->machine), out, err);
    if (fclose(out) == 0 && r == 0) {
        config = json_loadb(printed, len, 0, NULL);
        if (!config)
            error_set(err, EILSEQ, "the configuration holds text that is no UTF-8");
    }
    free(printed);
    return config;
}

/* The connection does what is left to do: see enum rpc_effect. */
static json_t *console_attach_method(const struct rpc_target *t, struct error *err)
{
    if (machine_state(t->machine) == MACHINE_ENDED) {
        error_set(err, EBUSY, "machine '%s' has ended", t->name);
        return NULL;
    }
    return state_object(t);
}

static json_t *events_subscribe(const struct rpc_target *t, struct error *err)
{
    (void)err;
    return state_object(t);
}

static json_t *rpc_methods(const struct rpc_target *t, struct error *err);

static const struct method {
    const char *name;
    json_t *(*call)(const struct rpc_target *target, struct error *err); /* NULL: err is filled */
    /* In its place, for one with parameters. EINVAL: they are wrong. */
    json_t *(*call_with)(const struct rpc_target *target, const json_t *params, struct error *err);
    enum rpc_effect effect;
    const char *summary;
} methods[] = {
    {"vm.status", vm_status, NULL, RPC_NONE, "what the machine is and how it does"},
    {"vm.pause", vm_pause, NULL, RPC_NONE, "stop the vCPUs; no effect when paused"},
    {"vm.resume", NULL, vm_resume, RPC_NONE, "let the vCPUs run; no effect when running"},
    {"vm.reset", vm_reset, NULL, RPC_NONE, "as the reset button does"},
    {"vm.stop", vm_stop, NULL, RPC_NONE, "press the power button; the guest decides"},
    {"vm.kill", vm_kill, NULL, RPC_NONE, "end the machine at once"},
    {"vm.disks.refresh", vm_disks_refresh, NULL, RPC_NONE,
     "tell the guest of images that have grown"},
    {"vm.nets.link", NULL, vm_nets_link, RPC_NONE,
     "pull the cable of a network card, or put it in again"},
    {"vm.set", NULL, vm_set, RPC_NONE, "change it while it runs, by keys of its configuration"},
    {"vm.save", NULL, vm_save, RPC_NONE, "begin to write the machine into a file"},
    {"vm.save.cancel", cancel_migration, NULL, RPC_NONE, "give that up; the machine runs on"},
    {"vm.migrate", NULL, vm_migrate, RPC_NONE, "begin to move the machine to another host"},
    {"vm.migrate.cancel", cancel_migration, NULL, RPC_NONE, "give that up; the machine runs on"},
    {"vm.stats", vm_stats, NULL, RPC_NONE, "counters since the start"},
    {"vm.config", vm_config, NULL, RPC_NONE, "the effective configuration"},
    {"console.attach", console_attach_method, NULL, RPC_ATTACH,
     "make this connection the serial console, scrollback first"},
    {"events.subscribe", events_subscribe, NULL, RPC_SUBSCRIBE,
     "have events told on this connection"},
    {"rpc.methods", rpc_methods, NULL, RPC_NONE, "this list"},
};
#define METHODS (sizeof(methods) / sizeof(methods[0]))

static json_t *rpc_methods(const struct rpc_target *t, struct error *err)
{
    json_t *list = json_array();

    (void)t, (void)err;
    for (size_t i = 0; i < METHODS; i++)
        json_array_append_new(
            list, json_pack("{s:s, s:s}", "name", methods[i].name, "summary", methods[i].summary));
    return list;
}

static const struct method *find_method(const char *name)
{
    for (size_t i = 0; i < METHODS; i++)
        if (strcmp(methods[i].name, name) == 0)
            return &methods[i];
    return NULL;
}

/* Takes object; NULL in, NULL out. */
char *rpc_line(json_t *object)
{
    char *dumped = object ? json_dumps(object, JSON_COMPACT) : NULL;
    char *line = NULL;

    json_decref(object);
    if (dumped && asprintf(&line, "%s\n", dumped) < 0)
        line = NULL;
    free(dumped);
    return line;
}

/* Takes id. code_errno 0: no data. */
static char *error_line(json_t *id, enum rpc_code code, int code_errno, const char *message)
{
    json_t *error = json_pack("{s:i, s:o}", "code", (int)code, "message", rpc_text(message));

    if (error && code_errno)
        json_object_set_new(error, "data", json_pack("{s:i}", "errno", code_errno));
    return rpc_line(json_pack("{s:s, s:o, s:o}", "jsonrpc", "2.0", "id", id, "error", error));
}

char *rpc_error_line(enum rpc_code code, const char *message)
{
    return error_line(json_null(), code, 0, message);
}

/* A request that is JSON; says what is wrong with its shape, or NULL. */
static const char *shape_fault(const json_t *request)
{
    const json_t *id = json_object_get(request, "id");
    const char *version = json_string_value(json_object_get(request, "jsonrpc"));

    if (json_is_array(request))
        return "batches are not served: send one object a line";
    if (!json_is_object(request))
        return "a request is an object";
    if (!version || strcmp(version, "2.0") != 0)
        return "\"jsonrpc\" must be \"2.0\"";
    if (!json_is_string(json_object_get(request, "method")))
        return "\"method\" must be a string";
    if (id && !json_is_string(id) && !json_is_number(id) && !json_is_null(id))
        return "\"id\" must be a string, a number or null";
    return NULL;
}

static void unknown_method(const char *name, char *buf, size_t len)
{
    const char *names[METHODS + 1] = {0};

    for (size_t i = 0; i < METHODS; i++)
        names[i] = methods[i].name;
    const char *near = text_nearest(name, names);
    if (near)
        snprintf(buf, len, "no method \"%.64s\", did you mean \"%s\"?", name, near);
    else
        snprintf(buf, len, "no method \"%.64s\"; rpc.methods lists them", name);
}

/* A well-shaped request. id is borrowed; NULL: a notification, for which NULL is returned. */
static char *call_method(const struct rpc_target *target, const json_t *request, json_t *id,
                         enum rpc_effect *effect)
{
    const char *name = json_string_value(json_object_get(request, "method"));
    const json_t *params = json_object_get(request, "params");
    const struct method *m = find_method(name);
    struct error err = {0};
    char words[192];

    if (!m) {
        unknown_method(name, words, sizeof(words));
        return id ? error_line(json_incref(id), RPC_METHOD_NOT_FOUND, 0, words) : NULL;
    }
    if (m->call && params && (!json_is_object(params) || json_object_size(params) > 0)) {
        snprintf(words, sizeof(words), "%s takes no parameters", name);
        return id ? error_line(json_incref(id), RPC_INVALID_PARAMS, 0, words) : NULL;
    }
    if (m->effect == RPC_ATTACH && !id)
        return NULL; /* its answer is what divides the requests from the raw stream */

    json_t *result = !target->machine && m->call != rpc_methods ? rpc_call_lobby(target, name, &err)
                     : m->call                                  ? m->call(target, &err)
                               : m->call_with(target, params, &err);
    if (result)
        *effect = m->effect;
    if (!id) {
        json_decref(result);
        return NULL;
    }
    if (!result && m->call_with && err.code == EINVAL)
        return error_line(json_incref(id), RPC_INVALID_PARAMS, 0, err.msg);
    if (!result)
        return error_line(json_incref(id), err.code ? RPC_REFUSED : RPC_INTERNAL_ERROR, err.code,
                          err.code ? err.msg : "out of memory");
    return rpc_line(json_pack("{s:s, s:O, s:o}", "jsonrpc", "2.0", "id", id, "result", result));
}

int rpc_execute(const struct rpc_target *target, const char *line, size_t len, char **ret_answer,
                enum rpc_effect *ret_effect)
{
    json_error_t where;
    json_t *request = json_loadb(line, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &where);
    enum rpc_effect effect = RPC_NONE;
    const char *fault;
    char *answer;
    bool silent = false;

    if (!request) {
        char words[JSON_ERROR_TEXT_LENGTH + 64];
        snprintf(words, sizeof(words), "not JSON: column %d: %s", where.column, where.text);
        answer = rpc_error_line(RPC_PARSE_ERROR, words);
    } else if ((fault = shape_fault(request))) {
        answer = rpc_error_line(RPC_INVALID_REQUEST, fault);
    } else {
        json_t *id = json_object_get(request, "id");
        answer = call_method(target, request, id, &effect);
        silent = !id;
    }
    json_decref(request);
    if (!answer && !silent)
        return -ENOMEM;
    *ret_answer = answer;
    *ret_effect = effect;
    return 0;
}
