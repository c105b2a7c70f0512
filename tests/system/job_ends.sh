# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash disable=SC1091,SC2016,SC2153
# poweroff, reboot, panic, crash: each ends or restarts the machine as the guest means it.
. ./lib.sh

# A guest that knows how often it was started: RAM survives a reset, but nothing that Linux would not clear;
# so the count comes from the control socket.
guest_in_background again 'sleep 2; reboot'
expect "a guest that reboots restarts in place" wait_for 60 sh -c 'vmrun status again --json | grep -q -E "\"resets\": *[1-9]"'
expect "and goes on doing so" wait_for 60 sh -c 'vmrun status again --json | grep -q -E "\"resets\": *[3-9]"'
expect "kill ends it at once" vmrun kill again
expect "nothing is left behind" wait_for 10 nothing_left

guest 'reboot' --on-reboot exit
expect "with --on-reboot exit a reboot ends vmrun with 0" status_is 0

guest 'sleep 1; echo c >/proc/sysrq-trigger' --name panics --on-reboot exit
expect "a kernel panic with panic=-1 resets" status_is 0
expect "the panic was on the console" printed "sysrq triggered crash\|Kernel panic"

vmrun run --name panics --detach --kernel "$KERNEL" --initrd "$INITRD" \
    --cmdline "$(script_line 'sleep 1; echo c >/proc/sysrq-trigger')" >"$OUT" 2>"$ERR"
expect "a panicking guest restarts, and it is counted" wait_for 90 sh -c 'vmrun status panics --json | grep -q -E "\"resets\": *[2-9]"'
vmrun kill panics

guest_in_background button 'until ls -l /proc/$(pidof acpid)/fd | grep -q input/event; do sleep 0.1; done; echo listens; sleep 100000' \
    --console file:/tmp/button
expect "it runs, and hears its button" wait_for 60 grep -q listens /tmp/button
expect "stop presses the power button and the guest obeys" vmrun stop button --timeout 240
expect "nothing is left behind" wait_for 10 nothing_left

vmrun run --name deaf --detach --kernel "$KERNEL" --cmdline "console=ttyS0 panic=0" \
    --console file:/tmp/deaf >"$OUT" 2>"$ERR"
expect "a guest hangs" wait_for 60 grep -q 'Kernel panic' /tmp/deaf
expect "a guest that ignores the button is reported" sh -c '! vmrun stop deaf --timeout 2'
expect "and still runs" sh -c 'vmrun list | grep -q deaf'
expect "--force kills it" vmrun stop deaf --timeout 2 --force
expect "nothing is left behind" wait_for 10 nothing_left
finish
