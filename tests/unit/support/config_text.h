/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_TEST_CONFIG_TEXT_H
#define VMRUN_TEST_CONFIG_TEXT_H

/* Configurations as texts, for tests that have a folder to write in (folder.h). */

#include "vmrun/config.h"

/* A configuration that sets every key to something other than its default. */
#define CONFIG_TEXT_EVERY_KEY \
    "{ \"name\": \"web1\", \"cpus\": 4, \"memory\": \"1G\",\n" \
    "  \"memory_options\": { \"backing\": \"memfd\", \"pages\": \"huge\" },\n" \
    "  \"boot\": { \"kernel\": \"k/vmlinuz\", \"initrd\": \"/i/initrd\", \"cmdline\": " \
    "\"a=\\\"b\\\" \xc3\xa9\",\n" \
    "              \"unpack\": \"guest\" },\n" \
    "  \"cpu\": { \"model\": \"x86-64-v3\" }, \"console\": { \"serial\": \"file:out/log\",\n" \
    "  \"virtio\": \"file:out/hvc\" },\n" \
    "  \"disks\": [ { \"id\": \"root\", \"path\": \"d/root.img\", \"readonly\": true,\n" \
    "               \"cache\": \"writeback\", \"queues\": 3, \"serial\": \"S 1\" },\n" \
    "             { \"path\": \"/dev/sdx\" } ],\n" \
    "  \"nets\": [ { \"id\": \"lan\", \"backend\": \"tap\", \"ifname\": \"tap7\", \"bridge\": " \
    "\"br7\",\n" \
    "              \"mac\": \"52:54:00:aB:cd:0f\", \"queues\": 2, \"mtu\": 9000,\n" \
    "              \"offload\": \"off\" },\n" \
    "            { \"ifname\": \"tap8\" } ], \"rng\": false,\n" \
    "  \"balloon\": { \"deflate_on_oom\": false },\n" \
    "  \"vsock\": { \"cid\": 77, \"socket\": \"s/v.sock\" },\n" \
    "  \"on_reboot\": \"exit\", \"debug_exit\": true }\n"

/* Write text to a file and load it over the defaults; the test fails when it is refused. */
void config_text_load(struct vm_config *config, const char *path, const char *text);

/* What config_print() prints. The caller frees it. */
char *config_text_print(const struct vm_config *config);

#endif
