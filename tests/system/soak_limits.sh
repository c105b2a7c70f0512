# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash disable=SC1091,SC2016,SC2034,SC2046,SC2086,SC2153,SC2154
# Limits: requests and bytes a second of a disk and a card within 5 %, changed while the machine runs; CPU and memory by a cgroup.
# modules: virtio_pci,virtio_blk,virtio_net,virtio_console
# programs: fio iperf3 ip
. ./lib.sh
INITRD=$PWD/initrd MACHINE=limits
agent="ip addr add 10.0.0.2/24 dev eth0; ip link set eth0 up
$agent"

mkdir -p /sys/fs/cgroup
grep -q cgroup2 /proc/mounts || mount -t cgroup2 cgroup2 /sys/fs/cgroup
truncate -s 64M /tmp/disk
./ip tuntap add dev tap0 mode tap
./ip addr add 10.0.0.1/24 dev tap0
./ip link set tap0 up

start() { # OPTION...
    vmrun run --name limits --detach --kernel "$KERNEL" --initrd "$INITRD" --memory 512M --cpus 2 --console file:/tmp/limits.serial --hvc0 pty \
        --cmdline "$(script_line "$agent")" "$@" >"$OUT" 2>"$ERR" || return
    attach && debian_is_up
}
# rate COUNTER SECONDS: what it grows by in a second.
rate() {
    from=$(stat_of "$1") at=$(now_ms)
    sleep "$2"
    to=$(stat_of "$1") end=$(now_ms)
    echo $(((to - from) * 1000 / (end - at)))
}
# within VALUE MEANT: by 5 %.
within() {
    echo "$1, meant are $2"
    [ $(($1 * 100)) -ge $(($2 * 95)) ] && [ $(($1 * 100)) -le $(($2 * 105)) ]
}
# The kernel shares CPUs out in pieces of its own, and an emulated host is short of them.
about() {
    echo "$1, about $2 are meant"
    [ $(($1 * 100)) -ge $(($2 * 75)) ] && [ $(($1 * 100)) -le $(($2 * 115)) ]
}
more_than() { echo "$1, more than $2 are meant"; [ "$1" -gt "$2" ]; }
# busy OPTION...: fio in the guest from now on, with as much under way as the ring holds of it: an emulated guest has rests of its own.
busy() { in_guest "fio --name=limits --filename=/dev/vda --direct=1 --ioengine=libaio --iodepth=64 --time_based --runtime=600 $* >/dev/null 2>&1 & sleep 2" >/dev/null; }
idle() { in_guest 'killall fio; wait' >/dev/null; }
# set_rate KEY N: with a burst of a second, so that nothing is lost when the emulated host stands still for a moment.
set_rate() { vmrun set limits "disks[0].$1=$2" "disks[0].$1_burst=$2" && sleep 1; }

expect "a machine whose disk may serve 60 requests a second" start --disk /tmp/disk,cache=writeback,id=data,iops=60,iops_burst=60 --net tap=tap0
[ $failed = 0 ] || finish
busy --rw=randread --bs=4k
expect "reads come at this rate" within "$(rate disk.data.reads 6)" 60
expect "another one is set" set_rate iops 150
expect "and holds at once" within "$(rate disk.data.reads 6)" 150
expect "then less" set_rate iops 40
expect "which holds at once too" within "$(rate disk.data.reads 6)" 40
expect "a pause does not wait for what waits" vmrun pause limits
expect "and is over" vmrun resume limits
expect "and the limit is as before" within "$(rate disk.data.reads 6)" 40
expect "without a limit there are more" vmrun set limits 'disks[0].iops=0'
expect "than ever before" more_than "$(rate disk.data.reads 3)" 200
idle
expect "waiting was counted" more_than "$(stat_of disk.data.limit_waits)" 50
expect "bytes are limited" set_rate bandwidth 1M
busy --rw=randwrite --bs=16k
expect "and written at this rate" within "$(rate disk.data.written_bytes 8)" 1048576
idle
expect "a burst is set" vmrun set limits 'disks[0].bandwidth=0' 'disks[0].iops=20' 'disks[0].iops_burst=100'
sleep 6
before=$(stat_of disk.data.reads)
busy --rw=randread --bs=4k
expect "after a rest there are so many at once" more_than $(($(stat_of disk.data.reads) - before)) 99
expect "and then no more than the rate" within "$(rate disk.data.reads 8)" 20
idle
vmrun stats limits >/tmp/table
expect "latency is a table" grep -q '^latency .*90 %.*longest' /tmp/table
expect "of each queue" grep -q '^disk.data.q0 .*[mu]s' /tmp/table
expect "what cannot be set is refused" sh -c "vmrun set limits 'disks[0].cache=none' 2>&1 | grep -q 'cannot be set'"
expect "and a disk that is not there" sh -c "! vmrun set limits 'disks[1].iops=5'"
expect "what was set is the configuration" vmrun set limits 'disks[0].bandwidth=3M'
vmrun save limits /tmp/limits.snap >/dev/null 2>&1
expect "and is saved" sh -c "vmrun snapshot info /tmp/limits.snap --json | grep -q '\"bandwidth\": *\"3M\"'"

