# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash disable=SC1091,SC2016,SC2153
# A guest that is paused notices nothing worse than the time.
. ./lib.sh

for cpus in 1 2; do
    guest_in_background p"$cpus" 'stty -F /dev/ttyS0 -echo; { read -r enough; touch /enough; } </dev/ttyS0 & i=0; until [ -e /enough ]; do i=$((i + 1)); echo "tick $i"; sleep 0.05; done; dmesg | grep -i -E "lockup|stall|hung|clocksource.*unstable" && exit 9; echo unharmed' \
        --cpus "$cpus" --console "file:/tmp/p$cpus"
    expect "it ticks" wait_for 60 grep -q 'tick 20' /tmp/p"$cpus"
    expect "pause" vmrun pause p"$cpus"
    expect "it is paused" sh -c "vmrun list | grep p$cpus | grep -q paused"
    sleep 1 # what it said before is in the file
    before=$(wc -c </tmp/p"$cpus")
    sleep 5
    expect "a paused guest says nothing" [ "$before" = "$(wc -c </tmp/p"$cpus")" ]
    expect "pausing twice is fine" vmrun pause p"$cpus"
    expect "resume" vmrun resume p"$cpus"
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        vmrun pause p"$cpus" || break
        vmrun resume p"$cpus" || break
    done
    expect "ten more in a row" sh -c "vmrun list | grep p$cpus | grep -q running"
    echo | vmrun console p"$cpus" >/dev/null &
    expect "no soft lockup, no stall, to the end" wait_for 120 grep -q unharmed /tmp/p"$cpus"
    expect "every tick came once" [ "$(grep -c '^tick' /tmp/p"$cpus")" = "$(tr -d '\r' </tmp/p"$cpus" | sed -n 's/^tick //p' | tail -n 1)" ]
done

expect "nothing is left behind" wait_for 10 nothing_left
finish
