# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash disable=SC1091,SC2016,SC2034,SC2153
# Taps: made beforehand for an ordinary user, or by vmrun; and what is said when that cannot be.
# modules: virtio_pci,virtio_net
# programs: ip
. ./lib.sh
INITRD=$PWD/initrd

as_user() { su user -c "export XDG_RUNTIME_DIR=/tmp/user-run; $*"; }
mkdir -m 700 /tmp/user-run && chown user /tmp/user-run
cp "$INITRD" /tmp/initrd && chmod 644 /tmp/initrd
in_a_guest="vmrun run --kernel $KERNEL --initrd /tmp/initrd"
begins='ip addr add 10.0.0.2/24 dev eth0; ip link set eth0 up'
pings=$(script_line "$begins; ping -c 2 -W 5 10.0.0.1 && echo the ping came back; ls -d /sys/class/net/eth0/queues/rx*")
waits=$(script_line "$begins; ping -c 1 -W 5 10.0.0.1; echo up; sleep 100") # the host may know another's address for 10.0.0.2
user_pings() { as_user "$in_a_guest --cmdline '$pings' $*" </dev/null >"$OUT" 2>"$ERR"; }
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
expect "an ordinary user's guest has a network, on a tap made beforehand" user_pings --net tap=tap1
expect "and traffic passes" printed "the ping came back"
expect "the bridge may be named when the tap is attached already" user_pings --net tap=tap1,bridge=br0
expect "and traffic passes" printed "the ping came back"
expect "the tap stays" there tap1
./ip tuntap add dev tap2 mode tap user user vnet_hdr multi_queue
./ip link set tap2 master br0 up
expect "two pairs of queues on a tap that has queues" user_pings --cpus 2 --net tap=tap2,queues=2
expect "and traffic passes" printed "the ping came back"
expect "in two queues" printed rx-1
expect "one pair on a tap that has queues" user_pings --net tap=tap2
expect "and traffic passes" printed "the ping came back"

user_is_refused --net tap=none
expect "no such tap, and no right to make one: said in a line" said "none: there is no such tap, and making one needs root"
expect "with the command that cures" said "as root: ip tuntap add dev none mode tap user user"
expect "which cures when it was followed" sh -c "$(cure) && ./ip link set none up && ./ip link set none master br0"
expect "the guest then has its network" user_pings --net tap=none
expect "and traffic passes" printed "the ping came back"
user_is_refused --net tap=tap1,queues=2
expect "a tap without queues, and two are asked: said in a line, with the cure" said "mode tap multi_queue user user"
./ip tuntap add dev other mode tap user root
./ip link set other up
user_is_refused --net tap=other
expect "another user's tap: said in a line, with the cure" said "other: this tap is another user's; as root: ip tuntap del"
expect "which cures when it was followed" sh -c "$(cure) && ./ip link set other up"
expect "the guest then starts" user_pings --net tap=other
./ip link set other down
user_is_refused --net tap=other
expect "a tap that is down: said in a line, with the cure" said "other: is down; as root: ip link set other up"
expect "which cures when it was followed" sh -c "$(cure)"
expect "the guest then starts" user_pings --net tap=other
user_is_refused --net tap=other,bridge=br0
expect "a tap that is not attached: said in a line, with the cure" said "as root: ip link set other master br0"
expect "which cures when it was followed" sh -c "$(cure)"
expect "the guest then has its network" user_pings --net tap=other,bridge=br0
expect "and traffic passes" printed "the ping came back"
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
expect "the guest then has its network" user_pings --net tap=tap1
mv /dev/net/tun /dev/net/tun.away
user_is_refused --net tap=tap1
expect "no /dev/net/tun: said in a line, with the cure" said "as root: modprobe tun"
mv /dev/net/tun.away /dev/net/tun

# As root: what vmrun makes goes with it, what it finds stays.
guest "$begins; ping -c 2 -W 5 10.0.0.1" --net tap=new,bridge=br0
expect "root needs to prepare nothing: vmrun makes the tap and attaches it to the bridge" status_is 0
expect "and traffic passes" printed "2 packets received"
expect "the tap is gone with the guest" gone new
./ip tuntap add dev kept mode tap
guest "$begins; ping -c 2 -W 5 10.0.0.1" --net tap=kept,bridge=br0
expect "one that was there is attached to the bridge and brought up" printed "2 packets received"
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
for queues in 1 2; do
    vmrun run --name first --detach --kernel "$KERNEL" --initrd "$INITRD" --cmdline "$waits" --console file:/tmp/first \
        --net tap=shared,bridge=br0,queues=$queues >"$OUT" 2>"$ERR"
    expect "a machine with queues=$queues has its tap" wait_for 60 grep -q '^up' /tmp/first
    root_is_refused --net tap=shared,queues=$queues
    expect "a second machine on it is refused in a line" said "shared: another process uses this tap"
    expect "the first has its network still" ping -c 2 -W 5 10.0.0.2
    expect "the first is killed" vmrun kill first
    expect "and the tap is gone" gone shared
    rm /tmp/first
done
user_is_refused --net tap=tap1 --net tap=tap1
expect "one tap for two cards is refused" grep -q '"tap1" is the tap of nets\[0\]' "$ERR"

# Signals
for signal in INT TERM HUP KILL; do
    $in_a_guest --cmdline "$waits" --net tap=brief,bridge=br0 </dev/null >/tmp/brief 2>"$ERR" &
    expect "a guest is up on a tap of its own" wait_for 60 grep -q '^up' /tmp/brief
    expect "that is attached to the bridge" port_of br0 brief
    kill -$signal $!
    wait $! 2>/dev/null
    rm /tmp/brief # the next one is not to be found up before it is
    expect "SIG$signal leaves no tap behind" wait_for 5 sh -c '! ./ip link show brief'
done
rm -rf /run/vmrun/* # of the one that was killed
finish
