# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash disable=SC1091,SC2016,SC2034,SC2086,SC2154
# A guest that checks itself (images/torture.c) moves between two network namespaces over a long line that loses packets: 1 Gbit/s,
# 20 ms there and back, 0.1 % lost each way.
# $1: how often to and fro (1).
# modules: virtio_pci,virtio_rng
# programs: ip tc
# builds: images/torture.c
. ./lib.sh
INITRD=$PWD/initrd serial=/tmp/serial
modprobe veth
modprobe sch_netem
in_space() { # a|b COMMAND...
    space=$1
    shift
    ./ip netns exec $space "$@"
}
line() {
    ./ip netns add a && ./ip netns add b && ./ip link add wire netns a type veth peer name wire netns b || return 1
    in_space a ./ip addr add 10.8.0.1/24 dev wire
    in_space b ./ip addr add 10.8.0.2/24 dev wire
    for end in a b; do
        in_space $end ./ip link set lo up
        in_space $end ./ip link set wire up
        in_space $end ./tc qdisc add dev wire root netem rate 1gbit delay 10ms loss 0.1% limit 20000 || return 1
    done
    in_space a ping -c 3 -W 5 10.8.0.2
}
lost() { in_space $1 ./tc -s qdisc show dev wire | sed -n 's/.*(dropped \([0-9]*\),.*/\1/p'; }

lines() { grep -c '^torture: .* second .* errors 0[[:space:]]*$' $serial; }
says_more() { [ "$(lines)" -gt "$had" ]; }
goes_on() {
    had=$(lines)
    wait_for 60 says_more || { echo "no sign of life"; tail -n 2 $serial; return 1; }
    ! grep WRONG $serial
}
is_listed() { vmrun list | grep -q "^$1 *$2 "; }
# moved FROM TO ADDRESS: from one name space to the other, where it is called after it.
moved() {
    in_space $2 vmrun receive tcp://$3:4444 --insecure --name torture-$2 --console file:$serial --detach >/tmp/receive.out 2>&1 &
    receiver=$!
    wait_for 10 is_listed torture-$2 waiting || { cat /tmp/receive.out; return 1; }
    vmrun migrate torture-$1 tcp://$3:4444 --insecure >/tmp/migrate.out 2>&1 || { cat /tmp/migrate.out; return 1; }
    wait $receiver || { cat /tmp/receive.out; return 1; }
    goes_on
}

expect "the line is there" line
expect "it starts" in_space a vmrun run --detach --name torture-a --kernel "$KERNEL" --initrd "$INITRD" --memory 128M \
    --console file:$serial --cmdline "$(script_line 'torture memory=32 writers=1 rate=4')"
expect "and works" goes_on
n=0
while [ $n -lt "${1:-1}" ] && [ $failed = 0 ]; do
    n=$((n + 1))
    expect "it moves from a to b, $n" moved a b 10.8.0.2
    cat /tmp/migrate.out
    expect "and back, $n" moved b a 10.8.0.1
    cat /tmp/migrate.out
done
expect "and packets were lost" [ $(($(lost a) + $(lost b))) -gt 0 ]
tail -n 1 $serial
expect "it is killed" vmrun kill torture-a
expect "nothing is left behind" wait_for 10 nothing_left
finish
