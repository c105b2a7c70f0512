# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash disable=SC1091,SC2016,SC2034,SC2153
# Network cards that the host's kernel serves: traffic both ways with checksums, by each queue; save, restore with vhost and without
# it, pause, reset and the cable in the midst of traffic; whether its log has all that it wrote; interrupts without MSI-X; a tap that
# vanishes; and what is said where it cannot be.
# seconds: 260
# modules: virtio_pci,virtio_net,virtio_console
# programs: iperf3 ip ethtool socat
. ./lib.sh
INITRD=$PWD/initrd MACHINE=net LIMIT=120
agent="ip addr add 10.0.0.2/24 dev eth0; ip link set eth0 up
$agent"

EXTRA=''
start() {
    rm -f /tmp/net.serial
    vmrun run --name net --detach --kernel "$KERNEL" --initrd "$INITRD" --memory 256M --console file:/tmp/net.serial --hvc0 pty \
        --cmdline "$EXTRA $(script_line "$agent")" "$@" >"$OUT" 2>"$ERR" || return
    attach && debian_is_up
}
served() { [ $(($(card_stat vhost_starts) - $(card_stat vhost_stops))) = "$1" ]; }

# A blob each way over TCP, with its checksum at the other end.
to_guest() {
    in_guest "socat -u -b 65536 TCP-LISTEN:5000 - | md5sum >/sum & until $listens; do sleep 0.1; done"
    ./socat -u -b 65536 FILE:/tmp/blob TCP:10.0.0.2:5000
    [ "$(in_guest 'wait; cat /sum')" = "$sum" ]
}
from_guest() {
    sink
    in_guest "socat -u -b 65536 FILE:/blob TCP:10.0.0.1:5000"
    wait $!
    [ "$(cat /tmp/sum)" = "$sum" ]
}
fetches_blob() { [ "$(in_guest 'wget -q http://10.0.0.1/blob -O /blob; md5sum </blob')" = "$sum" ]; }
both_ways() { to_guest && from_guest; }

modprobe vhost_net
modprobe bridge
./ip link add br0 type bridge
./ip addr add 10.0.0.1/24 dev br0
./ip link set br0 up
dd if=/dev/urandom of=/tmp/blob bs=1M count=32 2>/dev/null
sum=$(md5sum </tmp/blob)
httpd -p 80 -h /tmp
./iperf3 -s -D >/dev/null

expect "a guest with two CPUs comes up on a tap that vmrun makes" start --cpus 2 --net tap=tap0,bridge=br0,vhost=on
expect "with a pair of queues for each CPU" in_guest 'ethtool -l eth0 | grep -A 9 Current | grep -q "Combined:.*2"'
expect "the kernel serves all four rings" served 4
expect "ping passes both ways" both_ping
expect "large pings pass, in fragments" both_ping -s 60000
expect "the guest fetches a file" fetches_blob
expect "files arrive unharmed both ways" both_ways
expect "streams from each CPU" in_guest 'taskset 1 iperf3 -c 10.0.0.1 -n 8M && taskset 2 iperf3 -c 10.0.0.1 -n 8M'
expect "streams to each CPU" in_guest 'taskset 1 iperf3 -c 10.0.0.1 -n 8M -R && taskset 2 iperf3 -c 10.0.0.1 -n 8M -R'
expect "eight streams each way" in_guest 'iperf3 -c 10.0.0.1 -n 16M -P 8 && iperf3 -c 10.0.0.1 -n 16M -P 8 -R'
uncounted() { ! vmrun stats net --json | grep -E 'net0\.(tx_frames|rx_frames|rx0|tx0)'; }
expect "what nobody counts is not told as 0" uncounted
expect "and the driver's commands are counted" [ "$(card_stat ctrl.requests)" -gt 0 ]

