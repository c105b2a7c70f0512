/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_CONFIG_H
#define VMRUN_CONFIG_H

/*
 * The description of a machine, as its owner writes it: JSON, or flags.
 *
 * One table per JSON object gives names, types, ranges and defaults; the
 * parser, the checker, the JSON Schema and the printed form all come from it
 * (src/config/tables.c). docs/vmrun.json.5 is the manual of the keys.
 *
 * Any thread may call these; one struct vm_config is one thread's at a time.
 */

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "vmrun/error.h"

enum config_console {
    CONFIG_CONSOLE_STDIO,
    CONFIG_CONSOLE_PTY,
    CONFIG_CONSOLE_NONE,
    CONFIG_CONSOLE_FILE,
};
enum config_cpu_model { CONFIG_CPU_HOST, CONFIG_CPU_V2, CONFIG_CPU_V3 };
enum config_backing { CONFIG_BACKING_ANONYMOUS, CONFIG_BACKING_MEMFD };
enum config_pages { CONFIG_PAGES_NORMAL, CONFIG_PAGES_TRANSPARENT, CONFIG_PAGES_HUGE };
enum config_unpack { CONFIG_UNPACK_AUTO, CONFIG_UNPACK_ALWAYS, CONFIG_UNPACK_GUEST };
enum config_reboot { CONFIG_REBOOT_RESTART, CONFIG_REBOOT_EXIT };

enum config_cache { CONFIG_CACHE_NONE, CONFIG_CACHE_WRITEBACK };

struct config_serial {
    uint64_t kind; /* enum config_console, of "stdio", "pty", "none" or "file:PATH" */
    char *path;    /* CONFIG_CONSOLE_FILE; else NULL */
};

/* What a device may do in a second, and at once after a rest; 0: no limit, or a usual burst. */
struct config_rate {
    uint64_t rate, burst;
};

#define CONFIG_MAX_DISKS 16

struct config_disk {
    char *id;        /* as a name, at most 20 bytes; once in the machine */
    char *path;      /* never NULL */
    char *serial;    /* at most 20 bytes; NULL: the id */
    uint64_t cache;  /* enum config_cache */
    uint64_t queues; /* 0: one for each CPU */
    bool readonly;
    struct config_rate iops, bandwidth; /* bytes */
};

#define CONFIG_MAX_NETS 8

enum config_net_backend { CONFIG_NET_AUTO, CONFIG_NET_TAP, CONFIG_NET_USER };
enum config_net_offload { CONFIG_OFFLOAD_AUTO, CONFIG_OFFLOAD_ON, CONFIG_OFFLOAD_OFF };

struct config_net {
    char *id;         /* as a name, at most 11 bytes; once in the machine */
    uint64_t backend; /* enum config_net_backend; when an item is complete, not AUTO any more */
    char *ifname;     /* NULL but with TAP */
    char *hostfwd;    /* USER: as forward.h reads them, one blank between; NULL: none */
    char *bridge;     /* NULL: none */
    char *mac;       /* as text_parse_mac() takes it; NULL: made of the machine's name and the id */
    uint64_t queues; /* pairs; 0: as many as suits tap and CPUs */
    uint64_t mtu;    /* 0: as it is */
    uint64_t offload;                            /* enum config_net_offload; AUTO: as ON */
    struct config_rate rx_packets, rx_bandwidth; /* to the guest */
    struct config_rate tx_packets, tx_bandwidth; /* from it */
    bool vhost;                                  /* only with TAP, and without rates */
};

#define CONFIG_VSOCK_CID 3

/* What a process with a machine needs at least besides the guest's RAM. */
#define CONFIG_MEMORY_OVERHEAD (UINT64_C(64) << 20)

/*
 * Strings are owned, UTF-8 without control characters, and never NULL unless
 * said. Paths are absolute or relative to the working folder.
 */
