// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//
// Answers clients' SYNs where they arrive, on the way into a client interface:
// before connection tracking, routing and rules. It does what pkg/guard does
// (Jar.Answer, ParseSYN) byte for byte; TestShieldAnswers in pkg/split compares
// the two. Of ACKs it marks those that bring a valid cookie.
//
// Regenerate with `make bpf`.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "packet.h"
#include "options.h"
#include "cookie.h"

enum counter { ANSWERED, BAD, ODD, LEFT, COOKIES, FAILED, COUNTERS };

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} setup SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

// ports has a bit for each wanted destination port.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u64);
} ports SEC(".maps");

struct prefix {
	__u32 bits;
	__u8 addr[16];
};

// leave holds destinations that are not answered here; IPv4 in mapped form.
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix);
	__type(value, __u32);
} leave SEC(".maps");

// Connection tracking's own look-up (net/netfilter/nf_conntrack_bpf.c).
struct nf_conn {
	unsigned long status;
};
struct ct_options {
	__s32 netns;
	__s32 error;
	__u8 proto;
	__u8 dir;
	__u8 reserved[2];
};
extern struct nf_conn *bpf_skb_ct_lookup(struct __sk_buff *, struct bpf_sock_tuple *, __u32,
					 struct ct_options *, __u32) __ksym;
extern void bpf_ct_release(struct nf_conn *) __ksym;

static __always_inline void count(__u32 which)
{
	__u64 *n = bpf_map_lookup_elem(&counts, &which);
	if (n)
		(*n)++;
}

// wanted says that the plan steers a segment's destination.
static __always_inline bool wanted(struct segment *s)
{
	__u32 port = le16(s->vouched.server_port), word = port >> 6;
	__u64 *set = bpf_map_lookup_elem(&ports, &word);
	if (!set || !(*set >> (port & 63) & 1))
		return false;
	struct prefix p = {.bits = 128};
	__builtin_memcpy(p.addr, s->vouched.server, 16);
	return !bpf_map_lookup_elem(&leave, &p);
}

// steered says that the mark would lead a segment to the hub: its destination
// is no address of the host, and the steering rule is there.
static __always_inline bool steered(struct __sk_buff *skb, struct segment *s, struct settings *set)
{
	struct bpf_fib_lookup f = {};
	f.ifindex = skb->ifindex;
	f.l4_protocol = PROTO_TCP;
	FIB_SMAC_MARK(&f) = set->mark;
	if (s->v6) {
		f.family = 10;
		__builtin_memcpy(f.ipv6_src, s->vouched.client, 16);
		__builtin_memcpy(f.ipv6_dst, s->vouched.server, 16);
	} else {
		f.family = 2;
		f.ipv4_src = *(__u32 *)&s->vouched.client[12];
		f.ipv4_dst = *(__u32 *)&s->vouched.server[12];
	}
	long result = bpf_fib_lookup(skb, &f, sizeof(f), FIB_SKIP_NEIGH | FIB_MARK);
	if (result < 0) // the kernel does not know a flag
		count(FAILED);
	return result == 0 && f.ifindex == set->hub;
}

// tracked says that the host knows a connection between a segment's ends.
static __always_inline bool tracked(struct __sk_buff *skb, struct segment *s, struct tcp *t)
{
	struct ct_options o = {.netns = BPF_F_CURRENT_NETNS, .proto = PROTO_TCP};
	struct bpf_sock_tuple ends = {};
	struct nf_conn *c;
	if (s->v6) {
		__builtin_memcpy(ends.ipv6.saddr, s->vouched.client, 16);
		__builtin_memcpy(ends.ipv6.daddr, s->vouched.server, 16);
		ends.ipv6.sport = t->source;
		ends.ipv6.dport = t->dest;
		c = bpf_skb_ct_lookup(skb, &ends, sizeof(ends.ipv6), &o, sizeof(o));
	} else {
		ends.ipv4.saddr = *(__u32 *)&s->vouched.client[12];
		ends.ipv4.daddr = *(__u32 *)&s->vouched.server[12];
		ends.ipv4.sport = t->source;
		ends.ipv4.dport = t->dest;
		c = bpf_skb_ct_lookup(skb, &ends, sizeof(ends.ipv4), &o, sizeof(o));
	}
	if (c)
		bpf_ct_release(c);
	return c;
}

