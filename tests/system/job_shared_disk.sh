# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash disable=SC1091,SC2016,SC2034,SC2086,SC2154
# Two hosts see one disk image by NFS: what a lock of one means on the other. Who may run a machine that moves rests on it.
# $1: "lease" to see also what becomes of the locks of a host that is cut off, which takes two minutes more.
# hosts: 3
# memory: 512
# builds: tests/system/locks.c
. ./lib.sh
. ./hosts.sh
hosts_begin
mount -t tmpfs export $EXPORT
truncate -s 16M $EXPORT/disk

locks() { host=$1 say=$2 && shift 2 && said=$(on "$host" ./locks "$@"); echo "$said"; [ "$said" = "$say" ]; }
start='vmrun run --name one --detach --paused --kernel /lab/vmlinuz --disk /mnt/disk --memory 64M'
refused() { ! on "$1" "$start" >"$OUT"; printed 'in use'; }
far=$((1 << 62))

expect "NFS is mounted on both hosts" nfs_begin
on a 'echo from a >/mnt/word'
expect "a file that a wrote is read by b" [ "$(on b cat /mnt/word)" = "from a" ]

expect "nobody has locked the image" locks b free get /mnt/disk 0 0
expect "a's vmrun takes it" on a "$start"
expect "b sees its lock" locks b taken get /mnt/disk 0 0
expect "the server itself sees it" [ "$(./locks get $EXPORT/disk 0 0)" = taken ]
expect "b's vmrun is refused" refused b
expect "a's is killed" on a 'kill -KILL $(pidof vmrun)'
expect "the lock went with it" wait_for 10 locks b free get /mnt/disk 0 0
expect "b's vmrun takes the image" on b "$start"
expect "a's vmrun is refused" refused a
expect "b's ends" on b vmrun kill one

on a "rm -f /tmp/far; ./locks set /mnt/disk $far 1 1000 >/tmp/far & wait_for 30 test -s /tmp/far"
expect "a takes a byte far behind the end" [ "$(on a cat /tmp/far)" = got ]
expect "b sees that" locks b taken get /mnt/disk $far 1
expect "and is denied it" locks b denied set /mnt/disk $far 1 0
expect "but not the byte beside it" locks b got set /mnt/disk $((far + 1)) 1 0
expect "nor the image" on b "$start"
expect "which ends" on b vmrun kill one
on a 'kill -KILL $(pidof locks)'
expect "a dies, and b gets the byte" wait_for 10 locks b got set /mnt/disk $far 1 0

on b stat /mnt/disk >/dev/null # so that it knows a time
expect "a stamps the image with a time" on a ./locks stamp /mnt/disk 1234567 890123457
expect "b sees it with a lock" locks b 1234567.890123457 time /mnt/disk $far
expect "b stamps it" on b ./locks stamp /mnt/disk 7654321 123456789
expect "a sees it with a lock" locks a 7654321.123456789 time /mnt/disk $far
on b 'dd if=/dev/zero of=/mnt/disk bs=4k count=1 conv=notrunc 2>/dev/null'
other_time() { said=$(on a ./locks time /mnt/disk $far) && echo "$said" && [ "$said" != 7654321.123456789 ]; }
expect "b writes, and a sees another time with a lock" other_time

# A host that is cut off keeps its locks until its lease of 90 s is over and another wants them.
if [ "$1" = lease ]; then
    on a "rm -f /tmp/far; ./locks set /mnt/disk $far 1 1000 >/tmp/far & wait_for 30 test -s /tmp/far"
    expect "a takes the byte again" [ "$(on a cat /tmp/far)" = got ]
    expect "and is cut off for 150 s" on a '(sleep 1; ip link set eth0 down; sleep 150; ip link set eth0 up) >/dev/null 2>&1 &'
    sleep 30
    expect "the lock holds at first" locks b denied set /mnt/disk $far 1 0
    expect "and no longer when its lease is over" wait_for 115 locks b got set /mnt/disk $far 1 0
    expect "a is back" wait_for 120 on a true
fi
finish
