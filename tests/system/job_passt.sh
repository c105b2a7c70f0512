# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash disable=SC1091,SC2016,SC2034,SC2102,SC2153
# The network of an ordinary user, through passt: out to hosts and to this one's loopback, in by forwarded ports, DHCP, DNS, IPv6; what
# becomes of it when passt is killed, the machine is saved and restored, or vmrun ends in any way; and what is said when it cannot be.
# seconds: 60
# modules: virtio_pci,virtio_net,virtio_console
# programs: passt iperf3 ip socat
. ./lib.sh
INITRD=/tmp/initrd MACHINE=net LIMIT=60

# The world: this host is 10.9.0.2, its router 10.9.0.1, another host is 10.9.0.3.
cp initrd $INITRD && chmod 644 $INITRD
cp -r /etc /tmp/etc && mount --bind /tmp/etc /etc
modprobe veth
./ip netns add far
./ip link add ext0 type veth peer name ext1
./ip link set ext1 netns far
./ip addr add 10.9.0.2/24 dev ext0
./ip addr add fd00:9::2/64 dev ext0 nodad
./ip link set ext0 up
far() { ./ip netns exec far "$@"; }
far ./ip addr add 10.9.0.1/24 dev ext1
far ./ip addr add 10.9.0.3/24 dev ext1
far ./ip addr add fd00:9::1/64 dev ext1 nodad
far ./ip addr add fd00:9::3/64 dev ext1 nodad
far ./ip link set ext1 up
./ip route add default via 10.9.0.1
./ip -6 route add default via fd00:9::1 dev ext0
mkdir /tmp/far /tmp/near
dd if=/dev/urandom of=/tmp/far/file bs=1k count=500 2>/dev/null
echo near >/tmp/near/file
far httpd -p 80 -h /tmp/far
httpd -p 127.0.0.1:8000 -h /tmp/near
# A name server with one answer, whatever it is asked for.
cat >/tmp/answer <<'END'
#!/bin/sh
asked=$(dd bs=512 count=1 2>/dev/null | xxd -p | tr -d '\n')
question=${asked#????????????????????????}
echo "${asked%"${asked#????}"}81800001000100000000${question}c00c000100010000003c00040a090003" | xxd -r -p
END
chmod +x /tmp/answer
./socat UDP4-RECVFROM:53,bind=127.0.0.1,fork EXEC:/tmp/answer 2>/dev/null &
echo nameserver 127.0.0.1 >/etc/resolv.conf
./iperf3 -s -B 127.0.0.1 -D >/dev/null
sum=$(md5sum </tmp/far/file)

mkdir -m 700 /tmp/user-run && chown user /tmp/user-run
chmod 711 /tmp && chmod 1777 /tmp
lease='case $1 in bound|renew) ip -4 addr flush dev $interface; ip addr add $ip/$mask dev $interface; ip route replace default via $router
echo nameserver $dns >/etc/resolv.conf; echo $ip >/lease;; esac'
begins="echo '#!/bin/sh' >/dhcp; echo '$(echo "$lease" | base64 -w 0)' | base64 -d >>/dhcp; chmod +x /dhcp; ip link set eth0 up
mkdir /www; echo guest >/www/file; httpd -p 80 -h /www
$agent"
attached() { MACHINE=${1:-net} && attach as_user; }
start() {
    as_user "vmrun run --name net --detach --kernel $KERNEL --initrd $INITRD --memory 256M --console file:/tmp/net.serial --hvc0 pty \
        --cmdline '$(script_line "$begins")' $*" >"$OUT" 2>"$ERR" || { cat "$ERR"; return 1; }
    attached && debian_is_up
}
log() { cat /tmp/user-run/vmrun/net.log; }
passts() { pidof passt; }
no_passt() { ! pidof passt; }
leases() { in_guest 'rm -f /lease; udhcpc -i eth0 -q -n -t 8 -T 2 -s /dhcp >/dev/null 2>&1; cat /lease'; }
gets_lease() { [ "$(leases)" = 10.9.0.2 ]; }
reaches_far() { [ "$(in_guest 'wget -q -O - http://10.9.0.3/file | md5sum')" = "$sum" ]; }
reaches_loopback() { [ "$(in_guest 'wget -q -O - http://10.9.0.1:8000/file')" = near ]; }
fetch() { printf 'GET /file HTTP/1.0\r\n\r\n' | ./socat -t 60 - "$1" | tail -n 1; }
is_reached() { [ "$(fetch TCP:127.0.0.1:8080)" = guest ]; }
carrier() { in_guest 'cat /sys/class/net/eth0/carrier /sys/class/net/eth0/carrier_changes' | tr '\n' ' '; }
carrier_changed() { now=$(carrier) && echo "before: $before, now: $now" && [ "${now%% *}" = 1 ] && [ "$now" != "$before" ]; }
refused() { # WORDS OPTION...
    words=$1
    shift
    refused_in_line "$words" as_user "vmrun run --kernel $KERNEL --initrd $INITRD --console none $*"
}

expect "an ordinary user's guest comes up with a network that nobody prepared" start \
    --net user,hostfwd=tcp:127.0.0.1:8080:80,hostfwd=udp:127.0.0.1:5353:5353,hostfwd=tcp:[::1]:8081:80
expect "it gets a lease by DHCP: the host's own address" gets_lease
expect "it fetches a file from another host" reaches_far
expect "and from the loopback of its host, which the router stands for" reaches_loopback
expect "it is reached by a forwarded port" is_reached
udp_answers() {
    in_guest 'socat UDP-LISTEN:5353,fork EXEC:cat >/dev/null 2>&1 & sleep 0.5' || return
    [ "$(echo hello | ./socat -t 5 - UDP:127.0.0.1:5353)" = hello ]
}
expect "by one of UDP" udp_answers
expect "a port of UDP with the number of one of TCP is not forwarded" sh -c '! netstat -uln | grep :8080'
expect "names are answered" in_guest 'nslookup name.test | grep 10.9.0.3'
has_ipv6() { in_guest 'ip -6 addr show dev eth0 scope global | grep fd00:9: | grep -v tentative'; }
expect "it has an address of IPv6" wait_for 20 has_ipv6
ipv6_forward() { [ "$(fetch 'TCP6:[::1]:8081')" = guest ]; }
# Not before: passt asks the guest once, and a guest that has no address yet does not answer.
expect "it is reached by a forwarded port of IPv6" ipv6_forward
reaches_ipv6() { [ "$(in_guest 'timeout 60 wget -q -O - http://[fd00:9::3]/file | md5sum')" = "$sum" ]; }
expect "and fetches with it" reaches_ipv6
expect "it was told of longer packets" in_guest '[ $(cat /sys/class/net/eth0/mtu) = 28712 ]'
to_host() { in_guest "iperf3 -c 10.9.0.1 $*" >/tmp/iperf3.to || { cat /tmp/iperf3.to; return 1; }; }
to_guest() { in_guest "iperf3 -c 10.9.0.1 -R $*" >/tmp/iperf3.from || { cat /tmp/iperf3.from; return 1; }; }
expect "iperf3 to the host" to_host -n 8M
old=$(passts)
expect "iperf3 to the guest" to_guest -n 32M
grep -h receiver /tmp/iperf3.*
same_passt() { [ "$(passts)" = "$old" ]; }
expect "no frame of it was taken for something else" same_passt
features() { [ "$(in_guest 'cut -c 1,2,12 /sys/class/net/eth0/device/features')" = $1 ]; } # CSUM, GUEST_CSUM, HOST_TSO4
expect "its driver leaves checksums to passt, and no segments" features 110
sends_whole() { # SIZE OF-PACKETS: what is in its memory reaches the host's sockets
    in_guest "ip link set eth0 mtu $2; dd if=/dev/urandom of=/www/large bs=1M count=$1 2>/dev/null; md5sum </www/large" >/tmp/large.there || return
    wget -q -O - http://127.0.0.1:8080/large | md5sum >/tmp/large.here
    in_guest 'ip link set eth0 mtu 28712; rm /www/large'
    cmp /tmp/large.there /tmp/large.here
}
expect "what it sends arrives unharmed" sends_whole 16 28712
expect "in packets of 1500 bytes, too" sends_whole 4 1500
expect "and of 9000" sends_whole 4 9000
expect "packets of 1500 bytes as well" in_guest 'ip link set eth0 mtu 1500 && iperf3 -c 10.9.0.1 -n 1M; s=$?; ip link set eth0 mtu 28712; [ $s = 0 ]'
expect "frames are counted" sh -c "su user -c 'XDG_RUNTIME_DIR=/tmp/user-run vmrun stats net --json' | grep -q 'net.net0.tx_frames'"

# passt dies
before=$(carrier)
old=$(passts)
expect "passt is killed" kill -KILL "$old"
expect "and another one takes its place" wait_for 20 sh -c "pidof passt && [ \"\$(pidof passt)\" != $old ]"
expect "which is said in a line" wait_for 20 sh -c "grep 'signal 9 ended passt; the guest.s link is down' /tmp/user-run/vmrun/net.log"
expect "and that it runs again" wait_for 20 grep "passt runs again" /tmp/user-run/vmrun/net.log
expect "the guest has seen its link go down and come back" wait_for 20 carrier_changed
expect "its network works" reaches_far
expect "its ports as well" is_reached

# Two at once
expect "a second machine with that port is refused in a line" refused 'port 8080 of the host is taken already' --net user,hostfwd=tcp:8080:80
expect "one of UDP too" refused 'port 5353 of the host is taken already' --net user,hostfwd=udp:127.0.0.1:5353:1
as_user "vmrun run --kernel $KERNEL --initrd $INITRD --net user,hostfwd=tcp:8082:80 --cmdline '$(script_line 'ls /sys/class/net')'" </dev/null >"$OUT" 2>"$ERR"
expect "one with another port runs beside it" printed eth0
expect "and the first has its passt still" is_reached

# Save and restore
expect "the machine is saved" as_user vmrun save net /tmp/user-run/net.snap --stop
told() { vmrun snapshot info /tmp/user-run/net.snap --json >"$OUT" && grep -q '"mtu": *28712' "$OUT" && grep -q '"offload": *"on"' "$OUT"; }
expect "with what its card was told, whatever is usual later" told
exec 3>&-
expect "and passt has ended with it" wait_for 5 no_passt
rm -f /tmp/user-run/vmrun/net.log
not_on_tap() { ! as_user vmrun restore /tmp/user-run/net.snap --set nets[0].backend=tap --set nets[0].ifname=t --set nets[0].hostfwd= 2>/tmp/no-tap && cat /tmp/no-tap && grep -q 'the backend "user" can do' /tmp/no-tap; }
expect "it is not restored onto a tap, in words" not_on_tap
expect "it is restored, with other ports where they are taken here" as_user vmrun restore /tmp/user-run/net.snap --detach \
    --set nets[0].hostfwd=tcp:127.0.0.1:8080:80
expect "its line is there" attached
expect "its network works" reaches_far
expect "a new lease as well" gets_lease
expect "its port too" is_reached
before="0 0 "
expect "its link is up" carrier_changed

# It moves; both are on this host, so that a port is another's there
moves() { # FROM TO PORT
    as_user "vmrun receive tcp://127.0.0.1:4711 --name $2 --detach --set nets[0].hostfwd=tcp:127.0.0.1:$3:80" >/tmp/receive.out 2>&1 &
    receiver=$!
    if wait_for 10 grep -q waiting /tmp/receive.out && as_user vmrun migrate $1 tcp://127.0.0.1:4711; then
        wait $receiver && return
    fi
    cat /tmp/receive.out
    return 1
}
stays() { ! moves net there 8080 >/tmp/stays 2>&1 && cat /tmp/stays && grep -q 'port 8080 of the host is taken already' /tmp/stays; }
expect "it stays where a port is taken on the other side, in words" stays
expect "it moves" moves net there 8083
exec 3>&-
expect "its line is there as well" attached there
expect "its network works there" reaches_far
expect "its port, too" [ "$(fetch TCP:127.0.0.1:8083)" = guest ]
expect "it moves back" moves there net 8080
exec 3>&-
expect "its line is back" attached
expect "its network works" reaches_far
expect "its port, too" is_reached
expect "one passt is left" [ "$(passts | wc -w)" = 1 ]

# Its end, in each way
expect "the machine is killed" as_user vmrun kill net
exec 3>&-
expect "and passt with it" wait_for 5 no_passt
for signal in TERM HUP KILL STOP; do # a shell has its background ignore INT, and so does vmrun then
    as_user "exec vmrun run --kernel $KERNEL --initrd $INITRD --console none --net user --cmdline '$(script_line 'sleep 100')'" </dev/null >"$OUT" 2>"$ERR" &
    expect "passt runs" wait_for 20 passts
    vmm=$(pidof vmrun)
    if [ $signal = STOP ]; then # the hardest: passt stands still itself when vmrun is killed
        kill -STOP "$(passts)"
        kill -KILL "$vmm"
    else
        kill -$signal "$vmm"
    fi
    wait $! 2>/dev/null
    expect "SIG$signal leaves no passt behind" wait_for 5 no_passt
done

# What cannot be
expect "a port of root's is refused in a line" refused 'port 80 of the host is for root' --net user,hostfwd=tcp:80:80
expect "an address that is another's too" refused 'the host has no address 10.9.0.77' --net user,hostfwd=tcp:10.9.0.77:8090:80
mv passt passt.away
expect "without passt it says how to get it" refused 'passt is not installed; as root: apt install passt' --net user
mv passt.away passt
alone() {
    STATUS=0
    su user -c "XDG_RUNTIME_DIR=/tmp/user-run PATH=/job:$PATH unshare -r -n vmrun run --kernel $KERNEL --initrd $INITRD --console none --net user" </dev/null >"$OUT" 2>"$ERR" || STATUS=$?
    [ "$STATUS" = 1 ] && grep -q "default route" "$ERR"
}
expect "a host without any interface: said in a line" alone
expect "no passt is left" wait_for 5 no_passt
as_user "vmrun run --kernel $KERNEL --initrd $INITRD --net user,offload=off \
    --cmdline '$(script_line 'cut -c 1,2,12 /sys/class/net/eth0/device/features')'" </dev/null >"$OUT" 2>"$ERR"
expect "its driver does it all itself where it is to" printed 000
rm -rf /tmp/user-run/vmrun
PATH=/job:$PATH vmrun run --kernel "$KERNEL" --initrd "$INITRD" --cmdline "$(script_line 'ls /sys/class/net')" --net user </dev/null >"$OUT" 2>"$ERR"
expect "root may have it as well, where passt becomes nobody" printed eth0
finish
