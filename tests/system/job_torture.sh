# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash disable=SC1091,SC2016,SC2034,SC2086,SC2153,SC2154
# A guest that checks its memory, disk, network, timers and clocks all the time (images/torture.c) is saved and restored, again and again.
# $1: how often with each number of CPUs (4); tools/soak snapshot gives more.
# seconds: 100
# modules: virtio_pci,virtio_blk,virtio_net,virtio_rng,virtio_console
# programs: ip
# builds: images/torture.c
. ./lib.sh
INITRD=$PWD/initrd cycles=${1:-4}
orders='ip addr add 10.9.0.2/24 dev eth0; ip link set eth0 up; torture memory=32 writers=2 rate=10 disk=/dev/vda peer=10.9.0.1'

./ip tuntap add torture0 mode tap
./ip addr add 10.9.0.1/24 dev torture0
./ip link set torture0 up
./torture echo &
mkdir -p /tmp/t
mount -t tmpfs -o size=1500m t /tmp/t
modprobe null_blk nr_devices=0
mount -t configfs configfs /sys/kernel/config
null=/sys/kernel/config/nullb/nullb0
mkdir $null
for setting in memory_backed=1 size=16 power=1; do echo ${setting#*=} >$null/${setting%=*}; done

serial=/tmp/t/serial snapshot=/tmp/t/snapshot
lines() { grep -c '^torture: .* second .* errors 0[[:space:]]*$' $serial; }
says_more() { [ "$(lines)" -gt "$had" ]; }
# goes_on: the guest of this nonce says more, later than all it said in this life or an earlier one, and nothing is wrong.
goes_on() {
    had=$(lines)
    wait_for 60 says_more || { echo "no sign of life"; grep WRONG $serial | head -n 5; tail -n 2 $serial; return 1; }
    ! grep -q WRONG $serial || { grep WRONG $serial | head -n 5; return 1; }
    said=$(grep '^torture: .* second .* errors 0[[:space:]]*$' $serial | tail -n 1)
    set -- $said
    [ "$2" = "${nonce:=$2}" ] || { echo "the nonce was $nonce and is $2"; return 1; }
    [ "$4" -gt "$second" ] || { echo "it was at second $second and is at $4"; return 1; }
    second=$4
}

# One cycle: save it in one of two ways at a moment of chance, and let a new process go on.
cycle() {
    sleep "0.$(($(od -An -N2 -tu2 /dev/urandom) % 900 + 100))"
    vmrun save --stop --force torture $snapshot >/tmp/t/save.out 2>&1 || { cat /tmp/t/save.out; return 1; }
    mode=lazy
    [ $(($1 % 2)) = 0 ] || mode=eager
    vmrun restore --detach --name torture --mode $mode --console file:$serial $snapshot >/tmp/t/restore.out 2>&1 || { cat /tmp/t/restore.out; return 1; }
    goes_on || return 1
    # The machine that is saved while it runs goes on, and is as well.
    vmrun save --force torture $snapshot.live >/tmp/t/save.out 2>&1 || { cat /tmp/t/save.out; return 1; }
    goes_on || return 1
    vmrun snapshot verify $snapshot.live >/tmp/t/verify.out 2>&1 || { cat /tmp/t/verify.out; return 1; }
}

for cpus in 4 2 1; do
    rm -f $serial
    nonce='' second=0
    expect "$cpus: it starts" vmrun run --detach --name torture --kernel "$KERNEL" --initrd "$INITRD" --cpus $cpus --memory 128M \
        --console file:$serial --disk /dev/nullb0 --net tap=torture0 --cmdline "$(script_line "$orders")"
    expect "$cpus: and works" goes_on
    n=0
    while [ $n -lt "$cycles" ] && [ $failed = 0 ]; do
        n=$((n + 1))
        expect "$cpus: saved, restored, and live, $n" cycle $n
    done
    echo "$cpus: $said"
    expect "$cpus: it is killed" vmrun kill torture
done
expect "nothing is left behind" wait_for 10 nothing_left
finish
