/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tables: every key of a machine's description, with type, range, default and
 * meaning. The printed form keeps this order. OFFSET() refuses to compile when
 * a key's type does not fit its member of struct vm_config.
 */
#include "tables.h"

#define MIB (UINT64_C(1) << 20)
#define TIB (UINT64_C(1) << 40)
#define BANDWIDTH_MAX (UINT64_C(900) << 30) /* less than BUCKET_MAX_RATE */

/* The offset of a member that has that type; of another it is no valid comparison. */
#define OFFSET_OF(type, ctype, member) \
    (offsetof(type, member) + 0 * sizeof(&((type *)0)->member == (ctype *)0))
#define OFFSET(ctype, member) .offset = OFFSET_OF(struct vm_config, ctype, member)
#define ITEMS(type, member, counter, ...) \
    .offset = OFFSET_OF(struct vm_config, type, member[0]), \
    .max = sizeof(((struct vm_config *)0)->member) / sizeof(type), \
    .items = {.size = sizeof(type), \
              .count_offset = OFFSET_OF(struct vm_config, uint64_t, counter), \
              __VA_ARGS__}

/* A limit and its burst, of an item: so many a second, as a number or as a size. */
#define RATE_KEY(item, ctype, member, text) \
    { \
        .name = (item), .type = CONFIG_TYPE_UINT, .offset = OFFSET_OF(ctype, uint64_t, member), \
        .max = 1000000000, .description = (text) \
    }
#define BANDWIDTH_KEY(item, ctype, member, text) \
    { \
        .name = (item), .type = CONFIG_TYPE_SIZE, .offset = OFFSET_OF(ctype, uint64_t, member), \
        .max = BANDWIDTH_MAX, .step = 1, .description = (text) \
    }

static const char *const unpack_choices[] = {
    [CONFIG_UNPACK_AUTO] = "auto",
    [CONFIG_UNPACK_ALWAYS] = "always",
    [CONFIG_UNPACK_GUEST] = "guest",
    NULL,
};

static const char *const model_choices[] = {
    [CONFIG_CPU_HOST] = "host",
    [CONFIG_CPU_V2] = "x86-64-v2",
    [CONFIG_CPU_V3] = "x86-64-v3",
    NULL,
};

static const char *const backing_choices[] = {
    [CONFIG_BACKING_ANONYMOUS] = "anonymous",
    [CONFIG_BACKING_MEMFD] = "memfd",
    NULL,
};

static const char *const pages_choices[] = {
    [CONFIG_PAGES_NORMAL] = "normal",
    [CONFIG_PAGES_TRANSPARENT] = "transparent",
    [CONFIG_PAGES_HUGE] = "huge",
    NULL,
};

static const char *const reboot_choices[] = {
    [CONFIG_REBOOT_RESTART] = "restart",
    [CONFIG_REBOOT_EXIT] = "exit",
    NULL,
};

static const char *const cache_choices[] = {
    [CONFIG_CACHE_NONE] = "none",
    [CONFIG_CACHE_WRITEBACK] = "writeback",
    NULL,
};

static const char *const backend_choices[] = {
    [CONFIG_NET_AUTO] = "auto",
    [CONFIG_NET_TAP] = "tap",
    [CONFIG_NET_USER] = "user",
    NULL,
};

static const char *const offload_choices[] = {
    [CONFIG_OFFLOAD_AUTO] = "auto",
    [CONFIG_OFFLOAD_ON] = "on",
    [CONFIG_OFFLOAD_OFF] = "off",
    NULL,
};

static const char *const serial_choices[] = {
    [CONFIG_CONSOLE_STDIO] = "stdio",
    [CONFIG_CONSOLE_PTY] = "pty",
    [CONFIG_CONSOLE_NONE] = "none",
    [CONFIG_CONSOLE_FILE] = "file:PATH",
    NULL,
};