# Queues, offloads, the cable
expect "one pair of queues is enough" in_guest 'ethtool -L eth0 combined 1 && ping -c 1 10.0.0.1'
expect "and the kernel has only that" served 2
expect "files arrive unharmed by it" both_ways
expect "two pairs again" in_guest 'ethtool -L eth0 combined 2 && iperf3 -c 10.0.0.1 -n 16M -P 8 -R'
expect "the kernel has both" served 4
expect "the guest takes no checksums from others" in_guest 'ethtool -K eth0 rx-gro-hw off tx off sg off tso off gso off gro off'
expect "files arrive unharmed" both_ways
expect "and as before again" in_guest 'ethtool -K eth0 tx on sg on tso on gso on rx-gro-hw on gro on'
expect "the cable is pulled" link false
expect "and the kernel serves nothing" served 0
expect "the guest sees its link down" carrier_is 0
expect "no ping passes" sh -c '! ping -c 1 -W 2 10.0.0.2'
expect "the cable is put in" link true
expect "the guest sees its link up" carrier_is 1
expect "pings pass" both_ping
expect "the tap goes down" ./ip link set tap0 down
expect "the guest sees its link down with it" carrier_is 0
expect "and the kernel serves nothing" served 0
expect "the tap comes up" ./ip link set tap0 up
expect "the guest sees its link up" carrier_is 1
expect "the kernel serves its rings" served 4
expect "pings pass again" both_ping
expect "the guest takes its interface down and up" in_guest 'ip link set eth0 down; sleep 1; ip link set eth0 up'
expect "and pings pass" both_ping
expect "the guest's driver goes and comes" in_guest 'd=$(basename $(readlink /sys/class/net/eth0/device)); cd /sys/bus/virtio/drivers/virtio_net' \
    '&& echo $d >unbind && echo $d >bind && sleep 1 && ip addr add 10.0.0.2/24 dev eth0; ip link set eth0 up; ethtool -L eth0 combined 2; true'
expect "pings pass" both_ping
expect "the kernel serves its rings" served 4

# In the midst of traffic: four blobs each way, and something happens meanwhile.
beside() {
    in_guest "socat -u -b 65536 TCP-LISTEN:5002 - | md5sum >/sum & (for _ in 1 2 3 4; do cat /blob; done | socat -u -b 65536 - TCP:10.0.0.1:5000,retry=20) >/dev/null 2>&1 &" \
        'until netstat -tln | grep -q :5002; do sleep 0.1; done' &&
        sink4 && { (for _ in 1 2 3 4; do cat /tmp/blob; done) | ./socat -u -b 65536 - TCP:10.0.0.2:5002 & sender=$!; } && sleep 1 && "$@"
    result=$?
    wait "$sender" "$sinks"
    in_guest 'for _ in $(seq 600); do [ -s /sum ] && break; sleep 0.1; done'
    got="$(in_guest 'cat /sum; rm /sum')"
    echo "sums: $(cat /tmp/sum) and $got, not $sum4; result $result"
    [ $result = 0 ] && [ "$(cat /tmp/sum)" = "$sum4" ] && [ "$got" = "$sum4" ]
}
sink4() {
    ./socat -u -b 65536 TCP-LISTEN:5000 - | md5sum >/tmp/sum &
    sinks=$!
}
resets() { # both transfers end then, and whoever waits for them hears of it
    vmrun reset net && debian_is_up
}
sum4=$(cat /tmp/blob /tmp/blob /tmp/blob /tmp/blob | md5sum)
pauses() { vmrun pause net && sleep 3 && served 0 && vmrun resume net; }
saves_live() { vmrun save net --force /tmp/live.snap && vmrun save net --force /tmp/live.snap; }
carry() { # OPTION...: into a file, and on from there
    exec 3>&-
    vmrun save net --stop --force /tmp/net.snap && vmrun restore /tmp/net.snap --detach "$@" && attach
}
expect "a transfer both ways that is paused goes on and is unharmed" beside pauses
expect "one that is saved live twice is unharmed" beside saves_live
expect "one of a machine that is saved, and restored with vhost" beside carry
expect "the kernel serves it" served 4
expect "and restored without it" beside carry --set nets[0].vhost=off
expect "it is counted now" [ "$(card_stat tx_frames)" -gt 0 ]
expect "and restored with it again" beside carry --set nets[0].vhost=on
expect "the kernel serves it" served 4

rm -f /tmp/live.snap

