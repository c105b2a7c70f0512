/* SPDX-License-Identifier: Apache-2.0 */
/* config: defaults, file, flags and printed form, on their way in and out. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "config_text.h"
#include "folder.h"
#include "vmrun/config.h"

static void the_defaults_are_those_of_the_header(void **state)
{
    struct vm_config config;

    (void)state;
    memset(&config, 0xff, sizeof(config));
    config_init(&config);
    assert_null(config.name);
    assert_int_equal(config.cpus, 1);
    assert_int_equal(config.memory, 256 << 20);
    assert_null(config.boot.kernel);
    assert_null(config.boot.initrd);
    assert_string_equal(config.boot.cmdline, "console=ttyS0");
    assert_int_equal(config.boot.unpack, CONFIG_UNPACK_AUTO);
    assert_int_equal(config.cpu.model, CONFIG_CPU_HOST);
    assert_int_equal(config.memory_options.backing, CONFIG_BACKING_ANONYMOUS);
    assert_int_equal(config.memory_options.pages, CONFIG_PAGES_TRANSPARENT);
    assert_int_equal(config.serial.kind, CONFIG_CONSOLE_STDIO);
    assert_null(config.serial.path);
    assert_int_equal(config.reboot, CONFIG_REBOOT_RESTART);
    assert_false(config.debug_exit);
    assert_int_equal(config.disk_count, 0);
    config_fini(&config);
}

static void an_empty_object_is_the_defaults(void **state)
{
    struct vm_config config, start;

    (void)state;
    config_text_load(&config, "web1.json", "{\"boot\": {}, \"cpu\": {}}");
    config_init(&start);
    char *loaded = config_text_print(&config), *initial = config_text_print(&start);
    assert_string_equal(loaded, initial);
    free(loaded);
    free(initial);
    config_fini(&config);
    config_fini(&start);
}

static void every_key_arrives(void **state)
{
    struct vm_config config;

    (void)state;
    config_text_load(&config, "web1.json", CONFIG_TEXT_EVERY_KEY);
    assert_string_equal(config.name, "web1");
    assert_int_equal(config.cpus, 4);
    assert_int_equal(config.memory, 1 << 30);
    assert_string_equal(config.boot.kernel, "k/vmlinuz");
    assert_string_equal(config.boot.initrd, "/i/initrd");
    assert_string_equal(config.boot.cmdline, "a=\"b\" \xc3\xa9");
    assert_int_equal(config.boot.unpack, CONFIG_UNPACK_GUEST);
    assert_int_equal(config.cpu.model, CONFIG_CPU_V3);
    assert_int_equal(config.memory_options.backing, CONFIG_BACKING_MEMFD);
    assert_int_equal(config.memory_options.pages, CONFIG_PAGES_HUGE);
    assert_int_equal(config.serial.kind, CONFIG_CONSOLE_FILE);
    assert_string_equal(config.serial.path, "out/log");
    assert_int_equal(config.reboot, CONFIG_REBOOT_EXIT);
    assert_true(config.debug_exit);
    assert_int_equal(config.disk_count, 2);
    assert_string_equal(config.disks[0].id, "root");
    assert_string_equal(config.disks[0].path, "d/root.img");
    assert_string_equal(config.disks[0].serial, "S 1");
    assert_int_equal(config.disks[0].cache, CONFIG_CACHE_WRITEBACK);
    assert_int_equal(config.disks[0].queues, 3);
    assert_true(config.disks[0].readonly);
    assert_int_equal(config.virtio_console.kind, CONFIG_CONSOLE_FILE);
    assert_string_equal(config.virtio_console.path, "out/hvc");
    assert_int_equal(config.net_count, 2);
    assert_string_equal(config.nets[0].id, "lan");
    assert_int_equal(config.nets[0].backend, CONFIG_NET_TAP);
    assert_string_equal(config.nets[0].ifname, "tap7");
    assert_string_equal(config.nets[0].bridge, "br7");
    assert_string_equal(config.nets[0].mac, "52:54:00:aB:cd:0f");
    assert_int_equal(config.nets[0].queues, 2);
    assert_int_equal(config.nets[0].mtu, 9000);
    assert_int_equal(config.nets[0].offload, CONFIG_OFFLOAD_OFF);
    assert_false(config.rng);
    assert_true(config.balloon.wanted);
    assert_false(config.balloon.deflate_on_oom);
    assert_int_equal(config.vsock.cid, 77);
    assert_string_equal(config.vsock.socket, "s/v.sock");
    config_fini(&config);
}

static void a_vsock_is_a_flag_of_keys(void **state)
{
    struct vm_config config;
    struct error err;

    (void)state;
    config_init(&config);
    assert_null(config.vsock.socket);
    assert_int_equal(config_set(&config, "--vsock", "vsock", "socket=a,,b.sock,cid=9", &err), 0);
    assert_int_equal(config.vsock.cid, 9);
    assert_string_equal(config.vsock.socket, "a,b.sock");
    assert_int_equal(config_set(&config, "--vsock", "vsock", "cid=10,socket=", &err), -EINVAL);
    assert_int_equal(config.vsock.cid, 9); /* all or nothing */
    assert_int_equal(config_set(&config, "--vsock", "vsock", "cid=3,cid=4", &err), -EINVAL);
    assert_string_equal(err.msg, "--vsock: cid is there twice");
    assert_int_equal(config_set(&config, "--vsock", "vsock", "sock=v", &err), -EINVAL);
    assert_non_null(strstr(err.msg, "--vsock: \"sock\" is not known here"));
    assert_int_equal(config_set(&config, "--vsock", "vsock", "v.sock", &err), -EINVAL);
    assert_string_equal(err.msg,
                        "--vsock: \"vsock\" is an object; set one of its keys: cid, socket");
    assert_int_equal(config_set(&config, "--set", "vsock.socket", "c.sock", &err), 0);
    assert_string_equal(config.vsock.socket, "c.sock");
    config_fini(&config);
}

