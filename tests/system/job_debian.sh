# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash disable=SC1091,SC2016,SC2034,SC2153
# Debian's own root file system on a virtio disk: to multi-user, through a reboot, and off by the power button.
# seconds: 120
# modules: virtio_pci,virtio_blk
# disks: debian
. ./lib.sh

no_anomaly() {
    in_guest lspci -vv >"$OUT" || return
    [ "$(grep -c 'Virtio 1.0' "$OUT")" -ge 8 ] || { echo "not four virtio functions, each with its subsystem"; return 1; }
    [ "$(grep -c 'MSI-X: Enable+ .*Masked-' "$OUT")" = 4 ] || { echo "MSI-X is not on in all four"; return 1; }
    [ "$(grep -c 'Kernel driver in use: virtio-pci' "$OUT")" = 4 ] || { echo "a function without its driver"; return 1; }
    [ "$(grep -c 'Region [02]: Memory at [1-9a-f][0-9a-f]* ' "$OUT")" = 8 ] || { echo "a BAR without an address"; return 1; }
    ! grep -E '!!!|unassigned|ignored|disabled|virtual|rev ff|<access denied>|(MAbort|TAbort|SERR|PERR)[+]' "$OUT"
}
no_complaint() {
    in_guest "dmesg | grep -v 'ommand line:'" >"$OUT" || return
    grep -q 'Linux version' "$OUT" || return
    ! grep -i -E 'ACPI.*(error|warning|exception|fail)|ACPI BIOS|firmware (bug|warn)|Call Trace|BUG:|WARNING:' "$OUT" || return
    ! grep -i -E '(pci|virtio|vda|EXT4).*(error|fail|warn|conflict|no space|bogus|invalid|cannot|timeout)' "$OUT"
}
works() {
    expect "systemd reached its target, $1" [ "$(in_guest systemctl is-system-running --wait)" = running ]
    expect "no unit has failed" [ -z "$(in_guest systemctl --failed --no-legend)" ]
    expect "lspci -vv shows four virtio functions and no anomaly" no_anomaly
    expect "the kernel has no complaint about PCI, ACPI or virtio" no_complaint
}

expect "Debian boots and takes orders over hvc0" debian deb --net tap=lab0
works "after power-on"
expect "its root is the virtio disk" [ "$(in_guest findmnt -n -o SOURCE,FSTYPE /)" = "/dev/vda ext4" ]
expect "udev knows it by the serial number" [ "$(in_guest readlink -f /dev/disk/by-id/virtio-root)" = /dev/vda ]
expect "/dev/hwrng is fed by virtio" [ "$(in_guest cat /sys/class/misc/hw_random/rng_current)" = virtio_rng.0 ]
first=$(in_guest 'head -c 4096 /dev/hwrng | sha256sum')
second=$(in_guest 'head -c 4096 /dev/hwrng | sha256sum')
expect "with something else each time" [ "$first" != "$second" -a "${#first}" = 67 ]
ip address add 10.0.0.1/24 dev lab0
name=$(in_guest 'basename /sys/bus/virtio/drivers/virtio_net/virtio*/net/*')
expect "the host answers on its network card" in_guest "ip address add 10.0.0.2/24 dev $name && ip link set $name up && ping -c 2 -W 5 10.0.0.1"

in_guest 'date >/root/before; sync'
before=$(in_guest cat /root/before)
LIMIT=5 in_guest systemctl reboot >/dev/null
expect "it reboots in place" debian_is_up
expect "which counts as one reset" sh -c 'vmrun status deb --json | grep -q "\"resets\": *1\b"'
works "after the reboot"
expect "its files are there" [ "$(in_guest cat /root/before)" = "$before" -a "$before" ]

expect "the power button shuts it down" vmrun stop deb --timeout 360
ended 10
expect "and vmrun ends with status 0" status_is 0
expect "having said nothing of trouble" sh -c '! grep -i -E "warn|error|fail" /tmp/deb.err'
expect "nothing is left behind" wait_for 10 nothing_left
finish
