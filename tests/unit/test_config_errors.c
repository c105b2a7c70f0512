/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every way in which a configuration can be wrong, with the words that its
 * owner reads: the messages are part of the product, so they are compared whole.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "folder.h"
#include "vmrun/config.h"

#define NAME64 "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijkl"
#define NAME_RULE " is not a name: 1 to 64 of A-Z a-z 0-9 . _ - that do not start with . or -"
#define SIZE_RULE " is not a size: a whole number and K, M, G or T, such as \"256M\""
#define ROOT_KEYS \
    "name, cpus, memory, memory_options, boot, cpu, console, disks, nets, rng, balloon, vsock, " \
    "limits, " \
    "on_reboot, debug_exit"

#define FORWARD_RULE \
    " is no forward: tcp or udp, then :HOSTPORT:GUESTPORT or :ADDRESS:HOSTPORT:GUESTPORT, such " \
    "as " \
    "\"tcp:127.0.0.1:8080:80\""
#define MAC_RULE \
    " is not a card's address: six bytes as in \"52:54:00:12:34:56\", the first one even"

#define FOUR_DISKS "{\"path\": \"a\"}, {\"path\": \"a\"}, {\"path\": \"a\"}, {\"path\": \"a\"}"
#define EIGHT_DISKS FOUR_DISKS ", " FOUR_DISKS

struct wrong_file {
    const char *text;
    size_t len;
    const char *message;
};

/* A string literal, with the NUL bytes in it. */
#define FILE_OF(text) text, sizeof(text) - 1

static const struct wrong_file wrong_syntax[] = {
    {FILE_OF(""), "web1.json: empty; a machine is a JSON object, {...}"},
    {FILE_OF(" \r\n\t\n"), "web1.json: empty; a machine is a JSON object, {...}"},
    {FILE_OF("[]"), "web1.json: not a JSON object; a machine is {...}"},
    {FILE_OF("null"), "web1.json: not a JSON object; a machine is {...}"},
    {FILE_OF("\"web1\""), "web1.json: not a JSON object; a machine is {...}"},
    {FILE_OF("{"), "web1.json:1:1: string or '}' expected near end of file"},
    {FILE_OF("{\n  \"cpus\": 2"), "web1.json:2:11: '}' expected near end of file"},
    {FILE_OF("{\n  \"cpus\": 2,\n}"),
     "web1.json:3:1: string or '}' expected near '}'; take away the comma before it"},
    {FILE_OF("{\"cpus\": 2\n \"name\": \"a\"}"),
     "web1.json:2:7: '}' expected near '\"name\"'; is a comma missing before it?"},
    {FILE_OF("{\"cpus\" 2}"), "web1.json:1:9: ':' expected near '2'"},
    {FILE_OF("{cpus: 2}"),
     "web1.json:1:5: string or '}' expected near 'cpus'; keys stand in double quotes"},
    {FILE_OF("{'cpus': 2}"),
     "web1.json:1:2: string or '}' expected near '''; strings stand in double quotes"},
    {FILE_OF("{\n // two\n \"cpus\": 2}"),
     "web1.json:2:2: string or '}' expected near '/'; JSON has no comments"},
    {FILE_OF("{\"cpus\": 2 # two\n}"),
     "web1.json:1:12: '}' expected near '#'; JSON has no comments"},
    {FILE_OF("{} {}"), "web1.json:1:4: end of file expected near '{'"},
    {FILE_OF("{\"cpus\": 02}"), "web1.json:1:10: invalid token near '0'"},
    {FILE_OF("{\"debug_exit\": True}"), "web1.json:1:19: invalid token near 'True'"},
    {FILE_OF("{\"name\": \"a\nb\"}"), "web1.json:1:11: unexpected newline near '\"a'"},
    {FILE_OF("{\"name\": \"abc"), "web1.json:1:13: premature end of input near '\"abc'"},
    {FILE_OF("{\"name\": \"\\q\"}"), "web1.json:1:12: invalid escape near '\"\\q'"},
    {FILE_OF("{\"cpus\": 99999999999999999999}"),
     "web1.json:1:29: too big integer near '99999999999999999999'"},
    {FILE_OF("{\"cpus\": 1e999}"), "web1.json:1:14: real number overflow near '1e999'"},
    {FILE_OF("{\"cpus\": 1, \"cpus\": 2}"),
     "web1.json:1:18: the same key a second time near '\"cpus\"'"},
    {FILE_OF("{\"boot\": {\"kernel\": \"a\",\n\"kernel\": \"b\"}}"),
     "web1.json:2:8: the same key a second time near '\"kernel\"'"},
    {FILE_OF("{\"name\": \"a\\u0000b\"}"),
     "web1.json:1:19: \\u0000 has no place in a string near '\"a\\u0000b\"'"},
    {FILE_OF("{\"na\\u0000me\": 1}"),
     "web1.json:1:13: \\u0000 has no place in a string near '\"na\\u0000me\"'"},
    {FILE_OF("{\n\"a\0b\": 1}"), "web1.json:2:3: a NUL byte; JSON is text, in UTF-8"},
    {FILE_OF("{}\0"), "web1.json:1:3: a NUL byte; JSON is text, in UTF-8"},
    {FILE_OF("\xef\xbb\xbf{}"), "web1.json:1:1: a byte-order mark; save the file without one"},
    {FILE_OF("{\"name\": \"\xff\"}"), "web1.json:1:10: not UTF-8 near '\"'"},
    {FILE_OF("{\"name\": \"\xc0\xaf\"}"), "web1.json:1:10: not UTF-8 near '\"'"},
    {FILE_OF("{\"name\": \"\\ud800\"}"),
     "web1.json:1:17: invalid Unicode '\\uD800' near '\"\\ud800\"'"},
    {FILE_OF("{\"name\": \"a\033[2J\"}"), "web1.json:1:11: control character 0x1b near '\"a'"},
    {FILE_OF("{\033"),
     "web1.json:1:2: string or '}' expected near '\\u001b'; keys stand in double quotes"},
};