static void a_vsock_without_a_socket_is_refused(void **state)
{
    struct vm_config config;
    struct error err;

    (void)state;
    config_init(&config);
    assert_int_equal(config_set(&config, "--kernel", "boot.kernel", "k", &err), 0);
    assert_int_equal(config_set(&config, "--vsock", "vsock", "cid=9", &err), 0);
    assert_int_equal(config_validate(&config, &err), -EINVAL);
    assert_string_equal(err.msg,
                        "vsock.socket: the vsock has no socket on the host; name its path");
    config_fini(&config);
}

static void a_balloon_is_there_only_when_it_is_asked_for(void **state)
{
    struct vm_config config;
    struct error err = {.msg = ""};

    (void)state;
    config_text_load(&config, "web1.json", "{\"balloon\": {}}");
    assert_true(config.balloon.wanted);
    assert_true(config.balloon.deflate_on_oom);
    config_set(&config, "--balloon", "balloon", "false", &err);
    assert_false(config.balloon.wanted);
    config_fini(&config);

    config_init(&config);
    assert_false(config.balloon.wanted);
    char *text = config_text_print(&config);
    assert_null(strstr(text, "balloon"));
    free(text);
    config_set(&config, "--set", "rng", "true", &err);
    assert_false(config.balloon.wanted);
    config_set(&config, "--set", "balloon.deflate_on_oom", "false", &err);
    assert_true(config.balloon.wanted);
    assert_false(config.balloon.deflate_on_oom);
    assert_string_equal(err.msg, "");
    assert_int_equal(config_set(&config, "--balloon", "balloon", "256M", &err), -EINVAL);
    assert_string_equal(err.msg, "--balloon: \"256M\" is not true or false");
    assert_true(config.balloon.wanted);
    config_fini(&config);
}

static void a_balloon_and_reserved_pages_contradict(void **state)
{
    struct vm_config config;
    struct error err = {.msg = ""};

    (void)state;
    config_init(&config);
    config_set(&config, "--kernel", "boot.kernel", "k", &err);
    config_set(&config, "--balloon", "balloon", "true", &err);
    assert_int_equal(config_validate(&config, &err), 0);
    config_set(&config, "--pages", "memory_options.pages", "huge", &err);
    assert_int_equal(config_validate(&config, &err), -EINVAL);
    assert_string_equal(err.msg, "balloon: reserved large pages are never given back; set "
                                 "memory_options.pages to \"transparent\", or do without");
    config_fini(&config);
}

