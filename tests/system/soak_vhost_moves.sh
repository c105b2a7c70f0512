# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash disable=SC1091,SC2016,SC2034,SC2086,SC2154
# A guest whose network card the host's kernel serves moves between two hosts, with vhost and without it in each mixture, and is saved
# and restored; it checks itself and its connection to a third host all the time, and a stream in each direction goes on and is whole.
# $1: how often to and fro (1).
# hosts: 3
# memory: 1024
# modules: virtio_pci,virtio_blk,virtio_net,virtio_rng,virtio_console,vmw_vsock_virtio_transport,virtio_balloon
# builds: images/torture.c tests/system/downtime.c
. ./lib.sh
. ./hosts.sh
. ./moves.sh
NET=,vhost=on
# Two streams until there is /tmp/stop; each end tells the sum of what went through.
endless='noise() { head -c 300000 /dev/urandom >/tmp/noise; while [ ! -e /tmp/stop ]; do cat /tmp/noise; sleep 0.2; done; }
take() { printf '"'"'#!/bin/sh\nexec md5sum >/tmp/came\n'"'"' >/tmp/take; chmod 755 /tmp/take; nc -l -p $1 -e /tmp/take; }
send() { rm -f /tmp/pipe; mkfifo /tmp/pipe; md5sum </tmp/pipe >/tmp/sent & noise | tee /tmp/pipe | nc $1 $2; }'
orders="$endless
printf '#!/bin/sh\ntouch /tmp/stop\nuntil [ -s /tmp/sent ] && [ -s /tmp/came ]; do sleep 0.2; done\ncat /tmp/came /tmp/sent\n' >/tmp/ends
chmod 755 /tmp/ends
take 7011 &
nc -ll -p 7013 -e /tmp/ends &
(until ping -c 1 $SERVER; do sleep 1; done; send $SERVER 7012) >/dev/null 2>&1 &
$orders"
moves_begin
for host in a b; do
    expect "$host has vhost" on $host modprobe vhost_net
done

served() { # HOST: by the kernel, the four rings of a card of two CPUs
    on $1 'vmrun stats torture --json' | tr ',' '\n' | awk -F '[:}]' '/vhost_starts/ { n += $2 } /vhost_stops/ { n -= $2 } END { exit n != 4 }'
}
counted() { on $1 'vmrun stats torture --json' | grep -q net0.tx_frames; }
to_vhost() { RECEIVE='--set nets[0].vhost=true' migrate $1 $2; }
to_none() { RECEIVE='--set nets[0].vhost=false' migrate $1 $2; }
carry() {
    on $1 vmrun save --stop --force torture /mnt/machine || return
    on $2 vmrun restore --detach --name torture --console file:/tmp/serial /mnt/machine
}

eval "$endless"
take 7012 &
torture_on a 2
expect "the kernel serves its card" served a
send $GUEST 7011 &
n=0
while [ $n -lt "${1:-1}" ] && [ $failed = 0 ]; do
    n=$((n + 1))
    expect "it moves from a to b, $n" moved a b migrate
    expect "where the kernel serves its card" served b
    expect "and back to a host without vhost, $n" moved b a to_none
    expect "where it is counted" counted a
    expect "and from there to vhost, $n" moved a b to_vhost
    expect "where the kernel serves its card" served b
    expect "it is carried from b to a in a file, $n" moved b a carry
    expect "where the kernel serves its card" served a
done
whole() {
    touch /tmp/stop
    wait_for 60 [ -s /tmp/sent ] || return
    nc $GUEST 7013 </dev/null >/tmp/guest
    wait_for 60 [ -s /tmp/came ] || return
    cat /tmp/sent /tmp/came >/tmp/host
    cat /tmp/guest /tmp/host
    ! grep "$(md5sum </dev/null)" /tmp/guest || return
    cmp /tmp/guest /tmp/host
}
expect "both streams arrived whole" whole
moves_table
torture_ends a
expect "nothing is left behind on a" on a wait_for 10 nothing_left
expect "nor on b" on b wait_for 10 nothing_left
finish
