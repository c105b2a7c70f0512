# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash disable=SC1091,SC2016,SC2034,SC2153
# Memory that the guest gives up, or has free, is the host's again: followed on vmrun's own resident memory.
# $1: how often it goes up and down (2).
# seconds: 180
# modules: virtio_pci,virtio_blk,virtio_console,virtio_balloon
# disks: debian
# memory: 3072
. ./lib.sh

BOOT=$WITHOUT_SYSTEMD
FILES=/tmp/files
mkdir $FILES
MIB=1048576

rss() { # in MiB, of the process that is the machine
    kb=$(sed -n 's/^VmRSS:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$(vmrun status "$MACHINE" --json | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p')/status")
    echo $((kb / 1024))
}
actual_is() { [ "$(stat_of balloon.actual_bytes)" = $(($1 * MIB)) ]; }
rss_at_most() { now=$(rss); [ "$now" -le "$1" ] || { echo "resident: $now MiB, more than $1"; return 1; }; }
rss_at_least() { now=$(rss); [ "$now" -ge "$1" ] || { echo "resident: $now MiB, less than $1"; return 1; }; }
# fill NAME MIB: with something that is not zero; its sum tells later whether it is still there. take NAME MIB: any pages.
fill() { in_guest "yes vmrun | dd of=/dev/shm/$1 bs=1M count=$2 iflag=fullblock status=none && echo filled"; }
take() { in_guest "dd if=/dev/zero of=/dev/shm/$1 bs=1M count=$2 status=none && echo filled"; }
sum() { in_guest "md5sum </dev/shm/$1"; }
set_balloon() { vmrun set "$MACHINE" "balloon=$1M"; }

expect "Debian boots with a balloon" debian bal --memory 1G --balloon
expect "shared memory may be all of it" in_guest "mkdir -p /dev/shm; mount -t tmpfs -o size=1000M tmpfs /dev/shm"
expect "its driver is there" in_guest "ls /sys/bus/virtio/drivers/virtio_balloon/virtio*"
expect "and says what it has" [ "$(stat_of balloon.guest.total_bytes)" -gt $((900 * MIB)) ]
expect "an answer is new" [ "$(stat_of balloon.guest.age_ms)" -le 3000 ]

saved_bytes() { sed -n 's/.*"data_bytes": *\([0-9]*\).*/\1/p' /tmp/saved; }

echo "free page reporting"
base=$(rss)
expect "512 MiB are filled" [ "$(take big 512)" = filled ]
full=$(rss)
expect "which the host has to give ($base MiB before, $full then)" [ $((full - base)) -ge 400 ]
in_guest 'rm /dev/shm/big'
expect "at least 90 in 100 of it come back by themselves" wait_for 60 rss_at_most $((full - 461))
echo "figure: $base MiB at first, $full filled, $(rss) when it was freed; $(($(stat_of balloon.reported_bytes) / MIB)) MiB were reported"

echo "up and down, under load"
expect "it has something to keep" [ "$(fill keep 20)" = filled ]
kept=$(sum keep)
in_guest '(while :; do dd if=/dev/zero of=/dev/shm/load bs=1M count=40 status=none; rm -f /dev/shm/load; sleep 1; done) >/dev/null 2>&1 & echo $! >/tmp/load'
for round in $(seq "${1-2}"); do
    expect "$round: 300 MiB are in use" [ "$(take more 300)" = filled ]
    expect "the host gives them" rss_at_least 400
    in_guest 'rm /dev/shm/more'
    start=$(now_ms)
    expect "the guest is asked for 150 MiB" set_balloon 150
    expect "and gives them" wait_for 120 actual_is 150
    there=$(now_ms)
    expect "within 5 s the host has them" wait_for 5 rss_at_most 300
    echo "figure: round $round: balloon full after $((there - start)) ms, $(rss) MiB resident $(($(now_ms) - there)) ms later"
    expect "the guest has them back" set_balloon 0
    expect "all of them" wait_for 120 actual_is 0
done
expect "nothing was lost" [ "$(sum keep)" = "$kept" ]
in_guest 'kill $(cat /tmp/load); sleep 2; rm -f /dev/shm/load'

echo "a snapshot with the balloon inflated"
fill big 60 >/dev/null
vmrun save bal $FILES/full --json >/tmp/saved 2>/dev/null
full_bytes=$(saved_bytes)
rm $FILES/full
in_guest 'rm /dev/shm/big'
set_balloon 200
expect "the balloon is full" wait_for 120 actual_is 200
expect "it is saved, and ends" sh -c "vmrun save bal $FILES/snap --stop --json >/tmp/saved 2>/dev/null"
ended 20
bytes=$(saved_bytes)
expect "in a smaller file ($((full_bytes / MIB)) MiB, $((bytes / MIB)) with the balloon)" [ $((full_bytes - bytes)) -ge $((54 * MIB)) ]

again() { # FILE OPTION...: the machine goes on, and takes orders
    file=$1
    shift
    vmrun restore "$file" --name bal --hvc0 pty --console file:/tmp/bal.serial "$@" </dev/null >"$OUT" 2>/tmp/bal.err &
    machine=$!
    wait_for 30 grep -q hvc0 /tmp/bal.err || return 1
    attach
}
expect "it goes on from that file" again $FILES/snap
expect "with the balloon as it was" actual_is 200
expect "and asked for as much" [ "$(stat_of balloon.target_bytes)" = $((200 * MIB)) ]
expect "and with what it kept" [ "$(sum keep)" = "$kept" ]
set_balloon 0
expect "what it takes back" wait_for 120 actual_is 0
expect "is there" [ "$(fill big 60)" = filled ]
filled=$(sum big)
in_guest 'rm /dev/shm/big'
before=$(stat_of balloon.returned_bytes)
set_balloon 100
expect "and goes again, though RAM is mapped from a file" wait_for 120 actual_is 100
expect "which the host gets" [ $(($(stat_of balloon.returned_bytes) - before)) -ge $((100 * MIB)) ]
expect "a save on that file names what changed by the mappings" sh -c "vmrun save bal $FILES/on --base $FILES/snap --stop --json >/tmp/saved 2>/dev/null && grep -q '\"found\": *\"mappings\"' /tmp/saved"
ended 20
expect "and goes on" again $FILES/on --mode eager
expect "with what it kept" [ "$(sum keep)" = "$kept" ]
set_balloon 0
expect "the balloon is empty" wait_for 120 actual_is 0
expect "memory is good" [ "$(fill big 60)" = filled ]
expect "all of it" [ "$(sum big)" = "$filled" ]
in_guest 'rm /dev/shm/big'

echo "out of memory"
set_balloon 200
expect "a part is given up" wait_for 120 actual_is 200
expect "and most of the rest is in use" [ "$(take big 550)" = filled ]
expect "a process that needs 250 MiB gets them" in_guest 'head -c 250M /dev/zero | tail -c 250M | md5sum'
expect "since the balloon gave them back" [ "$(stat_of balloon.actual_bytes)" -lt $((200 * MIB)) ]
expect "and nobody was killed" in_guest '! dmesg | grep -i "killed process"'
expect "and what it kept is there" [ "$(sum keep)" = "$kept" ]

expect "more than there is is refused" refused_with "not less than the guest's memory, 1G" vmrun set bal balloon=1G
expect "the target stays" [ "$(stat_of balloon.target_bytes)" = $((200 * MIB)) ]
expect "it ends" vmrun kill bal
ended 10
rm -r $FILES
expect "nothing is left behind" wait_for 10 nothing_left
finish