static void a_net_that_says_nothing_but_its_tap_has_the_defaults(void **state)
{
    struct vm_config config;

    (void)state;
    config_text_load(&config, "web1.json", CONFIG_TEXT_EVERY_KEY);
    assert_string_equal(config.nets[1].id, "net1");
    assert_int_equal(config.nets[1].backend, CONFIG_NET_TAP);
    assert_string_equal(config.nets[1].ifname, "tap8");
    assert_null(config.nets[1].bridge);
    assert_null(config.nets[1].mac);
    assert_int_equal(config.nets[1].queues, 0); /* as many as suits */
    assert_false(config.nets[1].vhost);
    assert_int_equal(config.nets[1].mtu, 0);
    assert_int_equal(config.nets[1].offload, CONFIG_OFFLOAD_AUTO);
    config_fini(&config);
}

static void a_net_without_a_tap_is_the_users(void **state)
{
    struct vm_config config;
    struct error err = {.msg = ""};

    (void)state;
    config_init(&config);
    config_set(&config, "--kernel", "boot.kernel", "vmlinuz", &err);
    config_set(&config, "--net", "nets", "user", &err);
    config_set(&config, "--net", "nets",
               "hostfwd=tcp:8080:80,hostfwd=udp:[::1]:53:53,mac=02:00:00:00:00:01", &err);
    config_set(&config, "--net", "nets", "ifname=tap0", &err);
    assert_string_equal(err.msg, "");
    assert_int_equal(config.nets[0].backend, CONFIG_NET_USER);
    assert_null(config.nets[0].hostfwd);
    assert_int_equal(config.nets[1].backend, CONFIG_NET_USER);
    assert_string_equal(config.nets[1].hostfwd, "tcp:8080:80 udp:[::1]:53:53");
    assert_int_equal(config.nets[2].backend, CONFIG_NET_TAP);
    assert_int_equal(config_validate(&config, &err), 0);
    config_set(&config, "--set", "nets[1].hostfwd", "  tcp:1:2   tcp:3:4 ", &err);
    assert_string_equal(config.nets[1].hostfwd, "tcp:1:2 tcp:3:4");
    config_set(&config, "--set", "nets[2].backend", "auto", &err);
    assert_int_equal(config.nets[2].backend, CONFIG_NET_TAP);
    config_set(&config, "--set", "nets[1].hostfwd", "", &err);
    assert_null(config.nets[1].hostfwd);
    assert_string_equal(err.msg, "");
    config_fini(&config);
}

static void forwards_come_back_as_they_were_printed(void **state)
{
    struct vm_config config, again;
    struct error err = {.msg = ""};
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);

    (void)state;
    config_text_load(&config, "web1.json",
                     "{\"nets\": [{\"hostfwd\": [\"tcp:1:2\", \"udp:3:4\"]}, {}]}");
    assert_int_equal(config_print(&config, out, &err), 0);
    fclose(out);
    config_init(&again);
    assert_int_equal(config_load_text(&again, "printed", text, len, &err), 0);
    assert_string_equal(again.nets[0].hostfwd, "tcp:1:2 udp:3:4");
    assert_int_equal(again.nets[0].backend, CONFIG_NET_USER);
    assert_null(again.nets[1].hostfwd);
    free(text);
    config_fini(&again);
    config_fini(&config);
}

static void a_flag_adds_a_net(void **state)
{
    struct vm_config config;
    struct error err = {.msg = ""};

    (void)state;
    config_init(&config);
    config_set(&config, "--net", "nets", "tap=tap0", &err);
    config_set(&config, "--net", "nets",
               "tap=t-1,bridge=br0,mac=02:00:00:00:00:0A,id=lan,queues=4,mtu=1400", &err);
    config_set(&config, "--net", "nets", "backend=tap,ifname=t2", &err);
    config_set(&config, "--set", "nets[0].mtu", "68", &err);
    assert_string_equal(err.msg, "");
    assert_int_equal(config.net_count, 3);
    assert_string_equal(config.nets[0].ifname, "tap0");
    assert_int_equal(config.nets[0].mtu, 68);
    assert_string_equal(config.nets[1].ifname, "t-1");
    assert_string_equal(config.nets[1].bridge, "br0");
    assert_string_equal(config.nets[1].mac, "02:00:00:00:00:0A");
    assert_string_equal(config.nets[1].id, "lan");
    assert_int_equal(config.nets[1].queues, 4);
    assert_int_equal(config.nets[1].mtu, 1400);
    assert_string_equal(config.nets[2].ifname, "t2");
    assert_string_equal(config.nets[2].id, "net2");
    config_fini(&config);
}

