# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash disable=SC1091,SC2016,SC2034,SC2086,SC2153,SC2154
# Disks: every way to read and write, compared by checksums; locks, growth; and what becomes of errors of the host's.
# $1: megabytes that each of fio's jobs writes (2).
# seconds: 120
# modules: virtio_pci,virtio_blk,virtio_console
# disks: debian ext4:1G ext4:48M
. ./lib.sh
BOOT=$WITHOUT_SYSTEMD
size=${1-2}

mkdir /mnt/images /mnt/small 2>/dev/null || { mount -t tmpfs mnt /mnt; mkdir /mnt/images /mnt/small; }
mount -t ext4 /dev/nvme0n5 /mnt/images
mount -t ext4 /dev/nvme0n6 /mnt/small
for image in none writeback; do truncate -s 256M /mnt/images/$image; done
head -c 4m /dev/urandom >/mnt/images/readonly
truncate -s 128M /mnt/small/none /mnt/small/writeback
for filler in full full2; do head -c 8m /dev/urandom >/mnt/small/filler.$filler; done

# A disk with 128 bad KiB after its first MiB. (Of longer ranges null_blk forgets a part.)
modprobe null_blk nr_devices=0
mount -t configfs configfs /sys/kernel/config
bad=/sys/kernel/config/nullb/nullb0
mkdir $bad
echo 1 >$bad/memory_backed
echo 32 >$bad/size
echo +2048-2303 >$bad/badblocks
echo 1 >$bad/power

expect "a machine with seven disks" debian disk --disk /mnt/images/none,id=none,serial=S-123 \
    --disk /mnt/images/writeback,id=writeback,cache=writeback --disk /mnt/images/readonly,id=readonly,readonly --disk /dev/nullb0,id=bad \
    --disk /mnt/small/none,id=full --disk /mnt/small/writeback,id=full2,cache=writeback
[ $failed = 0 ] || finish
expect "the guest reads the serial number" [ "$(in_guest cat /sys/block/vdb/serial)" = S-123 ]
expect "which is the id when none was given" [ "$(in_guest cat /sys/block/vdc/serial)" = writeback ]
expect "two CPUs have two queues" [ "$(in_guest 'ls /sys/block/vdb/mq | wc -l')" = 2 ]

# What fails by itself: 124 is no answer.
fails() { "$@"; status=$?; [ $status != 0 ] && [ $status != 124 ]; }
# errs COMMAND PATTERN: in the guest the command fails, and says so in these words.
errs() {
    fails in_guest "$1" >/tmp/errs && grep -q -e "$2" /tmp/errs && return
    cat /tmp/errs
    return 1
}

