# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2034
# What the tests of whole machines that are saved and restored on this host's KVM have in common; sourced by each.
#
#   snapshot_begin VMRUN PAYLOADS  skips in words where there is no /dev/kvm; makes $folder, in memory, which goes at the end with
#                                  every machine that was started; "$vmrun", $payloads, and $ring for the payload torture
#   machine NAME CPUS MIB [OPTION]...  payload torture as machine NAME, its serial port $folder/NAME; returns when it works
#   goes_on NAME NONCE             it says a line more, with this nonce, and found nothing wrong; the line is in $said
#   pid_of NAME, now_us, ok SENTENCE, fail SENTENCE [FILE]...

fail() {
    echo "FAILED: $1"
    shift
    for file in "$@"; do tail -n 5 "$file" | cat -v | cut -c 1-300 | sed 's/^/    /'; done
    exit 1
}
ok() { echo "ok: $*"; }
now_us() { echo "${EPOCHREALTIME/./}"; }
pid_of() { "$vmrun" status "$1" --json | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p'; }

snapshot_begin() {
    vmrun=$1 payloads=$2
    if ! [[ -r /dev/kvm && -w /dev/kvm ]]; then
        echo "skipped: no usable /dev/kvm"
        exit 77
    fi
    folder=$(mktemp -d -p /dev/shm vmrun-test-XXXXXX 2>/dev/null || mktemp -d)
    export XDG_RUNTIME_DIR=$folder/run XDG_CACHE_HOME=$folder/cache
    mkdir -m 700 "$XDG_RUNTIME_DIR"
    trap snapshot_end EXIT
    # Ring 3 where this KVM emulates ring 0: start.S.
    ring=3
    ! "$vmrun" doctor --json | grep -q '"native": *true' || ring=0
}

snapshot_end() {
    status=$?
    for socket in "$folder"/run/vmrun/*.sock "$folder"/*/*.sock; do
        [[ ! -e $socket ]] || VMRUN_DIR=$(dirname "$socket") "$vmrun" kill "$(basename "$socket" .sock)" >/dev/null 2>&1 || true
    done
    # shellcheck disable=SC2046 # words; what waits for a machine that does not come
    kill $(jobs -p) 2>/dev/null || true
    wait
    rm -rf "$folder"
    exit $status
}

machine() {
    local name=$1 cpus=$2 mib=$3
    shift 3
    "$vmrun" run --detach --name "$name" --kernel "$payloads/torture.elf" --cmdline "$ring $cpus $((mib * 256))" --cpus "$cpus" \
        --memory $((cpus * mib + 16))M --console "file:$folder/$name" "$@" >"$folder/out" 2>&1 ||
        fail "machine $name does not start" "$folder/out"
    goes_on "$name" ''
}

# Lines are whole ones: 7 numbers of 16 digits.
torture_lines() { grep -aE '^torture( [0-9a-f]{16}){7}'$'\r''?$' "$folder/$1" 2>/dev/null || true; }

goes_on() {
    local name=$1 nonce=$2 before words
    before=$(torture_lines "$name" | wc -l)
    for _ in {1..2400}; do
        said=$(torture_lines "$name" | tail -n +$((before + 1)) | tail -n 1)
        [[ ! $said ]] || break
        sleep 0.05
    done
    [[ $said ]] || fail "$name says nothing for 2 minutes" "$folder/$name"
    read -ra words <<<"${said%$'\r'}"
    [[ ! $nonce || ${words[1]} == "$nonce" ]] || fail "$name: the nonce was $nonce" "$folder/$name"
    [[ ${words[4]} == 0000000000000000 ]] || fail "$name: wrong pages" "$folder/$name"
    [[ ${words[5]} == 0000000000000000 ]] || fail "$name: time went back" "$folder/$name"
}

# word N of $said, from 0; a number in decimal.
word() {
    local words
    read -ra words <<<"${said%$'\r'}"
    echo "${words[$1]}"
}
count() { echo $((16#$(word "$1"))); }
