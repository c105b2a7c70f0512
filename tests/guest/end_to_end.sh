#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Whole vmrun with payloads. Usage: end_to_end.sh VMRUN PAYLOAD_FOLDER
set -u
vmrun=$1
payloads=$2
out=$(mktemp)
trap 'rm -f "$out"' EXIT
if ! [ -r /dev/kvm ] || ! [ -w /dev/kvm ]; then
    echo "skipped: no usable /dev/kvm"
    exit 77
fi

# expect STATUS WORDS PAYLOAD [OPTION]...: what the run ends with, and a line of what it said
expect() {
    wanted=$1
    words=$2
    payload=$3
    shift 3
    true | timeout 120 "$vmrun" run --memory 16M --kernel "$payloads/$payload.elf" "$@" >"$out" 2>&1
    status=$?
    if [ $status -ne "$wanted" ] || ! grep -q "$words" "$out"; then
        echo "$payload: status $status, wanted $wanted and \"$words\" in:"
        cat "$out"
        exit 1
    fi
    echo "ok: $payload ends with $status"
}

expect 33 '^hello from the guest' hello --debug-exit
expect 33 '^hello from the guest' hello --debug-exit --cpus 3
expect 3 'vCPU 0: triple fault (KVM exit 8, SHUTDOWN)' triple --on-reboot exit
expect 3 'vCPU 0: KVM could not go on: cannot emulate the instruction' astray