struct reply {
	struct tcp tcp;
	__u8 options[20];
};

// write is Segment.options and the TCP header; it returns its length.
static __always_inline __u32 write(struct reply *r, struct hello *h, struct settings *set, struct segment *s,
				   struct tcp *t, __u32 isn, __u32 stamp)
{
	__u32 n = 4;
	__u8 *o = r->options;
	__u16 mss = s->v6 ? set->mss6 : set->mss4;
	o[0] = 2;
	o[1] = 4;
	o[2] = mss >> 8;
	o[3] = mss;
	if (h->stamps) {
		o[4] = h->sack ? 4 : 1;
		o[5] = h->sack ? 2 : 1;
		o[6] = 8;
		o[7] = 10;
		stamp = bpf_htonl(stamp);
		__builtin_memcpy(&o[8], &stamp, 4);
		__builtin_memcpy(&o[12], &h->value, 4);
		n = 16;
	} else if (h->sack) {
		o[4] = o[5] = 1;
		o[6] = 4;
		o[7] = 2;
		n = 8;
	}
	if (h->scale >= 0 && n <= 16) {
		o[n] = 1;
		o[n + 1] = 3;
		o[n + 2] = 3;
		o[n + 3] = set->scale;
		n += 4;
	}
	r->tcp.source = t->dest;
	r->tcp.dest = t->source;
	r->tcp.seq = bpf_htonl(isn);
	r->tcp.ack = bpf_htonl(bpf_ntohl(t->seq) + 1);
	r->tcp.offset = (TCP + n) / 4 << 4;
	r->tcp.flags = SYN | ACK;
	return TCP + n;
}

// turn makes the packet the answer: the frame's headers, then r.
static __always_inline int turn(struct __sk_buff *skb, struct segment *s, struct reply *r, __u32 length)
{
	__u8 ether[ETHER], back[12];
	union {
		__u32 words[IP6 / 4];
		__u8 bytes[IP6];
		__be16 halves[IP6 / 2];
	} ip = {};
	__u32 header = s->v6 ? IP6 : IP4;
	if (bpf_skb_load_bytes(skb, 0, ether, ETHER) || bpf_skb_change_tail(skb, ETHER + header + length, 0))
		return SHOT;
	__builtin_memcpy(back, ether + 6, 6);
	__builtin_memcpy(back + 6, ether, 6);
	if (s->v6) {
		ip.bytes[0] = 0x60;
		ip.halves[2] = bpf_htons(length);
		ip.bytes[6] = PROTO_TCP;
		ip.bytes[7] = 64;
		__builtin_memcpy(&ip.bytes[8], s->vouched.server, 16);
		__builtin_memcpy(&ip.bytes[24], s->vouched.client, 16);
	} else {
		ip.bytes[0] = 0x45;
		ip.halves[1] = bpf_htons(IP4 + length);
		ip.bytes[6] = 0x40;
		ip.bytes[8] = 64;
		ip.bytes[9] = PROTO_TCP;
		ip.words[3] = *(__u32 *)&s->vouched.server[12];
		ip.words[4] = *(__u32 *)&s->vouched.client[12];
		ip.halves[5] = ~fold((__u64)ip.words[0] + ip.words[1] + ip.words[2] + ip.words[3] + ip.words[4]);
	}
	if (bpf_skb_store_bytes(skb, 0, back, sizeof(back), 0))
		return SHOT;
	long err = s->v6 ? bpf_skb_store_bytes(skb, ETHER, &ip, IP6, BPF_F_RECOMPUTE_CSUM)
			 : bpf_skb_store_bytes(skb, ETHER, &ip, IP4, BPF_F_RECOMPUTE_CSUM);
	if (err || length < TCP || length > sizeof(*r) ||
	    bpf_skb_store_bytes(skb, ETHER + header, r, length, BPF_F_RECOMPUTE_CSUM))
		return SHOT;
	count(ANSWERED);
	return bpf_redirect(skb->ifindex, 0);
}

