# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash disable=SC1091,SC2016,SC2034,SC2086,SC2154
# A guest moves between two hosts while it runs, to and fro; it checks itself, and a third host talks to it all the time. And the
# other way of moving: saved and stopped here, restored there from a snapshot that both see, on the same disk.
# $1: how often to and fro with each number of CPUs (1); $2: these numbers (1 2 4). tools/soak migration gives more.
# hosts: 3
# memory: 1024
# modules: virtio_pci,virtio_blk,virtio_net,virtio_rng,virtio_console,vmw_vsock_virtio_transport,virtio_balloon
# builds: images/torture.c tests/system/downtime.c
. ./lib.sh
. ./hosts.sh
. ./moves.sh
moves_begin

carry() {
    on $1 vmrun save --stop --force torture /mnt/machine || return
    on $2 vmrun restore --detach --name torture --console file:/tmp/serial /mnt/machine
}

for count in ${2:-1 2 4}; do
    torture_on a $count
    n=0
    while [ $n -lt "${1:-1}" ] && [ $failed = 0 ]; do
        n=$((n + 1))
        expect "$count: it moves from a to b, $n" moved a b migrate
        expect "$count: and back, $n" moved b a migrate
    done
    if [ $count = 2 ] && [ $failed = 0 ]; then
        expect "$count: it is carried from a to b" moved a b carry
        expect "$count: and back" moved b a carry
    fi
    torture_ends a
done
moves_table
expect "nothing is left behind on a" on a wait_for 10 nothing_left
expect "nor on b" on b wait_for 10 nothing_left
finish
