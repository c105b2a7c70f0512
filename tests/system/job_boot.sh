# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash disable=SC1091,SC2016,SC2153
# Debian's kernel boots, whatever the way in, and ends as the guest says.
. ./lib.sh

for cpus in 1 2 4; do
    guest 'echo "cpus: $(nproc)"; dmesg | grep -E "ACPI.*(Error|Warning|Exception)|ACPI BIOS|Firmware (Bug|Warn)|Call Trace"; echo looked' --cpus "$cpus" --memory 256M
    expect "a machine of $cpus CPUs boots and powers off with status 0" status_is 0
    expect "the guest sees $cpus CPUs" printed "cpus: $cpus"
    expect "the kernel has no complaint about its firmware" not_printed "ACPI\|Firmware\|Call Trace"
    expect "and was asked" printed "looked"
done

guest 'exit 7'
expect "a script's status comes out through debug-exit" status_is 15

guest 'dmesg | grep -E "ttyS0.*16550A|KVM clock|Hypervisor detected"; cat /proc/cmdline'
expect "Linux calls the serial port a 16550A" printed "ttyS0.*16550A"
expect "Linux sees KVM" printed "Hypervisor detected: KVM"

host=$(date +%s)
guest 'cat /sys/class/rtc/rtc0/since_epoch; dmesg | grep rtc_cmos'
rtc=$(grep -E '^[0-9]+' "$OUT" | tr -d '\r' | head -n 1)
expect "the real-time clock is right (guest $rtc, host $host)" [ $((rtc - host)) -ge 0 -a $((rtc - host)) -lt 60 ]

guest 'grep MemTotal /proc/meminfo; dmesg | grep e820' --memory 5G
expect "a guest larger than the hole below 4 GiB has its RAM on both sides" status_is 0
expect "it sees more than 4.5 GiB" grep -q -E 'MemTotal: +(4[6-9]|5[0-9])[0-9]{5} kB' "$OUT"

guest 'grep -c avx2 /proc/cpuinfo; grep -m1 flags /proc/cpuinfo' --cpu x86-64-v2
expect "x86-64-v2 boots" status_is 0
expect "x86-64-v2 has SSE4.2 and no AVX" printed "sse4_2"
expect "no AVX in x86-64-v2" not_printed " avx"

guest 'dmesg | grep "Linux version"' --unpack guest
expect "the guest's own decompressor works too" status_is 0

guest 'grep " _text$" /proc/kallsyms'
first=$(grep _text "$OUT")
# There are some 500 places: one of 500 times the second is the first, but not the third as well.
guest 'grep " _text$" /proc/kallsyms'
[ "$first" != "$(grep _text "$OUT")" ] || guest 'grep " _text$" /proc/kallsyms'
expect "an unpacked kernel lies at another address at each boot" [ "$first" != "$(grep _text "$OUT")" ]
expect "the kernel address is shown at all" printed "_text"

expect "nothing is left behind" nothing_left
finish
