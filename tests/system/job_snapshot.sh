# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash disable=SC1091,SC2012,SC2016,SC2034,SC2153
# seconds: 80
# modules: virtio_blk
# A machine becomes a file while it runs, and goes on from it as if nothing had been.
. ./lib.sh

INITRD=./initrd
FILES=/tmp/files
mkdir $FILES

counts='i=0; while true; do i=$((i + 1)); echo "tick $i"; sleep 0.05; done'
last_tick() { sed -n 's/^tick \([0-9]*\)\r$/\1/p' "$1" | tail -n 1; }
first_tick() { sed -n 's/^tick \([0-9]*\)\r$/\1/p' "$1" | head -n 1; }
# Whole lines only: the first may be the rest of one that began before, the last be cut off.
without_gap() {
    sed -n '2,$s/^tick \([0-9]*\)\r$/\1/p' "$1" |
        awk 'NR > 1 && $1 != last + 1 { print last " is followed by " $1; bad = 1 } { last = $1 } END { if (NR < 5) print "only " NR " ticks"; exit bad || NR < 5 }'
}
flip() { printf '\245' | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null; }
said() { grep -q -e "$1" "$2" || { cat "$2"; return 1; }; }
state_is() { vmrun status "$1" --json | grep -q "\"state\": *\"$2\""; }

for cpus in 1 2; do
    m=m$cpus snap=$FILES/snap$cpus
    guest_in_background $m "$counts" --cpus $cpus --memory 128M --console file:/tmp/$m
    expect "it counts on $cpus CPUs" wait_for 60 grep -q 'tick 20' /tmp/$m
    before=$(last_tick /tmp/$m)
    expect "it is saved while it runs" sh -c "vmrun save $m $snap --json >/tmp/saved 2>/dev/null"
    after=$(last_tick /tmp/$m)
    cat /tmp/saved
    expect "in more rounds than one" grep -q -E '"rounds": *([2-9]|[1-9][0-9])' /tmp/saved
    expect "the file is its owner's alone" [ "$(stat -c %a $snap)" = 600 ]
    expect "the file is whole" vmrun snapshot verify $snap
    expect "the machine runs on" state_is $m running
    expect "and counts on" wait_for 20 sh -c "grep -q 'tick $((after + 20))' /tmp/$m"
    expect "no tick is lost to the save" without_gap /tmp/$m

    expect "a second machine of that name is refused" refused_with "a machine named '$m' is running" vmrun restore $snap --detach
    expect "two clones start at once" sh -c "vmrun restore $snap --name a --detach --console file:/tmp/a$cpus & \
        vmrun restore $snap --name b --detach --mode eager --console file:/tmp/b$cpus && wait \$!"
    expect "one from the mapped file goes on" wait_for 60 ticks /tmp/a$cpus
    expect "one from a copy goes on" wait_for 60 ticks /tmp/b$cpus
    for clone in a b; do
        first=$(first_tick /tmp/$clone$cpus)
        expect "it goes on where it was saved ($before to $after: $first)" [ "$first" -ge "$before" -a "$first" -le $((after + 2)) ]
        expect "without a gap or a step back" without_gap /tmp/$clone$cpus
        expect "its process is the machine" state_is $clone running
    done
    expect "the original counts beside them" without_gap /tmp/$m

    [ $cpus = 1 ] || expect "what was restored is saved again" sh -c "vmrun save a $FILES/again --force >/tmp/saved 2>/dev/null"
    for name in a b $m; do
        expect "$name ends" vmrun kill "$name"
    done
    [ $cpus = 1 ] && continue
    expect "and restored again" vmrun restore $FILES/again --name c --detach --console file:/tmp/c$cpus
    expect "it goes on" wait_for 60 ticks /tmp/c$cpus
    expect "without a gap" without_gap /tmp/c$cpus
    expect "from where the first one was" [ "$(first_tick /tmp/c$cpus)" -ge "$(first_tick /tmp/a$cpus)" ]
    expect "it ends" vmrun kill c
done

expect "an older file is not overwritten" sh -c "vmrun restore $FILES/snap1 --detach --console file:/tmp/d --paused"
expect "a restored machine may wait" state_is m1 paused
expect "an existing file is refused" refused_with "exists; --force replaces it" vmrun save m1 $FILES/snap1
expect "the refused save did no harm" vmrun snapshot verify $FILES/snap1
expect "a paused machine is saved" sh -c "cd $FILES && vmrun save m1 paused >/tmp/saved 2>/dev/null"
expect "and stays paused" state_is m1 paused
expect "it said nothing" [ ! -s /tmp/d ]
expect "resume" vmrun resume m1
expect "then it goes on" wait_for 60 ticks /tmp/d