static const struct wrong_file wrong_values[] = {
    {FILE_OF("{\"boot\": {\"kernal\": \"vmlinuz\"}}"),
     "web1.json: boot.kernal: unknown key; did you mean \"kernel\"?"},
    {FILE_OF("{\"cpu_s\": 2}"), "web1.json: cpu_s: unknown key; did you mean \"cpus\"?"},
    {FILE_OF("{\"Name\": \"a\"}"), "web1.json: Name: unknown key; did you mean \"name\"?"},
    {FILE_OF("{\"kernel\": \"vmlinuz\"}"),
     "web1.json: kernel: unknown key; it belongs in \"boot\""},
    {FILE_OF("{\"boot\": {\"cpus\": 2}}"),
     "web1.json: boot.cpus: unknown key; it belongs at the top level"},
    {FILE_OF("{\"cpu\": {\"serial\": \"none\"}}"),
     "web1.json: cpu.serial: unknown key; it belongs in \"console\""},
    {FILE_OF("{\"floppy\": \"a.img\"}"), "web1.json: floppy: unknown key; known here: " ROOT_KEYS},
    {FILE_OF("{\"boot\": {\"firmware\": \"a\"}}"),
     "web1.json: boot.firmware: unknown key; known here: kernel, initrd, cmdline, unpack"},
    {FILE_OF("{\"\": 1}"), "web1.json: \"\": unknown key; known here: " ROOT_KEYS},
    {FILE_OF("{\"a\\nb: ok\": 1}"),
     "web1.json: \"a\\u000ab: ok\": unknown key; known here: " ROOT_KEYS},
    {FILE_OF("{\"cpus\": 0}"), "web1.json: cpus: 0 is out of range: 1 to 255"},
    {FILE_OF("{\"cpus\": 256}"), "web1.json: cpus: 256 is out of range: 1 to 255"},
    {FILE_OF("{\"cpus\": -1}"), "web1.json: cpus: -1 is out of range: 1 to 255"},
    {FILE_OF("{\"cpus\": 9223372036854775807}"),
     "web1.json: cpus: 9223372036854775807 is out of range: 1 to 255"},
    {FILE_OF("{\"cpus\": 1.5}"),
     "web1.json: cpus: 1.5 is a number with a fraction, not a whole number from 1 to 255"},
    {FILE_OF("{\"cpus\": \"2\"}"),
     "web1.json: cpus: \"2\" is a string, not a whole number from 1 to 255; take the quotes away"},
    {FILE_OF("{\"cpus\": \"two\"}"),
     "web1.json: cpus: \"two\" is a string, not a whole number from 1 to 255"},
    {FILE_OF("{\"cpus\": [1]}"),
     "web1.json: cpus: [...] is an array, not a whole number from 1 to 255"},
    {FILE_OF("{\"cpus\": null}"), "web1.json: cpus: null is no value; leave the key out instead"},
    {FILE_OF("{\"memory\": 512}"),
     "web1.json: memory: 512 is a number; write it with a unit, \"512M\""},
    {FILE_OF("{\"memory\": 1073741824}"),
     "web1.json: memory: 1073741824 is a number; write it with a unit, \"1G\""},
    {FILE_OF("{\"memory\": -5}"),
     "web1.json: memory: -5 is a number; write it with a unit, \"256M\""},
    {FILE_OF("{\"memory\": 0.5}"),
     "web1.json: memory: 0.5 is a number, not a size such as \"256M\""},
    {FILE_OF("{\"memory\": \"512\"}"),
     "web1.json: memory: \"512\" is a number of bytes; did you mean \"512M\"?"},
    {FILE_OF("{\"memory\": \"15M\"}"), "web1.json: memory: \"15M\" is out of range: 16M to 4T"},
    {FILE_OF("{\"memory\": \"5T\"}"), "web1.json: memory: \"5T\" is out of range: 16M to 4T"},
    {FILE_OF("{\"memory\": \"99999999999999999999G\"}"),
     "web1.json: memory: \"99999999999999999999G\" is out of range: 16M to 4T"},
    {FILE_OF("{\"memory\": \"100000K\"}"),
     "web1.json: memory: \"100000K\" is not a multiple of 1M; the next is \"98M\""},
    {FILE_OF("{\"memory\": \"lots\"}"), "web1.json: memory: \"lots\"" SIZE_RULE},
    {FILE_OF("{\"memory\": \"\"}"), "web1.json: memory: \"\"" SIZE_RULE},
    {FILE_OF("{\"memory\": {}}"),
     "web1.json: memory: {...} is an object, not a size such as \"256M\""},
    {FILE_OF("{\"memory_options\": {\"backing\": \"tmpfs\"}}"),
     "web1.json: memory_options.backing: \"tmpfs\" is not one of anonymous, memfd"},
    {FILE_OF("{\"memory_options\": {\"pages\": 2}}"),
     "web1.json: memory_options.pages: 2 is a number, not one of normal, transparent, huge"},
    {FILE_OF("{\"memory_options\": \"huge\"}"),
     "web1.json: memory_options: \"huge\" is a string, not an object"},
    {FILE_OF("{\"boot\": []}"), "web1.json: boot: [...] is an array, not an object"},
    {FILE_OF("{\"boot\": {\"kernel\": \"\"}}"),
     "web1.json: boot.kernel: \"\" names no file; name one, or leave it out"},
    {FILE_OF("{\"boot\": {\"kernel\": {\"path\": \"a\"}}}"),
     "web1.json: boot.kernel: {...} is an object, not a string"},
    {FILE_OF("{\"boot\": {\"initrd\": null}}"),
     "web1.json: boot.initrd: null is no value; leave the key out instead"},
    {FILE_OF("{\"boot\": {\"initrd\": \"a\\tb\"}}"),
     "web1.json: boot.initrd: \"a\\u0009b\" holds a control character; only printable text is "
     "allowed"},
    {FILE_OF("{\"boot\": {\"cmdline\": \"quiet\\nroot=/dev/vda\"}}"),
     "web1.json: boot.cmdline: \"quiet\\u000aroot=/dev/vda\" holds a control character; only "
     "printable text is allowed"},
    {FILE_OF("{\"boot\": {\"cmdline\": \"\\u009b2J\"}}"),
     "web1.json: boot.cmdline: \"\\u009b2J\" holds a control character; only printable text is "
     "allowed"},
    {FILE_OF("{\"boot\": {\"cmdline\": \"a\\u202eb\"}}"),
     "web1.json: boot.cmdline: \"a\\u202eb\" holds a control character; only printable text is "
     "allowed"},
    {FILE_OF("{\"boot\": {\"cmdline\": [\"quiet\"]}}"),
     "web1.json: boot.cmdline: [...] is an array, not a string"},
    {FILE_OF("{\"boot\": {\"unpack\": \"host\"}}"),
     "web1.json: boot.unpack: \"host\" is not one of auto, always, guest"},
    {FILE_OF("{\"cpu\": {\"model\": \"x86-64-v4\"}}"),
     "web1.json: cpu.model: \"x86-64-v4\" is not one of host, x86-64-v2, x86-64-v3"},
    {FILE_OF("{\"cpu\": \"host\"}"), "web1.json: cpu: \"host\" is a string, not an object"},
    {FILE_OF("{\"console\": {\"serial\": \"tty\"}}"),
     "web1.json: console.serial: \"tty\" is not one of stdio, pty, none, file:PATH"},
    {FILE_OF("{\"console\": {\"serial\": \"file:\"}}"),
     "web1.json: console.serial: \"file:\" names no file; write \"file:PATH\""},
    {FILE_OF("{\"console\": {\"serial\": \"file:a\\u0001\"}}"),
     "web1.json: console.serial: \"a\\u0001\" holds a control character; only printable text is "
     "allowed"},
    {FILE_OF("{\"console\": {\"serial\": false}}"),
     "web1.json: console.serial: false is a boolean, not one of stdio, pty, none, file:PATH"},
    {FILE_OF("{\"on_reboot\": \"halt\"}"),
     "web1.json: on_reboot: \"halt\" is not one of restart, exit"},
    {FILE_OF("{\"debug_exit\": 1}"), "web1.json: debug_exit: 1 is a number, not true or false"},
    {FILE_OF("{\"debug_exit\": \"yes\"}"),
     "web1.json: debug_exit: \"yes\" is a string, not true or false"},
    {FILE_OF("{\"debug_exit\": \"true\"}"),
     "web1.json: debug_exit: \"true\" is a string, not true or false; take the quotes away"},
    {FILE_OF("{\"name\": \"\"}"), "web1.json: name: \"\"" NAME_RULE},
    {FILE_OF("{\"name\": \"my vm\"}"), "web1.json: name: \"my vm\"" NAME_RULE},
    {FILE_OF("{\"name\": \"../web1\"}"), "web1.json: name: \"../web1\"" NAME_RULE},
    {FILE_OF("{\"name\": \"-web1\"}"), "web1.json: name: \"-web1\"" NAME_RULE},
    {FILE_OF("{\"name\": \"say \\\"hi\\\"\"}"), "web1.json: name: \"say \\\"hi\\\"\"" NAME_RULE},
    {FILE_OF("{\"name\": \"" NAME64 "m\"}"),
     "web1.json: name: \"abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijk...\"" //
     NAME_RULE},
    {FILE_OF("{\"name\": 7}"), "web1.json: name: 7 is a number, not a string"},
    {FILE_OF("{\"disks\": {}}"), "web1.json: disks: {...} is an object, not an array of objects"},
    {FILE_OF("{\"disks\": \"a.img\"}"),
     "web1.json: disks: \"a.img\" is a string, not an array of objects"},
    {FILE_OF("{\"disks\": [\"a.img\"]}"),
     "web1.json: disks[0]: \"a.img\" is a string, not an object"},
    {FILE_OF("{\"disks\": [{\"path\": \"a\"}, null]}"),
     "web1.json: disks[1]: null is no value; leave the key out instead"},
    {FILE_OF("{\"disks\": [{}]}"), "web1.json: disks[0]: \"path\" is missing"},
    {FILE_OF("{\"disks\": [{\"path\": \"a\", \"cache\": \"fast\"}]}"),
     "web1.json: disks[0].cache: \"fast\" is not one of none, writeback"},
    {FILE_OF("{\"disks\": [{\"path\": \"a\"}, {\"path\": \"b\", \"queues\": 0}]}"),
     "web1.json: disks[1].queues: 0 is out of range: 1 to 32"},
    {FILE_OF("{\"disks\": [{\"path\": \"a\", \"readonly\": \"true\"}]}"),
     "web1.json: disks[0].readonly: \"true\" is a string, not true or false; take the quotes "
     "away"},
    {FILE_OF("{\"disks\": [{\"path\": \"a\", \"serial\": \"123456789012345678901\"}]}"),
     "web1.json: disks[0].serial: 21 bytes long; at most 20 are allowed"},
    {FILE_OF("{\"disks\": [{\"path\": \"a\", \"id\": \"a b\"}]}"),
     "web1.json: disks[0].id: \"a b\" is not a name: 1 to 20 of A-Z a-z 0-9 . _ - that do not "
     "start with . or -"},
    {FILE_OF("{\"disks\": [{\"path\": \"a\", \"read_only\": true}]}"),
     "web1.json: disks[0].read_only: unknown key; did you mean \"readonly\"?"},
    {FILE_OF("{\"disks\": [{\"file\": \"a\"}]}"),
     "web1.json: disks[0].file: unknown key; known here: id, path, readonly, cache, queues, "
     "serial, "
     "iops, iops_burst, bandwidth, bandwidth_burst"},
    {FILE_OF("{\"nets\": [{\"backend\": \"slirp\"}]}"),
     "web1.json: nets[0].backend: \"slirp\" is not one of auto, tap, user"},
    {FILE_OF("{\"nets\": [{\"hostfwd\": [\"tcp:1:2\", \"tcp:80\"]}]}"),
     "web1.json: nets[0].hostfwd: \"tcp:80\"" FORWARD_RULE},
    {FILE_OF("{\"nets\": [{\"hostfwd\": [\"tcp:0:80\"]}]}"),
     "web1.json: nets[0].hostfwd: \"tcp:0:80\": a port is 1 to 65535"},
    {FILE_OF("{\"nets\": [{\"hostfwd\": [\"tcp:1:2\", 5]}]}"),
     "web1.json: nets[0].hostfwd: item 1 is no string"},
    {FILE_OF("{\"nets\": [{\"hostfwd\": 5}]}"),
     "web1.json: nets[0].hostfwd: 5 is a number, not an array of strings"},
    {FILE_OF("{\"nets\": [{\"ifname\": \"a\", \"mac\": \"52:54:00:12:34\"}]}"),
     "web1.json: nets[0].mac: \"52:54:00:12:34\"" MAC_RULE},
    {FILE_OF("{\"nets\": [{\"ifname\": \"a\", \"mac\": \"01:00:00:12:34:56\"}]}"),
     "web1.json: nets[0].mac: \"01:00:00:12:34:56\"" MAC_RULE},
    {FILE_OF("{\"nets\": [{\"ifname\": \"a\", \"mac\": 5}]}"),
     "web1.json: nets[0].mac: 5 is a number, not a string"},
    {FILE_OF("{\"nets\": [{\"ifname\": \"a\", \"queues\": 17}]}"),
     "web1.json: nets[0].queues: 17 is out of range: 1 to 16"},
    {FILE_OF("{\"nets\": [{\"ifname\": \"a\", \"mtu\": 67}]}"),
     "web1.json: nets[0].mtu: 67 is out of range: 68 to 65521"},
    {FILE_OF("{\"vsock\": {\"cid\": 2}}"),
     "web1.json: vsock.cid: 2 is out of range: 3 to 4294967294"},
    {FILE_OF("{\"rng\": 1}"), "web1.json: rng: 1 is a number, not true or false"},
    {FILE_OF("{\"balloon\": {\"size\": \"1G\"}}"),
     "web1.json: balloon.size: unknown key; known here: deflate_on_oom"},
    {FILE_OF("{\"console\": {\"virtio\": \"tty\"}}"),
     "web1.json: console.virtio: \"tty\" is not one of stdio, pty, none, file:PATH"},
    {FILE_OF("{\"path\": \"a\"}"), "web1.json: path: unknown key; it belongs in \"disks\""},
    {FILE_OF("{\"disk\": []}"), "web1.json: disk: unknown key; did you mean \"disks\"?"},
    {FILE_OF("{\"disks\": [" EIGHT_DISKS ", " EIGHT_DISKS ", {\"path\": \"a\"}]}"),
     "web1.json: disks[16]: at most 16 are allowed"},
};

