#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A guest that checks itself (payloads/torture.c) comes through a dozen saves and restores with 1 and with 2 CPUs, at moments of
# chance: of a machine that runs on and of one that ends, lazily and eagerly. Usage: snapshot_torture.sh VMRUN PAYLOADS FAILING_DISK.so [CYCLES]
set -euo pipefail
# shellcheck source=tests/guest/snapshot_lib.sh
. "$(dirname "$0")/snapshot_lib.sh"
snapshot_begin "$1" "$2"
cycles=${4:-6} # of two saves each
file=$folder/file

# restored LINE MODE CLOCK: what is in $file goes on, later than at that line.
restored() {
    local had=$1 mode=$2 clock=$3
    "$vmrun" restore --detach --mode "$mode" --clock "$clock" --console "file:$folder/t$cpus" "$file" >"$folder/out" 2>&1 ||
        fail "$cpus CPUs: restored ($mode)" "$folder/out"
    goes_on "t$cpus" "$nonce"
    (($(count 2) > had)) || fail "$cpus CPUs: it is at line $(count 2), and was at $had when it was saved"
}
by_chance() { sleep "0.$((RANDOM % 200 + 100))"; }

for cpus in 1 2; do
    machine "t$cpus" "$cpus" 2
    nonce=$(word 1)
    for ((n = 0; n < cycles; n++)); do
        modes=(lazy eager) clocks=(advance freeze)
        by_chance
        goes_on "t$cpus" "$nonce"
        had=$(count 2)
        "$vmrun" save "t$cpus" "$file" --force --json >"$folder/out" 2>&1 || fail "$cpus CPUs: saved while it runs" "$folder/out"
        goes_on "t$cpus" "$nonce"
        "$vmrun" kill "t$cpus" >/dev/null
        restored "$had" "${modes[n % 2]}" "${clocks[n / 2 % 2]}"

        by_chance
        had=$(count 2)
        "$vmrun" save "t$cpus" "$file" --force --stop >"$folder/out" 2>&1 || fail "$cpus CPUs: saved, and ends" "$folder/out"
        ! "$vmrun" status "t$cpus" >/dev/null 2>&1 || fail "$cpus CPUs: it has ended"
        restored "$had" "${modes[(n + 1) % 2]}" "${clocks[n / 2 % 2]}"
    done
    "$vmrun" kill "t$cpus" >/dev/null
    ok "$cpus CPUs: $((2 * cycles)) times out of a file; $(count 3) pages checked and written; largest gap $(count 6) ticks"

    # And would it notice?
    restored 0 lazy freeze
    ram=$(sed -n "s/-.* rw-p .*$(basename "$folder")\/file\$//p" "/proc/$(pid_of "t$cpus")/maps" | head -n 1)
    dd if=/dev/zero of="/proc/$(pid_of "t$cpus")/mem" bs=4096 count=64 seek=$((0x$ram + 0x400000)) oflag=seek_bytes conv=notrunc 2>/dev/null
    for _ in {1..1200}; do
        ! grep -aqE '^torture( [0-9a-f]{16}){3} 0*[1-9a-f]' "$folder/t$cpus" || break
        sleep 0.05
    done
    grep -aqE '^torture( [0-9a-f]{16}){3} 0*[1-9a-f]' "$folder/t$cpus" || fail "$cpus CPUs: it notices when pages change" "$folder/t$cpus"
    "$vmrun" kill "t$cpus" >/dev/null
done
