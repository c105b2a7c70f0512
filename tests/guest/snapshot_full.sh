#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A save to a disk that is full (a small tmpfs) or fails (failing_disk.c): it is told in words, there is no new file, the older one
# is whole, no room is lost, and the machine goes on. Usage: snapshot_full.sh VMRUN PAYLOADS FAILING_DISK.so
set -euo pipefail
if [[ ! ${SNAPSHOT_FULL-} ]]; then
    # Mounts of its own, for which it needs to be root, or to be taken for it.
    if [[ $(id -u) == 0 ]]; then as=(-m); else as=(-rm); fi
    if unshare "${as[@]}" true 2>/dev/null; then SNAPSHOT_FULL=mounts exec unshare "${as[@]}" "$0" "$@"; fi
    SNAPSHOT_FULL=none
fi
# shellcheck source=tests/guest/snapshot_lib.sh
. "$(dirname "$0")/snapshot_lib.sh"
snapshot_begin "$1" "$2"
failing=$3 files=$folder/files
mkdir "$files"
machine t 1 8
nonce=$(word 1)

# refused SENTENCE WORDS OPTION...: a save that fails
refused() {
    local sentence=$1 cause=$2 status=0
    shift 2
    "$vmrun" save t "$@" >"$folder/out" 2>&1 || status=$?
    [[ $status == 1 ]] || fail "$sentence: it fails (status $status)" "$folder/out"
    [[ $(cat "$folder/out") == "vmrun: "*"$cause"* ]] || fail "$sentence: in words" "$folder/out"
    goes_on t "$nonce"
}

if [[ $SNAPSHOT_FULL == mounts ]] && mount -t tmpfs -o size=12m tmpfs "$files"; then
    dd if=/dev/zero of="$files/ballast" bs=1M count=8 2>/dev/null
    refused "full" "$files/new: No space left on device" "$files/new"
    [[ $(ls -A "$files") == ballast ]] || fail "full: nothing is there: $(ls -A "$files")"
    refused "full, and to end" "No space left on device" "$files/new" --stop
    rm "$files/ballast"
    "$vmrun" save t "$files/older" >/dev/null || fail "when there is room it is saved"
    sum=$(sha256sum <"$files/older")
    refused "full beside an older one" "No space left on device" "$files/older" --force
    [[ $(ls -A "$files") == older && $(sha256sum <"$files/older") == "$sum" ]] || fail "full: the older file is whole"
    dd if=/dev/zero of="$files/ballast" bs=1M count=2 2>/dev/null || fail "full: no room is lost"
    ok "a full disk"
    umount "$files"
else
    echo "skipped in part: no mounts for a disk that is full"
fi

"$vmrun" save t "$folder/base" --stop >/dev/null
# What fails, and whether there is a file nevertheless.
while read -r -u 3 call turn there; do
    rm -f "$files"/*
    LD_PRELOAD=$failing ASAN_OPTIONS=verify_asan_link_order=0 FAILING_DISK="$call $turn 5" "$vmrun" restore --detach \
        --console "file:$folder/t" "$folder/base" >"$folder/out" 2>&1 || fail "$call $turn: restored" "$folder/out"
    refused "$call $turn" "$files/new" "$files/new"
    grep -q "Input/output error" "$folder/out" || fail "$call $turn: the error is told" "$folder/out"
    [[ $(ls -A "$files") == "$there" ]] || fail "$call $turn: there is '$(ls -A "$files")'"
    "$vmrun" save t "$files/new" --force >/dev/null || fail "$call $turn: then it can be saved"
    "$vmrun" snapshot verify "$files/new" >"$folder/out" || fail "$call $turn: and is whole" "$folder/out"
    "$vmrun" kill t >/dev/null
    ok "an error of $call, the $turn. time"
done 3<<'EOT'
pwrite 1
pwrite 2
pwrite 9
ftruncate 1
fdatasync 1
fsync 1
linkat 1
fsync 2 new
EOT
