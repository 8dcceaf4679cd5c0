#!/bin/bash
# Boots Debian's kernels under QEMU and tries there what depends on the kernel: check, packet
# sockets, BPF programs, AF_ALG, and the two agents with transfers between them.
#
#   scripts/kernels.sh [RELEASE ...]     bookworm (6.1) and trixie (6.12) unless named
#
# Without KVM the processor is emulated, which takes six minutes per kernel on two quiet processors;
# nothing there depends on speed. Needs root, and debootstrap, qemu-system-x86 and e2fsprogs (it says so).
# ACCEL=kvm uses KVM. What each kernel said stays in kernels-RELEASE.log.
set -euo pipefail

cd "$(dirname "$0")/.."
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin:/usr/local/go/bin"

complain() {
	echo "kernels: $*" >&2
	exit 1
}

[ "$(id -u)" = 0 ] || complain "needs root to make a Debian: run it with sudo"
[ "$(uname -m)" = x86_64 ] || complain "is for x86-64 alone"
for program in debootstrap qemu-system-x86_64 mke2fs; do
	command -v "$program" >/dev/null || complain "$program is missing: apt-get install debootstrap qemu-system-x86 e2fsprogs"
done

MIRROR=${MIRROR:-http://deb.debian.org/debian}
ACCEL=${ACCEL:-tcg,thread=multi}
LIMIT=${LIMIT:-30m} # per kernel
# The kernel's package brings the tools that make its initrd.
PACKAGES=linux-image-amd64,iproute2,iptables,nftables,kmod,procps,nginx-light,curl,ethtool,ca-certificates
# What is tried there beside the transfers: package, and which tests.
TESTS=(
	"netns ^(TestCheck|TestCheckUpsItsHub|TestFanout|TestCaptureTakesTCPOnly|TestTwoCapturesAtOnce|TestTransparentCheck)$"
	"pkg/card Kernel"
	"pkg/shield ." "pkg/shunt ." "pkg/resume ." "pkg/sock ." "pkg/nonblock ."
)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP

# furnish puts the programs and tests into a release's root.
furnish() {
	local root=$1 line package
	mkdir -p "$root/hawser"
	for line in "${TESTS[@]}"; do
		package=${line%% *}
		mkdir -p "$root/hawser/$package"
		go test -c -vet=off -o "$root/hawser/$package/it.test" "./$package"
		echo "$line" >>"$root/hawser/tests"
	done
	go build -o "$root/hawser/hawser-edge" ./edge
	go build -o "$root/hawser/hawser-cloud" ./cloud
	cp scripts/kernels/inside.sh scripts/kernels/nginx.conf "$root/hawser/"
}

# try boots one release's kernel and returns 0 if all went well there.
try() {
	local release=$1 root=$work/$1 kernel log=kernels-$1.log
	debootstrap --variant=minbase --include="$PACKAGES" "$release" "$root" "$MIRROR" >"$log" 2>&1 ||
		complain "debootstrap $release failed: see $log"
	furnish "$root"
	kernel=$(ls "$root"/boot/vmlinuz-* | sort -V | tail -n 1)
	mke2fs -q -t ext4 -O ^has_journal -d "$root" "$work/$release.img" 3G
	echo "kernels: $release: $(basename "$kernel")"
	timeout "$LIMIT" qemu-system-x86_64 -accel "$ACCEL" -cpu max -smp 2 -m 3000 -nographic -no-reboot -nic none \
		-kernel "$kernel" -initrd "${kernel/vmlinuz/initrd.img}" \
		-append "console=ttyS0 quiet panic=-1 root=/dev/vda rw init=/hawser/inside.sh" \
		-drive "file=$work/$release.img,format=raw,if=virtio,cache=unsafe" </dev/null >"$log" 2>&1 || true
	rm -rf "$root" "$work/$release.img"
	tr -d '\r' <"$log" | grep '^== ' || true
	tr -d '\r' <"$log" | grep -q '^== all is well' || {
		echo "kernels: $release: not all is well: see $log" >&2
		return 1
	}
}

[ $# -gt 0 ] || set -- bookworm trixie
bad=0
for release in "$@"; do
	try "$release" || bad=1
done
exit "$bad"