static const struct config_key memory_options_keys[] = {
    {
        .name = "backing",
        .type = CONFIG_TYPE_CHOICE,
        OFFSET(uint64_t, memory_options.backing),
        .choices = backing_choices,
        .start = "anonymous",
        .description = "What the guest's RAM is made of: private anonymous memory, or a memfd, "
                       "which other processes can share.",
    },
    {
        .name = "pages",
        .type = CONFIG_TYPE_CHOICE,
        OFFSET(uint64_t, memory_options.pages),
        .choices = pages_choices,
        .start = "transparent",
        .description = "The host's pages under it: 4 KiB pages, huge pages where the host has "
                       "them at hand, or reserved 2 MiB pages only.",
    },
    {0},
};

static const struct config_object memory_options = {
    .title = "Memory options",
    .keys = memory_options_keys,
};

static const struct config_key boot_keys[] = {
    {
        .name = "kernel",
        .type = CONFIG_TYPE_PATH,
        OFFSET(char *, boot.kernel),
        .max = 4095,
        .description = "The kernel to boot: a Linux bzImage, or an ELF file with a PVH entry.",
    },
    {
        .name = "initrd",
        .type = CONFIG_TYPE_PATH,
        OFFSET(char *, boot.initrd),
        .max = 4095,
        .description = "The initial RAM disk, as the kernel expects it.",
    },
    {
        .name = "cmdline",
        .type = CONFIG_TYPE_TEXT,
        OFFSET(char *, boot.cmdline),
        .max = 4095,
        .start = "console=ttyS0",
        .description = "The kernel's command line. The kernel may have a lower limit of its own.",
    },
    {
        .name = "unpack",
        .type = CONFIG_TYPE_CHOICE,
        OFFSET(uint64_t, boot.unpack),
        .choices = unpack_choices,
        .start = "auto",
        .description = "Who unpacks a compressed kernel: vmrun where it can, which is faster, with "
                       "what it has kept of an earlier start (auto) or anew (always), or the "
                       "guest.",
    },
    {0},
};

static const struct config_object boot = {
    .title = "Boot",
    .keys = boot_keys,
};

static const struct config_key cpu_keys[] = {
    {
        .name = "model",
        .type = CONFIG_TYPE_CHOICE,
        OFFSET(uint64_t, cpu.model),
        .choices = model_choices,
        .start = "host",
        .description = "The processor that the guest sees: the host's own, or a named level of "
                       "x86-64, the same on every host that has it.",
    },
    {0},
};

static const struct config_object cpu = {
    .title = "Processor",
    .keys = cpu_keys,
};

static const struct config_key console_keys[] = {
    {
        .name = "serial",
        .type = CONFIG_TYPE_CONSOLE,
        OFFSET(struct config_serial, serial),
        .max = 4095,
        .choices = serial_choices,
        .start = "stdio",
        .description = "Where the first serial port leads: the terminal of vmrun, a "
                       "pseudo-terminal, a file (output only), or nowhere.",
    },
    {
        .name = "virtio",
        .type = CONFIG_TYPE_CONSOLE,
        OFFSET(struct config_serial, virtio_console),
        .max = 4095,
        .choices = serial_choices,
        .start = "none",
        .description = "Where the guest's hvc0 leads, likewise; none: it has no such console.",
    },
    {0},
};

static const struct config_object console = {
    .title = "Console",
    .keys = console_keys,
};