# Ctrl-C in the midst of it: not before it has begun, and not when it is done. (Busybox's timeout knows whole seconds only, and what
# runs in the background ignores SIGINT.)
given_up() {
    moments='0.2 0.25 0.3 0.35 0.4 0.45 0.5 0.6 0.7 0.8 1 1.3 1.6 2 3 4 6 9 12'
    for moment in $moments $moments; do
        rm -f $FILES/given-up
        (sleep $moment && kill -INT "$(cat /tmp/save.pid)") 2>/dev/null &
        STATUS=0
        sh -c 'echo $$ >/tmp/save.pid; exec vmrun save m1 "$1"' sh $FILES/given-up >"$OUT" 2>&1 || STATUS=$?
        wait $!
        [ "$STATUS" = 130 ] && grep -q cancelled "$OUT" && return
    done
    return 1
}
expect "Ctrl-C gives a save up" given_up
expect "in words" printed "nothing was saved: cancelled"
expect "there is no file" [ "$(ls -A $FILES | tr '\n' ' ')" = "again paused snap1 snap2 " ]
expect "the machine runs on" state_is m1 running
expect "a folder that is not there is refused" refused_with "No such file" vmrun save m1 $FILES/none/x
expect "--stop ends the machine" sh -c "vmrun save m1 $FILES/stopped --stop >$OUT 2>/dev/null"
expect "in words" printed "the machine has ended"
expect "it is gone" sh -c "! vmrun status m1 2>/dev/null"
expect "and no tick was lost" without_gap /tmp/d
expect "its file goes on" vmrun restore $FILES/stopped --detach --console file:/tmp/e
expect "where the machine ended" wait_for 60 ticks /tmp/e
cat /tmp/d /tmp/e >/tmp/de # a line may have been cut in two
expect "at the very next tick" without_gap /tmp/de
expect "a clone of a clone ends" vmrun kill m1

# Damage.
cp $FILES/snap1 $FILES/bad
flip $FILES/bad $(($(stat -c %s $FILES/bad) - 9))
expect "a flipped byte of a section is refused, and the section named" refused_with "section '.*': checksum does not match" vmrun restore $FILES/bad --detach
cp $FILES/snap1 $FILES/bad
flip $FILES/bad $(((2 << 20) + 0x9000))
expect "one of RAM is refused before anything runs" refused_with "RAM at 0x0: checksum does not match" vmrun restore $FILES/bad --mode eager --detach
STATUS=0
vmrun restore $FILES/bad --console file:/tmp/f </dev/null >"$OUT" 2>"$ERR" || STATUS=$?
expect "or ends the machine that runs from it" status_is 3
expect "and the address is named" said "RAM at 0x0: checksum does not match" "$ERR"
cp $FILES/snap1 $FILES/bad
vmrun restore $FILES/bad --name cut --console file:/tmp/g </dev/null >"$OUT" 2>"$ERR" &
cut=$!
wait_for 30 ticks /tmp/g
: >$FILES/bad
STATUS=0
wait $cut || STATUS=$?
expect "a file that is cut off under a machine ends it" status_is 3
expect "in words" said "the snapshot was cut off" "$ERR"
rm $FILES/bad

# Disks.
dd if=/dev/zero of=/tmp/disk bs=1M count=8 2>/dev/null
guest_in_background m3 "$counts" --memory 128M --console file:/tmp/m3 --disk /tmp/disk,id=root,cache=writeback
expect "a machine with a disk" wait_for 60 grep -q 'tick 5' /tmp/m3
expect "is saved and ends" sh -c "vmrun save m3 $FILES/disk --stop >$OUT 2>&1"
cp /tmp/disk /tmp/copy
dd if=/dev/zero of=/tmp/disk bs=1M count=1 seek=8 conv=notrunc 2>/dev/null
expect "a disk that has grown is refused" refused_with "disk root: /tmp/disk has 9437184 bytes and had 8388608" vmrun restore $FILES/disk --detach
expect "another of its size does" vmrun restore $FILES/disk --set 'disks[0].path=/tmp/copy' --detach --console file:/tmp/h
expect "and it goes on" wait_for 60 ticks /tmp/h
expect "on that disk" sh -c "vmrun stats m3 | grep -q disk.root"
expect "end" vmrun kill m3
rm /tmp/disk
expect "a disk that is gone is named" refused_with "disk root: /tmp/disk" vmrun restore $FILES/disk --detach
expect "with all other reasons" refused_with "nets.0.: .*no bridge none" vmrun restore $FILES/disk --detach --set nets=tap=t0,bridge=none
expect "the disk's among them" printed "disk root: /tmp/disk"

rm -r $FILES
expect "nothing is left behind" wait_for 10 nothing_left
finish