static void a_disk_that_says_nothing_but_its_path_has_the_defaults(void **state)
{
    struct vm_config config;

    (void)state;
    config_text_load(&config, "web1.json", CONFIG_TEXT_EVERY_KEY);
    assert_string_equal(config.disks[1].id, "disk1");
    assert_string_equal(config.disks[1].path, "/dev/sdx");
    assert_null(config.disks[1].serial);
    assert_int_equal(config.disks[1].cache, CONFIG_CACHE_NONE);
    assert_int_equal(config.disks[1].queues, 0);
    assert_false(config.disks[1].readonly);
    config_fini(&config);
}

static void an_array_in_a_file_takes_the_place_of_the_one_before(void **state)
{
    struct vm_config config;
    struct error err;

    (void)state;
    config_text_load(&config, "web1.json", CONFIG_TEXT_EVERY_KEY);
    folder_write("web2.json", "{\"disks\": [{\"path\": \"x\"}]}", 26);
    assert_int_equal(config_load(&config, "web2.json", &err), 0);
    assert_int_equal(config.disk_count, 1);
    assert_string_equal(config.disks[0].path, "x");
    assert_string_equal(config.disks[0].id, "disk0");
    assert_false(config.disks[0].readonly);
    config_fini(&config);
}

static void a_flag_adds_a_disk(void **state)
{
    struct vm_config config;
    struct error err = {.msg = ""};

    (void)state;
    config_text_load(&config, "web1.json", "{\"disks\": [{\"path\": \"a\"}]}");
    (void)config_set(&config, "--disk", "disks",
                     "b,,c=d.img,readonly,serial=a,,b,cache=writeback,id=data,queues=2", &err);
    (void)config_set(&config, "--disk", "disks", "path=readonly=e,readonly=false", &err);
    (void)config_set(&config, "--disk", "disks", "path", &err);
    (void)config_set(&config, "--set", "disks[0].cache", "writeback", &err);
    assert_string_equal(err.msg, "");
    assert_int_equal(config.disk_count, 4);
    assert_int_equal(config.disks[0].cache, CONFIG_CACHE_WRITEBACK);
    assert_string_equal(config.disks[1].path, "b,c=d.img");
    assert_string_equal(config.disks[1].serial, "a,b");
    assert_string_equal(config.disks[1].id, "data");
    assert_int_equal(config.disks[1].cache, CONFIG_CACHE_WRITEBACK);
    assert_int_equal(config.disks[1].queues, 2);
    assert_true(config.disks[1].readonly);
    assert_string_equal(config.disks[2].path, "readonly=e");
    assert_string_equal(config.disks[2].id, "disk2");
    assert_false(config.disks[2].readonly);
    assert_string_equal(config.disks[3].path, "path");
    config_fini(&config);
}

static void two_disks_that_only_read_may_share_an_image(void **state)
{
    struct vm_config config;
    struct error err;

    (void)state;
    config_init(&config);
    assert_int_equal(config_set(&config, "--kernel", "boot.kernel", "a", &err), 0);
    assert_int_equal(config_set(&config, "--disk", "disks", "b,readonly", &err), 0);
    assert_int_equal(config_set(&config, "--disk", "disks", "b,readonly", &err), 0);
    assert_int_equal(config_validate(&config, &err), 0);
    config_fini(&config);
}

static void the_seventeenth_disk_is_one_too_many(void **state)
{
    struct vm_config config;
    struct error err;
    char path[16];

    (void)state;
    config_init(&config);
    for (int i = 0; i < 16; i++) {
        snprintf(path, sizeof(path), "%d", i);
        assert_int_equal(config_set(&config, "--disk", "disks", path, &err), 0);
    }
    assert_int_equal(config_set(&config, "--disk", "disks", "16", &err), -EINVAL);
    assert_string_equal(err.msg, "--disk: at most 16 are allowed");
    assert_int_equal(config.disk_count, 16);
    config_fini(&config);
}

