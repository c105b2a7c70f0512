/* SPDX-License-Identifier: Apache-2.0 */
/* config: the life of a struct vm_config, values set by flags, and the checks across values. */
#include "vmrun/config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "array.h"
#include "quote.h"
#include "tables.h"
#include "value.h"
#include "vmrun/forward.h"
#include "vmrun/text.h"

#define HUGE_PAGE (UINT64_C(2) << 20)
#define NET_USER_MAX_MTU 65520u
#define KEYS_MAX 64  /* in all tables together */
#define PATH_SIZE 64 /* of the longest path of a key, and its NUL */

static void init_object(const struct config_object *object, struct vm_config *config)
{
    for (const struct config_key *key = object->keys; key->name; key++) {
        struct error err;

        if (key->type == CONFIG_TYPE_OBJECT) {
            init_object(key->object, config);
        } else if (key->start) {
            int r = config_value_parse(key, config, NULL, key->start, &err);

            assert(r == 0 || r == -ENOMEM);
        }
    }
}

void config_init(struct vm_config *config)
{
    memset(config, 0, sizeof(*config));
    init_object(&config_root, config);
}

static void clear_object(const struct config_object *object, struct vm_config *config)
{
    for (const struct config_key *key = object->keys; key->name; key++) {
        if (key->type == CONFIG_TYPE_OBJECT)
            clear_object(key->object, config);
        else if (key->type == CONFIG_TYPE_ARRAY)
            config_array_clear(key, config);
        else
            config_value_clear(key, config);
    }
}

void config_fini(struct vm_config *config)
{
    clear_object(&config_root, config);
}

/* Every path below object: the words that someone may have meant. */
struct path_list {
    char paths[KEYS_MAX][PATH_SIZE];
    const char *words[KEYS_MAX + 1];
    unsigned count;
};

static void collect_paths(const struct config_object *object, const char *prefix,
                          struct path_list *list)
{
    for (const struct config_key *key = object->keys; key->name; key++) {
        char path[PATH_SIZE];

        snprintf(path, sizeof(path), "%s%s%s", prefix, prefix[0] ? "." : "", key->name);
        if (key->type == CONFIG_TYPE_OBJECT) {
            collect_paths(key->object, path, list);
            continue;
        }
        assert(list->count < KEYS_MAX);
        memcpy(list->paths[list->count], path, sizeof(path));
        list->words[list->count] = list->paths[list->count];
        list->count++;
    }
}

static int refuse_path(const char *path, struct error *err)
{
    struct path_list list = {.count = 0};
    char quoted[QUOTE_SIZE];
    const char *near;

    collect_paths(&config_root, "", &list);
    near = text_nearest(path, list.words);
    /* "kernel" for "boot.kernel" is no slip of the finger, but as easy to mend. */
    for (unsigned i = 0; !near && i < list.count; i++) {
        const char *last = strrchr(list.words[i], '.');

        if (last && strcmp(last + 1, path) == 0)
            near = list.words[i];
    }
    config_quote(path, quoted);
    if (near)
        return error_set(err, EINVAL, "%s is not a known key; did you mean \"%s\"?", quoted, near);
    return error_set(err, EINVAL, "%s is not a known key; \"vmrun config schema\" lists them",
                     quoted);
}

/* A value may decide of others in its item. */
static void settle_items(struct vm_config *config)
{
    for (const struct config_key *key = config_root.keys; key->name; key++)
        for (size_t i = 0; key->items.settle && i < *config_array_count(key, config); i++)
            key->items.settle(config_array_item(key, config, i));
}

/* An object that is there only when asked for: as a whole, or by one of its keys. */
static int set_optional(const struct config_key *key, struct vm_config *config, const char *text,
                        struct error *err)
{
    const struct config_key whether = {.type = CONFIG_TYPE_BOOL, .offset = key->offset};

    return config_value_parse(&whether, config, NULL, text, err);
}

static void ask_for_owner(const char *path, struct vm_config *config)
{
    char owner[PATH_SIZE];
    void *base = config;
    struct error ignored;

    snprintf(owner, sizeof(owner), "%.*s", (int)strcspn(path, "."), path);
    const struct config_key *key = config_key_find(owner, config, &base);
    if (key && key->optional)
        (void)set_optional(key, config, "true", &ignored);
}

int config_set(struct vm_config *config, const char *where, const char *path, const char *text,
               struct error *err)
{
    void *base = config;
    const struct config_key *key = config_key_find(path, config, &base);
    char list[200];
    int r;

    if (!key) {
        r = refuse_path(path, err);
    } else if (key->type == CONFIG_TYPE_ARRAY) {
        r = config_array_parse(key, config, text, err);
    } else if (key->optional) {
        r = set_optional(key, config, text, err);
    } else if (key->type == CONFIG_TYPE_OBJECT && strchr(text, '=')) {
        r = config_object_parse(key, config, text, err);
    } else if (key->type == CONFIG_TYPE_OBJECT) {
        config_object_list(key->object, list, sizeof(list));
        r = error_set(err, EINVAL, "\"%s\" is an object; set one of its keys: %s", path, list);
    } else {
        r = config_value_parse(key, base, NULL, text, err);
        if (r == 0)
            ask_for_owner(path, config);
        settle_items(config);
    }
    return r < 0 ? error_prefix(err, "%s", where) : 0;
}

