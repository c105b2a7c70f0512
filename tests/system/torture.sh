# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash disable=SC2034,SC2086,SC2154
# Words for jobs with the guest that checks itself (images/torture.c) as machine torture.
#
#   torture_begins     another guest: what an earlier one said is not compared with it
#   goes_on            it is the same guest, all that it does goes on, and nothing is wrong; and it has as many stream sockets open,
#                      and had as many reset in all, as there must be ($resets)
#   torture_was_moved  each of its connections was reset, and goes_on is to find that
#   set_balloon MIB    what it is to give up from now on
#   balloon_is_set     it has given as much, and is asked for as much
#   torture_did_all    before it ends: its disk had to wait, and it reports what it has free
# $REPORT is the file with its lines, $AT what runs a command where it is (lib.sh).
MACHINE=torture STREAMS=2 PARTS='second pages blocks tcp vsock' LIFE=40
DEVICES="--vsock socket=/tmp/vsock --balloon"

torture_begins() { said='' resets=0; }
torture_was_moved() { resets=$((resets + STREAMS)); }

latest() { grep '^torture: .* second .* errors 0[[:space:]]*$' $REPORT | tail -n 1 | tr -d '\r'; }
# says_more: its last line is later than what it said when goes_on came here last, and when it came now; what of it is not, is printed.
says_more() {
    { echo "$said"; echo "$was"; latest; } | awk -v parts="$PARTS" -v open=$STREAMS -v resets=$resets '
        {
            nonce[NR] = $2
            for (i = 3; i < NF; i += 2)
                has[NR, $i] = $(i + 1) + 0
        }
        function compare(k) {
            if (nonce[k] == "")
                return
            if (nonce[k] != nonce[3])
                missing[++count] = "it was guest " nonce[k] " and is " nonce[3]
            for (i = 1; i <= n; i++)
                if (has[3, part[i]] <= has[k, part[i]])
                    missing[++count] = part[i] " was at " has[k, part[i]] " and is at " has[3, part[i]]
        }
        END {
            if (NR < 3) {
                print "it says nothing"
                exit 1
            }
            n = split(parts, part, " ")
            compare(1)
            compare(2)
            if (has[3, "open"] != open || has[3, "resets"] != resets)
                missing[++count] = has[3, "open"] " streams are open, " has[3, "resets"] " were reset, " open " and " resets " must be"
            for (i = 1; i <= count; i++)
                print missing[i]
            exit count > 0
        }'
}
goes_on() {
    was=$(latest)
    wait_for $LIFE says_more || { says_more; grep WRONG $REPORT | head -n 5; tail -n 2 $REPORT; return 1; }
    said=$(latest)
    ! grep WRONG $REPORT | head -n 5 | grep .
}

set_balloon() { balloon=$1 && $AT vmrun set $MACHINE balloon=${1}M; }
balloon_has() { [ "$(stat_of balloon.target_bytes) $(stat_of balloon.actual_bytes)" = "$((balloon << 20)) $((balloon << 20))" ]; }
balloon_is_set() { wait_for 30 balloon_has || { $AT vmrun stats $MACHINE | grep balloon; return 1; }; }
# has_some NAME: of what vmrun counts since it has this machine.
has_some() { [ "$(stat_of $1)" -gt 0 ]; }
# Linux reports what is free only where that is more than 64 MiB: the guest has so much besides.
torture_did_all() {
    expect "$cpus: its disk had to wait" wait_for 20 has_some disk.data.limit_waits
    set_balloon 32
    expect "$cpus: its balloon has 32 MiB" balloon_is_set
    set_balloon 0
    expect "$cpus: which it reports when it has them again" wait_for 20 has_some balloon.reported_bytes
}
