#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What `restore` itself says of a file that is damaged in its RAM: refused when it is read before, the end of the machine when it is
# read later. (tests/unit/test_golden_machine.c has every other byte.) Usage: snapshot_damage.sh VMRUN PAYLOADS
set -euo pipefail
# shellcheck source=tests/guest/snapshot_lib.sh
. "$(dirname "$0")/snapshot_lib.sh"
snapshot_begin "$1" "$2"
file=$folder/file
machine t 2 2
"$vmrun" save t "$file" --stop >/dev/null

# flip OFFSET: a bit of the byte there; once more, and it is as it was.
flip() {
    local byte
    byte=$(od -An -tu1 -j "$1" -N1 "$file")
    # shellcheck disable=SC2059 # an octal number
    printf "\\$(printf '%o' $((byte ^ 16)))" | dd of="$file" bs=1 seek="$1" conv=notrunc 2>/dev/null
}

# Addresses in the guest: its code, its pages, the last byte, and one that is a hole in the file.
for address in $((0x100010)) $((0x400000)) $((0x5ff123)) $((0x7ffff8)) $((20 * 1048576 - 1)) $((0xa00000)); do
    at=$(((2 << 20) + address))
    cause=$(printf 'RAM at 0x%x: checksum does not match' $((address / 0x200000 * 0x200000)))
    flip $at
    ! "$vmrun" snapshot verify "$file" >"$folder/out" 2>&1 || fail "$address: verify refuses it"
    grep -q "$cause" "$folder/out" || fail "$address: verify names it" "$folder/out"
    ! "$vmrun" restore "$file" --mode eager --detach --console "file:$folder/t" >"$folder/out" 2>&1 || fail "$address: restore refuses it"
    grep -q "$cause" "$folder/out" || fail "$address: restore names it" "$folder/out"
    status=0
    timeout 60 "$vmrun" restore "$file" --mode lazy --console "file:$folder/t" </dev/null >"$folder/out" 2>&1 || status=$?
    [[ $status == 3 ]] || fail "$address: it ends the machine that runs from it (status $status)" "$folder/out"
    grep -q "$cause" "$folder/out" || fail "$address: in words" "$folder/out"
    flip $at
    ok "$(printf '0x%x' "$address"): ${cause#RAM at }"
done
"$vmrun" restore "$file" --mode eager --detach --console "file:$folder/t" >"$folder/out" 2>&1 || fail "whole again it goes on" "$folder/out"
goes_on t ''
