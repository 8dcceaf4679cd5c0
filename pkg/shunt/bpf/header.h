// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//
// Headers, and sums over them. Words and halves are in network byte order.

#define NEXT (-1) // TCX_NEXT: as if the program were not there
#define SHOT 2    // TC_ACT_SHOT

#define PROTO_TCP 6

#define ETHER 14
#define IP4 20
#define IP6 40
#define TCP 20
#define CHECK 16 // of the checksum in the TCP header
#define WORDS 10 // of TCP options at most

#define FIN 0x01
#define SYN 0x02
#define RST 0x04
#define ACK 0x10

struct ip4 {
	__u8 version, tos;
	__be16 length, id, fragment;
	__u8 ttl, proto;
	__u16 check;
	__u32 src, dst;
};

struct ip6 {
	__u8 version, flow[3];
	__be16 length;
	__u8 next, hops;
	__u32 src[4], dst[4];
};

struct tcp {
	union {
		struct {
			__be16 source, dest;
		};
		__u32 ports;
	};
	__u32 seq, ack;
	union {
		struct {
			__u8 offset, flags;
			__be16 window;
		};
		__u32 control;
	};
	__u16 check;
	__be16 urgent;
};

// wide folds a sum of words to one word, narrow to a half.
static __always_inline __u32 wide(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	return sum;
}

static __always_inline __u16 narrow(__u64 sum)
{
	__u32 s = wide(sum);
	s = (s & 0xffff) + (s >> 16);
	s = (s & 0xffff) + (s >> 16);
	return s;
}

static __always_inline __u64 sum4(struct ip4 *ip)
{
	__u64 sum = 0;
	__u32 *w = (__u32 *)ip;
#pragma unroll
	for (int i = 0; i < IP4 / 4; i++)
		sum += w[i];
	return sum;
}