/* Writes web1.json and loads it over the defaults. */
static int load(const void *text, size_t len, struct error *err)
{
    struct vm_config config;
    int r;

    folder_write("web1.json", text, len);
    config_init(&config);
    r = config_load(&config, "web1.json", err);
    config_fini(&config);
    return r;
}

static void check_files(const struct wrong_file *files, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct error err;

        assert_int_equal(load(files[i].text, files[i].len, &err), -EINVAL);
        assert_string_equal(err.msg, files[i].message);
        assert_int_equal(err.code, EINVAL);
    }
}

static void a_syntax_error_is_told_by_line_and_column(void **state)
{
    (void)state;
    check_files(wrong_syntax, sizeof(wrong_syntax) / sizeof(wrong_syntax[0]));
}

static void a_wrong_value_is_told_by_its_path_and_what_would_be_right(void **state)
{
    (void)state;
    check_files(wrong_values, sizeof(wrong_values) / sizeof(wrong_values[0]));
}

static const struct {
    const char *where, *path, *text, *message;
} wrong_flags[] = {
    {"--cpus", "cpus", "0", "--cpus: \"0\" is out of range: 1 to 255"},
    {"--cpus", "cpus", "256", "--cpus: \"256\" is out of range: 1 to 255"},
    {"--cpus", "cpus", "99999999999999999999",
     "--cpus: \"99999999999999999999\" is out of range: 1 to 255"},
    {"--cpus", "cpus", "-1", "--cpus: \"-1\" is not a whole number from 1 to 255"},
    {"--cpus", "cpus", "two", "--cpus: \"two\" is not a whole number from 1 to 255"},
    {"--cpus", "cpus", " 2", "--cpus: \" 2\" is not a whole number from 1 to 255"},
    {"--cpus", "cpus", "", "--cpus: \"\" is not a whole number from 1 to 255"},
    {"--memory", "memory", "512", "--memory: \"512\" is a number of bytes; did you mean \"512M\"?"},
    {"--memory", "memory", "0", "--memory: \"0\" is out of range: 16M to 4T"},
    {"--memory", "memory", "8M", "--memory: \"8M\" is out of range: 16M to 4T"},
    {"--memory", "memory", "1.5G", "--memory: \"1.5G\"" SIZE_RULE},
    {"--memory", "memory", "16777217",
     "--memory: \"16777217\" is not a multiple of 1M; the next is \"17M\""},
    {"--name", "name", "a/b", "--name: \"a/b\"" NAME_RULE},
    {"--name", "name", ".hidden", "--name: \".hidden\"" NAME_RULE},
    {"--name", "name", "caf\xc3\xa9", "--name: \"caf\xc3\xa9\"" NAME_RULE},
    {"--kernel", "boot.kernel", "", "--kernel: \"\" names no file; name one, or leave it out"},
    {"--kernel", "boot.kernel", "caf\xe9", "--kernel: \"caf\\xe9\" is not UTF-8 text"},
    {"--kernel", "boot.kernel", "\xed\xa0\x80", "--kernel: \"\\xed\\xa0\\x80\" is not UTF-8 text"},
    {"--initrd", "boot.initrd", "a\xe2\x80\xa8",
     "--initrd: \"a\\u2028\" holds a control character; only printable text is allowed"},
    {"--cmdline", "boot.cmdline", "a\nb",
     "--cmdline: \"a\\u000ab\" holds a control character; only printable text is allowed"},
    {"--console", "console.serial", "file",
     "--console: \"file\" is not one of stdio, pty, none, file:PATH"},
    {"--console", "console.serial",
     "file:", "--console: \"file:\" names no file; write \"file:PATH\""},
    {"--set cpu.model", "cpu.model", "HOST",
     "--set cpu.model: \"HOST\" is not one of host, x86-64-v2, x86-64-v3"},
    {"--set debug_exit", "debug_exit", "yes", "--set debug_exit: \"yes\" is not true or false"},
    {"--disk", "disks", "", "--disk: path: \"\" names no file; name one, or leave it out"},
    {"--disk", "disks", "readonly=true", "--disk: \"path\" is missing"},
    {"--disk", "disks", "a,",
     "--disk: \"\" is not known here; known: id, path, readonly, cache, "
     "queues, serial, iops, iops_burst, bandwidth, bandwidth_burst (a comma in a value is \",,\")"},
    {"--disk", "disks", "a,b.img",
     "--disk: \"b.img\" is not known here; known: id, path, "
     "readonly, cache, queues, serial, iops, iops_burst, bandwidth, bandwidth_burst (a comma in a "
     "value is "
     "\",,\")"},
    {"--disk", "disks", "a,read-only",
     "--disk: \"read-only\" is not known here; did you mean \"readonly\"?"},
    {"--disk", "disks", "a,cache", "--disk: cache has no value; write cache=VALUE"},
    {"--disk", "disks", "a,cache=fast", "--disk: cache: \"fast\" is not one of none, writeback"},
    {"--disk", "disks", "a,path=b", "--disk: path is there twice"},
    {"--disk", "disks", "a,readonly,readonly=false", "--disk: readonly is there twice"},
    {"--disk", "disks", "a,queues=33", "--disk: queues: \"33\" is out of range: 1 to 32"},
    {"--net", "nets", "slirp", "--net: backend: \"slirp\" is not one of auto, tap, user"},
    {"--net", "nets", "user,hostfwd=tcp:1:2,hostfwd=80", "--net: hostfwd: \"80\"" FORWARD_RULE},
    {"--net", "nets", "user,hostfwd=tcp:1:65536",
     "--net: hostfwd: \"tcp:1:65536\": a port is 1 to 65535"},
    {"--net", "nets", "user,hostfwd=tcp:host:1:2", "--net: hostfwd: \"tcp:host:1:2\"" FORWARD_RULE},
    {"--net", "nets", "user,hostfwd=tcp:::1:1:2", "--net: hostfwd: \"tcp:::1:1:2\"" FORWARD_RULE},
    {"--net", "nets", "user,hostfwd=tcp:[127.0.0.1]:1:2",
     "--net: hostfwd: \"tcp:[127.0.0.1]:1:2\"" FORWARD_RULE},
    {"--net", "nets", "user,hostfwd=tcp::1:2", "--net: hostfwd: \"tcp::1:2\"" FORWARD_RULE},
    {"--net", "nets", "user,hostfwd=tcp:[:1:2", "--net: hostfwd: \"tcp:[:1:2\"" FORWARD_RULE},
    {"--net", "nets", "tap=",
     "--net: ifname: \"\" is not a name: 1 to 15 of A-Z a-z 0-9 . _ - that "
     "do not start with . or -"},
    {"--net", "nets", "tap=a,ifname=b", "--net: ifname is there twice"},
    {"--net", "nets", "tap=a,backend=tap", "--net: backend is there twice"},
    {"--net", "nets", "tap=a,mac=x", "--net: mac: \"x\"" MAC_RULE},
    {"--set", "disks[0].path", "a",
     "--set: \"disks[0].path\" is not a known key; \"vmrun config schema\" lists them"},
    {"--set", "disks.path", "a",
     "--set: \"disks.path\" is not a known key; \"vmrun config schema\" lists them"},
    {"--set", "boot.kernl", "a",
     "--set: \"boot.kernl\" is not a known key; did you mean \"boot.kernel\"?"},
    {"--set", "kernel", "a", "--set: \"kernel\" is not a known key; did you mean \"boot.kernel\"?"},
    {"--set", "boot.kernel.path", "a",
     "--set: \"boot.kernel.path\" is not a known key; did you mean \"boot.kernel\"?"},
    {"--set", "floppy", "a",
     "--set: \"floppy\" is not a known key; \"vmrun config schema\" lists them"},
    {"--set", "", "a", "--set: \"\" is not a known key; \"vmrun config schema\" lists them"},
    {"--set", "boot", "a",
     "--set: \"boot\" is an object; set one of its keys: kernel, initrd, cmdline, unpack"},
};