static void the_ends_of_each_range_are_inside(void **state)
{
    static const char *const texts[] = {
        "{\"cpus\": 1}",
        "{\"cpus\": 255}",
        "{\"memory\": \"16M\"}",
        "{\"memory\": \"4T\"}",
        "{\"memory\": \"4096GiB\"}",
        "{\"memory\": \"16777216\"}",
        "{\"memory\": \"16384k\"}",
        "{\"name\": \"a\"}",
        "{\"boot\": {\"cmdline\": \"\"}}",
        "{\"disks\": []}",
        "{\"nets\": [{\"ifname\": \"a23456789012345\", \"queues\": 16, \"mtu\": 65521,"
        " \"id\": \"a2345678901\", \"mac\": \"fe:ff:ff:ff:ff:ff\"}]}",
        "{\"disks\": [{\"path\": \"a\", \"queues\": 1, \"serial\": \"12345678901234567890\"},"
        " {\"path\": \"b\", \"queues\": 32, \"id\": \"12345678901234567890\", \"serial\": \"\"}]}",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct vm_config config;

        config_text_load(&config, "web1.json", texts[i]);
        config_fini(&config);
    }
}

static void paths_are_relative_to_the_folder_of_the_file(void **state)
{
    struct vm_config config;

    (void)state;
    assert_int_equal(mkdir("vm", 0755), 0);
    config_text_load(&config, "vm/web1.json", CONFIG_TEXT_EVERY_KEY);
    assert_string_equal(config.boot.kernel, "vm/k/vmlinuz");
    assert_string_equal(config.boot.initrd, "/i/initrd");
    assert_string_equal(config.serial.path, "vm/out/log");
    assert_string_equal(config.disks[0].path, "vm/d/root.img");
    assert_string_equal(config.disks[1].path, "/dev/sdx");
    config_fini(&config);
}

static void a_flag_overrides_the_file(void **state)
{
    static const char *const flags[][2] = {
        {"name", "web2"},
        {"cpus", "0x10"},
        {"memory", "2g"},
        {"boot.kernel", "other"},
        {"boot.cmdline", ""},
        {"cpu.model", "host"},
        {"memory_options.pages", "normal"},
        {"console.serial", "pty"},
        {"on_reboot", "restart"},
        {"debug_exit", "false"},
    };
    struct vm_config config;
    struct error err;

    (void)state;
    config_text_load(&config, "web1.json", CONFIG_TEXT_EVERY_KEY);
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
        assert_int_equal(config_set(&config, "--flag", flags[i][0], flags[i][1], &err), 0);
    assert_string_equal(config.name, "web2");
    assert_int_equal(config.cpus, 16);
    assert_int_equal(config.memory, UINT64_C(2) << 30);
    assert_string_equal(config.boot.kernel, "other");
    assert_string_equal(config.boot.initrd, "/i/initrd");
    assert_string_equal(config.boot.cmdline, "");
    assert_int_equal(config.cpu.model, CONFIG_CPU_HOST);
    assert_int_equal(config.memory_options.pages, CONFIG_PAGES_NORMAL);
    assert_int_equal(config.serial.kind, CONFIG_CONSOLE_PTY);
    assert_null(config.serial.path);
    assert_int_equal(config.reboot, CONFIG_REBOOT_RESTART);
    assert_false(config.debug_exit);
    assert_int_equal(config_validate(&config, &err), 0);
    config_fini(&config);
}

static void a_refused_flag_changes_nothing(void **state)
{
    static const char *const paths[] = {
        "name",           "cpus",      "memory",     "boot.kernel",  "boot.unpack",
        "console.serial", "on_reboot", "debug_exit", "boot.cmdline",
    };
    struct vm_config config;
    struct error err;

    (void)state;
    config_text_load(&config, "web1.json", CONFIG_TEXT_EVERY_KEY);
    char *before = config_text_print(&config);
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
        assert_int_equal(config_set(&config, "--flag", paths[i], "\n", &err), -EINVAL);
    assert_int_equal(config_set(&config, "--flag", "console.serial", "file:\n", &err), -EINVAL);
    assert_int_equal(config_set(&config, "--flag", "disks", "a,id=a,serial=\n", &err), -EINVAL);
    assert_int_equal(config_set(&config, "--flag", "disks[0].cache", "fast", &err), -EINVAL);
    char *after = config_text_print(&config);
    assert_string_equal(before, after);
    free(before);
    free(after);
    config_fini(&config);
}

