# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash disable=SC1091,SC2016,SC2034,SC2086,SC2153,SC2154,SC3045
# A machine that is reset or killed in the middle of writing, again and again: fsck finds nothing wrong, and what was synced is there.
# $1: how often (3); every third time it is killed and started anew, and its image's cache mode changes.
# seconds: 120
# modules: virtio_pci,virtio_blk,virtio_console
# disks: debian ext4:2G
. ./lib.sh
BOOT=$WITHOUT_SYSTEMD
times=${1-3} cache=none
mount -t tmpfs mnt /mnt
mkdir /mnt/images
mount -t ext4 /dev/nvme0n5 /mnt/images
truncate -s 1G /mnt/images/data
start() { debian disk --disk "/mnt/images/data,id=data,cache=$cache"; }

# Files that come and go, so that the journal has something to do; and files that are told of once fsync(2) has said that they are
# safe, by a line that the host reads.
writer='writer() {
    while tar -xf /usr.tar -C /data/noise; do rm -rf /data/noise/usr; done &
    while file=$1.$((n = n + 1)); do
        head -c $((n * 7919 % 200000 + 1)) /dev/urandom >/data/synced/$file;
        sum=$(sha256sum </data/synced/$file);
        sync /data/synced/$file && echo "=synced ${sum%% *} $file";
    done &
}'

# told N: read from the guest until N more files were told of.
told() {
    count=0
    while [ $count -lt "$1" ]; do
        read -r -t "$LIMIT" answer <&3 || { echo "nothing more within $LIMIT s"; return 1; }
        case $answer in
        =synced*) echo "$answer" >>/tmp/told; count=$((count + 1)) ;;
        *) echo "$answer"; return 1 ;;
        esac
    done
}

# What it said before the end still counts.
after_reset() {
    debian_is_up >/tmp/last
    up=$?
    cat /tmp/last >>/tmp/told
    return $up
}
after_kill() {
    while read -r -t 2 answer <&3; do echo "$answer"; done >>/tmp/told
    ended 10
    cat /tmp/disk.err >>/tmp/err.before
    start
}

# Free counts are not in the journal, and a file whose deletion had begun is deleted with it; nothing else may need mending.
fsck() {
    in_guest 'e2fsck -fy /dev/vdb' >"$OUT" 2>&1
    [ $? -le 1 ] || return 1
    ! grep -v -E '^(e2fsck |Pass [1-5]|Free (blocks|inodes) count wrong \(|Fix\? yes|$)|Clearing orphaned inode |recovering journal|WAS MODIFIED|files \(.*blocks$' "$OUT" ||
        return 1
    in_guest 'e2fsck -fn /dev/vdb'
}
all_synced_is_there() {
    in_guest 'cd /data/synced && sha256sum *; cd /' >/tmp/found
    sed -n -E 's/^=synced ([0-9a-f]{64}) ([0-9]+\.[0-9]+)$/\1  \2/p' /tmp/told >/tmp/wanted
    [ -s /tmp/wanted ] && ! grep -v -F -x -f /tmp/found /tmp/wanted
}

expect "Debian boots" start
[ $failed = 0 ] || finish
expect "a file system is made" in_guest 'mkfs.ext4 -q /dev/vdb && mkdir -p /data && mount /dev/vdb /data && mkdir /data/noise /data/synced'
in_guest 'tar -cf /usr.tar /usr/share/perl5 /usr/lib/udev /usr/lib/systemd 2>/dev/null'
expect "a tree of files is unpacked" in_guest 'tar -C / -cf - usr/bin usr/sbin usr/lib/python3.11 etc | tar -xf - -C /data'
expect "more than a thousand" in_guest '[ $(find /data -type f | wc -l) -gt 1000 ]'
in_guest 'cd /data && find usr etc -type f | sort | xargs -d "\n" sha256sum >sums; cd /; sync'
sums=$(in_guest 'sha256sum </data/sums')
in_guest "$(echo "$writer" | tr -s '\n ' ' ')"

for i in $(seq "$times"); do
    rm -f /tmp/told
    in_guest "writer $i"
    expect "$i: it writes" told $(($(od -An -N1 -tu1 /dev/urandom) % 16 + 4))
    if [ $((i % 3)) = 0 ]; then
        expect "$i: killed in the midst of that" vmrun kill disk
        if [ $cache = none ]; then cache=writeback; else cache=none; fi
        expect "$i: it starts anew on the same image, now with cache=$cache" after_kill
    else
        expect "$i: reset in the midst of that" vmrun reset disk
        expect "$i: it is up again" after_reset
    fi
    expect "$i: fsck finds nothing to mend" fsck
    expect "$i: the file system is mounted" in_guest 'mount /dev/vdb /data'
    expect "$i: the list of checksums is as it was" [ "$(in_guest 'sha256sum </data/sums')" = "$sums" ]
    expect "$i: every file of the tree has its checksum" in_guest 'cd /data && sha256sum --quiet -c sums'
    expect "$i: so has every file that was synced until then" all_synced_is_there
    in_guest "cd /; rm -rf /data/noise/* /data/synced/*; $(echo "$writer" | tr -s '\n ' ' ')"
done

printf '0 umount /data; exit 0\n' >&3
ended 20
expect "the machine ends with status 0" status_is 0
expect "having complained of nothing" [ "$(cat /tmp/err.before /tmp/disk.err 2>/dev/null | grep -c -v 'hvc0')" = 0 ]
expect "nothing is left behind" wait_for 10 nothing_left
finish