static void a_wrong_flag_is_told_by_its_name(void **state)
{
    struct vm_config config;

    (void)state;
    config_init(&config);
    for (size_t i = 0; i < sizeof(wrong_flags) / sizeof(wrong_flags[0]); i++) {
        struct error err;

        assert_int_equal(config_set(&config, wrong_flags[i].where, wrong_flags[i].path,
                                    wrong_flags[i].text, &err),
                         -EINVAL);
        assert_string_equal(err.msg, wrong_flags[i].message);
    }
    config_fini(&config);
}

static const struct {
    const char *values[3][2];
    const char *message;
} contradictions[] = {
    {{{"cpus", "2"}}, "boot.kernel: no kernel is named; set it in the file or give --kernel FILE"},
    {{{"boot.kernel", "vmlinuz"}, {"memory", "257M"}, {"memory_options.pages", "huge"}},
     "memory: \"257M\" is not a multiple of 2M, as memory_options.pages \"huge\" asks"},
    {{{"boot.kernel", "vmlinuz"}, {"console.serial", "file:vmlinuz"}},
     "console.serial: \"vmlinuz\" is the kernel; name another file"},
    {{{"boot.kernel", "a"}, {"boot.initrd", "b"}, {"console.serial", "file:b"}},
     "console.serial: \"b\" is the initrd; name another file"},
    {{{"boot.kernel", "a"}, {"disks", "b"}, {"console.serial", "file:b"}},
     "console.serial: \"b\" is the image of disks[0]; name another file"},
    {{{"boot.kernel", "a"}, {"disks", "b,id=root"}, {"disks", "c,id=root"}},
     "disks[1].id: \"root\" is the id of disks[0] already"},
    {{{"boot.kernel", "a"}, {"disks", "b,id=disk1"}, {"disks", "c"}},
     "disks[1].id: \"disk1\" is the id of disks[0] already"},
    {{{"boot.kernel", "a"}, {"nets", "tap"}},
     "nets[0].ifname: a tap needs a name, such as \"tap0\""},
    {{{"boot.kernel", "a"}, {"nets", "user=x"}},
     "nets[0].ifname: the backend \"user\" has no interface; \"tap\" has"},
    {{{"boot.kernel", "a"}, {"nets", "user,bridge=x"}},
     "nets[0].bridge: the backend \"user\" has no interface; \"tap\" has"},
    {{{"boot.kernel", "a"}, {"nets", "user,queues=2"}},
     "nets[0].queues: the backend \"user\" has one pair; \"tap\" has more"},
    {{{"boot.kernel", "a"}, {"nets", "user,vhost"}},
     "nets[0].vhost: the backend \"user\" has no vhost; \"tap\" has"},
    {{{"boot.kernel", "a"}, {"nets", "tap=a,vhost=on,offload=off"}},
     "nets[0].offload: vhost needs it; leave out one of them"},
    {{{"boot.kernel", "a"}, {"nets", "tap=a,vhost=on,rx_bandwidth=1M"}},
     "nets[0].rx_bandwidth: with vhost there are no limits; leave out one of them, or limit the "
     "tap "
     "with tc(8)"},
    {{{"boot.kernel", "a"}, {"nets", "user,mtu=65521"}},
     "nets[0].mtu: 65521; with the backend \"user\" it is 65520 at most"},
    {{{"boot.kernel", "a"}, {"nets", "tap=a,hostfwd=tcp:1:2"}},
     "nets[0].hostfwd: the backend \"tap\" forwards no ports; \"user\" does"},
    {{{"boot.kernel", "a"}, {"nets", "user,hostfwd=tcp:1:2,hostfwd=tcp:127.0.0.1:1:3"}},
     "nets[0].hostfwd: \"tcp:127.0.0.1:1:3\" takes a port that \"tcp:1:2\" of nets[0] has"},
    {{{"boot.kernel", "a"}, {"nets", "user,hostfwd=udp:9:2"}, {"nets", "user,hostfwd=udp:9:3"}},
     "nets[1].hostfwd: \"udp:9:3\" takes a port that \"udp:9:2\" of nets[0] has"},
    {{{"boot.kernel", "a"}, {"nets", "tap=b"}, {"nets", "tap=b"}},
     "nets[1].ifname: \"b\" is the tap of nets[0]"},
    {{{"boot.kernel", "a"},
      {"nets", "tap=b,mac=02:00:00:00:00:0a"},
      {"nets", "tap=c,mac=02:00:00:00:00:0A"}},
     "nets[1].mac: \"02:00:00:00:00:0A\" is the address of nets[0]"},
    {{{"boot.kernel", "a"}, {"console.virtio", "stdio"}},
     "console.virtio: the terminal is the serial port's; set console.serial to another, such as "
     "\"none\""},
    {{{"boot.kernel", "a"}, {"console.virtio", "file:a"}},
     "console.virtio: \"a\" is the kernel; name another file"},
    {{{"boot.kernel", "a"}, {"boot.initrd", "b"}, {"console.virtio", "file:b"}},
     "console.virtio: \"b\" is the initrd; name another file"},
    {{{"boot.kernel", "a"}, {"disks", "b"}, {"console.virtio", "file:b"}},
     "console.virtio: \"b\" is a disk's image; name another file"},
    {{{"boot.kernel", "a"}, {"console.serial", "file:b"}, {"console.virtio", "file:b"}},
     "console.virtio: \"b\" is where the serial port writes; name another file"},
    {{{"boot.kernel", "a"}, {"disks", "b"}, {"disks", "b,readonly"}},
     "disks[1].path: \"b\" is the image of disks[0] already; two disks share one only when both "
     "are readonly"},
};