/* Two disks on one image, or a console that would write over one. */
static int check_disks(const struct vm_config *config, struct error *err)
{
    const char *output = config->serial.path;
    char quoted[QUOTE_SIZE];

    for (size_t i = 0; i < config->disk_count; i++) {
        const struct config_disk *disk = &config->disks[i];

        if (output && strcmp(output, disk->path) == 0)
            return error_set(err, EINVAL,
                             "console.serial: %s is the image of disks[%zu]; name another file",
                             config_quote(output, quoted), i);
        for (size_t j = 0; j < i; j++) {
            const struct config_disk *other = &config->disks[j];

            if (strcmp(disk->path, other->path) == 0 && !(disk->readonly && other->readonly))
                return error_set(err, EINVAL,
                                 "disks[%zu].path: %s is the image of disks[%zu] already; two "
                                 "disks share one only when both are readonly",
                                 i, config_quote(disk->path, quoted), j);
        }
    }
    return 0;
}

/* Two forwards of one port; net may be other: then the first of the pair comes earlier. */
static int check_forwards(const struct config_net *net, size_t i, const struct config_net *other,
                          size_t j, struct error *err)
{
    const char *a = net->hostfwd ? net->hostfwd : "";
    size_t a_len, b_len;

    for (; (a_len = forward_next(&a)) > 0; a += a_len) {
        const char *b = other->hostfwd ? other->hostfwd : "";

        for (; (b_len = forward_next(&b)) > 0 && b != a; b += b_len) {
            struct forward one, two;

            if (forward_parse(a, a_len, &one) == 0 && forward_parse(b, b_len, &two) == 0 &&
                forward_clashes(&one, &two))
                return error_set(err, EINVAL,
                                 "nets[%zu].hostfwd: \"%.*s\" takes a port that \"%.*s\" of "
                                 "nets[%zu] has",
                                 i, (int)a_len, a, (int)b_len, b, j);
        }
    }
    return 0;
}

/* The kernel would pass on what it gets, whatever was asked for. */
static int check_vhost(const struct config_net *net, size_t i, struct error *err)
{
    const struct {
        const char *key;
        uint64_t rate;
    } rates[] = {
        {"rx_packets", net->rx_packets.rate},
        {"rx_bandwidth", net->rx_bandwidth.rate},
        {"tx_packets", net->tx_packets.rate},
        {"tx_bandwidth", net->tx_bandwidth.rate},
    };

    for (size_t k = 0; net->vhost && k < sizeof(rates) / sizeof(rates[0]); k++)
        if (rates[k].rate)
            return error_set(err, EINVAL,
                             "nets[%zu].%s: with vhost there are no limits; leave out one of them, "
                             "or limit the tap with tc(8)",
                             i, rates[k].key);
    return 0;
}

/* What belongs to the other backend. */
static int check_net(const struct config_net *net, size_t i, struct error *err)
{
    if (net->backend == CONFIG_NET_TAP && !net->ifname)
        return error_set(err, EINVAL, "nets[%zu].ifname: a tap needs a name, such as \"tap0\"", i);
    if (net->backend == CONFIG_NET_TAP && net->hostfwd)
        return error_set(err, EINVAL,
                         "nets[%zu].hostfwd: the backend \"tap\" forwards no ports; \"user\" does",
                         i);
    if (net->vhost && net->offload == CONFIG_OFFLOAD_OFF)
        return error_set(err, EINVAL, "nets[%zu].offload: vhost needs it; leave out one of them",
                         i);
    if (net->backend == CONFIG_NET_TAP)
        return check_vhost(net, i, err);
    if (net->vhost)
        return error_set(err, EINVAL,
                         "nets[%zu].vhost: the backend \"user\" has no vhost; \"tap\" has", i);
    if (net->ifname || net->bridge)
        return error_set(err, EINVAL,
                         "nets[%zu].%s: the backend \"user\" has no interface; \"tap\" has", i,
                         net->ifname ? "ifname" : "bridge");
    if (net->queues > 1)
        return error_set(err, EINVAL,
                         "nets[%zu].queues: the backend \"user\" has one pair; \"tap\" has more",
                         i);
    if (net->mtu > NET_USER_MAX_MTU)
        return error_set(err, EINVAL,
                         "nets[%zu].mtu: %llu; with the backend \"user\" it is %u at most", i,
                         (unsigned long long)net->mtu, NET_USER_MAX_MTU);
    return check_forwards(net, i, net, i, err);
}

