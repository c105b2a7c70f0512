# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash disable=SC1091,SC2016,SC2153
# The words that system tests are written in. Runs in the lab, under busybox sh; sourced by each job.
#
#   expect "a sentence" COMMAND...     the command must succeed; what it printed is shown when it does not
#   guest SCRIPT [OPTION]...           a machine that runs SCRIPT; its output in $OUT, its status in $STATUS
#   finish                             the last line of a job

KERNEL=/lab/vmlinuz INITRD=/lab/initrd
OUT=/tmp/out ERR=/tmp/err STATUS=0
passed=0 failed=0

expect() {
    sentence=$1
    shift
    if "$@" >/tmp/expect.log 2>&1; then
        passed=$((passed + 1))
        echo "ok: $sentence"
    else
        failed=$((failed + 1))
        echo "FAILED: $sentence ($*)"
        sed 's/^/    /' /tmp/expect.log
        for file in "$OUT" "$ERR"; do
            [ -s "$file" ] && { echo "    --- $file"; tail -n 20 "$file" | cat -v | cut -c 1-200 | sed 's/^/    /'; }
        done
    fi
}

# The kernel command line for a guest that runs a script.
script_line() {
    echo "console=ttyS0 quiet panic=-1 vmrun.script=$(printf '%s' "$1" | base64 -w 0)"
}

guest() {
    script=$1
    shift
    STATUS=0
    vmrun run --kernel "$KERNEL" --initrd "$INITRD" --debug-exit --cmdline "$(script_line "$script")" "$@" \
        </dev/null >"$OUT" 2>"$ERR" || STATUS=$?
}

# The same in the background, as machine $1; wait_for tells when it is up.
guest_in_background() {
    name=$1 script=$2
    shift 2
    vmrun run --name "$name" --detach --kernel "$KERNEL" --initrd "$INITRD" --debug-exit \
        --cmdline "$(script_line "$script")" "$@" >"$OUT" 2>"$ERR"
}

status_is() { [ "$STATUS" = "$1" ] || { echo "status is $STATUS, not $1"; return 1; }; }
printed() { grep -q -e "$1" "$OUT" || { echo "not printed: $1"; return 1; }; }
not_printed() { ! grep -e "$1" "$OUT"; }

# wait_for SECONDS COMMAND...: until it succeeds.
wait_for() {
    seconds=$1
    shift
    for _ in $(seq $((seconds * 5))); do
        "$@" >/dev/null 2>&1 && return 0
        sleep 0.2
    done
    echo "not within $seconds s: $*"
    return 1
}

# No vmrun process, socket or file is left.
nothing_left() {
    ! pidof vmrun || return 1
    left=$(ls -A /run/vmrun 2>/dev/null)
    [ -z "$left" ] || { echo "left in /run/vmrun: $left"; return 1; }
}

finish() {
    echo "$passed passed, $failed failed"
    [ $failed = 0 ]
    exit
}
