#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# SIGKILL of vmrun at 50 moments of chance during a save: there is the file that was there before, or a whole new one, and nothing
# else; and the machine's disk is as it was. Usage: snapshot_kill.sh VMRUN PAYLOADS FAILING_DISK.so [KILLS]
set -euo pipefail
# shellcheck source=tests/guest/snapshot_lib.sh
. "$(dirname "$0")/snapshot_lib.sh"
snapshot_begin "$1" "$2"
kills=${4:-50}
files=$folder/files disk=$folder/disk

mkdir "$files"
dd if=/dev/urandom of="$disk" bs=1M count=1 2>/dev/null
sync "$disk"
sum=$(sha256sum <"$disk")
machine t 1 12 --disk "$disk"
nonce=$(word 1)
"$vmrun" save t "$folder/base" --stop >/dev/null

# In turn: a name that is free; one that is not; and the end of the machine.
options=('' --force --stop)
went_on() { # from FILE
    "$vmrun" restore --detach --console "file:$folder/t" "$1" >"$folder/out" 2>&1 || fail "kill $n: $1 is restored" "$folder/out"
    ((n % 10)) || goes_on t "$nonce"
}
# How long a save takes changes with what else the host does: the moments move so that half of them come before its end.
old=0 new=0 longest=0
for ((n = 0; n < kills; n++)); do
    option=${options[n % 3]} file=$files/new
    rm -f "$files"/*
    if [[ $option == --force ]]; then
        file=$files/older
        cp --sparse=always "$folder/base" "$file"
    fi
    went_on "$folder/base"
    pid=$(pid_of t)
    if ((n < 3)); then # one of each kind is left alone, to see how long it takes
        start=$(now_us)
        "$vmrun" save t "$file" ${option:+"$option"} >"$folder/out" 2>&1 || fail "it is saved" "$folder/out"
        ((longest >= $(now_us) - start)) || longest=$(($(now_us) - start))
        [[ $option != --stop ]] || went_on "$folder/base"
        [[ $option == --stop ]] || "$vmrun" kill t >/dev/null
        [[ $option != --stop ]] || "$vmrun" kill t >/dev/null
        continue
    fi
    "$vmrun" save t "$file" ${option:+"$option"} >"$folder/out" 2>&1 &
    save=$! moment=$((RANDOM * longest / 32768))
    sleep "$(printf '%d.%06d' $((moment / 1000000)) $((moment % 1000000)))"
    kill -KILL "$pid" 2>/dev/null || true
    said_so=0
    wait $save || said_so=$?
    for _ in {1..1000}; do # the kernel takes its time
        [[ -e /proc/$pid ]] || break
        sleep 0.01
    done

    names=$(cd "$files" && ls -A)
    if [[ -e $file ]] && ! cmp -s "$folder/base" "$file"; then
        "$vmrun" snapshot verify "$file" >"$folder/verify" 2>&1 || fail "kill $n: the file that is there is whole" "$folder/verify"
        new=$((new + 1))
        longest=$((longest * 9 / 10))
    else
        ((said_so == 1)) || fail "kill $n: that nothing was saved is told (status $said_so)" "$folder/out"
        grep -q '^vmrun: ' "$folder/out" || fail "kill $n: in words" "$folder/out"
        old=$((old + 1))
        longest=$((longest * 11 / 10))
    fi
    [[ ! $names || $names == "$(basename "$file")" ]] || fail "kill $n: nothing else is there, but: $names"
    [[ $option != --force || $names ]] || fail "kill $n: the older file is there"
    [[ $(sha256sum <"$disk") == "$sum" ]] || fail "kill $n: the disk is as it was"
done
# What was left behind of the killed ones is in nobody's way, and what they replaced is what it was.
went_on "$folder/base"
ok "of $kills saves, $old were killed with no new file, and $new when it was there; the last moments were within $((longest / 1000)) ms"
((old >= kills / 5)) || fail "too few were killed before their end"
