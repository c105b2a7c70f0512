# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash disable=SC1091,SC2016,SC2034,SC2153
# A disk whose image does not answer: a pause and a reset say so and are given up, and the guest goes on. (A save takes as long as
# this host is slow; tests/unit/test_save.c has what it does then.)
# The image is a null_blk that takes 20 s for each request; the kernel's own limit is 30.
# modules: virtio_pci,virtio_blk
. ./lib.sh

modprobe null_blk nr_devices=1 gb=1 irqmode=2 completion_nsec=20000000000

# It looks at the disk, which takes a while, before it runs this. It reads as often as it is told to, three seconds apart
# and without waiting, so that for so long there is a request that has most of its 20 s before it.
script='(while :; do echo "tick $(cut -d " " -f 1 /proc/uptime)"; sleep 0.5; done) &
while read -r n count; do
    echo "reads $n"
    pids=""
    for i in $(seq "$count"); do
        dd if=/dev/vda of=/dev/null bs=4k count=1 skip=$((n * 40000 + i * 1000)) 2>/dev/null &
        pids="$pids $!"
        sleep 3
    done
    wait $pids
    echo "has read $n"
done'
ticks() { grep -c '^tick' /tmp/stuck; }
ticks_on() { before=$(ticks); wait_for 20 sh -c "[ \$(grep -c '^tick' /tmp/stuck) -gt $((before + 3)) ]"; }
# It has told that it is about to read; a second later it waits for its disk.
ask() { echo "$1 $2" | vmrun console stuck --timeout 1 >/dev/null; wait_for 20 grep -q "^reads $1" /tmp/stuck && sleep 2; }
# given_up COMMAND...: it fails within 9 s, with these words.
given_up() {
    start=$(date +%s)
    "$@" >/tmp/said 2>&1 && echo "it did it" >>/tmp/said
    took=$(($(date +%s) - start))
    cat /tmp/said
    echo "after $took s"
    [ $took -le 9 ] && grep -q "given up after 5 s, and the guest goes on: disk disk0: [0-9]* requests* in flight that the host does not answer" /tmp/said
}

INITRD=./initrd
expect "a machine with such a disk starts" guest_in_background stuck "$script" --memory 128M --disk /dev/nullb0 --console file:/tmp/stuck
expect "and its guest comes up" wait_for 300 grep -q '^tick' /tmp/stuck
expect "it reads" ask 1 4
expect "a pause is given up" given_up vmrun pause stuck
expect "the guest goes on" ticks_on
expect "and reads to its end" wait_for 120 grep -q '^has read 1' /tmp/stuck
expect "it reads again" ask 2 4
expect "a reset is given up" given_up vmrun reset stuck
expect "the guest has not restarted" wait_for 120 grep -q '^has read 2' /tmp/stuck
expect "a disk that rests is no reason to wait" vmrun pause stuck
expect "a save of what is paused" vmrun save stuck stuck.vmsnap
expect "resume" vmrun resume stuck
expect "it goes on for a last time" ticks_on
expect "its end" vmrun kill stuck
expect "nothing is left behind" wait_for 60 nothing_left
finish