static void what_is_printed_loads_again_from_any_folder(void **state)
{
    struct vm_config config, again;

    (void)state;
    config_text_load(&config, "web1.json", CONFIG_TEXT_EVERY_KEY);
    char *first = config_text_print(&config);
    assert_int_equal(mkdir("elsewhere", 0755), 0);
    config_text_load(&again, "elsewhere/printed.json", first);
    char *second = config_text_print(&again);
    assert_string_equal(first, second);
    free(first);
    free(second);
    config_fini(&config);
    config_fini(&again);
}

static void a_configuration_can_be_freed_twice_or_empty(void **state)
{
    struct vm_config config = {0};

    (void)state;
    config_fini(&config);
    config_text_load(&config, "web1.json", CONFIG_TEXT_EVERY_KEY);
    config_fini(&config);
    assert_null(config.boot.cmdline);
    config_fini(&config);
}

static void a_full_disk_is_an_error(void **state)
{
    struct vm_config config;
    struct error err;
    FILE *out = fopen("/dev/full", "w");

    (void)state;
    assert_non_null(out);
    config_init(&config);
    assert_int_equal(config_print(&config, out, &err), -ENOSPC);
    assert_string_equal(err.msg, "cannot write: No space left on device");
    assert_int_equal(config_print_schema(out, &err), -ENOSPC);
    assert_string_equal(err.msg, "cannot write: No space left on device");
    config_fini(&config);
    fclose(out);
}

static void a_working_folder_that_json_cannot_hold_is_told(void **state)
{
    struct vm_config config;
    struct error err;
    FILE *out = fopen("/dev/null", "w");
    int back = open(".", O_PATH | O_CLOEXEC);

    (void)state;
    config_init(&config);
    assert_int_equal(config_set(&config, "--kernel", "boot.kernel", "a", &err), 0);
    assert_int_equal(mkdir("\xff", 0755), 0);
    assert_int_equal(chdir("\xff"), 0);
    assert_int_equal(config_print(&config, out, &err), -EINVAL);
    assert_non_null(strstr(err.msg, "/\\xff/a\" is not UTF-8 text and cannot stand in JSON"));
    assert_memory_equal(err.msg, "boot.kernel: \"/tmp/", 19);
    assert_int_equal(rmdir("../\xff"), 0);
    assert_int_equal(config_print(&config, out, &err), -ENOENT);
    assert_string_equal(err.msg, "cannot tell the working folder: No such file or directory");
    assert_int_equal(fchdir(back), 0);
    close(back);
    fclose(out);
    config_fini(&config);
}

static void running_out_of_memory_for_the_defaults_is_told(void **state)
{
    struct vm_config config;
    struct error err;

    (void)state;
    config_init(&config);
    free(config.boot.cmdline);
    config.boot.cmdline = NULL; /* as config_init() leaves it then */
    assert_int_equal(config_validate(&config, &err), -ENOMEM);
    assert_string_equal(err.msg, "boot.cmdline: out of memory");
    config_fini(&config);
}

static long allocations_left;

static void *allocate_some(size_t size)
{
    return allocations_left-- > 0 ? malloc(size) : NULL;
}

/* The sanitizers see to the other half: nothing leaks, nothing is freed twice. */
static void running_out_of_memory_anywhere_is_an_error(void **state)
{
    FILE *out = fopen("/dev/null", "w");
    int done = 0;
    long fewest;

    (void)state;
    assert_non_null(out);
    folder_write("web1.json", CONFIG_TEXT_EVERY_KEY, strlen(CONFIG_TEXT_EVERY_KEY));
    for (fewest = 0; done < 3; fewest++) {
        struct vm_config config;
        struct error err[3];
        int r[3];

        config_init(&config);
        json_set_alloc_funcs(allocate_some, free);
        allocations_left = fewest;
        r[0] = config_load(&config, "web1.json", &err[0]);
        allocations_left = fewest;
        r[1] = config_print(&config, out, &err[1]);
        allocations_left = fewest;
        r[2] = config_print_schema(out, &err[2]);
        json_set_alloc_funcs(malloc, free);
        config_fini(&config);

        done = 0;
        for (int i = 0; i < 3; i++) {
            bool blames_the_file = i == 0 && r[i] == -EINVAL; /* jansson does now and then */

            assert_true(r[i] == 0 || r[i] == -ENOMEM || blames_the_file);
            if (r[i] == -ENOMEM)
                assert_non_null(strstr(err[i].msg, "out of memory"));
            done += r[i] == 0;
        }
    }
    assert_true(fewest > 100); /* it did run out, many times */
    fclose(out);
}

