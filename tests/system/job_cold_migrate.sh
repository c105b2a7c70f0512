# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash disable=SC1091,SC2016,SC2034,SC2086,SC2154
# A guest moves from one host to another by a snapshot that both see: saved and stopped here, restored there, on the same disk.
# $1: how often to and fro with each number of CPUs (1).
# hosts: 3
# memory: 1024
# modules: virtio_pci,virtio_blk,virtio_net,virtio_rng,virtio_console
# builds: images/torture.c tests/system/downtime.c
. ./lib.sh
. ./hosts.sh
. ./moves.sh
moves_begin

carry() {
    on $1 vmrun save --stop --force torture /mnt/machine || return
    on $2 vmrun restore --detach --name torture --console file:/tmp/serial /mnt/machine
}

for count in 1 2; do
    torture_on a $count
    n=0
    while [ $n -lt "${1:-1}" ] && [ $failed = 0 ]; do
        n=$((n + 1))
        expect "$count: carried from a to b, $n" moved a b carry
        expect "$count: and back, $n" moved b a carry
    done
    expect "$count: it is killed" on a vmrun kill torture
done
moves_table
expect "nothing is left behind on a" on a wait_for 10 nothing_left
expect "nor on b" on b wait_for 10 nothing_left
finish
