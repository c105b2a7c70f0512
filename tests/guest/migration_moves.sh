#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Whole machines that move between two processes of this host, each with a folder of its own as if it were another host:
# what a person does, and does wrong. Usage: migration_moves.sh VMRUN PAYLOADS
set -u
# shellcheck source=tests/guest/snapshot_lib.sh
. "$(dirname "$0")/snapshot_lib.sh"
snapshot_begin "$1" "$2"
there=$folder/there
port=

there() { VMRUN_DIR=$there "$vmrun" "$@"; }

# await_machine LABEL [OPTION]...: a receive there, its words in $folder/LABEL.said, its pid in $receiver, its port in $port
await_machine() {
    local label=$1
    shift
    : >"$folder/$label.said"
    port=
    VMRUN_DIR=$there "$vmrun" receive tcp://127.0.0.1:0 "$@" </dev/null >"$folder/$label.out" 2>"$folder/$label.said" &
    receiver=$!
    for _ in {1..1200}; do
        port=$(sed -n 's/.*waiting for a machine at tcp:.*:\([0-9]*\)$/\1/p' "$folder/$label.said")
        [[ ! $port ]] || return 0
        sleep 0.05
    done
    fail "receive does not listen" "$folder/$label.said"
}

# move NAME [OPTION]...: to there, words in $folder/words
move() { timeout 60 "$vmrun" migrate "$1" "tcp://127.0.0.1:$port" "${@:2}" >"$folder/words" 2>&1; }

# said FILE WORDS
said() { grep -q -- "$2" "$1" || fail "\"$2\" is not said" "$1"; }

