/* SPDX-License-Identifier: Apache-2.0 */
/*
 * describe: what a machine is, as text, and back: its configuration, the images of its disks, and
 * the host it runs on. Whoever reads it needs nothing else to build the same machine.
 *
 * The one thing to know: the text comes back from a file that anybody may have written.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include <jansson.h>

#include "internal.h"

#include "vmrun/block.h"

#define MAC_TEXT 18

/* The configuration as text. What is made of the machine's name is told: names may change. */
static int print_config(const struct vm_config *config, FILE *out, struct error *err)
{
    struct vm_config told = *config;
    char macs[CONFIG_MAX_NETS][MAC_TEXT];

    for (unsigned i = 0; i < told.net_count; i++) {
        uint8_t mac[6];

        if (told.nets[i].mac || machine_net_mac(config, i, mac) < 0)
            continue;
        snprintf(macs[i], MAC_TEXT, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3],
                 mac[4], mac[5]);
        told.nets[i].mac = macs[i];
    }
    return config_print(&told, out, err);
}

static int config_json(const struct vm_config *config, json_t **ret_json, struct error *err)
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);
    int r =
        out ? print_config(config, out, err) : error_set(err, ENOMEM, "description: out of memory");

    if (out)
        fclose(out);
    if (r == 0) {
        *ret_json = json_loadb(text, len, 0, NULL);
        if (!*ret_json)
            r = error_set(err, ENOMEM, "description: out of memory");
    }
    free(text);
    return r;
}

/* printed: what config_json() made of config; there paths are absolute. NULL: out of memory. */
static json_t *disks_json(const struct vm_config *config, const json_t *printed,
                          const struct block_identity *disks)
{
    json_t *json = json_array();

    for (unsigned i = 0; i < config->disk_count; i++) {
        json_t *path =
            json_object_get(json_array_get(json_object_get(printed, "disks"), i), "path");
        json_t *disk = json_pack("{s:s, s:O, s:I}", "id", config->disks[i].id, "path", path,
                                 "bytes", (json_int_t)disks[i].bytes);

        if (disk && disks[i].mtime_ns)
            json_object_set_new(disk, "mtime_ns", json_integer((json_int_t)disks[i].mtime_ns));
        if (json_array_append_new(json, disk) < 0) {
            json_decref(json);
            return NULL;
        }
    }
    return json;
}

/* "model name	: …" of /proc/cpuinfo; empty when it is not told. */
static void read_cpu(char vendor[64], char model[128])
{
    FILE *file = fopen("/proc/cpuinfo", "re");
    char line[512];

    vendor[0] = model[0] = '\0';
    while (file && (!vendor[0] || !model[0]) && fgets(line, sizeof(line), file)) {
        (void)sscanf(line, "vendor_id : %63[^\n]", vendor);
        (void)sscanf(line, "model name : %127[^\n]", model);
    }
    if (file)
        fclose(file);
}

static json_t *host_json(void)
{
    char vendor[64], model[128];
    struct utsname host;

    if (uname(&host) < 0)
        host.release[0] = '\0';
    read_cpu(vendor, model);
    return json_pack("{s:s, s:s, s:s, s:s}", "vmrun", VMRUN_VERSION, "kernel", host.release,
                     "cpu_vendor", vendor, "cpu_model", model);
}

int machine_describe_config(const struct vm_config *config, const struct block_identity *disks,
                            const char *needs, char **ret_text, struct error *err)
{
    json_t *printed = NULL, *all;
    char *text;
    int r = config_json(config, &printed, err);

    if (r < 0)
        return r;
    /* Takes over all three, also when one is NULL and there is nothing. */
    all = json_pack("{s:o, s:o, s:o}", "disks", disks_json(config, printed, disks), "host",
                    host_json(), "config", printed);
    if (all && needs)
        json_object_set_new(all, "needs", json_string(needs));
    text = all ? json_dumps(all, JSON_INDENT(2)) : NULL;
    json_decref(all);
    if (!text)
        return error_set(err, ENOMEM, "description: out of memory");
    *ret_text = text;
    return 0;
}

int machine_describe(const struct machine *m, char **ret_text, struct error *err)
{
    struct block_identity disks[CONFIG_MAX_DISKS] = {0};

    for (unsigned i = 0; i < m->config->disk_count; i++) {
        int r = virtio_blk_identity(m->disks[i], &disks[i], err);

        if (r < 0)
            return r;
    }
    char *needs = NULL;
    int r = machine_needs(m, &needs, err);

    if (r < 0)
        return r;
    r = machine_describe_config(m->config, disks, needs, ret_text, err);
    free(needs);
    return r;
}

/* Reading */

static int load_description(const char *where, const char *text, size_t len, json_t **ret_json,
                            struct error *err)
{
    json_error_t why;
    json_t *json = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);

    if (!json)
        return error_set(err, EPROTO, "%s: not JSON (line %d)", where, why.line);
    if (!json_is_object(json)) {
        json_decref(json);
        return error_set(err, EPROTO, "%s: no description of a machine", where);
    }
    *ret_json = json;
    return 0;
}

/*
 * It has what it was built with: nothing is made up by what this host has, or by what a card of its
 * kind is given today. Before this was said one on passt had no offloads, and one on a tap had.
 */
