// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//
// Gives a TCP connection that has just been established the window that the table
// has for its path, before congestion control begins with it. Connections of other
// paths keep the kernel's, and so does one whose SYN had to go again and again, for
// which the kernel takes one packet.
//
// Regenerate with `make bpf`.

#include <linux/bpf.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define AF_INET 2
#define AF_INET6 10
#define SOL_TCP 6

// path is between two addresses; IPv4 ones are mapped. All is in network byte order.
struct path {
	__u32 local[4], remote[4];
	__u32 port; // of the cloud, in the host's byte order
};

struct window {
	__u64 until; // of the kernel's monotonic clock, ns
	__u64 packets;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct path);
	__type(value, struct window);
} windows SEC(".maps");

SEC("sockops")
int resume(struct bpf_sock_ops *s)
{
	// Volatile, for the verifier takes no address that is reckoned from s.
	volatile struct bpf_sock_ops *v = s;
	struct path p = {};
	__u32 family = v->family, local = v->local_ip4, remote = v->remote_ip4;
	if (v->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB)
		p.port = bpf_ntohl(v->remote_port);
	else if (v->op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		p.port = v->local_port;
	else
		return 1;
	if (family == AF_INET) {
		p.local[2] = p.remote[2] = bpf_htonl(0xffff);
		p.local[3] = local;
		p.remote[3] = remote;
	} else if (family == AF_INET6) {
		p.local[0] = v->local_ip6[0];
		p.local[1] = v->local_ip6[1];
		p.local[2] = v->local_ip6[2];
		p.local[3] = v->local_ip6[3];
		p.remote[0] = v->remote_ip6[0];
		p.remote[1] = v->remote_ip6[1];
		p.remote[2] = v->remote_ip6[2];
		p.remote[3] = v->remote_ip6[3];
	} else {
		return 1;
	}
	struct window *w = bpf_map_lookup_elem(&windows, &p);
	if (!w || bpf_ktime_get_ns() > w->until)
		return 1;
	__u32 packets = w->packets, given = v->snd_cwnd;
	if (given <= 1 || packets <= given)
		return 1;
	bpf_setsockopt(s, SOL_TCP, TCP_BPF_IW, &packets, sizeof(packets));
	return 1;
}

char licence[] SEC("license") = "Dual BSD/GPL";
