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
    attach || { cat "/tmp/$MACHINE.err"; return 1; }
    debian_is_up
}

# attach [COMMAND]: to where $MACHINE takes its orders; COMMAND is as_user when the machine is the user's.
attach() {
    pty=$("$@" vmrun status "$MACHINE" --json | sed -n 's/.*"virtio_console": *"pty \([^"]*\)".*/\1/p')
    [ "$pty" ] || { echo "no line to $MACHINE"; return 1; }
    stty -F "$pty" raw -echo
    exec 3<>"$pty"
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
# refused_with PATTERN COMMAND...: it fails, and says so in these words.
refused_with() {
    words=$1
    shift
    "$@" >"$OUT" 2>&1 && { echo "not refused: $*"; return 1; }
    printed "$words"
}
# refused_in_line WORDS COMMAND...: in one line, with status 1.
refused_in_line() {
    words=$1
    shift
    STATUS=0
    "$@" </dev/null >"$OUT" 2>"$ERR" || STATUS=$?
    status_is 1 && [ "$(wc -l <"$ERR")" = 1 ] && grep -q -F -e "$words" "$ERR"
}

# What an ordinary user in group kvm does, in a runtime folder that the job makes.
as_user() { su user -c "export XDG_RUNTIME_DIR=/tmp/user-run PATH=/job:$PATH; $*"; }
now_ms() { awk '{ printf "%d\n", $1 * 1000 }' /proc/uptime; }
# stat_of NAME: that one of $MACHINE's vmrun stats; $AT is what runs a command where the machine is, or nothing.
AT=''
stat_of() { $AT vmrun stats "$MACHINE" --json | tr ',' '\n' | sed -n "s/.*\"$1\": *\([0-9]*\).*/\1/p"; }
# Of a guest that says "tick 1", "tick 2", ... into this file: it goes on.
ticks() { [ "$(grep -c '^tick' "$1")" -ge 8 ]; }
# same_ram FILE FILE: two snapshots have the same in RAM.
same_ram() {
    vmrun snapshot diff "$1" "$2" --json >/tmp/diff || return
    grep -q '"pages": *0' /tmp/diff && grep -q '"only_in_a_bytes": *0' /tmp/diff && return
    vmrun snapshot diff "$1" "$2" | tail -n 8
    return 1
}

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

# $MACHINE's first card: eth0 with 10.0.0.2, of a host with 10.0.0.1 and ./socat.
card_stat() { stat_of "net.net0.$1"; }
ping_guest() { ping -c 2 -i 0.2 -W 30 "$@" 10.0.0.2; }
ping_host() { in_guest "ping -c 2 -i 0.2 -W 30 $* 10.0.0.1"; }
both_ping() { ping_host "$@" && ping_guest "$@"; } # the guest first: the host may not know its address yet
# The cable, by the control socket ($1: true or false), and what the guest sees of it (1 or 0).
link() {
    echo '{"jsonrpc":"2.0","id":1,"method":"vm.nets.link","params":{"id":"net0","up":'"$1"'}}' |
        ./socat -t 5 - "UNIX-CONNECT:/run/vmrun/$MACHINE.sock" | tee /dev/stderr | grep -q '"result"'
}
carrier_is() { wait_for 60 in_guest "[ \$(cat /sys/class/net/eth0/carrier) = $1 ]"; }
# What somebody sends to port 5000, until $! ends; the checksum in /tmp/sum.
listens='netstat -tln | grep -q :5000'
sink() {
    ./socat -u -b 65536 TCP-LISTEN:5000 - | md5sum >/tmp/sum &
    wait_for 60 sh -c "$listens"
}

finish() {
    echo "$passed passed, $failed failed"
    [ $failed = 0 ]
    exit
}
