// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//
// Translates the segments of open spliced connections where the host sends them
// to the hub, and turns them round: for the host it is as if they had come back
// from there. What it does is Table.translate of pkg/splice, byte for byte;
// TestShuntTranslates in pkg/split compares the two. Whatever is not an
// everyday segment of a known connection goes on to the hub.
//
// Regenerate with `make bpf`.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "header.h"
#include "path.h"

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct passed);
} counts SEC(".maps");

// segment is what is known of a packet.
struct segment {
	struct ends ends;
	struct tcp tcp;
	__u32 options[WORDS];
	__u32 start;   // of the TCP header, from the Ethernet header on
	__u32 words;   // of options
	__u32 stamps;  // words that timestamps take: 0 or 3
	__u32 payload; // bytes
	bool sack;
	__u64 tcp_diff, pseudo_diff; // what the checksum changes by
};

// parse_tcp reads a TCP header and knows the options that real ends send after
// the handshake: timestamps, SACK blocks, both, or none.
static __always_inline bool parse_tcp(struct __sk_buff *skb, struct segment *s, __u32 length)
{
	if (length < TCP || bpf_skb_load_bytes(skb, s->start, &s->tcp, TCP))
		return false;
	__u32 header = (s->tcp.offset >> 4) * 4;
	if ((s->tcp.flags & (FIN | SYN | RST | ACK)) != ACK || header < TCP || header > length)
		return false;
	s->payload = length - header;
	__u32 size = header - TCP;
	s->words = size / 4;
	if (size == 0)
		return true;
	if (size > sizeof(s->options) || bpf_skb_load_bytes(skb, s->start + TCP, s->options, size))
		return false;
	if (s->words >= 3 && s->options[0] == bpf_htonl(0x0101080a))
		s->stamps = 3;
	__u32 rest = s->words - s->stamps, head = s->stamps ? s->options[3] : s->options[0];
	if (rest == 0)
		return true;
	// Two NOPs, the kind, and a length that takes up all that is left.
	s->sack = rest >= 3 && head == bpf_htonl(0x01010500 + 4 * rest - 2);
	return s->sack;
}

// change replaces a word that the checksum covers.
static __always_inline void change(__u64 *diff, __u32 *word, __u32 to)
{
	*diff += (__u64)(__u32)~*word + to;
	*word = to;
}

static __always_inline void add(__u64 *diff, __u32 *word, __u32 n)
{
	change(diff, word, bpf_htonl(bpf_ntohl(*word) + n));
}

// shift is shiftUp and shiftDown. up goes to the server.
static __always_inline void shift(struct segment *s, struct path *p, bool up)
{
	__u32 from = up ? CLIENT : SERVER, seq = up ? p->up : p->down, ack = up ? -p->down : -p->up;
	struct tcp *t = &s->tcp;
	union {
		__be16 halves[2];
		__u32 word;
	} ports = {{t->source, t->dest}}, window = {.word = t->control};
	if (up)
		ports.halves[0] = p->hub_port;
	else
		ports.halves[1] = p->client_port;
	change(&s->tcp_diff, &t->ports, ports.word);
	add(&s->tcp_diff, &t->seq, seq);
	add(&s->tcp_diff, &t->ack, ack);
	__u32 scaled = (__u32)bpf_ntohs(window.halves[1]) << (p->left[from] & 15) >> (p->right[from] & 15);
	window.halves[1] = bpf_htons(scaled < 0xffff ? scaled : 0xffff);
	change(&s->tcp_diff, &t->control, window.word);
	if (s->stamps) {
		if (up)
			add(&s->tcp_diff, &s->options[2], -p->clock);
		else
			add(&s->tcp_diff, &s->options[1], p->clock);
	}
	if (!s->sack)
		return;
#pragma unroll
	for (__u32 i = 1; i < WORDS; i++) {
		if (i > s->stamps && i < s->words)
			add(&s->tcp_diff, &s->options[i], ack);
	}
}

// note is flow.note: what a segment says, for the one who takes over again.
static __always_inline void note(struct segment *s, struct path *p, bool up)
{
	__u32 from = up ? CLIENT : SERVER, to = up ? SERVER : CLIENT;
	__u32 end = bpf_ntohl(s->tcp.seq) + s->payload, ack = bpf_ntohl(s->tcp.ack);
	__u32 due = p->acked[to] - (up ? p->up : p->down), theirs = ack - (up ? p->down : p->up);
	if ((__s32)(p->next[from] - end) < 0 && end - due <= (2u * 0xffff) << (p->scale[to] & 15))
		p->next[from] = end;
	if ((__s32)(p->next[to] - theirs) >= 0) {
		if ((__s32)(p->acked[from] - ack) < 0)
			p->acked[from] = ack;
		p->window[from] = bpf_ntohs(s->tcp.window);
	}
	if (s->stamps)
		p->stamp[from] = bpf_ntohl(s->options[1]);
	p->seen = bpf_ktime_get_ns() >> TICK;
	__u32 worker = p->worker;
	struct passed *c = bpf_map_lookup_elem(&counts, &worker);
	if (c) {
		c->packets[from]++;
		c->bytes[from] += s->payload;
	}
}