static void a_text_is_loaded_as_a_file_is(void **state)
{
    static const char text[] = "{\"cpus\": 2, \"boot\": {\"kernel\": \"k\"}} and no more";
    struct vm_config config;
    struct error err = {.msg = ""};

    (void)state;
    config_init(&config);
    config_load_text(&config, "x.vmsnap", text, strlen(text) - strlen(" and no more"), &err);
    assert_string_equal(err.msg, "");
    assert_int_equal(config.cpus, 2);
    assert_string_equal(config.boot.kernel, "k");
    assert_int_equal(config_load_text(&config, "x.vmsnap", text, strlen(text), &err), -EINVAL);
    assert_memory_equal(err.msg, "x.vmsnap:1:", 11);
    config_fini(&config);
}

static void a_text_that_ends_anywhere_is_read_no_further(void **state)
{
    static const char text[] = " {\"cpus\": 2}";
    struct error err;

    (void)state;
    for (size_t len = 0; len < strlen(text); len++) {
        char *cut = malloc(len + 1); /* a read past the end is seen by the sanitizer */
        struct vm_config config;

        memcpy(cut + 1, text, len);
        config_init(&config);
        assert_int_equal(config_load_text(&config, "x", cut + 1, len, &err), -EINVAL);
        config_fini(&config);
        free(cut);
    }
    char *blank = calloc(1, (1 << 20) + 1);
    struct vm_config config;
    config_init(&config);
    assert_int_equal(config_load_text(&config, "x", blank, (1 << 20) + 1, &err), -EFBIG);
    config_fini(&config);
    free(blank);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_defaults_are_those_of_the_header),
        cmocka_unit_test(an_empty_object_is_the_defaults),
        cmocka_unit_test(every_key_arrives),
        cmocka_unit_test(a_balloon_is_there_only_when_it_is_asked_for),
        cmocka_unit_test(a_balloon_and_reserved_pages_contradict),
        cmocka_unit_test(a_disk_that_says_nothing_but_its_path_has_the_defaults),
        cmocka_unit_test(an_array_in_a_file_takes_the_place_of_the_one_before),
        cmocka_unit_test(a_flag_adds_a_disk),
        cmocka_unit_test(two_disks_that_only_read_may_share_an_image),
        cmocka_unit_test(the_seventeenth_disk_is_one_too_many),
        cmocka_unit_test(a_vsock_is_a_flag_of_keys),
        cmocka_unit_test(a_vsock_without_a_socket_is_refused),
        cmocka_unit_test(a_net_that_says_nothing_but_its_tap_has_the_defaults),
        cmocka_unit_test(a_net_without_a_tap_is_the_users),
        cmocka_unit_test(forwards_come_back_as_they_were_printed),
        cmocka_unit_test(a_flag_adds_a_net),
        cmocka_unit_test(the_ends_of_each_range_are_inside),
        cmocka_unit_test(paths_are_relative_to_the_folder_of_the_file),
        cmocka_unit_test(a_flag_overrides_the_file),
        cmocka_unit_test(a_refused_flag_changes_nothing),
        cmocka_unit_test(what_is_printed_loads_again_from_any_folder),
        cmocka_unit_test(a_configuration_can_be_freed_twice_or_empty),
        cmocka_unit_test(a_full_disk_is_an_error),
        cmocka_unit_test(a_working_folder_that_json_cannot_hold_is_told),
        cmocka_unit_test(running_out_of_memory_for_the_defaults_is_told),
        cmocka_unit_test(a_text_is_loaded_as_a_file_is),
        cmocka_unit_test(a_text_that_ends_anywhere_is_read_no_further),
        cmocka_unit_test(running_out_of_memory_anywhere_is_an_error),
    };
    return cmocka_run_group_tests_name("config", tests, folder_enter, folder_leave);
}