static void settle_as_built(struct config_net *net)
{
    if (net->queues == 0)
        net->queues = 1;
    if (net->offload == CONFIG_OFFLOAD_AUTO && net->backend == CONFIG_NET_USER)
        net->offload = CONFIG_OFFLOAD_OFF;
}

int machine_read_description(const char *where, const char *text, size_t len,
                             struct vm_config *config, struct error *err)
{
    char *part = NULL;
    json_t *json = NULL;
    int r = load_description(where, text, len, &json, err);

    if (r < 0)
        return r;
    if (!json_is_object(json_object_get(json, "config"))) {
        r = error_set(err, EPROTO, "%s: a description without \"config\"", where);
        goto done;
    }
    part = json_dumps(json_object_get(json, "config"), JSON_INDENT(2));
    r = part ? config_load_text(config, where, part, strlen(part), err)
             : error_set(err, ENOMEM, "%s: out of memory", where);
    for (size_t i = 0; r == 0 && i < config->net_count; i++)
        settle_as_built(&config->nets[i]);
done:
    free(part);
    json_decref(json);
    return r;
}

/* All that is wrong, as far as there is room for it; then only how much more there is. */
struct findings {
    char text[sizeof(((struct error *)0)->msg) - 64];
    size_t len;
    unsigned left_out;
};

PRINTF_LIKE(2, 3) static void found(struct findings *f, const char *fmt, ...)
{
    size_t start = f->len ? f->len + 2 : 0; /* after "; " */
    size_t room = start < sizeof(f->text) ? sizeof(f->text) - start : 0;
    va_list args;
    int n;

    va_start(args, fmt);
    n = vsnprintf(f->text + start, room, fmt, args);
    va_end(args);
    if (f->left_out > 0 || n < 0 || (size_t)n >= room) {
        f->text[f->len] = '\0';
        f->left_out++;
        return;
    }
    if (start)
        memcpy(f->text + f->len, "; ", 2);
    f->len = start + (size_t)n;
}

/* A path in a message: its end, when it is long. */
static const char *tail(const char *path)
{
    size_t len = strlen(path);

    return len > 80 ? path + len - 80 : path;
}

/* then: what the description says of the disk. */
static void check_disk(const struct config_disk *disk, const json_t *then, struct findings *f)
{
    const char *path = json_string_value(json_object_get(then, "path"));
    json_int_t bytes = json_integer_value(json_object_get(then, "bytes"));
    json_int_t mtime = json_integer_value(json_object_get(then, "mtime_ns"));
    struct block_identity now;
    struct error err;

    if (!then) {
        found(f, "disk %s: the snapshot has none of this name", disk->id);
    } else if (block_identify(disk->path, &now, &err) < 0) {
        found(f, "disk %s: %s: %s", disk->id, tail(disk->path), err.msg);
    } else if ((json_int_t)now.bytes != bytes) {
        found(f, "disk %s: %s has %llu bytes and had %lld", disk->id, tail(disk->path),
              (unsigned long long)now.bytes, (long long)bytes);
    } else if (mtime && now.mtime_ns && path && strcmp(path, disk->path) == 0 &&
               (json_int_t)now.mtime_ns != mtime) {
        found(f, "disk %s: %s was written to since", disk->id, tail(disk->path));
    }
}

static const json_t *find_disk(const json_t *disks, const char *id)
{
    for (size_t i = 0; i < json_array_size(disks); i++) {
        const json_t *disk = json_array_get(disks, i);
        const char *name = json_string_value(json_object_get(disk, "id"));

        if (name && strcmp(name, id) == 0)
            return disk;
    }
    return NULL;
}

int machine_check_disks(const char *where, const char *text, size_t len,
                        const struct vm_config *config, struct error *err)
{
    struct findings f = {.len = 0};
    json_t *json = NULL;
    int r = load_description(where, text, len, &json, err);

    if (r < 0)
        return r;
    for (unsigned i = 0; i < config->disk_count; i++)
        check_disk(&config->disks[i],
                   find_disk(json_object_get(json, "disks"), config->disks[i].id), &f);
    json_decref(json);
    if (f.len == 0)
        return 0;
    if (f.left_out > 0)
        return error_set(err, ESTALE, "%s; and %u more", f.text, f.left_out);
    return error_set(err, ESTALE, "%s", f.text);
}

/* Was it taken on a host like this one? Then there is nothing that its KVM could lack. */
static bool is_this_host(const json_t *json)
{
    json_t *here = host_json();
    bool same = here && json_equal(here, json_object_get(json, "host"));

    json_decref(here);
    return same;
}

int machine_check_host(const char *where, const char *text, size_t len, const void *cpuid,
                       size_t cpuid_len, char missing[MACHINE_LACKS_BYTES],
                       char doubts[MACHINE_LACKS_BYTES], struct error *err)
{
    json_t *json = NULL;
    int r = load_description(where, text, len, &json, err);
    const char *needs;

    if (r < 0)
        return r;
    missing[0] = doubts[0] = '\0';
    needs = json_string_value(json_object_get(json, "needs"));
    if (needs && !is_this_host(json))
        r = machine_check_needs(needs, cpuid, cpuid_len, missing, doubts, err);
    json_decref(json);
    return r < 0 ? error_prefix(err, "%s", where) : 0;
}
