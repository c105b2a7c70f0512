# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash disable=SC1091,SC2016,SC2034,SC2046,SC2086,SC2154
# A guest that checks itself (images/torture.c) is moved between hosts a and b, while host c is the other end of its connections,
# serves its disk, and measures how long it is away (downtime.c). On a and b are the other ends of its stream sockets, which each move
# resets, while its balloon goes up and down and its disk waits for what its limit allows. For jobs with these lines in their heads:
#   hosts: 3
#   modules: virtio_pci,virtio_blk,virtio_net,virtio_rng,virtio_console,vmw_vsock_virtio_transport,virtio_balloon
#   builds: images/torture.c tests/system/downtime.c
#
#   moves_begin                hosts, network and disk are ready
#   torture_on HOST CPUS       the guest starts there, and works
#   torture_ends HOST          it did all that it was to do, and is killed
#   moved FROM TO COMMAND      COMMAND FROM TO moves it; then it goes on there with nothing wrong
#   migrate FROM TO            such a command
#   moves_table                what was measured of each move, and the medians
#
# The guest's own lines come to c by TCP, in /tmp/report: one connection, which lives as long as the guest does.
. ./torture.sh
GUEST=10.7.7.50 MEMORY=256M DISKS='--disk /mnt/disk,id=data,iops=4,iops_burst=1' LINE='' LIFE=60 NET='' RECEIVE='' REPORT=/tmp/report
orders="ip addr add $GUEST/24 dev eth0; ip link set eth0 up; downtime answer &
torture memory=32 writers=2 rate=4 lend disk=/dev/vda peer=$SERVER sockets | tee /dev/console | nc $SERVER 7009"

moves_begin() {
    hosts_begin
    [ "$LINE" ] || mount -t tmpfs -o size=90% export $EXPORT
    truncate -s 16M $EXPORT/disk
    expect "NFS is mounted on both hosts" nfs_begin
    printf '#!/bin/sh\nexec cat >>/tmp/report\n' >/tmp/take-report
    chmod 755 /tmp/take-report
    nc -ll -p 7009 -e /tmp/take-report &
    ./torture echo &
    for host in $others; do on $host './torture answer /tmp/vsock >/tmp/answers 2>&1 &'; done
    : >/tmp/moves
}

torture_on() {
    exec 4>&-
    rm -f /tmp/report /tmp/ask
    : >/tmp/report
    cpus=$2
    torture_begins
    expect "$cpus: it starts on $1" on "$1" "vmrun run --detach --name torture --kernel $KERNEL --initrd ./initrd --cpus $cpus --memory $MEMORY \
        $DISKS --net tap=tap0,bridge=br0$NET $DEVICES --console file:/tmp/serial --cmdline '$LINE $(script_line "$orders")'"
    mkfifo /tmp/ask
    ./downtime ask $GUEST </tmp/ask >/tmp/away &
    exec 4>/tmp/ask
    expect "$cpus: and works" goes_on
}

# torture_ends HOST: what it was to do, it did.
torture_ends() {
    AT="on $1"
    if [ "$DEVICES" ]; then
        torture_did_all
        for host in $others; do expect "$cpus: host $host heard nothing wrong" on $host '[ ! -s /tmp/answers ]'; done
    fi
    expect "$cpus: it is killed" on $1 vmrun kill torture
}

# away: what was measured since it was asked last.
away() {
    asked=$(wc -l </tmp/away)
    echo >&4
    wait_for 10 sh -c "[ \$(wc -l </tmp/away) -gt $asked ]" || return
    tail -n 1 /tmp/away
}
centiseconds() { sed 's/^\([0-9]*\)\.\([0-9]*\) .*/\1\2/' /proc/uptime; }

# look_at HOST: what may tell why a move failed. A kernel that starves its network says so only in its log.
look_at() {
    echo "--- on $1:"
    on $1 'tail -n 3 /tmp/serial; echo; vmrun list; uptime
        grep -i -E "^ *sl|:1E61 " /proc/net/tcp
        grep -E "^Tcp:" /proc/net/snmp
        cat /proc/net/softnet_stat /proc/net/dev
        grep -E "MemFree|Dirty|Writeback:" /proc/meminfo
        for task in $(pidof vmrun | sed "s|[0-9]*|/proc/&/task/*|g"); do echo "$(cat $task/comm): $(head -n 4 $task/stack | tr "\n" " ")"; done
        dmesg | grep -i -E -A 40 "stall|hung|page allocation|BUG:" | tail -n 60'
}

moved() {
    from=$1 to=$2
    shift 2
    if [ "$DEVICES" ]; then
        mib=8
        [ $from = b ] || mib=24
        AT="on $from"
        set_balloon $mib || return
    fi
    began=$(centiseconds)
    away >/dev/null
    "$@" $from $to >/tmp/moving || { cat /tmp/moving; look_at $from; look_at $to; return 1; }
    took=$(($(centiseconds) - began))
    AT="on $to"
    torture_was_moved
    goes_on || return # what this finds may have been done before it moved
    [ ! "$DEVICES" ] || balloon_is_set || return
    goes_on || return
    set -- $(away)
    # sent N lost N echo_ms N guest_ms N; what vmrun says of it, if it does
    echo "$cpus $from $to $took $4 $6 $8 $(sed -n 's/.*stood still for \([0-9.]*\) ms.*/\1/p' /tmp/moving)" >>/tmp/moves
}

address_of() { sed -n "s/ $1\$//p" /etc/hosts; }
migrate() {
    on $2 "rm -f /tmp/receive # of an earlier move, which says what this one is to say
        vmrun receive --detach --insecure $RECEIVE --console file:/tmp/serial tcp://0.0.0.0:7777 >/tmp/receive 2>&1 &"
    wait_for 30 on $2 grep -q waiting /tmp/receive || return
    # Emulated hosts that share their CPU with others may need seconds for a stop; that is no failure of a move.
    on $1 "vmrun migrate --insecure --max-downtime 20000 torture tcp://$(address_of $2):7777" || { on $2 cat /tmp/receive; return 1; }
    wait_for 30 on $2 vmrun status torture || { on $2 cat /tmp/receive; return 1; }
    ! on $1 vmrun status torture || { echo "it is still on $1"; return 1; }
}

moves_table() {
    echo "move  CPUs  from  to  seconds   lost  no answer, ms  guest's clock, ms  vmrun, ms"
    awk '{ printf "%4d  %4d  %4s  %2s  %7.2f  %5d  %13s  %17s  %9s\n", NR, $1, $2, $3, $4 / 100, $5, $6, $7, $8 }' /tmp/moves
    for cpus in $(cut -d ' ' -f 1 /tmp/moves | uniq); do
        echo "$cpus CPUs: medians: $(median 4 | sed "s|..$|.&|") s, lost $(median 5), no answer for $(median 6) ms, guest's clock $(median 7) ms"
    done
}
median() { grep "^$cpus " /tmp/moves | cut -d ' ' -f "$1" | sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
