# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash disable=SC1091,SC2016,SC2153
# A real user of the UART: data in both directions, compared by checksum.
# $1: KiB each way (96, which is more than the console keeps of what is typed); tools/soak console gives 1024.
# seconds: 60
. ./lib.sh
kib=${1:-96}
bytes=$((kib * 1024))

# Both at once, each through a machine of its own. Guest to host: the data is the last that is printed.
guest_in_background sends "head -c $bytes /dev/urandom >/data; sha256sum </data; stty -F /dev/ttyS0 raw; cat /data; stty -F /dev/ttyS0 sane; debug-exit 1" \
    --console file:/tmp/sent

# Host to guest: through the attached console of a detached machine, and pasted at once.
head -c $bytes /dev/urandom >/tmp/data
guest_in_background takes "stty -F /dev/ttyS0 raw -echo; echo READY; head -c $bytes | sha256sum; echo DONE; sleep 1000" \
    --console file:/tmp/taken
expect "the guest is ready" wait_for 120 grep -q READY /tmp/taken
vmrun console takes </tmp/data >/tmp/attached &
client=$!
expect "$kib KiB are taken" wait_for $((300 + kib * 2)) grep -q DONE /tmp/taken
expect "and arrive whole" grep -q "$(sha256sum </tmp/data | cut -c 1-64)" /tmp/taken
vmrun kill takes
wait $client
expect "the client saw the output from power-on" grep -q READY /tmp/attached

expect "$kib KiB are sent" wait_for $((300 + kib * 2)) sh -c '! vmrun list | grep -q sends'
sum=$(grep -a -o -m 1 -E '[0-9a-f]{64}' /tmp/sent)
tail -c $bytes /tmp/sent | sha256sum >/tmp/sum
expect "and arrive whole" grep -q "${sum:-none}" /tmp/sum

# stdin of the machine itself, from a file, read before the guest is up: kept, not lost.
echo 'echo typed early' >/tmp/typed
vmrun run --kernel "$KERNEL" --initrd "$INITRD" --cmdline "console=ttyS0 quiet" </tmp/typed >"$OUT" 2>"$ERR" &
machine=$!
expect "what was typed before the shell was there reaches it" wait_for 120 grep -q '^typed early' "$OUT"
kill -TERM $machine
wait $machine

expect "nothing is left behind" wait_for 10 nothing_left
finish