static void values_that_contradict_each_other_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(contradictions) / sizeof(contradictions[0]); i++) {
        struct vm_config config;
        struct error err;

        config_init(&config);
        for (int n = 0; n < 3 && contradictions[i].values[n][0]; n++)
            assert_int_equal(config_set(&config, "--set", contradictions[i].values[n][0],
                                        contradictions[i].values[n][1], &err),
                             0);
        assert_int_equal(config_validate(&config, &err), -EINVAL);
        assert_string_equal(err.msg, contradictions[i].message);
        config_fini(&config);
    }
}

static void a_file_that_cannot_be_read_says_why(void **state)
{
    static const struct {
        const char *path;
        int r;
        const char *message;
    } files[] = {
        {"nowhere.json", -ENOENT, "nowhere.json: cannot open: No such file or directory"},
        {"none/web1.json", -ENOENT, "none/web1.json: cannot open: No such file or directory"},
        {"web1.json/x", -ENOTDIR, "web1.json/x: cannot open: Not a directory"},
        {"", -ENOENT, "\"\": cannot open: No such file or directory"},
        {"/tmp", -EISDIR, "/tmp: a folder; name the file in it"},
        {"/proc/self/mem", -EIO, "/proc/self/mem: cannot read: Input/output error"},
        {"/dev/zero", -EFBIG, "/dev/zero: over 1 MiB; no description of a machine is that long"},
        {"/dev/null", -EINVAL, "/dev/null: empty; a machine is a JSON object, {...}"},
    };
    struct vm_config config;
    struct error err;

    (void)state;
    folder_write("web1.json", "{}", 2);
    config_init(&config);
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        assert_int_equal(config_load(&config, files[i].path, &err), files[i].r);
        assert_string_equal(err.msg, files[i].message);
    }
    config_fini(&config);
}