// ours says that nothing in a segment needs more than shifting.
static __always_inline bool ours(struct __sk_buff *skb, struct segment *s, struct path *p, bool up)
{
	if ((s->stamps && !(p->bits & STAMPS)) || (s->sack && !(p->bits & SACK)))
		return false;
	// Who acknowledges a FIN is watched by the table.
	if (!s->payload && (p->bits & (up ? SERVER_ENDS : CLIENT_ENDS)))
		return false;
	// What is longer than the receiver takes has to be divided (Table.divide).
	__s32 limit = (__s32)p->mss[up ? SERVER : CLIENT] - (__s32)s->words * 4;
	__u32 size = skb->gso_size ? skb->gso_size : s->payload;
	return limit < 1 || size <= (__u32)limit || s->payload <= (__u32)limit;
}

// seal writes the TCP header and corrects its checksum; whatever the kernel
// still has to do to it, it keeps on doing.
static __always_inline bool seal(struct __sk_buff *skb, struct segment *s, __u64 ipv6)
{
	__u32 at = s->start + CHECK, size = s->words * 4;
	if (bpf_skb_store_bytes(skb, s->start, &s->tcp, TCP, 0))
		return false;
	if (size > 0 && (size > sizeof(s->options) || bpf_skb_store_bytes(skb, s->start + TCP, s->options, size, 0)))
		return false;
	return !bpf_l4_csum_replace(skb, at, 0, wide(s->pseudo_diff), BPF_F_PSEUDO_HDR) &&
	       !bpf_l4_csum_replace(skb, at, 0, wide(s->tcp_diff), 0);
}

// turn sends a packet back to where it has come from.
static __always_inline int turn(struct __sk_buff *skb)
{
	__u8 macs[12], back[12];
	if (bpf_skb_load_bytes(skb, 0, macs, sizeof(macs)))
		return SHOT;
	__builtin_memcpy(back, macs + 6, 6);
	__builtin_memcpy(back + 6, macs, 6);
	if (bpf_skb_store_bytes(skb, 0, back, sizeof(back), 0))
		return SHOT;
	skb->mark = 0; // which has led it here
	return bpf_redirect(skb->ifindex, BPF_F_INGRESS);
}

static __always_inline int ipv4(struct __sk_buff *skb)
{
	struct segment s = {.start = ETHER + IP4};
	struct ip4 ip;
	if (bpf_skb_load_bytes(skb, ETHER, &ip, IP4))
		return NEXT;
	__u32 length = bpf_ntohs(ip.length);
	if (ip.version != 0x45 || ip.proto != PROTO_TCP || (ip.fragment & bpf_htons(0x3fff)) ||
	    length < IP4 || ETHER + length != skb->len || narrow(sum4(&ip)) != 0xffff)
		return NEXT;
	if (!parse_tcp(skb, &s, length - IP4))
		return NEXT;
	s.ends = (struct ends){.from = {0, 0, bpf_htonl(0xffff), ip.src}, .to = {0, 0, bpf_htonl(0xffff), ip.dst}, .ports = s.tcp.ports};
	bool up = ip.dst != hub4;
	struct path *p = find(&s.ends, up);
	if (!p || !ours(skb, &s, p, up))
		return NEXT;
	note(&s, p, up);
	shift(&s, p, up);
	if (up)
		change(&s.pseudo_diff, &ip.src, hub4);
	else
		change(&s.pseudo_diff, &ip.dst, *(__u32 *)&p->client[12]);
	ip.check = 0;
	ip.check = ~narrow(sum4(&ip));
	if (bpf_skb_store_bytes(skb, ETHER, &ip, IP4, 0) || !seal(skb, &s, 0))
		return SHOT;
	return turn(skb);
}

static __always_inline int ipv6(struct __sk_buff *skb)
{
	struct segment s = {.start = ETHER + IP6};
	struct ip6 ip;
	if (bpf_skb_load_bytes(skb, ETHER, &ip, IP6))
		return NEXT;
	__u32 length = bpf_ntohs(ip.length);
	if (ip.version >> 4 != 6 || ip.next != PROTO_TCP || ETHER + IP6 + length != skb->len || !parse_tcp(skb, &s, length))
		return NEXT;
	__builtin_memcpy(s.ends.from, ip.src, 16);
	__builtin_memcpy(s.ends.to, ip.dst, 16);
	s.ends.ports = s.tcp.ports;
	bool up = !same(s.ends.to, hub6);
	struct path *p = find(&s.ends, up);
	if (!p || !ours(skb, &s, p, up))
		return NEXT;
	note(&s, p, up);
	shift(&s, p, up);
#pragma unroll
	for (int i = 0; i < 4; i++) {
		if (up)
			change(&s.pseudo_diff, &ip.src[i], hub6[i]);
		else
			change(&s.pseudo_diff, &ip.dst[i], ((__u32 *)p->client)[i]);
	}
	if (bpf_skb_store_bytes(skb, ETHER, &ip, IP6, 0) || !seal(skb, &s, 1))
		return SHOT;
	return turn(skb);
}

SEC("tc")
int shunt(struct __sk_buff *skb)
{
	if (skb->vlan_present)
		return NEXT;
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return ipv4(skb);
	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		return ipv6(skb);
	return NEXT;
}

char licence[] SEC("license") = "Dual MIT/GPL";
