#!/bin/bash
# Installs what the demo, the tests and the benchmarks need on Debian 12 or
# later. Says nothing and changes nothing when all is there. Needs root only
# when something is missing.
set -euo pipefail

cd "$(dirname "$0")/.."

complain() {
	echo "setup: $*" >&2
	exit 1
}

# Root's PATH often lacks these.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin:/usr/local/go/bin"

# check_go compares the installed Go with the one that go.mod asks for.
check_go() {
	local need have
	need=$(awk '$1 == "go" {print $2; exit}' go.mod)
	command -v go >/dev/null ||
		complain "Go is missing: install Go $need or later from https://go.dev/dl/ into /usr/local/go"
	# With GOTOOLCHAIN=auto an older Go fetches the one that is needed.
	have=$(go env GOVERSION 2>/dev/null) || have=$(cd / && GOTOOLCHAIN=local go env GOVERSION)
	have=${have#go}
	have=${have%% *}
	[ "$(printf '%s\n%s\n' "$need" "$have" | sort -V | head -n 1)" = "$need" ] ||
		complain "Go $have is too old: install Go $need or later from https://go.dev/dl/ into /usr/local/go"
}

# missing prints the packages whose programs are not there, one a line.
missing() {
	local program package
	while read -r program package; do
		command -v "$program" >/dev/null || echo "$package"
	done <<-LIST
		iptables     iptables
		ip6tables    iptables
		ip           iproute2
		nft          nftables
		curl         curl
		iperf3       iperf3
		tcpdump      tcpdump
		ethtool      ethtool
		sysctl       procps
		ping         iputils-ping
		nc.openbsd   netcat-openbsd
		hping3       hping3
		stunnel      stunnel4
		haproxy      haproxy
		ss-server    shadowsocks-libev
		tayga        tayga
		gcc          gcc
	LIST
	# The race detector links against the C library.
	[ -e /usr/include/stdlib.h ] || echo libc6-dev
	# Uploads in the tests use WebDAV, which nginx-light has built in.
	if ! command -v nginx >/dev/null; then
		echo nginx-light
	elif [[ "$(nginx -V 2>&1)" != *http_dav_module* ]]; then
		complain "the installed nginx has no http_dav_module: install the package nginx-light"
	fi
}

policy=/usr/sbin/policy-rc.d
aside=$policy.before-hawser-setup
mark='# Put here by setup.sh of hawser while packages are installed.'

# forbid_services keeps the packages from starting daemons: the policy file
# says no to every start while apt runs (see invoke-rc.d(8)).
forbid_services() {
	allow_services # an interrupted run may have left its file
	trap allow_services EXIT
	trap 'exit 1' INT TERM HUP
	if [ -e "$policy" ] || [ -L "$policy" ]; then
		mv "$policy" "$aside"
	fi
	printf '#!/bin/sh\n%s\nexit 101\n' "$mark" >"$policy"
	chmod 755 "$policy"
}

# allow_services puts back what forbid_services found.
allow_services() {
	if grep -qsF "$mark" "$policy"; then
		rm -f "$policy"
	fi
	if [ -e "$aside" ] || [ -L "$aside" ]; then
		mv "$aside" "$policy"
	fi
	trap - EXIT INT TERM HUP
}

# apt runs apt-get and shows what it said only when it fails.
apt() {
	local log
	log=$(mktemp)
	if ! DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 "$@" >"$log" 2>&1; then
		tail -n 20 "$log" >&2
		rm -f "$log"
		complain "apt-get $1 failed: see above"
	fi
	rm -f "$log"
}

install_missing() {
	local packages=("$@")
	[ "$(id -u)" = 0 ] || complain "needs root to install ${packages[*]}: run it with sudo"
	command -v apt-get >/dev/null || complain "no apt-get here: install ${packages[*]} by hand"
	echo "setup: installing ${packages[*]}"
	forbid_services
	apt update
	apt install --no-install-recommends "${packages[@]}"
	# What was not here before must not come up at the next boot and take a
	# port.
	local unit
	for unit in nginx-light:nginx haproxy:haproxy stunnel4:stunnel4 shadowsocks-libev:shadowsocks-libev tayga:tayga; do
		if [[ " ${packages[*]} " == *" ${unit%%:*} "* ]] && [ -d /run/systemd/system ]; then
			systemctl disable --quiet "${unit##*:}.service"
		fi
	done
	allow_services
}

check_go
mapfile -t packages < <(missing | sort -u)
if [ "${#packages[@]}" -gt 0 ]; then
	install_missing "${packages[@]}"
	mapfile -t packages < <(missing | sort -u)
	[ "${#packages[@]}" = 0 ] || complain "still missing after the installation: ${packages[*]}"
fi
