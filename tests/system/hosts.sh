# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash disable=SC2034,SC2154
# More words, for a job with several emulated hosts ("# hosts: N"). The job proper runs on the last of them: it serves files to
# the others, is a client of their guests, and tells them what to do. The wire is theirs alone, so anybody on it may give orders.
#
#   hosts_begin        on the last host it returns when all others are ready; on the others it never returns
#   on HOST COMMAND    run it there, in /job and with these words; what it printed, and its status
#   nfs_begin          $EXPORT of the last host is /mnt on all others, by NFSv4; a file system may be mounted on $EXPORT before
#
# On the other hosts eth0 is in the bridge br0. A guest whose tap is in it has its card on the wire of all hosts.
EXPORT=/tmp/export SERVER=10.7.7.$LAB_HOSTS
others=$(echo a b c d | cut -d ' ' -f "1-$((LAB_HOSTS - 1))")

hosts_begin() {
    [ "$LAB_ADDRESS" = "$SERVER" ] || take_orders
    mkdir -p $EXPORT
    for host in $others; do
        wait_for 120 on "$host" true || exit 1
    done
    trap 'for host in $others; do on "$host" touch /tmp/no-more; done' EXIT
}

# write_order FILE: the program that carries out one order. What an order leaves running may keep the file with its output, and not
# the connection.
write_order() {
    cat >"$1" <<'END'
#!/bin/sh
[ ! -e lib.sh ] || . ./lib.sh
[ ! -e hosts.sh ] || . ./hosts.sh
cat >/tmp/order.$$
(. /tmp/order.$$) </dev/null >/tmp/printed.$$ 2>&1
status=$?
cat /tmp/printed.$$
[ -z "$(tail -c 1 /tmp/printed.$$)" ] || echo
echo "=status $status"
rm -f /tmp/order.$$ /tmp/printed.$$
END
    chmod 755 "$1"
}

take_orders() {
    modprobe bridge
    brctl addbr br0
    ip link set br0 address "$(cat /sys/class/net/eth0/address)" # which else changed with each tap
    ip link set br0 mtu 9000 # and likewise: guests have 1500
    brctl addif br0 eth0
    ip address del "$LAB_ADDRESS/24" dev eth0
    ip address add "$LAB_ADDRESS/24" dev br0
    ip link set br0 up
    write_order /tmp/order
    nc -ll -p 514 -e /tmp/order &
    while [ ! -e /tmp/no-more ]; do sleep 0.5; done
    exit 0
}

on() {
    where=$1
    shift
    printf '%s\n' "$*" | timeout "$LIMIT" nc "$where" 514 >"/tmp/on.$$"
    sed '/^=status [0-9]*$/d' "/tmp/on.$$"
    return "$(sed -n '$s/^=status \([0-9]*\)$/\1/p' "/tmp/on.$$" | grep . || echo 125)"
}

# The kernel's server asks a daemon who may have what; here the answers are given before it asks. The lease stays at 90 s: where it is
# shorter, an emulated host on a busy machine may not renew it in time, and another that wants its locks gets them.
nfs_begin() {
    modprobe nfsd
    mount -t nfsd nfsd /proc/fs/nfsd
    mkdir /tmp/nfs
    echo /tmp/nfs >/proc/fs/nfsd/nfsv4recoverydir
    echo '-3 +4 +4.1 +4.2' >/proc/fs/nfsd/versions
    for n in $(seq $((LAB_HOSTS - 1))); do
        echo "nfsd 10.7.7.$n 2147483647 hosts" >/proc/net/rpc/auth.unix.ip/channel
    done
    # fsid, no_subtree_check, async, insecure; root is root
    echo "hosts $EXPORT 2147483647 $((0x2412)) 65534 65534 0" >/proc/net/rpc/nfsd.export/channel
    echo "hosts 1 \\x00000000 2147483647 $EXPORT" >/proc/net/rpc/nfsd.fh/channel
    echo tcp 2049 >/proc/fs/nfsd/portlist
    echo 8 >/proc/fs/nfsd/threads
    echo Y >/proc/fs/nfsd/v4_end_grace # nobody has anything to reclaim
    for host in $others; do
        on "$host" "mount -t nfs4 -o vers=4.2,addr=$SERVER,clientaddr=\$LAB_ADDRESS,sec=sys $SERVER:/ /mnt" || return
    done
}
