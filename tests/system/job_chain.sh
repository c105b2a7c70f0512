# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash disable=SC1091,SC2016,SC2034,SC2086,SC2153,SC2154
# Snapshots that build on each other, of a guest that checks itself (images/torture.c): what changed is found in each of the ways,
# and the chain holds exactly what a whole snapshot of the same moment holds.
# seconds: 100
# modules: virtio_rng
# builds: images/torture.c
. ./lib.sh
INITRD=$PWD/initrd
mkdir -p /tmp/t
mount -t tmpfs -o size=1200m t /tmp/t
D=/tmp/t/chain
mkdir $D

lines() { grep -c '^torture: .* second' "$1"; }
says_more() { [ "$(lines /tmp/t/$1)" -gt "$had" ]; }
# goes_on NAME: its last line is younger than this moment, and nothing is wrong.
goes_on() {
    had=$(lines /tmp/t/$1)
    wait_for 120 says_more $1 || { echo "no sign of life"; return 1; }
    ! grep -q WRONG /tmp/t/$1 || { grep WRONG /tmp/t/$1 | head -n 5; return 1; }
}
# from FILE NAME [OPTION...]: a machine goes on from it.
from() {
    file=$1 name=$2
    shift 2
    : >/tmp/t/$name
    vmrun restore $D/$file --detach --name $name --console file:/tmp/t/$name "$@" || return 1
    goes_on $name
}
ends() { vmrun kill $1; }
# saved NAME FILE HOW [OPTION...]: how it was known what changed.
saved() {
    name=$1 file=$2 how=$3
    shift 3
    vmrun save $name $D/$file "$@" --json >/tmp/t/saved 2>/tmp/t/why || { cat /tmp/t/why; return 1; }
    grep -E '"(found|held_bytes|pause_ns|rounds)"' /tmp/t/saved | tr -d '\n '
    echo
    grep -q "\"found\": *\"$how\"" /tmp/t/saved
}
held() { sed -n 's/.*"held_bytes": *\([0-9]*\).*/\1/p' /tmp/t/saved; }

for cpus in 1 2; do
    rm -f $D/*
    expect "$cpus: it starts" vmrun run --detach --name m --kernel "$KERNEL" --initrd "$INITRD" --cpus $cpus --memory 128M \
        --console file:/tmp/t/m --cmdline "$(script_line 'torture memory=24 writers=2 rate=10')"
    had=3
    expect "$cpus: and works" wait_for 120 says_more m
    expect "$cpus: base" saved m base all --track
    expect "$cpus: goes on" goes_on m
    expect "$cpus: one, by the log" saved m one log --base $D/base --track
    expect "$cpus: it is smaller" [ "$(held)" -lt $((64 << 20)) ]
    expect "$cpus: goes on" goes_on m
    # Paused, two snapshots are of the same moment.
    expect "$cpus: paused" vmrun pause m
    expect "$cpus: two, by the log" saved m two log --base $D/one --track
    expect "$cpus: the same as a whole one" saved m whole all
    expect "$cpus: indeed" same_ram $D/two $D/whole
    expect "$cpus: three, by comparing" saved m three comparison --base $D/one
    expect "$cpus: the same as a whole one" same_ram $D/three $D/whole
    expect "$cpus: all of it is whole" sh -c "cd $D && for f in base one two three; do vmrun snapshot verify \$f || exit 1; done"
    expect "$cpus: it ends" ends m

    expect "$cpus: the first goes on" from base a
    expect "$cpus: the second goes on, copied" from one b --mode eager
    expect "$cpus: the third goes on" from two c
    for name in a b; do expect "$cpus: $name ends" ends $name; done

    # What was restored lazily is known by its mappings.
    expect "$cpus: four, by what was copied" saved c four mappings --base $D/two
    expect "$cpus: it is smaller" [ "$(held)" -lt $((64 << 20)) ]
    expect "$cpus: goes on" goes_on c
    expect "$cpus: paused" vmrun pause c
    expect "$cpus: five, by what was copied" saved c five mappings --base $D/two
    expect "$cpus: six, by comparing with the one before" saved c six comparison --base $D/four
    expect "$cpus: a whole one" saved c whole all --force
    expect "$cpus: five is the same" same_ram $D/five $D/whole
    expect "$cpus: six is the same" same_ram $D/six $D/whole
    expect "$cpus: c ends" ends c
    expect "$cpus: six goes on" from six d
    expect "$cpus: still without an error" goes_on d
    expect "$cpus: d ends" ends d

    expect "$cpus: flattened" vmrun snapshot flatten $D/six $D/flat
    expect "$cpus: the same machine" sh -c "vmrun snapshot diff $D/six $D/flat | grep -q 'The machines are the same'"
done

expect "a whole one needs no other" sh -c "mkdir $D/x && mv $D/flat $D/x/"
expect "and goes on" from x/flat e
expect "an archive of what changed" saved e x/packed mappings --base $D/x/flat --compress
expect "is not restored" refused_with "'vmrun snapshot unpack' makes a snapshot of it" vmrun restore $D/x/packed --detach
expect "but unpacked" vmrun snapshot unpack $D/x/packed $D/x/unpacked
expect "e ends" ends e
expect "a chain is moved" mv $D/x $D/y
expect "and goes on" from y/unpacked f
expect "f is saved onto its base: no" refused_with "is what the new file would build on" vmrun save f $D/y/flat --force --base $D/y/unpacked
expect "f ends" ends f
mv $D/y/flat $D/y/away
expect "a missing file is named" refused_with "unpacked builds on: .*/flat: No such file" vmrun restore $D/y/unpacked --detach
cp $D/whole $D/y/flat
expect "and so is another in its place" refused_with "/flat: is another snapshot by now" vmrun restore $D/y/unpacked --detach
expect "stop and track are refused together" refused_with "a machine that ends changes no more" vmrun save x $D/z --stop --track
rm -r $D
expect "nothing is left behind" wait_for 10 nothing_left
finish