static void a_file_of_somebody_else_says_so(void **state)
{
    struct vm_config config;
    struct error err;
    uid_t self = geteuid();

    (void)state;
    folder_write("secret.json", "{}", 2);
    assert_int_equal(chmod("secret.json", 0), 0);
    config_init(&config);
    if (self == 0) /* root may read everything: be nobody for a moment */
        assert_int_equal(seteuid(65534), 0);
    int r = config_load(&config, "secret.json", &err);
    assert_int_equal(seteuid(self), 0);
    config_fini(&config);

    assert_int_equal(r, -EACCES);
    assert_string_equal(err.msg, "secret.json: cannot open: Permission denied");
}

static void the_limit_is_one_mebibyte_to_the_byte(void **state)
{
    size_t limit = 1 << 20;
    char *text = malloc(limit + 1);
    struct error err;

    (void)state;
    assert_non_null(text);
    memset(text, ' ', limit + 1);
    text[0] = '{';
    text[1] = '}';
    assert_int_equal(load(text, limit, &err), 0);
    assert_int_equal(load(text, limit + 1, &err), -EFBIG);
    assert_string_equal(err.msg, "web1.json: over 1 MiB; no description of a machine is that long");
    free(text);
}

static void deep_nesting_is_refused(void **state)
{
    char text[6000];
    struct error err;

    (void)state;
    memset(text, '[', sizeof(text));
    assert_int_equal(load(text, sizeof(text), &err), -EINVAL);
    assert_string_equal(err.msg, "web1.json:1:2049: nested too deeply near '['");
}

