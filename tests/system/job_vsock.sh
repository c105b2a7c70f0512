# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash disable=SC1091,SC2016,SC2153
# seconds: 40
# modules: virtio_pci,vmw_vsock_virtio_transport
# builds: tests/system/streams.c
# Stream sockets between Linux and programs of its host; $1: MiB each way (64).
. ./lib.sh

INITRD=./initrd MACHINE=vs
MIB=${1:-64}
# Calls the host as often as a line comes from the console: a number of MiB, or 0 to hold on.
calls='streams serve & while read -r mib; do if [ "$mib" = 0 ]; then streams grip 1001 & else streams call 1000 "$mib"; fi; done'
counter() { stat_of "vsock.$1"; }
ran() { "$@" >"$OUT" 2>"$ERR"; }
refused_line() { words=$1; shift; STATUS=0; "$@" </dev/null >"$OUT" 2>"$ERR" || STATUS=$?; expect "that is said" grep -q -e "$words" "$ERR"; }
say() { echo "$2" | vmrun console "$1" --timeout 1 >/dev/null 2>&1; }
mode_is() { [ "$(stat -c %a "$2")" = "$1" ]; }

guest_in_background vs "$calls" --cpus 2 --memory 512M --console file:/tmp/vs --vsock socket=/tmp/vs.sock,cid=7
expect "the guest listens" wait_for 60 grep -q serving /tmp/vs
expect "its socket is its owner's alone" mode_is 600 /tmp/vs.sock
expect "a program and the guest hear each other" ran ./streams many /tmp/vs.sock 1
expect "1,000 connections at once" ran timeout 300 ./streams many /tmp/vs.sock 1000
expect "are all in the counters" [ "$(counter opened)" -ge 1001 ]
expect "$MIB MiB come whole from the guest" ran timeout $((60 + MIB * 4)) ./streams fetch /tmp/vs.sock "$MIB"
expect "$MIB MiB come whole to the guest" ran timeout $((60 + MIB * 4)) ./streams push /tmp/vs.sock "$MIB"
cat "$OUT"
timeout $((60 + MIB * 4)) ./streams fetch /tmp/vs.sock "$MIB" >/tmp/fetched 2>&1 &
fetches=$!
expect "and both ways at once" ran timeout $((60 + MIB * 4)) ./streams push /tmp/vs.sock "$MIB"
expect "as whole" wait $fetches
expect "who asks for a port without a listener is hung up on" refused_with "streams: OK" ./streams nobody /tmp/vs.sock

./streams await /tmp/vs.sock_1000 "$MIB" >/tmp/awaited 2>&1 &
awaits=$!
say vs "$MIB"
expect "$MIB MiB come whole from a guest that calls a program" wait_for $((60 + MIB * 4)) grep -q "from the guest: whole" /tmp/awaited
expect "which answers" wait_for 60 grep -q "answer: whole" /tmp/vs
wait $awaits
vmrun stats vs | grep vsock

# A second machine, and a clone
refused_line "another process (pid .*) listens there; each machine, and each clone, needs a socket of its own" vmrun run --kernel "$KERNEL" --initrd "$INITRD" --vsock socket=/tmp/vs.sock
expect "a second machine on the same socket is refused" status_is 1
./streams hold /tmp/vs.sock >/tmp/held 2>&1 &
holds=$!
./streams await /tmp/vs.sock_1001 1 >/tmp/gripped 2>&1 &
expect "a program holds a connection" wait_for 60 grep -q held /tmp/held
say vs 0
expect "and the guest another" wait_for 60 grep -q '^gripped' /tmp/vs
expect "the machine is saved" vmrun save vs /tmp/vs.snap
expect "a clone on the same socket is refused" refused_with "set vsock.socket to another path" vmrun restore /tmp/vs.snap --name clone --detach
expect "a clone with a socket of its own goes on" vmrun restore /tmp/vs.snap --name clone --detach --console file:/tmp/clone --set vsock.socket=/tmp/clone.sock
expect "its guest hears that its connection is gone" wait_for 60 grep -q "grip ended: Connection reset by peer" /tmp/clone
expect "its listener lives on" ran timeout 100 ./streams many /tmp/clone.sock 100
expect "the other's connection does so, too" kill -0 $holds
expect "and its listener" ran timeout 100 ./streams many /tmp/vs.sock 100
expect "the first one ends" vmrun kill vs
wait $holds
expect "which ends the connection" grep -q ended /tmp/held
expect "and its socket is gone" [ ! -e /tmp/vs.sock ]

# A move
./streams hold /tmp/clone.sock >/tmp/held 2>&1 &
holds=$!
expect "a program holds a connection again" wait_for 60 grep -q held /tmp/held
vmrun receive tcp://127.0.0.1:4711 --name moved --console file:/tmp/moved --set vsock.socket=/tmp/moved.sock </dev/null >/tmp/received 2>&1 &
expect "the machine moves" wait_for 20 vmrun migrate clone tcp://127.0.0.1:4711
wait $holds
expect "which ends the connection" grep -q ended /tmp/held
expect "the guest's listener is there" ran timeout 100 ./streams many /tmp/moved.sock 100
expect "the old socket is gone" wait_for 10 [ ! -e /tmp/clone.sock ]
expect "8 MiB come whole from where it is now" ran timeout 100 ./streams fetch /tmp/moved.sock 8
kill -KILL $(pidof vmrun)
expect "who was killed leaves its socket" [ -S /tmp/moved.sock ]
guest_in_background vs "$calls" --console file:/tmp/again --vsock socket=/tmp/moved.sock
expect "which the next one takes over" wait_for 60 grep -q serving /tmp/again
expect "and answers there" ran ./streams many /tmp/moved.sock 3
expect "it ends" vmrun kill vs
expect "and its socket is gone" [ ! -e /tmp/moved.sock ]
finish
