# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash disable=SC1091,SC2016,SC2034,SC2153
# A guest with every virtio device, and all that its network card can do. It takes its orders over hvc0, so that the card is free.
# Operand: how many times 64 MiB the long transfers carry (1; tools/soak net gives 16).
# seconds: 140
# modules: virtio_pci,virtio_blk,virtio_net,virtio_rng,virtio_console,8021q
# programs: iperf3 ip ethtool socat
. ./lib.sh
INITRD=$PWD/initrd MACHINE=net blobs=${1:-1}
# Busybox's shell takes its own `ip` unless there is a path.
agent="ip addr add 10.0.0.2/24 dev eth0; /bin/ip addr add fd00:7::2/64 dev eth0 nodad; ip link set eth0 up
$agent"

# start OPTION...: the machine, and the line to its agent.
start() {
    rm -f /tmp/net.serial
    vmrun run --name net --detach --kernel "$KERNEL" --initrd "$INITRD" --memory 512M --console file:/tmp/net.serial --hvc0 pty \
        --disk /tmp/disk,cache=writeback --cmdline "$(script_line "$agent")" "$@" >"$OUT" 2>"$ERR" || return
    attach && debian_is_up
}
repeat() { for _ in $(seq "$2"); do cat "$1"; done; }

# The two transfers: N times the blob over TCP, and its checksum at the other end.
to_guest() {
    in_guest "socat -u -b 65536 TCP-LISTEN:5000 - | md5sum >/sum & until $listens; do sleep 0.1; done"
    repeat /tmp/www/blob "$1" | ./socat -u -b 65536 - TCP:10.0.0.2:5000
    [ "$(in_guest 'wait; cat /sum')" = "$(repeat /tmp/www/blob "$1" | md5sum)" ]
}
source="| socat -u -b 65536 - TCP:10.0.0.1:5000"
from_guest() {
    sink
    in_guest "for _ in \$(seq $1); do cat /blob; done $source"
    wait $!
    [ "$(cat /tmp/sum)" = "$(repeat /tmp/www/blob "$1" | md5sum)" ]
}
# The same of a small file, by HTTP, from both ends; $1 and $2: the host's and the guest's address.
both_fetch() {
    [ "$(in_guest "wget -q -O - http://$1/small | md5sum")" = "$small" ] || return
    [ "$(wget -q -O - "http://$2/small" | md5sum)" = "$small" ]
}

modprobe bridge
modprobe 8021q
./ip link add br0 type bridge
./ip addr add 10.0.0.1/24 dev br0
./ip addr add fd00:7::1/64 dev br0 nodad
./ip link set br0 up
mkdir /tmp/www
dd if=/dev/urandom of=/tmp/www/blob bs=1M count=64 2>/dev/null
dd if=/dev/urandom of=/tmp/www/small bs=1k count=200 2>/dev/null
truncate -s 4G /tmp/www/endless
truncate -s 16M /tmp/disk
small=$(md5sum </tmp/www/small)
httpd -p 80 -h /tmp/www
./iperf3 -s -D >/dev/null
prepare_guest() {
    in_guest 'wget -q http://10.0.0.1/blob -O /blob && wget -q http://10.0.0.1/small -O /small && httpd -p 80 -h /'
}

expect "a guest with two CPUs, disk, network card, entropy and hvc0 comes up" start --cpus 2 --net tap=tap0,bridge=br0,queues=2
expect "each device has its driver" in_guest 'cd /sys/bus/virtio/drivers && ls -d virtio_blk/virtio[0-9] virtio_net/virtio[0-9]' \
    'virtio_rng/virtio[0-9] virtio_console/virtio[0-9]'
expect "the guest draws entropy" in_guest '[ $(head -c 4096 /dev/hwrng | wc -c) = 4096 ]'
expect "ping passes both ways" both_ping
expect "large pings pass, in fragments" both_ping -s 60000
expect "the guest fetches a file, with the checksum of the host's" prepare_guest

expect "one TCP stream to the host, from each CPU" in_guest 'taskset 1 iperf3 -c 10.0.0.1 -n 8M && taskset 2 iperf3 -c 10.0.0.1 -n 8M'
expect "one TCP stream to the guest, to each CPU" in_guest 'taskset 1 iperf3 -c 10.0.0.1 -n 8M -R && taskset 2 iperf3 -c 10.0.0.1 -n 8M -R'
expect "eight TCP streams to the host" in_guest 'iperf3 -c 10.0.0.1 -n 16M -P 8'
expect "eight TCP streams to the guest" in_guest 'iperf3 -c 10.0.0.1 -n 16M -P 8 -R'
queues_are_used='for q in input.0 output.0 input.1 output.1; do
    awk "/virtio[0-9]-$q/ { n = \$2 + \$3 } END { exit !n }" /proc/interrupts || { cat /proc/interrupts; false; break; }
done'
expect "each queue has had interrupts" in_guest "$(echo "$queues_are_used" | tr '\n' ' ')"
now() { cut -d . -f 1 /proc/uptime; }
began=$(now)
expect "$((blobs * 64)) MiB over TCP reach the guest unharmed" to_guest "$blobs"
between=$(now)
expect "$((blobs * 64)) MiB over TCP reach the host unharmed" from_guest "$blobs"
echo "$((blobs * 64)) MiB: to the guest $((between - began)) s, to the host $(($(now) - between)) s, checksums included"

# Offloads
average() { # of the frames in direction $1 while $2... runs
    way=$1
    shift
    frames=$(card_stat "${way}_frames") bytes=$(card_stat "${way}_bytes")
    "$@" >/dev/null || return
    echo $((($(card_stat "${way}_bytes") - bytes) / ($(card_stat "${way}_frames") - frames)))
}
large_frames() { a=$(average "$@") && echo "average frame: $a" && [ "$a" -gt 4000 ]; }
plain_frames() { a=$(average "$@") && echo "average frame: $a" && [ "$a" -le 1514 ]; }
expect "the guest hands large frames to the host" large_frames tx in_guest 'iperf3 -c 10.0.0.1 -n 8M'
expect "and gets large frames from it" large_frames rx in_guest 'iperf3 -c 10.0.0.1 -n 16M -R'
expect "the guest switches its offloads off" in_guest 'ethtool -K eth0 tso off gso off tx off sg off rx-gro-hw off gro off'
expect "the host then segments for it" sh -c "./ethtool -k tap0 | grep 'tcp-segmentation-offload: off'"
expect "the guest hands over plain frames" plain_frames tx in_guest 'iperf3 -c 10.0.0.1 -n 8M'
expect "and gets plain frames" plain_frames rx in_guest 'iperf3 -c 10.0.0.1 -n 8M -R'
expect "files arrive unharmed without offloads" both_fetch 10.0.0.1 10.0.0.2
expect "the offloads come back" in_guest 'ethtool -K eth0 tx on sg on tso on gso on rx-gro-hw on gro on'
expect "files arrive unharmed with them" both_fetch 10.0.0.1 10.0.0.2
expect "one pair of queues is enough" in_guest 'ethtool -L eth0 combined 1 && ping -c 1 10.0.0.1'
expect "and carries eight streams" in_guest 'iperf3 -c 10.0.0.1 -n 8M -P 8 -R'
expect "two pairs again" in_guest 'ethtool -L eth0 combined 2 && iperf3 -c 10.0.0.1 -n 16M -P 8 -R'

# IPv6
link_local=$(./ip -6 addr show dev br0 scope link | sed -n 's/.*inet6 \([^/]*\).*/\1/p')
expect "IPv6: ping of the link-local address" in_guest "ping -c 2 -i 0.2 -W 30 $link_local%eth0"
expect "IPv6: ping from the host" ping -c 2 -i 0.2 -W 30 fd00:7::2
expect "IPv6: files over TCP" both_fetch '[fd00:7::1]' '[fd00:7::2]'
expect "IPv6: large frames as well" large_frames tx in_guest 'iperf3 -c fd00:7::1 -n 8M'

# What the card lets in
more_of() { # $1: of this counter there are $2 more than $3
    has=$(card_stat "$1")
    [ $((has - $3)) -ge "$2" ]
}
filtered() { # $1: how many more frames at least are filtered when the rest runs
    least=$1 before=$(card_stat rx_filtered)
    shift
    "$@" >/dev/null
    wait_for 20 more_of rx_filtered "$least" "$before" || { echo "filtered: $before, then $has"; return 1; }
}
let_in() { # the three frames that the rest sends are let in; the bridge may have said something to others meanwhile
    before=$(card_stat rx_filtered) had=$(card_stat rx_frames)
    "$@" >/dev/null
    wait_for 20 more_of rx_frames 3 "$had" || { echo "let in: $had, then $has"; return 1; }
    after=$(card_stat rx_filtered)
    echo "filtered: $before, then $after"
    [ $((after - before)) -lt 3 ]
}
ping_stranger() { ping -c 3 -W 1 -i 0.2 10.0.0.77; }
ping_group() { ping -c 3 -W 1 -i 0.2 224.1.2.3; }
ping_vlan() { ping -c 2 -i 0.2 -W "${1:-5}" 10.0.5.2; }
./ip neigh add 10.0.0.77 lladdr 02:00:00:00:00:77 dev br0
./ip route add 224.0.0.0/4 dev br0
expect "frames for others are filtered" filtered 3 ping_stranger
expect "promiscuous: they are let in" in_guest 'ip link set eth0 promisc on'
expect "and none is filtered" let_in ping_stranger
expect "no longer promiscuous: filtered again" in_guest 'ip link set eth0 promisc off'
expect "as before" filtered 3 ping_stranger
expect "frames for a group that it has not joined are filtered" filtered 3 ping_group
expect "it joins the group" in_guest '/bin/ip maddr add 01:00:5e:01:02:03 dev eth0'
expect "and gets them" let_in ping_group
expect "it leaves, and takes all groups" in_guest '/bin/ip maddr del 01:00:5e:01:02:03 dev eth0 &&' \
    '/bin/ip link set eth0 allmulticast on'
expect "and gets them as well" let_in ping_group
expect "allmulticast off" in_guest '/bin/ip link set eth0 allmulticast off'
expect "filtered again" filtered 3 ping_group
./ip link add link br0 name br0.5 type vlan id 5
./ip addr add 10.0.5.1/24 dev br0.5
./ip link set br0.5 up
expect "frames of a VLAN that it is not in are filtered" filtered 2 ping_vlan
expect "it joins VLAN 5" in_guest '/bin/ip link add link eth0 name eth0.5 type vlan id 5 &&' \
    'ip addr add 10.0.5.2/24 dev eth0.5 && ip link set eth0.5 up'
expect "traffic passes in VLAN 5" ping_vlan 30
expect "files as well" both_fetch 10.0.5.1 10.0.5.2
expect "it leaves VLAN 5" in_guest '/bin/ip link del eth0.5'
expect "frames of that VLAN are filtered again" filtered 2 ping_vlan
expect "the guest gives its card another address" in_guest '/bin/ip link set eth0 address 02:11:22:33:44:55'
expect "and traffic passes" ping_host
./ip neigh flush dev br0
expect "also from the host" ping_guest
expect "which knows that address" sh -c './ip neigh show dev br0 | grep -i 02:11:22:33:44:55'

# The link
expect "the cable is pulled" link false
expect "the guest sees its link down" carrier_is 0
expect "no ping passes" sh -c '! ping -c 1 -W 2 10.0.0.2'
expect "the cable is put in" link true
expect "the guest sees its link up" carrier_is 1
expect "pings pass" both_ping
expect "the tap goes down" ./ip link set tap0 down
expect "the guest sees its link down with it" carrier_is 0
expect "the tap comes up" ./ip link set tap0 up
expect "the guest sees its link up" carrier_is 1
expect "pings pass again" both_ping
expect "the guest takes its interface down and up" in_guest 'ip link set eth0 down; sleep 1; ip link set eth0 up'
expect "and pings pass" both_ping

# A transfer that is disturbed
transfer() { # both ways, without end, from now on
    in_guest '(wget -q -O /dev/null http://10.0.0.1/endless) >/dev/null 2>&1 &' \
        '(while true; do cat /blob; done | socat -u - TCP:10.0.0.1:5001) >/dev/null 2>&1 &'
}
flows() {
    received=$(card_stat rx_bytes) sent=$(card_stat tx_bytes)
    wait_for 60 more_of rx_bytes 100000 "$received" && wait_for 60 more_of tx_bytes 100000 "$sent"
}
paused_transfer() {
    sink
    sent=$(card_stat tx_bytes)
    in_guest "(for _ in 1 2; do cat /blob; done $source) >/dev/null 2>&1 &"
    wait_for 60 more_of tx_bytes 100000 "$sent" || return
    vmrun pause net || return
    early=$(wc -c </tmp/sum)
    sleep 5
    vmrun resume net || return
    wait $!
    [ "$early" = 0 ] && [ "$(cat /tmp/sum)" = "$(repeat /tmp/www/blob 2 | md5sum)" ]
}
./socat -u TCP-LISTEN:5001,fork,reuseaddr /dev/null 2>/dev/null &
expect "a transfer that is paused for 5 s goes on and is unharmed" paused_transfer
expect "a transfer both ways begins" transfer
expect "and flows" flows
expect "reset in the middle of it" vmrun reset net
expect "the guest comes up again" debian_is_up
expect "with the card's own address, and pings" both_ping
expect "files arrive unharmed" prepare_guest
expect "both ways" both_fetch 10.0.0.1 10.0.0.2
expect "a second transfer begins" transfer
expect "and flows" flows
# The guest restarts by itself in the middle of it, without its orderly shutdown: that spins in the driver when it comes while
# frames are sent, until Linux has "virtio_ring: fix infinite loop in virtnet_poll_cleantx when device is broken".
echo '0 echo b >/proc/sysrq-trigger' >&3
expect "the guest comes up again" debian_is_up
expect "and traffic passes" prepare_guest

# MTU. Below 1280 there is no IPv6, so it comes last.
mtu() {
    ./ip link set tap0 mtu "$1" && ./ip link set br0 mtu "$1" && in_guest "ip link set eth0 mtu $1"
}
for mtu in 9000 1500 1280 576 68; do
    expect "an MTU of $mtu is taken" mtu $mtu
    expect "pings of that length pass with MTU $mtu" both_ping -s $((mtu - 28))
    expect "longer ones pass in fragments" both_ping -s $((mtu * 2))
    expect "TCP passes with MTU $mtu" both_fetch 10.0.0.1 10.0.0.2
done
expect "an MTU of 67 is refused by the guest's driver" in_guest '! ip link set eth0 mtu 67'
expect "the guest shuts down" vmrun stop net
expect "the tap that vmrun made is gone" sh -c '! ./ip link show tap0'
exec 3>&-

expect "four CPUs, four pairs of queues, an MTU of 9000 come up" start --cpus 4 --net tap=tap0,bridge=br0,queues=4,mtu=9000
./ip link set br0 mtu 9000
expect "the guest has taken that MTU by itself" in_guest '[ $(cat /sys/class/net/eth0/mtu) = 9000 ]'
expect "and the four pairs" in_guest 'ethtool -l eth0 | grep -A 9 Current | grep -q "Combined:.*4"'
expect "pings of 9000 bytes pass" both_ping -s 8972
# The host remembers how small a path to this address was.
./ip tcp_metrics flush
./ip route flush cache
expect "eight streams pass" in_guest 'iperf3 -c 10.0.0.1 -n 16M -P 8 -R && iperf3 -c 10.0.0.1 -n 16M -P 8'
expect "the machine is killed" vmrun kill net
expect "and the tap is gone" sh -c '! ./ip link show tap0'
exec 3>&-
expect "nothing is left behind" wait_for 10 nothing_left
finish
