#!/bin/bash
# The first process of a machine that kernels.sh boots: runs the tests, lays a small internet
#
#   client --- edge ==(up1, up2)== net --- cloud --- server
#
# with the two agents in it, and says after "== " what has become of each.
export PATH=/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin HOME=/root TERM=dumb
cd /hawser || exit 1
mountpoint -q /proc || mount -t proc proc /proc
mountpoint -q /sys || mount -t sysfs sys /sys
mkdir -p /dev/shm
for place in /run /tmp; do mount -t tmpfs tmpfs "$place"; done
mount -t cgroup2 cgroup /sys/fs/cgroup
hostname vm
ip link set lo up
modprobe -a veth tcp_bbr tun
worse=0

# said tells how something went: said RESULT WHAT...
said() {
	local result=$1
	shift
	if [ "$result" = 0 ]; then echo "== ok    $*"; else
		echo "== FAIL  $*"
		worse=1
	fi
}

in_ns() { ip netns exec "$@"; }

wire() { # NAMESPACE DEVICE ADDRESS ADDRESS6 - the same of the other end
	ip link add "$2" netns "$1" type veth peer name "$6" netns "$5"
	ip -n "$1" addr add "$3" dev "$2"
	ip -n "$5" addr add "$7" dev "$6"
	ip -n "$1" addr add "$4" dev "$2" nodad
	ip -n "$5" addr add "$8" dev "$6" nodad
	ip -n "$1" link set "$2" up
	ip -n "$5" link set "$6" up
}

lay() {
	local n
	for n in client edge net cloud server; do
		ip netns add "$n"
		ip -n "$n" link set lo up
	done
	wire client c0 10.5.0.2/24 fd05::2/64 edge lan0 10.5.0.1/24 fd05::1/64
	wire edge up1 10.1.0.2/24 fd01::2/64 net u1 10.1.0.1/24 fd01::1/64
	wire edge up2 10.2.0.2/24 fd02::2/64 net u2 10.2.0.1/24 fd02::1/64
	wire net d0 10.9.0.254/24 fd09::fe/64 cloud wan 10.9.0.1/24 fd09::1/64
	wire cloud s1 10.7.0.1/24 fd07::1/64 server s0 10.7.0.2/24 fd07::2/64
	ip -n client route add default via 10.5.0.1
	ip -n client -6 route add default via fd05::1
	ip -n edge route add default via 10.1.0.1
	ip -n edge -6 route add default via fd01::1
	ip -n net route add 10.7.0.0/24 via 10.9.0.1
	ip -n net route add 10.5.0.0/24 via 10.1.0.2
	ip -n cloud route add default via 10.9.0.254
	ip -n server route add default via 10.7.0.1
	ip -n server -6 route add default via fd07::1
	for n in edge net cloud; do in_ns "$n" sysctl -qw net.ipv4.ip_forward=1; done
	mkdir -p /tmp/www /etc/hawser
	head -c 300000 /dev/urandom >/tmp/www/file
	in_ns server nginx -c /hawser/nginx.conf
}

# fetch has the client get the file by curl's arguments and compares it.
fetch() {
	rm -f /tmp/got
	in_ns client curl -sf -m 120 -o /tmp/got "$@" && cmp -s /tmp/got /tmp/www/file
}

# left lists what is still on a host that hawser puts there.
left() {
	ip -n "$1" rule | grep -E '^4[67][0-9]:'
	in_ns "$1" iptables-save | grep HAWSER
	in_ns "$1" ip6tables-save | grep HAWSER
	ip -n "$1" link show hub0 2>/dev/null
}

# carry tries one way of carrying: carry NAME TRANSPORT INTERCEPT EGRESS CARD
carry() {
	local name=$1 cloud edge try n what
	cat >/etc/hawser/cloud.yaml <<-X
		namespace: there
		edges: [{name: e, key: "$edge_key"}]
		egress: {mode: $4, allow: [private]}
		card: {kind: $5}
	X
	cat >/etc/hawser/edge.yaml <<-X
		namespace: here
		cloud: {key: "$cloud_key"}
		links:
		  - {name: a, interface: up1, gateway: 10.1.0.1, cloud: "10.9.0.1:7443", transport: $2}
		  - {name: b, interface: up2, gateway: 10.2.0.1, cloud: "10.9.0.1:7443", transport: $2}
		steer: {interfaces: [lan0], intercept: $3, fail_open: false}
		workers: 2
		card: {kind: $5}
	X
	[ "$3" = tproxy ] || echo 'policies: [{name: around, ports: [81], action: direct}]' >>/etc/hawser/edge.yaml
	in_ns cloud ./hawser-cloud check >/tmp/check 2>&1
	said $? "$name: hawser-cloud check"
	ip netns exec cloud ./hawser-cloud run >/tmp/cloud.log 2>&1 &
	cloud=$!
	for try in $(seq 60); do grep -q 'cloud runs' /tmp/cloud.log && break || sleep 1; done
	in_ns edge ./hawser-edge check >>/tmp/check 2>&1
	said $? "$name: hawser-edge check"
	ip netns exec edge ./hawser-edge run >/tmp/edge.log 2>&1 &
	edge=$!
	for try in $(seq 60); do ./hawser-edge status 2>/dev/null | grep -q 'state: up' && break || sleep 1; done
	sleep 3
	fetch http://10.7.0.2/file
	said $? "$name: download"
	fetch 'http://[fd07::2]/file'
	said $? "$name: download by IPv6"
	in_ns client curl -sf -m 120 -T /tmp/www/file http://10.7.0.2/up/x && cmp -s /tmp/www/up/x /tmp/www/file
	said $? "$name: upload"
	rm -rf /tmp/www/up
	in_ns client curl -s -m 20 http://10.7.0.2:99/
	[ $? != 28 ]
	said $? "$name: a refusal"
	if [ "$3" != tproxy ]; then
		fetch http://10.7.0.2:81/file
		said $? "$name: around the tunnel"
	fi
	./hawser-edge status | grep -E '^ *(card|NAME|a |b |splice_kernel|hub_bad_frames)'
	kill "$edge" "$cloud"
	wait "$edge" && wait "$cloud"
	said $? "$name: both stop"
	what=$(for n in edge cloud; do left "$n"; done)
	[ -z "$what" ]
	said $? "$name: nothing is left"
	[ "$worse" = 0 ] || {
		grep -v '^ok' /tmp/check
		echo "$what"
		tail -n 20 /tmp/edge.log /tmp/cloud.log
	}
}

uname -r
while read -r package run; do
	(cd "$package" && ./it.test -test.run "$run" -test.timeout 8m) >/tmp/log 2>&1
	said $? "$package"
	[ "${worse}" = 0 ] || grep -v '^=== ' /tmp/log | head -n 60
done <tests
lay
edge_key=$(./hawser-edge genkey -o /etc/hawser/edge.key)
cloud_key=$(./hawser-cloud genkey -o /etc/hawser/cloud.key)
carry "tcp, hub, hub" tcp hub hub auto
carry "quic, hub, socket" quic hub socket auto
carry "tcp, tproxy, hub, card kernel" tcp tproxy hub kernel
[ "$worse" = 1 ] || echo "== all is well"
sync
echo o >/proc/sysrq-trigger
sleep 10
