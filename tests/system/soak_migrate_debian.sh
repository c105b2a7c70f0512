# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash disable=SC1091,SC2016,SC2034,SC2086,SC2154
# Debian as it comes, with its root by NFS, moves between two hosts and checks itself (images/torture.c) meanwhile.
# $1: how often to and fro (1).
# hosts: 3
# memory: 1280
# disks: ext4-debian
# modules: virtio_pci,virtio_blk
# builds: images/torture.c tests/system/downtime.c
. ./lib.sh
. ./hosts.sh
. ./moves.sh
MEMORY=512M DISKS='--disk /mnt/debian.ext4,id=root --disk /mnt/disk' DEVICES='' STREAMS=0 PARTS='second pages blocks tcp'
LINE='console=ttyS0 root=/dev/vda rw systemd.default_timeout_start_sec=600'
orders="name=\$(basename /sys/bus/virtio/drivers/virtio_net/virtio*/net/*)
ip addr add $GUEST/24 dev \$name; ip link set \$name up
cd /run && for file in torture downtime order; do wget -q http://$SERVER/\$file && chmod +x \$file || exit 1; done
./downtime answer &
busybox nc -ll -p 514 -e ./order &
./torture memory=64 writers=2 rate=10 disk=/dev/vdb peer=$SERVER | tee /dev/console | busybox nc $SERVER 7009"

mkdir /tmp/www
ln -s /job/torture /job/downtime /tmp/www/
write_order /tmp/www/order
[ "$LAB_HOST" = a ] || [ "$LAB_HOST" = b ] || { httpd -h /tmp/www; mkdir $EXPORT; mount /dev/nvme0n4 $EXPORT; }
moves_begin

in_it() { on $GUEST "$@"; }
no_complaint() { ! in_it 'dmesg | grep -v "ommand line:"' | grep -i -E 'Call Trace|BUG:|WARNING:|soft lockup|rcu.*stall|(virtio|vda|vdb|EXT4).*(error|fail|timeout)'; }
LIFE=400
torture_on a 2
LIFE=60
expect "systemd reached its target" [ "$(in_it systemctl is-system-running --wait)" = running ]
in_it 'date >/root/before; sync'
before=$(in_it cat /root/before)
n=0
while [ $n -lt "${1:-1}" ] && [ $failed = 0 ]; do
    n=$((n + 1))
    expect "it moves from a to b, $n" moved a b migrate
    expect "it writes a file there" in_it "dd if=/dev/urandom of=/root/noise bs=64k count=64; sync; md5sum /root/noise >/root/sum"
    expect "and back, $n" moved b a migrate
    expect "where the file is as it was" in_it 'echo 3 >/proc/sys/vm/drop_caches; md5sum -c /root/sum'
done
expect "the kernel has no complaint" no_complaint
expect "no unit has failed" [ -z "$(in_it systemctl --failed --no-legend)" ]
expect "its files are there" [ "$(in_it cat /root/before)" = "$before" -a "$before" ]
moves_table
expect "the power button shuts it down" on a vmrun stop torture --timeout 120
expect "nothing is left behind on a" on a wait_for 10 nothing_left
expect "nor on b" on b wait_for 10 nothing_left
finish
