#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A whole machine of each format that was released, as it was saved then (tests/unit/data/machine-*.zst), goes on: two CPUs, a disk,
# a network card, entropy, hvc0, and a guest that checks itself. Where this host cannot have it, it must say why, and that is skipped.
# Usage: snapshot_golden.sh VMRUN PAYLOADS FAILING_DISK.so [--make FILE.zst]: that makes one of the present format.
set -euo pipefail
if [[ ! ${SNAPSHOT_GOLDEN-} ]]; then
    # A network of its own, where it may make the tap.
    if [[ $(id -u) == 0 ]]; then as=(-n); else as=(-rn); fi
    ! unshare "${as[@]}" true 2>/dev/null || SNAPSHOT_GOLDEN=1 exec unshare "${as[@]}" "$0" "$@"
    echo "skipped: no network of its own (unshare -n) for the machine's tap"
    exit 77
fi
# shellcheck source=tests/guest/snapshot_lib.sh
. "$(dirname "$0")/snapshot_lib.sh"
snapshot_begin "$1" "$2"
data=$(dirname "$0")/../unit/data
truncate -s 1M "$folder/disk"

if [[ ${4-} == --make ]]; then
    cp "$payloads/torture.elf" "$folder/kernel"
    (cd "$folder" && "$vmrun" run --detach --name golden --kernel kernel --cmdline "$ring 2 1 20000" --memory 16M --cpus 2 \
        --disk disk,id=root --net tap=golden0 --hvc0 file:hvc0 --console file:golden)
    goes_on golden ''
    "$vmrun" save golden "$folder/file" --stop
    said=$(torture_lines golden | tail -n 1)
    "$vmrun" snapshot pack "$folder/file" "$5" --force
    echo "$5: nonce $(word 1), line $(count 2)"
    exit
fi

# The file, the nonce and the line that it said before it was saved.
while read -r -u 3 name nonce line; do
    "$vmrun" snapshot unpack "$data/$name.zst" "$folder/$name" >"$folder/out" 2>&1 || fail "$name: unpacked" "$folder/out"
    "$vmrun" snapshot verify "$folder/$name" >"$folder/out" 2>&1 || fail "$name: verified" "$folder/out"
    for mode in lazy eager; do
        if ! "$vmrun" restore --detach --mode "$mode" --set disks[0].path="$folder/disk" --console "file:$folder/golden" \
            --hvc0 "file:$folder/hvc0" "$folder/$name" >"$folder/out" 2>&1; then
            # Any other reason is an error: a table that is read no more, memory that lies elsewhere …
            ! grep -vE "cannot be restored here:\$|lacks what the guest's CPU has: |TSC runs at .* kHz, this host's at|nets.0.: " \
                "$folder/out" || fail "$name: restored ($mode)" "$folder/out"
            echo "skipped: $name needs another host: $(tail -n 1 "$folder/out")"
            exit 77
        fi
        goes_on golden "$nonce"
        (($(count 2) > line)) || fail "$name: it said line $line before, and now $(count 2)"
        ok "$name goes on ($mode)"
        "$vmrun" save golden "$folder/next" --force >"$folder/out" 2>&1 || fail "$name: saved again" "$folder/out"
        "$vmrun" kill golden >/dev/null
    done
    "$vmrun" restore --detach --name again --set disks[0].path="$folder/disk" --console "file:$folder/again" "$folder/next" \
        >"$folder/out" 2>&1 || fail "$name: restored from the present format" "$folder/out"
    goes_on again "$nonce"
    ok "$name goes on from a file of the present format"
    "$vmrun" kill again >/dev/null
done 3<<'EOT'
machine-1.0 6d3285ea480c7b81 1
EOT
