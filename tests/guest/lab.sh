#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The payload tests on the KVM of an emulated host (tools/lab), where ring 0 runs natively and the TSC can be set: what a host
# with a KVM of another kind, or with none, does not see. Usage: lab.sh PAYLOAD_FOLDER TEST...
set -eu
payloads=$1
shift
command -v qemu-system-x86_64 >/dev/null || {
    echo "skipped: no qemu-system-x86_64 (tools/setup lab installs it)"
    exit 77
}
puts="--put $payloads:payloads" names=
for test in "$@"; do
    puts="$puts --put $test"
    names="$names $(basename "$test")"
done
# shellcheck disable=SC2086,SC2016 # words; the emulated host expands the rest
exec "$(dirname "$0")/../../tools/lab" run --timeout "${TIMEOUT:-2300}" $puts -- '
    failed=0
    for test in '"$names"'; do
        VMRUN_PAYLOADS=payloads ./$test 2>&1 || { echo "FAILED: $test ($?)"; failed=1; }
    done
    exit $failed'
