# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash disable=SC1091,SC2016,SC2034,SC2153
# An ordinary user in group kvm does everything that root does; one who is not in it is told what to do.
. ./lib.sh

mkdir -m 700 /tmp/user-run && chown user /tmp/user-run
line=$(script_line 'id; echo from the guest')

as_user "vmrun run --kernel $KERNEL --initrd $INITRD --cmdline '$line'" </dev/null >"$OUT" 2>"$ERR"
expect "an ordinary user in group kvm boots a guest" printed "from the guest"
expect "doctor is content with this host" as_user vmrun doctor
as_user "vmrun run --name mine --detach --kernel $KERNEL --initrd $INITRD --cmdline '$(script_line 'sleep 100000')'" >"$OUT" 2>"$ERR"
expect "in the background as well" sh -c "su user -c 'XDG_RUNTIME_DIR=/tmp/user-run vmrun list' | grep -q mine"
expect "the socket is the user's alone" [ "$(stat -c '%a %U' /tmp/user-run/vmrun/mine.sock)" = "600 user" ]
expect "and kill" as_user vmrun kill mine

chmod 600 /dev/kvm
as_user "vmrun run --kernel $KERNEL" </dev/null >"$OUT" 2>"$ERR"
expect "without permission it says which group the device belongs to" grep -q "group 'kvm'" "$ERR"
mv /dev/kvm /dev/kvm.away
vmrun run --kernel "$KERNEL" </dev/null >"$OUT" 2>"$ERR"
STATUS=$?
expect "without /dev/kvm it says so" grep -q "/dev/kvm" "$ERR"
expect "with status 1" status_is 1
mv /dev/kvm.away /dev/kvm
finish
