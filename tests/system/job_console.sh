# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash disable=SC1091,SC2016,SC2153
# A real user of the UART: 1 MiB in both directions, compared by checksum.
. ./lib.sh

# Guest to host. The marks tell the data from the kernel's own lines.
guest 'stty -F /dev/ttyS0 raw; head -c 1048576 /dev/urandom >/data; sha256sum </data; echo BEGIN; cat /data; echo; echo END'
sum=$(grep -a -o -m 1 -E '^[0-9a-f]{64}' "$OUT")
offset=$(($(grep -a -b -o -m 1 BEGIN "$OUT" | cut -d : -f 1) + 6))
tail -c +$((offset + 1)) "$OUT" | head -c 1048576 | sha256sum >/tmp/sum
expect "1 MiB from the guest arrives whole" grep -q "${sum:-none}" /tmp/sum

# Host to guest, through the attached console of a detached machine and pasted at once.
head -c 1048576 /dev/urandom >/tmp/data
guest_in_background paste 'stty -F /dev/ttyS0 raw -echo; echo READY; head -c 1048576 | sha256sum; echo DONE; sleep 1' --console file:/tmp/paste
expect "the guest is ready" wait_for 60 grep -q READY /tmp/paste
vmrun console paste </tmp/data >/tmp/attached &
client=$!
expect "1 MiB is taken" wait_for 400 grep -q DONE /tmp/paste
expect "and arrives whole" grep -q "$(sha256sum </tmp/data | cut -c 1-64)" /tmp/paste
wait $client
expect "the client saw the output from power-on" grep -q READY /tmp/attached

# stdin of the machine itself, from a file, read before the guest is up: kept, not lost.
echo 'echo typed early' >/tmp/typed
vmrun run --kernel "$KERNEL" --initrd "$INITRD" --cmdline "console=ttyS0 quiet" </tmp/typed >"$OUT" 2>"$ERR" &
machine=$!
expect "what was typed before the shell was there reaches it" wait_for 60 grep -q '^typed early' "$OUT"
kill -TERM $machine
wait $machine

expect "nothing is left behind" wait_for 10 nothing_left
finish
