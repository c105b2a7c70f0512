#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Many machines at once from one file: all go on with the same past, no two with the same generation, none writes to what the
# others read. Usage: snapshot_clones.sh VMRUN PAYLOADS FAILING_DISK.so [CLONES]
set -euo pipefail
# shellcheck source=tests/guest/snapshot_lib.sh
. "$(dirname "$0")/snapshot_lib.sh"
snapshot_begin "$1" "$2"
clones=${4:-20} file=$folder/file

machine t 1 2
nonce=$(word 1)
"$vmrun" save t "$file" --stop >/dev/null
sum=$(sha256sum <"$file")

# All are started before one of them is waited for.
starts=()
for ((n = 0; n < clones; n++)); do
    "$vmrun" restore --detach --name "clone$n" --console "file:$folder/clone$n" "$file" >"$folder/out.$n" 2>&1 &
    starts+=($!)
done
for ((n = 0; n < clones; n++)); do
    wait "${starts[n]}" || fail "clone $n starts" "$folder/out.$n"
done
ok "$clones machines at once from one file"

generations=''
for ((n = 0; n < clones; n++)); do
    goes_on "clone$n" "$nonce"
    generations+=$(word 7)$'\n'
done
[[ $("$vmrun" list | grep -c '^clone') == "$clones" ]] || fail "all run"
[[ $(sort -u <<<"$generations" | grep -c .) == "$clones" ]] || fail "each has a generation of its own: $generations"
ok "all go on, each with a generation of its own"

# What is shared to be written is KVM's own, a page or two for each CPU, and the mapping of the file is private.
for ((n = 0; n < clones; n++)); do
    maps=$(cat "/proc/$(pid_of "clone$n")/maps")
    shared=$(awk '$2 ~ /^.w.s$/ && !/anon_inode:/' <<<"$maps")
    [[ ! $shared ]] || fail "clone $n shares what can be written: $shared"
    grep -qE " rw-p .*$(basename "$folder")/file\$" <<<"$maps" || fail "clone $n runs from the file"
done
[[ $(sha256sum <"$file") == "$sum" ]] || fail "the file is as it was"
"$vmrun" snapshot verify "$file" >/dev/null || fail "and verifies"
ok "none writes to the file, or to what another one could see"

# They go apart, and each can be saved again.
goes_on clone0 "$nonce"
"$vmrun" save clone0 "$folder/again" --stop >/dev/null || fail "a clone is saved"
"$vmrun" restore --detach --name of-clone --console "file:$folder/of-clone" "$folder/again" >"$folder/out" || fail "and cloned" "$folder/out"
goes_on of-clone "$nonce"
! grep -q "$(word 7)" <<<"$generations" || fail "a clone of a clone has another generation"
ok "a clone of a clone has another generation"
