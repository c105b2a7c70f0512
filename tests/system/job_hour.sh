# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash disable=SC1091,SC2016,SC2153
# A guest that was kept in a file for an hour: its clocks tell what was asked for, and its kernel has nothing to complain of.
. ./lib.sh

# A line a fifth of a second: wall clock, time since boot, and how many complaints there were.
tells='while true; do
    echo "at $(date +%s) $(cut -d . -f 1 /proc/uptime) $(dmesg | grep -c -i -E "lockup|stall|hung|blocked for|clocksource.*unstable|backwards")"
    sleep 0.2
done'
lines() { grep -c '^at [0-9]* [0-9]* [0-9]*[[:space:]]*$' "$1"; }
told() { grep '^at [0-9]* [0-9]* [0-9]*[[:space:]]*$' "$1" | tail -n 1 | tr -d '\r' | cut -d ' ' -f "$2"; }
has_told() { [ "$(lines "$1")" -ge "$2" ]; }
near() {
    if [ "$1" -lt $(($2 - $3)) ] || [ "$1" -gt $(($2 + $3)) ]; then
        echo "$1 is not within $3 of $2"
        return 1
    fi
}
no_complaints() { [ "$(told "$1" 4)" = 0 ] || { vmrun list; tail -n 3 "$1"; return 1; }; }

for cpus in 1 2; do
    guest_in_background "h$cpus" "$tells" --cpus $cpus --memory 128M --console file:/tmp/h
    expect "$cpus: it tells the time" wait_for 60 has_told /tmp/h 10
    expect "$cpus: the right one" near "$(told /tmp/h 2)" "$(date +%s)" 3
    expect "$cpus: it is kept in a file" vmrun save "h$cpus" /tmp/snapshot --stop --force
    wall=$(told /tmp/h 2) up=$(told /tmp/h 3)
    date -s "@$(($(date +%s) + 3600))" >/dev/null

    # Each for longer than any watchdog of the guest's takes: soft lockups 20 s, RCU stalls 21 s.
    expect "$cpus: an hour later it goes on" vmrun restore /tmp/snapshot --detach --name late --clock advance --console file:/tmp/late
    expect "$cpus: and tells the time" wait_for 60 has_told /tmp/late 10
    expect "$cpus: the right one" near "$(told /tmp/late 2)" "$(date +%s)" 3
    expect "$cpus: for it the hour has passed" near "$(told /tmp/late 3)" $((up + $(told /tmp/late 2) - wall)) 3
    sleep 30
    expect "$cpus: it still tells it" near "$(told /tmp/late 2)" "$(date +%s)" 3
    expect "$cpus: no watchdog has seen the hour" no_complaints /tmp/late
    expect "$cpus: it ends" vmrun kill late

    began=$(date +%s)
    expect "$cpus: another one goes on with its own time" vmrun restore /tmp/snapshot --detach --name frozen --clock freeze --console file:/tmp/frozen
    expect "$cpus: and tells it" wait_for 60 has_told /tmp/frozen 10
    since=$(($(date +%s) - began))
    expect "$cpus: which is that of the file" near "$(told /tmp/frozen 2)" $((wall + since)) 15
    expect "$cpus: for it no hour has passed" near "$(told /tmp/frozen 3)" $((up + since)) 15
    sleep 30
    expect "$cpus: no watchdog complains either" no_complaints /tmp/frozen
    expect "$cpus: it ends" vmrun kill frozen
done
expect "nothing is left behind" wait_for 10 nothing_left
finish