static const struct config_key disk_keys[] = {
    {
        .name = "id",
        .type = CONFIG_TYPE_ID,
        .offset = OFFSET_OF(struct config_disk, char *, id),
        .max = 20,
        .description = "What the disk is called in messages and statistics.",
    },
    {
        .name = "path",
        .type = CONFIG_TYPE_PATH,
        .offset = OFFSET_OF(struct config_disk, char *, path),
        .max = 4095,
        .required = true,
        .description = "The raw image, or a block device of the host.",
    },
    {
        .name = "readonly",
        .type = CONFIG_TYPE_BOOL,
        .offset = OFFSET_OF(struct config_disk, bool, readonly),
        .start = "false",
        .description = "Whether the guest may only read it.",
    },
    {
        .name = "cache",
        .type = CONFIG_TYPE_CHOICE,
        .offset = OFFSET_OF(struct config_disk, uint64_t, cache),
        .choices = cache_choices,
        .start = "none",
        .description = "Whether the host's page cache stands between the guest and the image.",
    },
    {
        .name = "queues",
        .type = CONFIG_TYPE_UINT,
        .offset = OFFSET_OF(struct config_disk, uint64_t, queues),
        .min = 1,
        .max = 32,
        .description = "How many request queues the disk has; without it, one for each CPU.",
    },
    {
        .name = "serial",
        .type = CONFIG_TYPE_TEXT,
        .offset = OFFSET_OF(struct config_disk, char *, serial),
        .max = 20,
        .description = "The serial number that the guest reads; without it, the id.",
    },
    RATE_KEY("iops", struct config_disk, iops.rate,
             "How many requests the disk serves in a second at most; 0 or none: no limit."),
    RATE_KEY("iops_burst", struct config_disk, iops.burst,
             "How many of them at once after a rest; 0 or none: those of 100 ms."),
    BANDWIDTH_KEY("bandwidth", struct config_disk, bandwidth.rate,
                  "How many bytes are read and written in a second at most; 0 or none: no limit."),
    BANDWIDTH_KEY("bandwidth_burst", struct config_disk, bandwidth.burst,
                  "How many of them at once after a rest; 0 or none: those of 100 ms."),
    {0},
};

static const struct config_object disk = {
    .title = "Disk",
    .keys = disk_keys,
};

static const struct config_key net_keys[] = {
    {
        .name = "id",
        .type = CONFIG_TYPE_ID,
        .offset = OFFSET_OF(struct config_net, char *, id),
        .max = 11,
        .description = "What the network card is called in messages and statistics.",
    },
    {
        .name = "backend",
        .type = CONFIG_TYPE_CHOICE,
        .offset = OFFSET_OF(struct config_net, uint64_t, backend),
        .choices = backend_choices,
        .start = "auto",
        .description = "What it is connected to: a tap interface of the host, or the host's own "
                       "sockets through passt, which needs no privilege; without it, a tap when "
                       "one is named.",
    },
    {
        .name = "ifname",
        .type = CONFIG_TYPE_NAME,
        .offset = OFFSET_OF(struct config_net, char *, ifname),
        .max = 15,
        .description = "The tap interface. One that does not exist is made, which needs root, and "
                       "goes with the machine.",
    },
    {
        .name = "bridge",
        .type = CONFIG_TYPE_NAME,
        .offset = OFFSET_OF(struct config_net, char *, bridge),
        .max = 15,
        .description = "The bridge of the host that the tap is attached to.",
    },
    {
        .name = "hostfwd",
        .type = CONFIG_TYPE_FORWARDS,
        .offset = OFFSET_OF(struct config_net, char *, hostfwd),
        .max = 2000,
        .description = "Ports of the host that lead to the guest, as in \"tcp:8080:80\".",
    },
    {
        .name = "mac",
        .type = CONFIG_TYPE_MAC,
        .offset = OFFSET_OF(struct config_net, char *, mac),
        .max = 17,
        .description = "The card's address; without it, one made of the machine's name and the id.",
    },
    {
        .name = "queues",
        .type = CONFIG_TYPE_UINT,
        .offset = OFFSET_OF(struct config_net, uint64_t, queues),
        .min = 1,
        .max = 16,
        .description = "How many pairs of queues the card has; without it one for each CPU, up to "
                       "4, where the tap can have several, else one.",
    },
    {
        .name = "vhost",
        .type = CONFIG_TYPE_BOOL,
        .offset = OFFSET_OF(struct config_net, bool, vhost),
        .start = "false",
        .description = "Whether the host's kernel carries the frames between tap and guest. Such a "
                       "card has no limits, and its frames are not counted.",
    },
    {
        .name = "mtu",
        .type = CONFIG_TYPE_UINT,
        .offset = OFFSET_OF(struct config_net, uint64_t, mtu),
        .min = 68,
        .max = 65521,
        .description = "The longest packet, told to the guest and set on the tap; without it, what "
                       "the tap has, or 28712 without a tap.",
    },
    {
        .name = "offload",
        .type = CONFIG_TYPE_CHOICE,
        .offset = OFFSET_OF(struct config_net, uint64_t, offload),
        .choices = offload_choices,
        .start = "auto",
        .description =
            "Whether the guest leaves checksums, and on a tap the cutting up of TCP, to the host: "
            "auto, which is on, unless the machine was saved by a vmrun that did not "
            "have it for this backend yet.",
    },
    RATE_KEY("rx_packets", struct config_net, rx_packets.rate,
             "How many frames come to the guest in a second at most; 0 or none: no limit."),
    RATE_KEY("rx_packets_burst", struct config_net, rx_packets.burst,
             "How many of them at once after a rest; 0 or none: those of 100 ms."),
    BANDWIDTH_KEY("rx_bandwidth", struct config_net, rx_bandwidth.rate,
                  "How many bytes come to the guest in a second at most; 0 or none: no limit."),
    BANDWIDTH_KEY("rx_bandwidth_burst", struct config_net, rx_bandwidth.burst,
                  "How many of them at once after a rest; 0 or none: those of 100 ms."),
    RATE_KEY("tx_packets", struct config_net, tx_packets.rate,
             "How many frames go out from the guest in a second at most; 0 or none: no limit."),
    RATE_KEY("tx_packets_burst", struct config_net, tx_packets.burst,
             "How many of them at once after a rest; 0 or none: those of 100 ms."),
    BANDWIDTH_KEY("tx_bandwidth", struct config_net, tx_bandwidth.rate,
                  "How many bytes go out from the guest in a second at most; 0 or none: no limit."),
    BANDWIDTH_KEY("tx_bandwidth_burst", struct config_net, tx_bandwidth.burst,
                  "How many of them at once after a rest; 0 or none: those of 100 ms."),
    {0},
};

