# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash disable=SC1091,SC2016,SC2153
# A guest that goes on from a snapshot has a VM Generation ID of its own, and was told.
. ./lib.sh

# What it says of itself: the ID's two halves, and how many events there were.
script='while :; do echo "id $(devmem 0xfeb00000 64) $(devmem 0xfeb00008 64) gpe $(awk "{print \$1}" /sys/firmware/acpi/interrupts/gpe00)"; sleep 0.2; done'

last() { tr -d '\r' <"$1" | grep '^id .* gpe [0-9]*$' | tail -n 1; }
id_of() { last "$1" | sed 's/ gpe.*//'; }
events_of() { last "$1" | sed 's/.*gpe //'; }
has_events() { [ "$(events_of "$1")" = "$2" ]; }

guest_in_background first "$script" --memory 128M --console file:/tmp/first
expect "it has an ID" wait_for 60 grep -q '^id 0x' /tmp/first
before=$(id_of /tmp/first)
expect "that is not zero" sh -c "echo '$before' | grep -q '0x.*[1-9A-Fa-f]'"
expect "a pause does not change it" sh -c "vmrun pause first && vmrun resume first"
sleep 1
expect "nor is the guest told of anything" has_events /tmp/first 0
expect "save" vmrun save first first.vmsnap
sleep 1
expect "the guest that was saved keeps its ID" [ "$(id_of /tmp/first)" = "$before" ]
expect "and was told nothing" has_events /tmp/first 0
expect "its end" vmrun kill first

for clone in second third; do
    expect "restore, $clone" vmrun restore first.vmsnap --name "$clone" --detach --console "file:/tmp/$clone"
    expect "it is told once" wait_for 30 has_events "/tmp/$clone" 1
done
expect "the second has an ID of its own" [ "$(id_of /tmp/second)" != "$before" ]
expect "the third as well" [ "$(id_of /tmp/third)" != "$before" ]
expect "and not the same" [ "$(id_of /tmp/second)" != "$(id_of /tmp/third)" ]
id_of /tmp/first; id_of /tmp/second; id_of /tmp/third
expect "their end" sh -c "vmrun kill second && vmrun kill third"
expect "nothing is left behind" wait_for 10 nothing_left
finish
