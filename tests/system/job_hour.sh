# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash disable=SC1091,SC2015,SC2016,SC2086,SC2153,SC2154
# A guest that was kept in a file for an hour: its clocks tell what was asked for, and its kernel has nothing to complain of.
# seconds: 90
. ./lib.sh

# A line a second: wall clock, time since boot, and how many complaints there were.
tells='while true; do
    echo "at $(date +%s) $(cut -d . -f 1 /proc/uptime) $(dmesg | grep -c -i -E "lockup|stall|hung|blocked for|clocksource.*unstable|backwards")"
    sleep 1
done'
pattern='^at [0-9]* [0-9]* [0-9]*[[:space:]]*$'
lines() { grep -c "$pattern" "$1"; }
has_told() { [ "$(lines "$1")" -ge "$2" ]; }

# hears FILE: a line that was begun after this moment, however slow all is: its $wall, $up and $complaints. The wall clock of the
# host was $before then and is $after now, each two seconds wider.
hears() {
    before=$(($(date +%s) - 2))
    wait_for 120 has_told "$1" $(($(lines "$1") + 2)) || return
    line=$(grep "$pattern" "$1" | tail -n 1 | tr -d '\r')
    after=$(($(date +%s) + 2))
    set -- $line
    wall=$2 up=$3 complaints=$4
}
between() { [ "$1" -ge "$2" ] && [ "$1" -le "$3" ] || { echo "$1 is not from $2 to $3"; return 1; }; }
no_complaints() { [ "$complaints" = 0 ] || { vmrun list; echo "$line"; return 1; }; }

for cpus in 1 2; do
    guest_in_background "h$cpus" "$tells" --cpus $cpus --memory 128M --console "file:/tmp/h$cpus"
    expect "$cpus: it tells the time" hears "/tmp/h$cpus"
    expect "$cpus: the right one" between "$wall" "$before" "$after"
    expect "$cpus: it is kept in a file" vmrun save "h$cpus" "/tmp/snapshot$cpus" --stop --force
    line=$(grep "$pattern" "/tmp/h$cpus" | tail -n 1 | tr -d '\r')
    eval "line$cpus='$line'"
done
date -s "@$(($(date +%s) + 3600))" >/dev/null

# In one of two they go on an hour later, in the other with their own time.
began=$(cut -d . -f 1 /proc/uptime)
for cpus in 1 2; do
    expect "$cpus: an hour later it goes on" vmrun restore "/tmp/snapshot$cpus" --detach --name "late$cpus" --clock advance --console "file:/tmp/late$cpus"
    expect "$cpus: another one with its own time" vmrun restore "/tmp/snapshot$cpus" --detach --name "frozen$cpus" --clock freeze --console "file:/tmp/frozen$cpus"
done
right() { # CPUS
    eval "set -- $1 \$line$1"
    expect "$1: the hour has passed" hears "/tmp/late$1"
    expect "$1: the time is the right one" between "$wall" "$before" "$after"
    # Both of one line, which a slow machine may take its time for.
    expect "$1: and the hour counts as time since boot" between $((up - wall)) $(($4 - $3 - 3)) $(($4 - $3 + 3))
    expect "$1: no watchdog has seen it" no_complaints
    expect "$1: for the other no hour has passed" hears "/tmp/frozen$1"
    since=$(($(cut -d . -f 1 /proc/uptime) - began + 1))
    expect "$1: its time is that of the file" between "$wall" $(($3 - 1)) $(($3 + since))
    expect "$1: and that since boot as well" between "$up" $(($4 - 1)) $(($4 + since))
    expect "$1: no watchdog complains either" no_complaints
}
right 1
right 2
sleep 30 # longer than any watchdog of the guest's takes: soft lockups 20 s, RCU stalls 21 s
right 1
right 2
for name in late1 late2 frozen1 frozen2; do
    expect "$name ends" vmrun kill $name
done
expect "nothing is left behind" wait_for 10 nothing_left
finish
