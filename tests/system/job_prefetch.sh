# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash disable=SC1091,SC2012,SC2016,SC2034,SC2153
# modules: virtio_blk
# What a restored guest touches first is noted in its file, and read first from then on.
. ./lib.sh

INITRD=./initrd
FILES=/tmp/files
mkdir $FILES

counts='i=0; while true; do i=$((i + 1)); echo "tick $i"; sleep 0.05; done'
noted() { vmrun snapshot info $FILES/snap | grep '^prefetch .* MiB in .* runs'; }
identity() { vmrun snapshot info $FILES/snap | sed -n 's/^id *//p'; }
inode() { stat -c %i $FILES/snap; }

guest_in_background m "$counts" --memory 128M --console file:/tmp/m
expect "it counts" wait_for 60 grep -q 'tick 20' /tmp/m
expect "it is saved and ends" sh -c "vmrun save m $FILES/snap --stop >/dev/null 2>&1"
was=$(identity) first=$(inode)

expect "a file without notes is not prefetched" refused_with "no working set was recorded in it; 'vmrun restore --record' does that" \
    vmrun restore $FILES/snap --mode prefetch --detach
expect "it is watched" vmrun restore $FILES/snap --record=2 --detach --console file:/tmp/r
expect "while a clone runs beside it" vmrun restore $FILES/snap --name old --detach --console file:/tmp/o
expect "it runs meanwhile" wait_for 60 ticks /tmp/r
expect "its notes are in the file" wait_for 60 noted
noted
expect "which is another one" [ "$(inode)" != "$first" ]
expect "of the same identity" [ "$(identity)" = "$was" ]
expect "with the same mode" [ "$(stat -c %a $FILES/snap)" = 600 ]
expect "and whole" vmrun snapshot verify $FILES/snap
before=$(grep -c '^tick' /tmp/o)
more() { [ "$(grep -c '^tick' /tmp/o)" -gt $((before + 8)) ]; }
expect "the clone runs on from the old one" wait_for 60 more
for name in m old; do
    expect "$name ends" vmrun kill $name
done

second=$(inode)
for mode in prefetch lazy eager; do
    expect "it goes on with $mode" vmrun restore $FILES/snap --mode $mode --detach --console file:/tmp/$mode
    expect "and counts" wait_for 60 ticks /tmp/$mode
    expect "it ends" vmrun kill m
done
STATUS=0
{ wait_for 60 ticks /tmp/i; kill -INT "$(pidof vmrun)"; } >/dev/null 2>&1 &
vmrun restore $FILES/snap --record=1000 --console file:/tmp/i </dev/null >"$OUT" 2>"$ERR" || STATUS=$?
expect "Ctrl-C ends a machine that is watched" status_is 130
expect "in words" grep -q "no working set was recorded: the machine was ended before" "$ERR"
expect "the file is as it was" [ "$(inode)" = "$second" ]
expect "and alone" [ "$(ls -A $FILES)" = snap ]

rm -r $FILES
expect "nothing is left behind" wait_for 10 nothing_left
finish
