# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash disable=SC1091,SC2016,SC2153
# Debian's kernel boots, whatever the way in, and ends as the guest says.
# seconds: 60
. ./lib.sh

host=$(date +%s)
for cpus in 1 2 4; do
    guest 'echo "cpus: $(nproc)"; dmesg | grep -E "ACPI.*(Error|Warning|Exception)|ACPI BIOS|Firmware (Bug|Warn)|Call Trace"; echo looked
        dmesg | grep -E "ttyS0.*16550A|Hypervisor detected"; echo "rtc: $(cat /sys/class/rtc/rtc0/since_epoch)"; grep " _text$" /proc/kallsyms' \
        --cpus "$cpus" --memory 256M
    expect "a machine of $cpus CPUs boots and powers off with status 0" status_is 0
    expect "the guest sees $cpus CPUs" printed "cpus: $cpus"
    expect "the kernel has no complaint about its firmware" not_printed "ACPI\|Firmware\|Call Trace"
    expect "and was asked" printed "looked"
    expect "Linux calls the serial port a 16550A" printed "ttyS0.*16550A"
    expect "Linux sees KVM" printed "Hypervisor detected: KVM"
    expect "the kernel's address is shown" printed " _text"
    grep " _text" "$OUT" | tr -d '\r' >>/tmp/addresses
    rtc=$(tr -d '\r' <"$OUT" | sed -n 's/^rtc: //p')
    expect "the real-time clock is right" [ $((rtc - host)) -ge -1 -a "$rtc" -le $(($(date +%s) + 1)) ]
done
# There are some 500 places: that two of three kernels lie at the same is no wonder, all three would be one of 250000.
expect "an unpacked kernel lies at another address at each boot" [ "$(sort -u /tmp/addresses | wc -l)" -gt 1 ]

guest 'grep MemTotal /proc/meminfo; dmesg | grep e820' --memory 5G
expect "a guest larger than the hole below 4 GiB has its RAM on both sides" status_is 0
expect "it sees more than 4.5 GiB" grep -q -E 'MemTotal: +(4[6-9]|5[0-9])[0-9]{5} kB' "$OUT"

guest 'grep -m1 flags /proc/cpuinfo; exit 7' --cpu x86-64-v2
expect "x86-64-v2 boots, and a script's status comes out through debug-exit" status_is 15
expect "x86-64-v2 has SSE4.2 and no AVX" printed "sse4_2"
expect "no AVX in x86-64-v2" not_printed " avx"

guest 'dmesg | grep "Linux version"' --unpack guest
expect "the guest's own decompressor works too" status_is 0

expect "nothing is left behind" nothing_left
finish