# What the kernel's log has is compared with all of RAM: while the guest touches neither rings nor buffers, and while two streams
# have no end.
saved() { # FILE HOW [OPTION...]: how it was known what changed
    file=$1 how=$2
    shift 2
    vmrun save net --force "/tmp/$file" "$@" --json >/tmp/saved || return
    grep -E '"(found|held_bytes|rounds)"' /tmp/saved | tr -d '\n '
    grep -q "\"found\": *\"$how\"" /tmp/saved
}
saved_paused() { # FILE HOW BASE: what changed, and then all of it
    sleep 2
    vmrun pause net && saved "$1" "$2" --base "/tmp/$3" && saved whole.snap all && vmrun resume net
}
unheard() {
    for n in $(seq 40); do
        dd if=/tmp/blob bs=1000 skip="$n" count=1 | ./socat -u - UDP-DATAGRAM:10.0.0.255:9,broadcast || return
    done
}
streams() {
    ./socat -u TCP-LISTEN:5003,reuseaddr /dev/null &
    in_guest "socat -u TCP-LISTEN:5004 /dev/null & (while cat /blob; do :; done | socat -u - TCP:10.0.0.1:5003,retry=20) >/dev/null 2>&1 &" \
        'until netstat -tln | grep -q :5004; do sleep 0.1; done' || return
    (while cat /tmp/blob; do :; done | ./socat -u - TCP:10.0.0.2:5004) >/dev/null 2>&1 &
    sleep 2
}
frames() { in_guest 'cat /sys/class/net/eth0/statistics/rx_packets'; }
expect "the guest's interface is down, and its driver still there" in_guest 'ip link set eth0 down'
had=$(frames)
expect "it is saved, and what is written from then on is noted" saved first.snap all --track
expect "what it does not hear lies in its buffers" unheard
expect "what changed is saved by that" saved_paused log.snap log first.snap
expect "it is the same as a whole one" same_ram /tmp/log.snap /tmp/whole.snap
expect "the interface is up again" in_guest 'ip link set eth0 up; sleep 1'
expect "and its driver finds them all" [ "$(frames)" -ge $((had + 40)) ]
expect "and pings pass" both_ping
expect "two streams begin" streams
expect "it is saved, and what is written from then on is noted" saved first.snap all --track
expect "what changed is saved by that" saved_paused log.snap log first.snap
expect "it is the same as a whole one" same_ram /tmp/log.snap /tmp/whole.snap
expect "it is carried to where all is mapped" carry
expect "what changed is saved by what was copied" saved_paused mapped.snap mappings net.snap
expect "it is the same as a whole one" same_ram /tmp/mapped.snap /tmp/whole.snap
rm -f /tmp/first.snap /tmp/log.snap /tmp/mapped.snap /tmp/whole.snap
expect "a reset in the middle of a transfer" resets
expect "pings pass" both_ping
expect "the kernel serves it" served 4
expect "it fetches a file" fetches_blob
expect "files arrive unharmed both ways" both_ways

# What the guest has not read yet lies in pages that nobody but the kernel has written.
unread() {
    mkfifo /tmp/late
    in_guest 'rm -f /sum; echo "4096 4194304 8388608" >/proc/sys/net/ipv4/tcp_rmem' \
        '&& socat -u -b 65536 TCP-LISTEN:5005 - | (until [ -e /go ]; do sleep 0.1; done; md5sum >/sum) &' \
        'until netstat -tln | grep -q :5005; do sleep 0.1; done'
    ./socat -u -b 65536 - TCP:10.0.0.2:5005 </tmp/late &
    exec 5>/tmp/late
    dd if=/tmp/blob bs=1M count=1 >&5
}
# All but what a pipe and a program hold: nothing of it is under way any more, here or there.
waits_there() {
    in_guest "netstat -tn" | awk '/:5005 / { print; n = $2 } END { exit n < 1048576 - 2 * 65536 }' || return
    sleep 2
    netstat -tn | awk '/:5005 / { print; n = $3 } END { exit n != 0 }'
}
later() {
    dd if=/tmp/blob bs=1M skip=1 count=1 >&5
    exec 5>&-
    in_guest 'touch /go; for _ in $(seq 600); do [ -s /sum ] && break; sleep 0.1; done'
    netstat -tn
    in_guest 'netstat -tn; cat /sum' | tee /tmp/sum
    grep "$(dd if=/tmp/blob bs=1M count=2 | md5sum)" /tmp/sum
}
goes_on_from() {
    vmrun kill net
    exec 3>&-
    vmrun restore "/tmp/$1" --detach 5>&- && attach
}
expect "it is saved live" saved first.snap all --track
expect "then a connection brings what nobody reads" unread
expect "it waits in the guest" wait_for 60 waits_there
expect "what changed is saved live" saved live.snap log --base /tmp/first.snap
expect "the machine is killed, and goes on from there" goes_on_from live.snap
expect "the kernel serves it" served 4
expect "the connection goes on, and all of it is right" later
expect "so is what the guest had in memory" [ "$(in_guest 'md5sum </blob')" = "$sum" ]
expect "files arrive unharmed both ways" both_ways
rm -f /tmp/first.snap /tmp/live.snap