static void strings_are_limited_to_the_byte(void **state)
{
    char text[4097] = {0};
    struct vm_config config;
    struct error err;

    (void)state;
    config_init(&config);
    memset(text, 'a', 4096);
    assert_int_equal(config_set(&config, "--cmdline", "boot.cmdline", text, &err), -EINVAL);
    assert_string_equal(err.msg, "--cmdline: 4096 bytes long; at most 4095 are allowed");
    assert_int_equal(config_set(&config, "--kernel", "boot.kernel", text, &err), -EINVAL);
    assert_string_equal(err.msg, "--kernel: 4096 bytes long; at most 4095 are allowed");
    text[4095] = '\0';
    assert_int_equal(config_set(&config, "--cmdline", "boot.cmdline", text, &err), 0);
    assert_int_equal(config_set(&config, "--kernel", "boot.kernel", text, &err), 0);
    assert_int_equal(config_set(&config, "--name", "name", NAME64, &err), 0);
    config_fini(&config);
}

static void a_long_file_name_leaves_room_for_the_reason(void **state)
{
    char path[2000], message[400];
    struct vm_config config;
    struct error err;

    (void)state;
    memset(path, '/', sizeof(path));
    snprintf(path + sizeof(path) - 7, 7, "x.json");
    snprintf(message, sizeof(message), "...%.160s: cannot open: No such file or directory",
             path + sizeof(path) - 161);
    config_init(&config);
    assert_int_equal(config_load(&config, path, &err), -ENOENT);
    assert_string_equal(err.msg, message);
    config_fini(&config);
}