# fio DISK OPTION...: each job in a part of its own; it fails when what it reads is not what it wrote.
fio() {
    disk=$1
    shift
    in_guest "fio --name=$disk --filename=/dev/$disk --size=${size}m --offset_increment=$((size + 1))m --verify=crc32c --verify_fatal=1 \
        --randseed=$orders $* >/tmp/fio.log 2>&1 || { s=\$?; head -n 40 /tmp/fio.log; (exit \$s); }"
}
any_size='--bsrange=512-128k --blockalign=512'
for disk in vdb:none vdc:writeback; do
    cache=${disk#*:} disk=${disk%:*}
    expect "$cache: buffered, one job, any size" fio $disk --rw=randwrite $any_size --direct=0
    expect "$cache: direct, 32 at once, two jobs, any size" fio $disk --rw=randwrite $any_size --direct=1 --ioengine=libaio --iodepth=32 --numjobs=2
    expect "$cache: direct, in order, 128k" fio $disk --rw=write --bs=128k --direct=1 --ioengine=libaio --iodepth=8
    expect "$cache: each write synchronous, two jobs" fio $disk --rw=randwrite --bs=4k --sync=1 --io_size=128k --numjobs=2
    expect "$cache: direct with a flush after each eighth" fio $disk --rw=randwrite --bs=4k --direct=1 --fsync=8 --io_size=256k
    expect "$cache: reads and writes, four jobs, any size" fio $disk --rw=randrw $any_size --direct=1 --ioengine=libaio --iodepth=8 --numjobs=4
    expect "$cache: discarded, then written" fio $disk --rw=trimwrite --bs=64k --direct=1
    expect "$cache: discarded blocks are zeros, their neighbours whole" fio $disk --rw=randwrite --bs=16k --direct=1 \
        --trim_percentage=50 --trim_backlog=8 --trim_verify_zero=1
done
expect "fio writes, to read it later" fio vdb --rw=write --bs=64k --direct=1 --randseed=7 --do_verify=0
expect "and finds it" fio vdb --rw=write --bs=64k --direct=1 --randseed=7 --verify_only
printf 'other bytes' | dd of=/mnt/images/none bs=1 seek=200000 conv=notrunc 2>/dev/null
expect "but not eleven bytes that the host changed there" fails fio vdb --rw=write --bs=64k --direct=1 --randseed=7 --verify_only

sum=$(sha256sum </mnt/images/readonly)
expect "the guest is told that a disk is read-only" [ "$(in_guest blockdev --getro /dev/vdd)" = 1 ]
expect "and reads it" [ "$(in_guest 'sha256sum </dev/vdd')" = "$sum" ]
expect "it cannot be written" fails in_guest 'dd if=/dev/urandom of=/dev/vdd bs=4k count=1 oflag=direct'
expect "not even by a driver that tries" fails in_guest 'blockdev --setrw /dev/vdd; dd if=/dev/urandom of=/dev/vdd bs=4k count=1 oflag=direct'
expect "and was not" [ "$(sha256sum </mnt/images/readonly)" = "$sum" ]

truncate -s 300M /mnt/images/none
expect "an image has grown" vmrun refresh disk
expect "and the guest sees it" wait_for 10 in_guest "[ \$(cat /sys/block/vdb/size) = $((300 * 2048)) ]"
expect "and uses it" in_guest "dd if=/usr/bin/python3 of=/dev/vdb bs=1M count=2 seek=298 oflag=direct && \
    dd if=/dev/vdb bs=1M skip=298 iflag=direct | cmp -n 2097152 - /usr/bin/python3"

second() { # OPTION...: of a second machine that wants a disk; it fails
    STATUS=0
    timeout 120 vmrun run --name second --kernel "$KERNEL" --initrd "$INITRD" --console none --disk "$@" </dev/null >"$OUT" 2>"$ERR" || STATUS=$?
}
second /mnt/images/none
expect "a second machine does not get an image that is written" status_is 1
expect "and is told who has it" grep -q "/mnt/images/none.*in use: another process (vmrun, pid $machine)" "$ERR"
second /mnt/images/none,readonly
expect "nor to read it" status_is 1
second /dev/nullb0
expect "nor a block device" grep -q "/dev/nullb0.*in use" "$ERR"
expect "what is only read is shared" vmrun run --name second --detach --paused --kernel "$KERNEL" --console none --disk /mnt/images/readonly,readonly
vmrun kill second
second /mnt/images/readonly
expect "with readers, not with a writer" grep -q "in use" "$ERR"

# A bad sector, while another disk is busy.
in_guest "{ while [ ! -e /tmp/enough ] && fio --name=busy --filename=/dev/vdb --offset=64m --size=1m --rw=randwrite --bs=4k --direct=1 \
    --verify=crc32c --verify_fatal=1; do echo busy; sleep 1; done; [ -e /tmp/enough ] || echo failed; } >/tmp/busy.log 2>&1 &"
expect "a good sector next to a bad one can be written" in_guest 'dd if=/dev/urandom of=/dev/vde bs=4k seek=255 count=1 oflag=direct'
expect "a bad sector is an error when it is read" errs 'dd if=/dev/vde of=/dev/null bs=4k skip=256 count=1 iflag=direct' "Input/output error"
expect "and when it is written" errs 'dd if=/dev/urandom of=/dev/vde bs=4k seek=260 count=1 oflag=direct' "Input/output error"
expect "and in the midst of a large request" errs 'dd if=/dev/vde of=/dev/null bs=192k skip=5 count=1 iflag=direct' "Input/output error"
expect "the operator is told" grep -q "disk bad: read of 4096 bytes at 1048576 failed: Input/output error" /tmp/disk.err
expect "and can count them" [ "$(stat_of disk.bad.errors)" -ge 3 ]
echo -2048-2303 >$bad/badblocks
expect "once mended, it works" in_guest 'dd if=/dev/urandom of=/dev/vde bs=4k seek=260 count=1 oflag=direct'

# A host file system that is full.
in_guest 'head -c 48M /dev/urandom >/dev/shm/data'
for disk in vdf:full vdg:full2; do
    id=${disk#*:} disk=${disk%:*}
    expect "$id: a full host disk is an error for the guest" errs "dd if=/dev/shm/data of=/dev/$disk bs=64k oflag=direct 2>/tmp/dd; s=\$?; cat /tmp/dd; (exit \$s)" \
        "No space left\|Input/output error"
    done=$(in_guest "sed -n 's/^\([0-9]*\)+.*out/\1/p' /tmp/dd")
    expect "$id: after a while ($done blocks)" [ "$done" -gt 10 ]
    expect "$id: the operator is told" grep -q "disk $id: write of .* failed: No space left on device" /tmp/disk.err
    sync
    echo 3 >/proc/sys/vm/drop_caches
    expect "$id: what was acknowledged is there" in_guest "dd if=/dev/$disk bs=64k count=$done iflag=direct | cmp -n $((done * 65536)) - /dev/shm/data"
    expect "$id: a flush is answered" in_guest "sync /dev/$disk"
    rm /mnt/small/filler.$id
    sync
    expect "$id: with room again, the same write succeeds" in_guest "dd if=/dev/shm/data of=/dev/$disk bs=64k skip=$done seek=$done count=40 oflag=direct"
done
expect "the other disk went on all the time, without an error" in_guest 'touch /tmp/enough; wait; grep -c ^busy /tmp/busy.log && ! grep failed /tmp/busy.log'

printf '0 exit 0\n' >&3
ended 20
expect "the machine ends with status 0" status_is 0
expect "nothing is left behind" wait_for 10 nothing_left
finish
