# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash disable=SC1091,SC2016,SC2153,SC3045
# The words that system tests are written in. Runs in the lab, under busybox sh; sourced by each job.
#
#   expect "a sentence" COMMAND...     the command must succeed; what it printed is shown when it does not
#   guest SCRIPT [OPTION]...           a machine that runs SCRIPT; its output in $OUT, its status in $STATUS
#   debian NAME [OPTION]...            Debian as machine NAME in the background; its root is the job's first disk, "# disks: debian"
#   in_guest COMMAND                   run it there, as root; what it printed, and its status
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

# Debian takes its orders over hvc0, a line each, so that the host can do things in between; debian returns when it takes them, and
# debian_is_up waits for that after a reboot. The serial console's output is /tmp/NAME.serial, what vmrun says /tmp/NAME.err.
# A job that wants Debian's programs and no more sets BOOT=$WITHOUT_SYSTEMD, and loads virtio_console in its initrd.
ROOTFS=/dev/nvme0n4 LIMIT=1000 BOOT=''
# shellcheck disable=SC2034
WITHOUT_SYSTEMD=init=/usr/local/sbin/vmrun-script
agent='exec <>/dev/hvc0 >&0 2>&1
stty raw -echo
echo "=up"
while read -r n line; do
    eval "$line"
    echo "=end $n $?"
done'

debian() {
    MACHINE=$1
    shift
    rm -f "/tmp/$MACHINE.err" # of an earlier one
    vmrun run --name "$MACHINE" --kernel "$KERNEL" --initrd ./initrd --cpus 2 --memory 512M --disk "$ROOTFS,id=root" \
        --hvc0 pty --console "file:/tmp/$MACHINE.serial" --cmdline "root=/dev/vda rw systemd.default_timeout_start_sec=600 $BOOT $(script_line "$agent")" "$@" \
        </dev/null >"$OUT" 2>"/tmp/$MACHINE.err" &
    machine=$!
    wait_for 20 grep -q hvc0 "/tmp/$MACHINE.err"
    pty=$(vmrun status "$MACHINE" --json | sed -n 's/.*"virtio_console": *"pty \([^"]*\)".*/\1/p')
    [ "$pty" ] || { cat "/tmp/$MACHINE.err"; return 1; }
    stty -F "$pty" raw -echo
    exec 3<>"$pty"
    debian_is_up
}

# ended SECONDS: wait for the machine's end; its status in $STATUS.
ended() {
    wait_for "$1" sh -c "! kill -0 $machine" || kill -KILL "$machine"
    exec 3<&-
    STATUS=0
    wait "$machine" || STATUS=$?
}

debian_is_up() {
    while read -r -t "$LIMIT" answer <&3; do
        [ "${answer%=up}" = "$answer" ] || return 0 # what a reset cut off may stand before it
        echo "$answer"
    done
    echo "the guest does not come up"
    tail -n 20 "/tmp/$MACHINE.serial"
    return 1
}

# in_guest COMMAND: one line; 124 when there is no line from it for $LIMIT seconds. What it prints may end without a newline.
orders=0
in_guest() {
    orders=$((orders + 1))
    printf '%s %s\n' "$orders" "$*" >&3
    while read -r -t "$LIMIT" answer <&3; do
        case $answer in
        *"=end $orders "*)
            [ "${answer%=end *}" = "" ] || echo "${answer%=end *}"
            return "${answer##* }"
            ;;
        *) echo "$answer" ;;
        esac
    done
    echo "no answer within $LIMIT s"
    return 124
}

status_is() { [ "$STATUS" = "$1" ] || { echo "status is $STATUS, not $1"; return 1; }; }
printed() { grep -q -e "$1" "$OUT" || { echo "not printed: $1"; return 1; }; }
not_printed() { ! grep -e "$1" "$OUT"; }

# wait_for SECONDS COMMAND...: until it succeeds. The seconds are a quiet machine's; a busy one has four times as many.
wait_for() {
    seconds=$(($1 * 4))
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