# ended STATUS: the receive there
ended() {
    wait "$receiver"
    local status=$?
    [[ $status == "$1" ]] || fail "receive ended with $status, not $1" "$folder"/*.said
}

# refused LABEL WORDS: both sides say so, and the machine goes on
refused() {
    said "$folder/words" "$2"
    said "$folder/words" "t stays here: "
    ended 1
    said "$folder/$1.said" "$2"
    goes_on t "$nonce"
}

truncate -s 1M "$folder/disk" "$folder/other"
machine t 1 2 --disk "$folder/disk"
nonce=$(word 1)

await_machine other --set "disks[0].path=$folder/other"
move t && fail "it moved to another disk"
refused other "not the image that the machine has"
await_machine missing --set "disks[0].path=$folder/nowhere"
move t && fail "it moved without its disk"
refused missing "nowhere: cannot open"
folder=$there VMRUN_DIR=$there machine t 1 2 # its words in a file of its own
await_machine taken
move t && fail "two machines of one name"
refused taken "a machine named 't' is running"
there kill t
ok "a disk that is another or missing, and a name that is taken, are refused on both sides"

move t && fail "it moved to nobody"
said "$folder/words" "Connection refused"
for wrong in 127.0.0.1:1 tcp://127.0.0.1 tcp://127.0.0.1:99999 tcp://nowhere.invalid:1 tcp://192.0.2.1:1; do
    timeout 60 "$vmrun" migrate t "$wrong" >"$folder/words" 2>&1 && fail "it moved to $wrong"
    said "$folder/words" "t stays here: .*${wrong#tcp://}"
done
for option in "--channels 17" "--bandwidth 0" "--max-downtime x" "--timeout 0" "--on-timeout maybe"; do
    # shellcheck disable=SC2086
    move t $option
    [[ $? == 2 ]] || fail "$option is taken" "$folder/words"
done
goes_on t "$nonce"
ok "wrong addresses and options leave it where it is, in words"

await_machine second
VMRUN_DIR=$there "$vmrun" receive "tcp://127.0.0.1:$port" >"$folder/words" 2>&1 && fail "two on one port"
said "$folder/words" "Address already in use"
kill -TERM "$receiver" # SIGINT is ignored by what a script starts beside itself
ended 143
ok "a port is taken once; a signal ends the waiting"

# listed STATE NAME: there, and nothing else is; without both, nothing is
listed() {
    there list >"$folder/list"
    [[ $(awk 'NR > 1 { print $1, $2 }' "$folder/list") == "${2:+$2 $1}" ]] || fail "$2 is not listed as $1" "$folder/list"
}

await_machine lobby --name u
listed waiting u
there status u >"$folder/words" || fail "it has no status"
said "$folder/words" "listens at tcp://127.0.0.1:$port"
there pause u >"$folder/words" 2>&1 && fail "nothing is paused"
said "$folder/words" "'u' has no machine yet, but is waiting for one at tcp://127.0.0.1:$port"
there receive tcp://127.0.0.1:0 --name u >"$folder/words" 2>&1 && fail "two that wait by one name"
said "$folder/words" "a machine named 'u' is running"
there kill u || fail "it cannot be killed while it waits"
ended 143
said "$folder/lobby.said" "killed before a machine had come"
[[ ! -e $there/u.sock ]] || fail "its socket stays"
await_machine nameless
listed waiting "receive-$receiver"
there kill "receive-$receiver"
ended 143
ok "who waits is listed, says what it is, refuses the rest in words, and is killed"

slow=(--bandwidth 1M --max-downtime 1 --timeout 50)
await_machine busy
(
    # Before it has begun a save may, and then it is this one that must wait.
    while :; do
        timeout 60 "$vmrun" migrate t "tcp://127.0.0.1:$port" "${slow[@]}" >"$folder/first" 2>&1
        status=$?
        grep -q "another save is under way" "$folder/first" || exit $status
    done
) &
mover=$!
for _ in {1..60}; do
    sleep 0.5
    "$vmrun" save t "$folder/file" >"$folder/words" 2>&1 || break
    rm "$folder/file"
done
said "$folder/words" "another move is under way"
move t && fail "two moves at once"
said "$folder/words" "another move is under way"
"$vmrun" pause t || fail "it cannot be paused while it moves"
"$vmrun" resume t || fail "it cannot be resumed while it moves"
goes_on t "$nonce"
pkill -TERM -P "$mover" || fail "nobody to interrupt"
wait "$mover"
[[ $? == 143 ]] || fail "it does not end as it was told to" "$folder/first"
said "$folder/first" "t stays here: cancelled"
ended 1
said "$folder/busy.said" "cancelled"
goes_on t "$nonce"
ok "while it moves it can be paused, not be saved or moved; a signal leaves it where it is"

await_machine receiving --name w
move t "${slow[@]}" &
mover=$!
for _ in {1..100}; do
    there status w 2>/dev/null | grep -q '^state *receiving$' && break
    sleep 0.05
done
listed receiving w
there status w >"$folder/list" || fail "it has no status"
there kill w || fail "it cannot be killed while it receives"
wait "$mover" && fail "it moved to a dead process"
said "$folder/words" "t stays here: .*the other side"
ended 143
listed '' ''
goes_on t "$nonce"
ok "who receives is listed too, and when it is killed the machine goes on where it was"

machine v 1 2
await_machine killed
timeout 60 "$vmrun" migrate v "tcp://127.0.0.1:$port" "${slow[@]}" >"$folder/words" 2>&1 &
mover=$!
# It has begun when the other side has its connection; then the state of it is 01, ESTABLISHED.
for _ in {1..1200}; do
    ! grep -qE "^ *[0-9]+: 0100007F:$(printf %04X "$port") [0-9A-F:]+ 01 " /proc/net/tcp || break
    sleep 0.05
done
"$vmrun" kill v || fail "it cannot be killed while it moves"
wait "$mover" && fail "a dead machine moved"
said "$folder/words" "v did not move: the machine has ended"
ended 1
said "$folder/killed.said" "the machine has ended"
ok "a machine that is killed while it moves is nowhere, and both sides say why"

"$vmrun" pause t
await_machine paused --console "file:$folder/t"
move t || fail "it does not move" "$folder/words"
said "$folder/words" "t is, paused as it was, at tcp://"
said "$folder/paused.said" "t has come from tcp://127.0.0.1:.* and is paused"
there list | grep -q 'paused' || fail "it was started"
there resume t
goes_on t "$nonce"
there run --name second --kernel "$payloads/torture.elf" --disk "$folder/disk" >"$folder/words" 2>&1 && fail "the disk is not locked"
said "$folder/words" "$folder/disk: in use: another process"
# It talks on, so that is no end.
VMRUN_DIR=$there timeout 2 "$vmrun" console t </dev/null >"$folder/console"
[[ $(grep -ac "^torture $nonce" "$folder/console") -gt 1 ]] || fail "the scrollback is gone" "$folder/console"
there kill t
ended 0
ok "a paused machine arrives paused, with its disk locked and all that it has printed"

# Ten times there and back; what runs there is, for the next time, what runs here.
home=$XDG_RUNTIME_DIR/vmrun
machine p 2 1
nonce=$(word 1)
for ((i = 0; i < 10; i++)); do
    await_machine p --console "file:$folder/p" --detach
    move p --channels $((i % 3 + 1)) --report "$folder/report" --json || fail "move $i" "$folder/words" "$folder/p.said"
    ended 0
    said "$folder/report" '"outcome": "there"'
    said "$folder/words" '"type": "migrated"'
    if ((i % 2 == 0)); then
        export VMRUN_DIR=$there
        there=$home
    else
        export VMRUN_DIR=$home
        there=$folder/there
    fi
    goes_on p "$nonce"
done
ok "a machine of two CPUs goes there and back ten times"

(umask 077 && echo "vmrun:$(od -An -tx1 -N32 /dev/urandom | tr -d ' \n')" >"$folder/psk")
(umask 077 && echo "vmrun:$(od -An -tx1 -N32 /dev/urandom | tr -d ' \n')" >"$folder/psk2")
await_machine psk --console "file:$folder/p" --tls-psk "$folder/psk"
for other in "" "--tls-psk $folder/psk2"; do
    # shellcheck disable=SC2086
    move p $other && fail "it moved without the key"
    [[ $other ]] || said "$folder/words" "hung up at once: is it a vmrun receive"
    goes_on p "$nonce"
done
move p --tls-psk "$folder/psk" || fail "it does not move with a key" "$folder/words" "$folder/psk.said"
goes_on p "$nonce"
there kill p
ended 0
ok "with a key of both it moves, with another or none it does not"
