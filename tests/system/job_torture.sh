# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash disable=SC1091,SC2016,SC2034,SC2086,SC2153,SC2154
# A guest that checks its memory, disk, network, stream sockets, timers and clocks all the time (images/torture.c) is saved and
# restored, again and again, while its balloon goes up and down and its disk waits for what its limit allows.
# $1: how often with each number of CPUs (2); tools/soak snapshot gives more.
# seconds: 200
# modules: virtio_pci,virtio_blk,virtio_net,virtio_rng,virtio_console,vmw_vsock_virtio_transport,virtio_balloon
# programs: ip
# builds: images/torture.c
. ./lib.sh
. ./torture.sh
INITRD=$PWD/initrd cycles=${1:-2} REPORT=/tmp/t/serial snapshot=/tmp/t/snapshot
orders='ip addr add 10.9.0.2/24 dev eth0; ip link set eth0 up; torture memory=32 writers=2 rate=10 lend disk=/dev/vda peer=10.9.0.1 sockets'

./ip tuntap add torture0 mode tap
./ip addr add 10.9.0.1/24 dev torture0
./ip link set torture0 up
./torture echo &
./torture answer /tmp/vsock >/tmp/answers &
mkdir -p /tmp/t
mount -t tmpfs -o size=1500m t /tmp/t
modprobe null_blk nr_devices=0
mount -t configfs configfs /sys/kernel/config
null=/sys/kernel/config/nullb/nullb0
mkdir $null
for setting in memory_backed=1 size=16 power=1; do echo ${setting#*=} >$null/${setting%=*}; done

# One cycle: save it in one of two ways at a moment of chance, and let a new process go on.
cycle() {
    mode=lazy mib=8
    [ $(($1 % 2)) = 0 ] || mode=eager mib=24
    set_balloon $mib || return 1
    sleep "0.$(($(od -An -N2 -tu2 /dev/urandom) % 900 + 100))"
    vmrun save --stop --force torture $snapshot >/tmp/t/save.out 2>&1 || { cat /tmp/t/save.out; return 1; }
    vmrun restore --detach --name torture --mode $mode --console file:$REPORT $snapshot >/tmp/t/restore.out 2>&1 || { cat /tmp/t/restore.out; return 1; }
    torture_was_moved
    goes_on && goes_on || return 1 # what the first finds may have been done before the save
    balloon_is_set || return 1
    # The machine that is saved while it runs goes on, and is as well.
    vmrun save --force torture $snapshot.live >/tmp/t/save.out 2>&1 || { cat /tmp/t/save.out; return 1; }
    goes_on || return 1
    vmrun snapshot verify $snapshot.live >/tmp/t/verify.out 2>&1 || { cat /tmp/t/verify.out; return 1; }
}

for cpus in 4 2 1; do
    rm -f $REPORT
    torture_begins
    expect "$cpus: it starts" vmrun run --detach --name torture --kernel "$KERNEL" --initrd "$INITRD" --cpus $cpus --memory 256M \
        --console file:$REPORT --disk /dev/nullb0,id=data,iops=4,iops_burst=1 --net tap=torture0 $DEVICES --cmdline "$(script_line "$orders")"
    expect "$cpus: and works" goes_on
    n=0
    while [ $n -lt "$cycles" ] && [ $failed = 0 ]; do
        n=$((n + 1))
        expect "$cpus: saved, restored, and live, $n" cycle $n
    done
    torture_did_all
    echo "$cpus: $said"
    expect "$cpus: it is killed" vmrun kill torture
done
expect "the host heard nothing wrong" [ ! -s /tmp/answers ]
expect "nothing is left behind" wait_for 10 nothing_left
finish
