// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//
// What a packet holds, and sums over it.

// Newer than the headers of some build machines (linux/bpf.h of 6.10).
#define FIB_SKIP_NEIGH (1U << 2)
#define FIB_MARK (1U << 5)
#define FIB_SMAC_MARK(f) (*(__u32 *)(f)->smac) // input: the mark, where smac is put out

#define NEXT (-1) // TCX_NEXT: as if the program were not there
#define SHOT 2    // TC_ACT_SHOT
#define HOST 0    // PACKET_HOST

// IP protocols; the last four are IPv6's.
#define PROTO_TCP 6
#define PROTO_HOPS 0
#define PROTO_ROUTING 43
#define PROTO_FRAGMENT 44
#define PROTO_OPTIONS 60

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define le16(x) (x)
#define le32(x) (x)
#define le64(x) (x)
#else
#define le16(x) __builtin_bswap16(x)
#define le32(x) __builtin_bswap32(x)
#define le64(x) __builtin_bswap64(x)
#endif

#define ETHER 14
#define IP4 20
#define IP6 40
#define TCP 20
#define OPTIONS 40

#define FIN 0x01
#define SYN 0x02
#define RST 0x04
#define ACK 0x10

// struct segment is what is known of a packet. The first 48 bytes are what a
// cookie vouches for (Jar.mac).
struct segment {
	union {
		struct {
			__u8 client[16], server[16];
			__u16 client_port, server_port; // little endian
			__u32 isn, cookie;              // little endian
			__u32 bits;
		} vouched;
		__u64 words[6];
	};
	__u32 start;  // of the TCP header, from the Ethernet header on
	__u32 length; // of the TCP header and payload
	bool v6;
	bool odd; // IP options, extension headers or a fragment
};

struct tcp {
	__be16 source, dest;
	__be32 seq, ack;
	__u8 offset, flags;
	__be16 window;
	__u16 check;
	__be16 urgent;
};

static __always_inline __u32 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__u32)(sum & 0xffff) + (__u32)(sum >> 16);
}

// pseudo is the sum of the pseudo header; the order of the ends is all the same.
static __always_inline __u32 pseudo(struct segment *s, __u32 length)
{
	__u64 sum = (__u64)bpf_htonl(length) + bpf_htonl(PROTO_TCP);
	__u32 *addr = (__u32 *)s->vouched.client;
#pragma unroll
	for (int i = 0; i < 8; i++)
		sum += addr[i]; // what stands before a mapped address adds 0xffff, which is nothing
	return fold(sum);
}

// parse4 and parse6 find the TCP segment in a packet; false is no TCP, or
// nothing that the kernel would take for a packet.
static __always_inline bool parse4(struct __sk_buff *skb, struct segment *s)
{
	struct {
		__u8 version, tos;
		__be16 length, id, fragment;
		__u8 ttl, proto;
		__u16 check;
		__u32 src, dst;
	} ip;
	if (bpf_skb_load_bytes(skb, ETHER, &ip, sizeof(ip)))
		return false;
	__u32 header = (ip.version & 15) * 4, length = bpf_ntohs(ip.length);
	if (ip.version >> 4 != 4 || ip.proto != PROTO_TCP || header < IP4 || length < header || length + ETHER > skb->len)
		return false;
	s->odd = header != IP4 || (ip.fragment & bpf_htons(0x3fff));
	if (ip.fragment & bpf_htons(0x1fff))
		return false; // a later fragment: without a header
	if (!s->odd) {
		__u64 sum = 0;
		__u32 *w = (__u32 *)&ip;
#pragma unroll
		for (int i = 0; i < 5; i++)
			sum += w[i];
		if (fold(sum) != 0xffff)
			return false;
	}
	s->start = ETHER + header;
	s->length = length - header;
	*(__u16 *)&s->vouched.client[10] = *(__u16 *)&s->vouched.server[10] = 0xffff;
	*(__u32 *)&s->vouched.client[12] = ip.src;
	*(__u32 *)&s->vouched.server[12] = ip.dst;
	__u32 src = bpf_ntohl(ip.src), dst = bpf_ntohl(ip.dst);
	__u32 net = src >> 24;
	return net != 0 && net != 127 && net < 224 && dst >> 28 != 14 && dst >> 16 != 0xa9fe && ip.dst != 0xffffffff;
}

#define EXTENSIONS 8

static __always_inline bool parse6(struct __sk_buff *skb, struct segment *s)
{
	struct {
		__be32 version;
		__be16 length;
		__u8 next, hops;
		__u8 src[16], dst[16];
	} ip;
	if (bpf_skb_load_bytes(skb, ETHER, &ip, sizeof(ip)))
		return false;
	__u32 at = IP6, end = IP6 + bpf_ntohs(ip.length);
	if (end + ETHER > skb->len || bpf_ntohl(ip.version) >> 28 != 6)
		return false;
	__u8 next = ip.next;
	for (int i = 0; i < EXTENSIONS; i++) {
		__u8 header[4] = {};
		if (next != PROTO_HOPS && next != PROTO_ROUTING && next != PROTO_OPTIONS && next != PROTO_FRAGMENT)
			break;
		s->odd = true;
		if (bpf_skb_load_bytes(skb, ETHER + at, header, 4))
			return false;
		if (next == PROTO_FRAGMENT) {
			if ((header[2] << 8 | header[3]) & 0xfff8)
				return false; // a later fragment
			at += 8;
		} else {
			at += 8 * (header[1] + 1);
		}
		next = header[0];
	}
	if (next != PROTO_TCP || at > end)
		return false;
	s->start = ETHER + at;
	s->length = end - at;
	__builtin_memcpy(s->vouched.client, ip.src, 16);
	__builtin_memcpy(s->vouched.server, ip.dst, 16);
	__u16 src = ip.src[0] << 8 | ip.src[1], dst = ip.dst[0] << 8 | ip.dst[1];
	bool low = !(*(__u64 *)ip.src) && !(*(__u32 *)&ip.src[8]); // ::, ::1 and the like
	return src >> 8 != 0xff && src >> 6 != 0x3fa && dst >> 8 != 0xff && dst >> 6 != 0x3fa && !low;
}

#define CHUNK 64
#define CHUNKS 24

// sum is that of a TCP segment's bytes; above 16 bits when it cannot be made.
static __noinline __u32 sum(struct __sk_buff *skb, __u32 start, __u32 length)
{
	__u8 p[CHUNK];
	__s64 total = 0;
	if (length > CHUNK * CHUNKS)
		return 1 << 16;
	for (int i = 0; i < CHUNKS; i++) {
		__u32 n = length < CHUNK ? length : CHUNK;
		if (n == 0)
			break;
		__builtin_memset(p, 0, sizeof(p));
		if (n > CHUNK || bpf_skb_load_bytes(skb, start, p, n))
			return 1 << 16;
		total = bpf_csum_diff(0, 0, (__be32 *)p, sizeof(p), (__u32)total);
		start += n;
		length -= n;
	}
	return fold((__u32)total);
}
