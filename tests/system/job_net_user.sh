# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash disable=SC1091,SC2016,SC2034,SC2153
# Taps: made beforehand for an ordinary user, or by vmrun; and what is said when that cannot be.
# seconds: 80
# modules: virtio_pci,virtio_net
# programs: ip
. ./lib.sh
INITRD=$PWD/initrd

mkdir -m 700 /tmp/user-run && chown user /tmp/user-run
cp "$INITRD" /tmp/initrd && chmod 644 /tmp/initrd
in_a_guest="vmrun run --kernel $KERNEL --initrd /tmp/initrd"
# Each card in turn has an address of its own (the host may know another's for one that was used before) and pings.
ping_script='n=1; for card in /sys/class/net/eth*; do n=$((n + 1)) name=${card##*/}
ip addr add 10.0.0.$n/24 dev $name; ip link set $name up; ping -c 2 -W 30 10.0.0.1 && echo "$name: the ping came back"
ls -d $card/queues/rx*; ip link set $name down; ip addr flush dev $name; done'
pings=$(script_line "$ping_script")
waits=$(script_line 'ip addr add 10.0.0.2/24 dev eth0; ip link set eth0 up; ping -c 1 -W 30 10.0.0.1; echo up; sleep 100000') # so the host knows it
user_pings() { as_user "$in_a_guest --cmdline '$pings' $*" </dev/null >"$OUT" 2>"$ERR"; }
# That it starts is seen without waiting for a guest.
user_starts() {
    as_user "$in_a_guest --name starts --detach --paused --console none $*" </dev/null >"$OUT" 2>"$ERR" && as_user vmrun kill starts
}
user_is_refused() { STATUS=0; as_user "$in_a_guest $*" </dev/null >"$OUT" 2>"$ERR" || STATUS=$?; }
root_is_refused() { STATUS=0; $in_a_guest "$@" </dev/null >"$OUT" 2>"$ERR" || STATUS=$?; }
# One line, status 1, and these words in it.
said() {
    [ "$STATUS" = 1 ] || { echo "status $STATUS"; return 1; }
    [ "$(wc -l <"$ERR")" = 1 ] || { echo "not one line"; return 1; }
    grep -q -F -e "$1" "$ERR" || { echo "not said: $1"; return 1; }
}
# The command that the message ends with; what it says must be enough.
cure() { sed -n "s/.*as root: //p" "$ERR" | sed "s/, then /; /; s/^ip /.\/ip /; s/; ip /; .\/ip /g"; }
there() { ./ip link show "$1"; }
gone() { ! ./ip link show "$1" 2>/dev/null; }
address_is() { grep "$1" "/sys/class/net/$2/address"; }
port_of() { ./ip link show "$2" | grep "master $1"; }

modprobe bridge
./ip link add br0 type bridge
./ip addr add 10.0.0.1/24 dev br0
./ip link set br0 up

./ip tuntap add dev tap1 mode tap user user vnet_hdr
./ip link set tap1 master br0 up
expect "the bridge may be named when the tap is attached already" user_starts --net tap=tap1,bridge=br0
./ip tuntap add dev tap2 mode tap user user vnet_hdr multi_queue
./ip link set tap2 master br0 up
./ip tuntap add dev tap3 mode tap user user vnet_hdr multi_queue
./ip link set tap3 master br0 up

user_is_refused --net tap=none
expect "no such tap, and no right to make one: said in a line" said "none: there is no such tap, and making one needs root"
expect "with the command that cures" said "as root: ip tuntap add dev none mode tap user user"
expect "which cures when it was followed" sh -c "$(cure) && ./ip link set none up && ./ip link set none master br0"
expect "the guest then starts" user_starts --net tap=none
user_is_refused --net tap=tap1,queues=2
expect "a tap without queues, and two are asked: said in a line, with the cure" said "mode tap multi_queue user user"
./ip tuntap add dev other mode tap user root
./ip link set other up
user_is_refused --net tap=other
expect "another user's tap: said in a line, with the cure" said "other: this tap is another user's; as root: ip tuntap del"
expect "which cures when it was followed" sh -c "$(cure) && ./ip link set other up"
expect "the guest then starts" user_starts --net tap=other
./ip link set other down
user_is_refused --net tap=other
expect "a tap that is down: said in a line, with the cure" said "other: is down; as root: ip link set other up"
expect "which cures when it was followed" sh -c "$(cure)"
expect "the guest then starts" user_starts --net tap=other
user_is_refused --net tap=other,bridge=br0
expect "a tap that is not attached: said in a line, with the cure" said "as root: ip link set other master br0"
expect "which cures when it was followed" sh -c "$(cure)"
expect "the guest then starts" user_starts --net tap=other,bridge=br0
user_is_refused --net tap=other,bridge=br9
expect "a bridge that does not exist: said in a line, with the cure" said "no bridge br9; as root: ip link add br9 type bridge"
user_is_refused --net tap=other,mtu=9000
expect "an MTU that it may not set: said in a line, with the cure" said "as root: ip link set other mtu 9000"
user_is_refused --net tap=br0
expect "an interface that is no tap: said in a line" said "br0: an interface of this name exists and is no tap"
chmod 600 /dev/net/tun
user_is_refused --net tap=tap1
expect "no access to /dev/net/tun: said in a line, with the cure" said "as root: chmod 666 /dev/net/tun"
expect "which cures when it was followed" sh -c "$(cure)"
expect "the guest then starts" user_starts --net tap=tap1
mv /dev/net/tun /dev/net/tun.away
user_is_refused --net tap=tap1
expect "no /dev/net/tun: said in a line, with the cure" said "as root: modprobe tun"
mv /dev/net/tun.away /dev/net/tun