static void settle_net(void *item)
{
    struct config_net *card = item;

    if (card->backend == CONFIG_NET_AUTO)
        card->backend = card->ifname ? CONFIG_NET_TAP : CONFIG_NET_USER;
}

static const struct config_object net = {
    .title = "Network card",
    .keys = net_keys,
};

static const struct config_key balloon_keys[] = {
    {
        .name = "deflate_on_oom",
        .type = CONFIG_TYPE_BOOL,
        OFFSET(bool, balloon.deflate_on_oom),
        .start = "true",
        .description = "Whether a guest that runs out of memory may take back what it gave up.",
    },
    {0},
};

static const struct config_object balloon = {
    .title = "Balloon",
    .keys = balloon_keys,
};

static const struct config_key vsock_keys[] = {
    {
        .name = "cid",
        .type = CONFIG_TYPE_UINT,
        OFFSET(uint64_t, vsock.cid),
        .min = 3,
        .max = UINT32_MAX - UINT64_C(1),
        .description = "The guest's address; without it, 3. Other machines may have the same one.",
    },
    {
        .name = "socket",
        .type = CONFIG_TYPE_PATH,
        OFFSET(char *, vsock.socket),
        .max = 4095,
        .description = "The Unix socket through which programs of the host reach the guest: they "
                       "say \"CONNECT PORT\". What the guest connects to, port P of the host, is "
                       "the Unix socket of this path with _P behind it.",
    },
    {0},
};

static const struct config_object vsock = {
    .title = "Vsock",
    .keys = vsock_keys,
};

static const struct config_key limits_keys[] = {
    {
        .name = "cpu",
        .type = CONFIG_TYPE_PERCENT,
        OFFSET(uint64_t, limits.cpu),
        .max = 100000,
        .description = "How much of the host's CPUs vmrun may use, with all its threads; 0% or "
                       "none: no limit. Half as much again as one CPU is",
    },
    {
        .name = "memory",
        .type = CONFIG_TYPE_SIZE,
        OFFSET(uint64_t, limits.memory),
        .max = 4 * TIB,
        .step = MIB,
        .description = "How much of the host's memory vmrun may use: the guest's RAM and at least "
                       "64M more; 0 or none: no limit.",
    },
    {0},
};