// answer judges a SYN.
static __always_inline int answer(struct __sk_buff *skb, struct segment *s, struct settings *set, struct tcp *t)
{
	struct walk w = {.hello = {.mss = s->v6 ? 1220 : 536, .scale = -1}};
	struct reply r = {};
	__u32 stamp = 0;
	if (!wanted(s) || !steered(skb, s, set))
		return NEXT;
	if (s->odd) {
		count(ODD);
		return SHOT;
	}
	if (tracked(skb, s, t)) {
		count(LEFT);
		return NEXT;
	}
	if (!load(skb, s, t, &w))
		goto bad;
	bpf_loop(OPTIONS, take, &w, 0);
	if (w.bad || w.hello.mss < 216)
		goto bad;
	// A sender on this machine leaves the rest of the sum to the interface: then
	// the field holds the pseudo header's, and so must the answer's.
	__u32 partial = pseudo(s, s->length);
	bool open = t->check == partial;
	if (!open && fold((__u64)sum(skb, s->start, s->length) + partial) != 0xffff)
		goto bad;
	__u32 isn = bake(s, &w.hello, set, &stamp);
	__u32 length = write(&r, &w.hello, set, s, t, isn, stamp);
	partial = pseudo(s, length);
	r.tcp.check = open ? partial : ~fold((__u32)bpf_csum_diff(0, 0, (__be32 *)&r, sizeof(r), partial));
	return turn(skb, s, &r, length);
bad:
	count(BAD);
	return SHOT;
}

// recognise marks a segment that brings a cookie, so that it is steered though
// connection tracking has not seen its SYN. The numbers that it may have are
// those of keeper.check in pkg/split.
static __always_inline void recognise(struct __sk_buff *skb, struct segment *s, struct settings *set, struct tcp *t)
{
	struct walk w = {};
	__u32 seq = bpf_ntohl(t->seq), cookie = bpf_ntohl(t->ack) - 1;
	if ((skb->mark & set->mask) || !load(skb, s, t, &w) || !wanted(s))
		return;
	bpf_loop(OPTIONS, seek, &w, 0);
	__u32 payload = s->length - TCP - w.end, bits = w.found ? 27 : 23;
	if (!valid(s, set, seq - 1, cookie, bits) && (payload > 1 || !valid(s, set, seq, cookie, bits)))
		return;
	if (!steered(skb, s, set))
		return;
	skb->mark |= set->mark;
	count(COOKIES);
}

SEC("tc")
int shield(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct settings *set = bpf_map_lookup_elem(&setup, &zero);
	if (!set || !(set->answer | set->recognise) || skb->pkt_type != HOST || skb->vlan_present)
		return NEXT;
	struct segment s = {};
	struct tcp t = {};
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (!parse4(skb, &s))
			return NEXT;
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		if (!parse6(skb, &s))
			return NEXT;
		s.v6 = true;
	} else {
		return NEXT;
	}
	if (s.length < TCP || bpf_skb_load_bytes(skb, s.start, &t, sizeof(t))) {
		// Of a first fragment that hides the flags the ports can be read.
		if (!s.odd || bpf_skb_load_bytes(skb, s.start, &t, 4))
			return NEXT;
		t.flags = SYN;
	}
	s.vouched.client_port = le16(bpf_ntohs(t.source));
	s.vouched.server_port = le16(bpf_ntohs(t.dest));
	s.vouched.isn = le32(bpf_ntohl(t.seq));
	if ((t.flags & (FIN | SYN | RST | ACK)) == SYN)
		return set->answer ? answer(skb, &s, set, &t) : NEXT;
	if (set->recognise && !s.odd && (t.flags & (SYN | RST | ACK)) == ACK)
		recognise(skb, &s, set, &t);
	return NEXT;
}

// The kernel lets only programs of its own licence look up routes and
// connections; the source may be used under either.
char licence[] SEC("license") = "Dual MIT/GPL";