struct vm_config {
    char *name;      /* 1 to 64 of [A-Za-z0-9._-], not starting with . or - ; NULL: none given */
    uint64_t cpus;   /* 1 to 255; KVM's own limit comes later */
    uint64_t memory; /* bytes, a multiple of 1 MiB, 16 MiB to 4 TiB */
    struct {
        char *kernel;    /* NULL: none given (config_validate() refuses) */
        char *initrd;    /* NULL: none */
        char *cmdline;   /* at most 4095 bytes; boot_open() knows the kernel's own limit */
        uint64_t unpack; /* enum config_unpack */
    } boot;
    struct {
        uint64_t model; /* enum config_cpu_model */
    } cpu;
    struct {
        uint64_t backing; /* enum config_backing */
        uint64_t pages;   /* enum config_pages */
    } memory_options;
    struct config_serial serial;         /* "console.serial" */
    struct config_serial virtio_console; /* "console.virtio"; none: there is no such device */
    struct config_disk disks[CONFIG_MAX_DISKS];
    uint64_t disk_count;
    struct config_net nets[CONFIG_MAX_NETS];
    uint64_t net_count;
    bool rng;
    struct {
        bool wanted; /* there is one only where it is asked for */
        bool deflate_on_oom;
    } balloon;
    struct {
        uint64_t cid; /* 3 to 4294967294; 0: CONFIG_VSOCK_CID */
        char *socket; /* NULL: there is no vsock */
    } vsock;
    struct {
        uint64_t cpu;    /* percent of one CPU of the host; 0: no limit */
        uint64_t memory; /* bytes, guest RAM and all; 0: no limit */
    } limits;
    uint64_t reboot; /* enum config_reboot: "on_reboot" */
    bool debug_exit;
};

/*
 * The defaults: 1 CPU of the host's model, 256 MiB of anonymous memory with
 * transparent huge pages, the command line "console=ttyS0", the serial port on
 * stdio, entropy, restart on reboot, no debug exit; no name, kernel, initrd, disk or net. When
 * memory for the command line runs out it is NULL, and config_validate() says so.
 */
void config_init(struct vm_config *config);

/* Frees what config owns. Fine on one that is all zeros, or half loaded, or a second time. */
void config_fini(struct vm_config *config);

/*
 * Read a file over what config holds; paths in it are relative to its folder.
 * When it fails, config holds the defaults, the old or the new value for each
 * key, and only config_fini() is left to do. An array in the file takes the place
 * of the one that was there. The message is one line:
 *   "FILE: what"               the file itself: -ENOENT, -EACCES, -EISDIR … of open(2) and
 *                              read(2); -EFBIG over 1 MiB; -EINVAL empty, or not an object
 *   "FILE:LINE:COLUMN: what"   no JSON, a key there twice, not UTF-8: -EINVAL
 *   "FILE: JSON.PATH: what"    everything else: -EINVAL
 * or -ENOMEM.
 */
int config_load(struct vm_config *config, const char *path, struct error *err);

/*
 * The same of a text, as config_print() has put it; `where` stands for FILE in messages, and
 * relative paths stay so. Errors: those of config_load() but for the file's own; -EFBIG.
 */
int config_load_text(struct vm_config *config, const char *where, const char *text, size_t len,
                     struct error *err);

/*
 * Set one value by its JSON path ("memory", "boot.kernel", "console.serial"), as
 * a flag or --set does; text is parsed by the type in the table, paths are
 * relative to the working folder. The path of an array ("disks") adds an item to
 * it, as in "root.img,readonly,serial=S"; "disks[0].path" sets one of it. That of an object
 * ("vsock") sets some of its keys, as in "cid=3,socket=S". An object that is there only when asked
 * for ("balloon") is true or false, and true when one of its keys is set. `where` is all that is
 * put before errors, so it names the flag ("--memory"), or with --set also the path ("--set
 * memory"). Leaves config as it was on failure. Errors: -EINVAL, -ENOMEM.
 */
int config_set(struct vm_config *config, const char *where, const char *path, const char *text,
               struct error *err);

/*
 * What no single value shows: a kernel is named, values that contradict. Opens
 * nothing. The message begins with the JSON path. Errors: -EINVAL, -ENOMEM.
 */
int config_validate(const struct vm_config *config, struct error *err);

/* The JSON Schema (draft 2020-12) of what config_load() takes. Errors: -ENOMEM, -EIO of out. */
int config_print_schema(FILE *out, struct error *err);

/*
 * The effective configuration as JSON, every default filled in, keys without a
 * value left out, paths made absolute: config_load() takes it from any folder.
 * Errors: -EINVAL the working folder's name is not UTF-8; -ENOMEM; -EIO of out;
 * those of getcwd(3).
 */
int config_print(const struct vm_config *config, FILE *out, struct error *err);

#endif