static const struct config_object limits = {
    .title = "Limits",
    .keys = limits_keys,
};

static const struct config_key root_keys[] = {
    {
        .name = "name",
        .type = CONFIG_TYPE_NAME,
        OFFSET(char *, name),
        .max = 64,
        .description = "What the machine is called in every command.",
    },
    {
        .name = "cpus",
        .type = CONFIG_TYPE_UINT,
        OFFSET(uint64_t, cpus),
        .min = 1,
        .max = 255,
        .start = "1",
        .description = "How many CPUs the guest has.",
    },
    {
        .name = "memory",
        .type = CONFIG_TYPE_SIZE,
        OFFSET(uint64_t, memory),
        .min = 16 * MIB,
        .max = 4 * TIB,
        .step = MIB,
        .start = "256M",
        .description = "The guest's RAM.",
    },
    {
        .name = "memory_options",
        .type = CONFIG_TYPE_OBJECT,
        .object = &memory_options,
        .description = "How the host provides the guest's RAM.",
    },
    {
        .name = "boot",
        .type = CONFIG_TYPE_OBJECT,
        .object = &boot,
        .description = "What the machine starts.",
    },
    {
        .name = "cpu",
        .type = CONFIG_TYPE_OBJECT,
        .object = &cpu,
        .description = "The kind of processor.",
    },
    {
        .name = "console",
        .type = CONFIG_TYPE_OBJECT,
        .object = &console,
        .description = "What the guest prints to.",
    },
    {
        .name = "disks",
        .type = CONFIG_TYPE_ARRAY,
        .object = &disk,
        ITEMS(struct config_disk, disks, disk_count, .word = "disk", .first = "path"),
        .description = "The guest's disks, in the order in which it finds them.",
    },
    {
        .name = "nets",
        .type = CONFIG_TYPE_ARRAY,
        .object = &net,
        ITEMS(struct config_net, nets, net_count, .word = "net", .first = "backend",
              .of_first = "ifname", .settle = settle_net),
        .description = "The guest's network cards, in the order in which it finds them.",
    },
    {
        .name = "rng",
        .type = CONFIG_TYPE_BOOL,
        OFFSET(bool, rng),
        .start = "true",
        .description = "Whether the guest has a source of entropy.",
    },
    {
        .name = "balloon",
        .type = CONFIG_TYPE_OBJECT,
        .object = &balloon,
        .optional = true,
        OFFSET(bool, balloon.wanted),
        .description = "A memory balloon, by which the guest gives up memory that it is asked for, "
                       "and what it has free; without this object there is none.",
    },
    {
        .name = "vsock",
        .type = CONFIG_TYPE_OBJECT,
        .object = &vsock,
        .description = "Stream sockets between the guest and programs of the host.",
    },
    {
        .name = "limits",
        .type = CONFIG_TYPE_OBJECT,
        .object = &limits,
        .description = "What the process may use of the host, by a cgroup (v2) of its own.",
    },
    {
        .name = "on_reboot",
        .type = CONFIG_TYPE_CHOICE,
        OFFSET(uint64_t, reboot),
        .choices = reboot_choices,
        .start = "restart",
        .description = "What follows when the guest reboots: it starts again, or vmrun ends.",
    },
    {
        .name = "debug_exit",
        .type = CONFIG_TYPE_BOOL,
        OFFSET(bool, debug_exit),
        .start = "false",
        .description = "Whether the guest has a port through which it can end vmrun with a "
                       "status of its choice: for test guests.",
    },
    {0},
};

const struct config_object config_root = {
    .title = "vmrun machine",
    .description = "A virtual machine for vmrun, as vmrun.json(5) describes it. Paths are relative "
                   "to the folder of the file.",
    .keys = root_keys,
};