./iperf3 -s -D >/dev/null
expect "the card may send 1 MiB a second" vmrun set limits 'nets[0].tx_bandwidth=1M' 'nets[0].tx_bandwidth_burst=1M'
in_guest "iperf3 -c 10.0.0.1 -t 12 >/dev/null 2>&1 & sleep 3" >/dev/null
expect "and does" within "$(rate net.net0.tx_bytes 6)" 1048576
expect "it ends" in_guest 'wait'
expect "and receive 2 MiB a second" vmrun set limits 'nets[0].tx_bandwidth=0' 'nets[0].rx_bandwidth=2M' 'nets[0].rx_bandwidth_burst=2M'
in_guest "iperf3 -R -c 10.0.0.1 -t 12 >/dev/null 2>&1 & sleep 3" >/dev/null
expect "and does likewise" within "$(rate net.net0.rx_bytes 6)" 2097152
expect "it ends too" in_guest 'wait'
expect "limits of the process are for one that was started with some" sh -c "vmrun set limits limits.cpu=50% 2>&1 | grep -q 'no cgroup of its own'"
vmrun kill limits

# The process: this shell is in the root of the tree, as a service manager's child is in a cgroup that was delegated.
leaf() { ls -d /sys/fs/cgroup/vmrun-limits-* 2>/dev/null; }
holds() { [ "$(cat "$(leaf)/$1")" = "$2" ] || { cat "$(leaf)/$1"; return 1; }; }
expect "too little memory is refused" sh -c "vmrun run --kernel $KERNEL --memory 256M --limit-memory 300M 2>&1 | grep -q '320M'"
# A guest that is busy from its first instruction on; nobody waits for it.
begin() { vmrun run --name limits --detach --kernel "$KERNEL" --initrd "$INITRD" --memory 512M --cpus 2 --console none \
    --cmdline "$(script_line 'while :; do :; done & while :; do :; done')" "$@" >"$OUT" 2>"$ERR"; }
expect "a machine with half a CPU and 600 MiB" begin --limit-cpu 50% --limit-memory 600M
sleep 5
expect "is in a cgroup" grep -q "^0::/vmrun-limits-" "/proc/$(pidof vmrun)/cgroup"
expect "with this much of the CPUs" holds cpu.max '50000 100000'
expect "and of memory" holds memory.max $((600 << 20))
expect "all its memory counts there" more_than "$(cat "$(leaf)/memory.current")" $((30 << 20))
used() { sed -n 's/^usage_usec //p' "$(leaf)/cpu.stat"; }
share() { from=$(used) at=$(now_ms); sleep 5; to=$(used) end=$(now_ms); echo $(((to - from) / 10 / (end - at))); }
expect "it uses half a CPU" about "$(share)" 50
expect "it may have more" vmrun set limits limits.cpu=90% limits.memory=700M
expect "which is so" holds cpu.max '90000 100000'
expect "in both" holds memory.max $((700 << 20))
expect "and it uses that" about "$(share)" 90
expect "less memory than it needs is refused" sh -c "vmrun set limits limits.memory=300M 2>&1 | grep -q '576M'"
vmrun kill limits
expect "its cgroup is gone with it" sh -c '! ls -d /sys/fs/cgroup/vmrun-*'
expect "another one" begin --limit-cpu 50%
kill -KILL "$(pidof vmrun)"
sleep 1
expect "which is killed leaves it behind" [ -n "$(leaf)" ]
left=$(leaf)
expect "until the next one comes" begin --limit-cpu 70%
expect "and removes it" [ ! -e "$left" ]
vmrun kill limits

box=/sys/fs/cgroup/box
echo -cpu -memory >/sys/fs/cgroup/cgroup.subtree_control # which the one that was killed had switched on
mkdir $box
# in_box COMMAND: a machine as of a process in this cgroup, after that command.
in_box() {
    sh -c "echo \$\$ >$box/cgroup.procs; $1 exec vmrun run --name limits --kernel $KERNEL --initrd $INITRD --limit-cpu 50% --limit-memory 400M \
        --console none" >"$OUT" 2>"$ERR" </dev/null &
}
in_box
wait_for 20 sh -c "! kill -0 $!" || vmrun kill limits
expect "a cgroup in which nothing can be limited is refused, with the cure" grep -q 'no controller "cpu".*systemd-run' "$ERR"
echo +cpu +memory >/sys/fs/cgroup/cgroup.subtree_control
in_box 'sleep 30 &'
expect "where there are other processes it goes beside them" wait_for 20 sh -c 'grep -q 50000 /sys/fs/cgroup/vmrun-limits-*/cpu.max'
vmrun kill limits
expect "and leaves nothing" sh -c '! ls -d /sys/fs/cgroup/vmrun-*'
wait_for 40 sh -c "! grep -q . $box/cgroup.procs"
in_box
expect "where there are none it goes below" wait_for 20 sh -c "grep -q 50000 $box/vmrun-limits-*/cpu.max"
vmrun kill limits
expect "and all is as before" sh -c "! ls -d $box/vmrun-* && ! grep -q . $box/cgroup.subtree_control"
finish