static void no_byte_of_a_file_reaches_the_terminal_raw(void **state)
{
    static const char *const around[][2] = {
        {"{", "\": 1}"}, {"{\"", "\": 1}"}, {"{\"name\": \"", "\"}"}, {"{\"cpus\": ", "}"}};

    (void)state;
    for (size_t i = 0; i < sizeof(around) / sizeof(around[0]); i++) {
        for (int byte = 1; byte < 256; byte++) {
            char text[64];
            struct error err;
            int len =
                snprintf(text, sizeof(text), "%s%c%c%s", around[i][0], byte, byte, around[i][1]);

            if (load(text, (size_t)len, &err) == 0)
                continue;
            for (const char *at = err.msg; *at; at++)
                assert_in_range((unsigned char)*at, 0x20, 0x7e);
        }
    }
}

static void a_file_cut_anywhere_is_refused(void **state)
{
    static const char text[] = "{ \"name\": \"web1\", \"cpus\": 2, \"memory\": \"512M\",\n"
                               "  \"boot\": { \"kernel\": \"vmlinuz\", \"cmdline\": \"quiet\" },\n"
                               "  \"console\": { \"serial\": \"none\" }, \"debug_exit\": true }";
    struct error err;

    (void)state;
    for (size_t len = 0; len < sizeof(text) - 1; len++)
        assert_int_equal(load(text, len, &err), -EINVAL);
    assert_int_equal(load(text, sizeof(text) - 1, &err), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_syntax_error_is_told_by_line_and_column),
        cmocka_unit_test(a_wrong_value_is_told_by_its_path_and_what_would_be_right),
        cmocka_unit_test(a_wrong_flag_is_told_by_its_name),
        cmocka_unit_test(values_that_contradict_each_other_are_refused),
        cmocka_unit_test(a_file_that_cannot_be_read_says_why),
        cmocka_unit_test(a_file_of_somebody_else_says_so),
        cmocka_unit_test(the_limit_is_one_mebibyte_to_the_byte),
        cmocka_unit_test(deep_nesting_is_refused),
        cmocka_unit_test(strings_are_limited_to_the_byte),
        cmocka_unit_test(a_long_file_name_leaves_room_for_the_reason),
        cmocka_unit_test(no_byte_of_a_file_reaches_the_terminal_raw),
        cmocka_unit_test(a_file_cut_anywhere_is_refused),
    };
    return cmocka_run_group_tests_name("config errors", tests, folder_enter, folder_leave);
}