/* Two cards on one tap, with one address, or with one port. */
static int check_nets(const struct vm_config *config, struct error *err)
{
    for (size_t i = 0; i < config->net_count; i++) {
        const struct config_net *net = &config->nets[i];
        int r = check_net(net, i, err);

        for (size_t j = 0; r == 0 && j < i; j++) {
            const struct config_net *other = &config->nets[j];

            if (net->ifname && other->ifname && strcmp(net->ifname, other->ifname) == 0)
                return error_set(err, EINVAL, "nets[%zu].ifname: \"%s\" is the tap of nets[%zu]", i,
                                 net->ifname, j);
            if (net->mac && other->mac && strcasecmp(net->mac, other->mac) == 0)
                return error_set(err, EINVAL, "nets[%zu].mac: \"%s\" is the address of nets[%zu]",
                                 i, net->mac, j);
            r = check_forwards(net, i, other, j, err);
        }
        if (r < 0)
            return r;
    }
    return 0;
}

/* Both consoles on one terminal, or in one file, or over something that is read. */
static int check_virtio_console(const struct vm_config *config, struct error *err)
{
    const struct config_serial *virtio = &config->virtio_console;
    const char *what = NULL;
    char quoted[QUOTE_SIZE];

    if (virtio->kind == CONFIG_CONSOLE_STDIO && config->serial.kind == CONFIG_CONSOLE_STDIO)
        return error_set(err, EINVAL,
                         "console.virtio: the terminal is the serial port's; set console.serial to "
                         "another, such as \"none\"");
    if (!virtio->path)
        return 0;
    if (config->serial.path && strcmp(virtio->path, config->serial.path) == 0)
        what = "where the serial port writes";
    else if (strcmp(virtio->path, config->boot.kernel) == 0)
        what = "the kernel";
    else if (config->boot.initrd && strcmp(virtio->path, config->boot.initrd) == 0)
        what = "the initrd";
    for (size_t i = 0; !what && i < config->disk_count; i++)
        if (strcmp(virtio->path, config->disks[i].path) == 0)
            what = "a disk's image";
    return what ? error_set(err, EINVAL, "console.virtio: %s is %s; name another file",
                            config_quote(virtio->path, quoted), what)
                : 0;
}

static int check_arrays(const struct vm_config *config, struct error *err)
{
    int r = 0;

    for (const struct config_key *key = config_root.keys; r == 0 && key->name; key++)
        if (key->type == CONFIG_TYPE_ARRAY)
            r = config_array_check_ids(key, config, err);
    if (r == 0)
        r = check_disks(config, err);
    return r < 0 ? r : check_nets(config, err);
}

static int check_limits(const struct vm_config *config, struct error *err)
{
    uint64_t least = config->memory + CONFIG_MEMORY_OVERHEAD;
    char limit[24], memory[24], cure[24];

    if (!config->limits.memory || config->limits.memory >= least)
        return 0;
    return error_set(
        err, EINVAL,
        "limits.memory: \"%s\" is too little for the guest's RAM, %s, and 64M for vmrun "
        "itself: the host would kill the machine; write \"%s\" or more",
        text_format_size(config->limits.memory, limit, sizeof(limit)),
        text_format_size(config->memory, memory, sizeof(memory)),
        text_format_size(least, cure, sizeof(cure)));
}

int config_validate(const struct vm_config *config, struct error *err)
{
    const char *output = config->serial.path;
    char size[24], quoted[QUOTE_SIZE];

    if (!config->boot.cmdline)
        return error_set(err, ENOMEM, "boot.cmdline: out of memory");
    if (!config->boot.kernel)
        return error_set(
            err, EINVAL,
            "boot.kernel: no kernel is named; set it in the file or give --kernel FILE");
    if (config->memory_options.pages == CONFIG_PAGES_HUGE && config->memory % HUGE_PAGE != 0)
        return error_set(err, EINVAL,
                         "memory: \"%s\" is not a multiple of 2M, as memory_options.pages \"huge\" "
                         "asks",
                         text_format_size(config->memory, size, sizeof(size)));
    if (config->memory_options.pages == CONFIG_PAGES_HUGE && config->balloon.wanted)
        return error_set(err, EINVAL,
                         "balloon: reserved large pages are never given back; set "
                         "memory_options.pages to \"transparent\", or do without");
    if (output && strcmp(output, config->boot.kernel) == 0)
        return error_set(err, EINVAL, "console.serial: %s is the kernel; name another file",
                         config_quote(output, quoted));
    if (output && config->boot.initrd && strcmp(output, config->boot.initrd) == 0)
        return error_set(err, EINVAL, "console.serial: %s is the initrd; name another file",
                         config_quote(output, quoted));
    if (config->vsock.cid && !config->vsock.socket)
        return error_set(err, EINVAL,
                         "vsock.socket: the vsock has no socket on the host; name its path");
    if (check_limits(config, err) < 0 || check_arrays(config, err) < 0)
        return -err->code;
    return check_virtio_console(config, err);
}