# A tap that vanishes
in_guest "(while socat -u FILE:/blob UDP-SENDTO:10.0.0.1:5006; do :; done) >/dev/null 2>&1 &"
sleep 1
expect "the tap is deleted while the guest sends" ./ip link del tap0
expect "the guest sees its link down" carrier_is 0
expect "and the kernel serves nothing" served 0
expect "the guest may go on sending" in_guest 'ping -c 2 10.0.0.1; sleep 1; ip link set eth0 down; ip link set eth0 up'
expect "no ring is broken" in_guest '! dmesg | grep -i -E "is not a head|needs reset|virtio.*error|timeout"'
expect "and the machine ends as it should" vmrun stop net
exec 3>&-

# Without MSI-X
EXTRA=pci=nomsi
expect "a guest without MSI-X comes up" start --cpus 1 --net tap=tap0,bridge=br0,vhost=on
expect "the kernel serves its two rings" served 2
expect "pings pass" both_ping
expect "it fetches a file" fetches_blob
expect "files arrive unharmed both ways" both_ways
vmrun kill net
exec 3>&-
EXTRA=''

# Taps that were made before
./ip tuntap add dev tap1 mode tap
./ip tuntap add dev tap4 mode tap multi_queue
expect "a tap without queues gets a card of one pair" start --cpus 2 --net tap=tap1,bridge=br0,vhost=on
expect "as its driver sees" in_guest 'ethtool -l eth0 | grep -A 9 Current | grep -q "Combined:.*1"'
expect "and pings pass" both_ping
vmrun kill net
exec 3>&-
expect "a tap with queues gets a card of several" start --cpus 2 --net tap=tap4,bridge=br0
expect "as its driver sees" in_guest 'ethtool -l eth0 | grep -A 9 Current | grep -q "Combined:.*2"'
expect "and pings pass" both_ping

# What cannot be
set_limit() { ! vmrun set net nets[0].vhost=true 2>"$ERR" && grep -q 'cannot be set' "$ERR"; }
expect "vhost is not switched on while a machine is there" set_limit
vmrun kill net
exec 3>&-
run() { vmrun run --kernel "$KERNEL" --initrd "$INITRD" --console none "$@"; }
expect "limits and vhost exclude each other" refused_in_line 'nets[0].tx_packets: with vhost there are no limits' run --net tap=tap0,vhost=on,tx_packets=100
expect "so do passt and vhost" refused_in_line 'nets[0].vhost: the backend "user" has no vhost' run --net user,vhost=on
run_as_user() { as_user "vmrun run --kernel $KERNEL --initrd /tmp/initrd --console none $*"; }
cp initrd /tmp/initrd && chmod 644 /tmp/initrd
mkdir -m 700 /tmp/user-run && chown user /tmp/user-run
./ip tuntap add dev tap5 mode tap user user
./ip link set tap5 up
chmod 600 /dev/vhost-net
expect "a user without access is told what helps" refused_in_line 'nets[0]: vhost: no access to /dev/vhost-net; as root: chgrp kvm /dev/vhost-net, then chmod 660' run_as_user --net tap=tap5,vhost=on
chgrp kvm /dev/vhost-net && chmod 660 /dev/vhost-net
serves_user() { as_user "vmrun run --kernel $KERNEL --initrd /tmp/initrd --net tap=tap5,vhost=on --cmdline '$(script_line 'ip link set eth0 up; ls /sys/class/net')'" </dev/null >"$OUT" 2>"$ERR"; printed eth0; }
expect "and that does help" serves_user
mv /dev/vhost-net /tmp/vhost-net
expect "a host without vhost is told of" refused_in_line 'nets[0]: vhost: the host has no /dev/vhost-net; as root: modprobe vhost_net' run --net tap=tap0,vhost=on
restore_is_refused() { ! timeout 100 vmrun restore /tmp/net.snap --set 'nets[0].vhost=on' </dev/null 2>"$ERR" && cat "$ERR" && grep -q 'nets\[0\]: vhost: the host has no /dev/vhost-net' "$ERR"; }
expect "also before a restore" restore_is_refused
mv /tmp/vhost-net /dev/vhost-net
expect "nothing is left behind" wait_for 10 nothing_left
finish