expect "an ordinary user's guest has all these taps at once" user_pings --cpus 2 --net tap=tap1 --net tap=tap2,queues=2 --net tap=tap3,queues=1 \
    --net tap=none --net tap=other,bridge=br0
expect "traffic passes on a tap made beforehand" printed "eth0: the ping came back"
expect "on one that has queues, with two pairs" printed "eth1: the ping came back"
expect "which are two" printed "eth1/queues/rx-1"
expect "on one that has queues, with one pair" printed "eth2: the ping came back"
expect "which is one" not_printed "eth2/queues/rx-1"
expect "on the one that was made as the message said" printed "eth3: the ping came back"
expect "on the one whose owner, state and bridge were mended" printed "eth4: the ping came back"
expect "the tap stays" there tap1

# As root: what vmrun makes goes with it, what it finds stays.
./ip tuntap add dev kept mode tap
guest "$ping_script" --net tap=new,bridge=br0 --net tap=kept,bridge=br0
expect "root needs to prepare nothing: vmrun makes the tap and attaches it to the bridge" status_is 0
expect "and traffic passes" printed "eth0: the ping came back"
expect "the tap is gone with the guest" gone new
expect "one that was there is attached to the bridge and brought up" printed "eth1: the ping came back"
expect "and stays" port_of br0 kept
./ip link add br1 type bridge
./ip tuntap add dev card mode tap
./ip link set card address fc:00:00:00:00:01
./ip link set card master br1 up
./ip link set br1 up
expect "a bridge has the address of its card" address_is fc:00:00:00:00:01 br1
$in_a_guest --name new --detach --console none --net tap=new,bridge=br1 >"$OUT" 2>"$ERR"
expect "and keeps it when a tap of vmrun's is attached" address_is fc:00:00:00:00:01 br1
expect "which is" port_of br1 new
vmrun kill new
root_is_refused --net tap=new,bridge=br9
expect "a bridge that does not exist: said in a line to root as well" said "there is no bridge br9"
expect "and no tap is left" gone new
root_is_refused --net tap=new --disk /tmp/none
expect "a start that fails for another reason" said /tmp/none
expect "leaves no tap either" gone new

# Two at once
vmrun run --name first --detach --kernel "$KERNEL" --initrd "$INITRD" --cmdline "$waits" --console file:/tmp/first \
    --net tap=shared,bridge=br0 --net tap=queued,bridge=br0,queues=2 >"$OUT" 2>"$ERR"
expect "a machine has its taps" wait_for 120 grep -q '^up' /tmp/first
for queues in 1 2; do
    tap=shared
    [ $queues = 1 ] || tap=queued
    root_is_refused --net tap=$tap,queues=$queues
    expect "a second machine on the one of queues=$queues is refused in a line" said "$tap: another process uses this tap"
done
expect "the first has its network still" ping -c 2 -W 30 10.0.0.2
expect "the first is killed" vmrun kill first
expect "and the tap is gone" gone shared
expect "the other as well" gone queued
user_is_refused --net tap=tap1 --net tap=tap1
expect "one tap for two cards is refused" grep -q '"tap1" is the tap of nets\[0\]' "$ERR"

# Signals: one while its guest has the network in use, the others before that. In the foreground, because what a shell starts beside
# itself ignores SIGINT.
in_use() { # whether it is time for signal $1
    [ "$1" != INT ] || grep -q '^up' /tmp/brief.INT || return 1
    vmrun list | grep brief | grep -q running && port_of br0 brief
}
for signal in INT TERM HUP KILL; do
    {
        wait_for 120 in_use $signal
        echo $? >/tmp/in_use
        kill -$signal "$(pidof vmrun)"
    } >/dev/null 2>&1 &
    killer=$!
    STATUS=0
    $in_a_guest --name brief --cmdline "$waits" --net tap=brief,bridge=br0 </dev/null >/tmp/brief.$signal 2>"$ERR" || STATUS=$?
    wait $killer
    expect "a machine has a tap of its own" [ "$(cat /tmp/in_use)" = 0 ]
    case $signal in INT) status=130 ;; TERM) status=143 ;; HUP) status=129 ;; KILL) status=137 ;; esac
    expect "SIG$signal ends it" status_is "$status"
    expect "and leaves no tap behind" wait_for 30 gone brief
done
rm -rf /run/vmrun/* # of the one that was killed
finish
