# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash disable=SC1091,SC2016,SC2153
# hvc0 on a terminal: its size is the guest's, from the start, when it changes, and when a snapshot goes on in another window.
# modules: virtio_pci,virtio_console
# programs: script
. ./lib.sh

tell_size='exec >/dev/hvc0 2>&1 </dev/hvc0; while :; do stty size; sleep 0.3; done'

# on_terminal ROWS COLUMNS COMMAND: in the background, with what it prints in /tmp/screen and its terminal's name in /tmp/tty.
on_terminal() {
    rm -f /tmp/tty
    : >/tmp/screen
    sleep 100000 | ./script -q -f -c "stty rows $1 cols $2; tty >/tmp/tty; $3" /tmp/screen >/dev/null 2>&1 &
    wait_for 20 test -s /tmp/tty
}
has_size() { tail -n 1 /tmp/screen | grep -q "$1 $2" || tail -n 3 /tmp/screen | grep -q "^$1 $2"; }
resize() { stty -F "$(cat /tmp/tty)" rows "$1" cols "$2"; }

expect "a machine with hvc0 on a terminal starts" on_terminal 33 101 "vmrun run --name term --kernel $KERNEL --initrd ./initrd \
    --memory 128M --console none --hvc0 stdio --cmdline '$(script_line "$tell_size")'"
expect "the guest knows the terminal's size" wait_for 60 has_size 33 101
expect "the terminal gets another size" resize 48 160
expect "the guest knows it as well" wait_for 20 has_size 48 160
expect "a size that is asked for while the machine is paused" sh -c 'vmrun pause term && stty -F "$(cat /tmp/tty)" rows 20 cols 70 && vmrun resume term'
expect "reaches it when it goes on" wait_for 20 has_size 20 70
expect "save --stop" vmrun save --stop term term.vmsnap

expect "it goes on in another window" on_terminal 55 111 "vmrun restore term.vmsnap --name term --console none --hvc0 stdio"
expect "whose size the guest gets to know" wait_for 20 has_size 55 111
expect "its end" vmrun kill term
expect "nothing is left behind" wait_for 10 nothing_left
finish
