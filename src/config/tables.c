/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tables: every key of a machine's description, with type, range, default and
 * meaning. The printed form keeps this order. OFFSET() refuses to compile when
 * a key's type does not fit its member of struct vm_config.
 */
#include "tables.h"

#include <stdio.h>
#include <string.h>

#define MIB (UINT64_C(1) << 20)
#define TIB (UINT64_C(1) << 40)

#define MEMBER(member) (((struct vm_config *)0)->member)
#define OFFSET(ctype, member) \
    .offset = offsetof(struct vm_config, member) + 0 * sizeof(&MEMBER(member) == (ctype *)0)

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
    {0},
};

static const struct config_object console = {
    .title = "Console",
    .keys = console_keys,
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

static const struct config_key *find(const struct config_object *object, const char *name,
                                     size_t len)
{
    for (const struct config_key *key = object->keys; key->name; key++)
        if (strlen(key->name) == len && memcmp(key->name, name, len) == 0)
            return key;
    return NULL;
}

const struct config_key *config_object_find(const struct config_object *object, const char *name)
{
    return find(object, name, strlen(name));
}

const struct config_key *config_key_find(const char *path)
{
    const struct config_object *object = &config_root;

    while (object) {
        size_t len = strcspn(path, ".");
        const struct config_key *key = find(object, path, len);

        if (!key || !path[len])
            return key;
        object = key->object;
        path += len + 1;
    }
    return NULL;
}

void config_object_list(const struct config_object *object, char *buf, size_t len)
{
    size_t at = 0;

    buf[0] = '\0';
    for (const struct config_key *key = object->keys; key->name && at < len; key++)
        at += (size_t)snprintf(buf + at, len - at, "%s%s", at ? ", " : "", key->name);
}
