// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//
// Cookies, as pkg/guard makes and checks them.

// struct settings is what user space says; shield.go has the same in Go.
struct settings {
	__u64 keys[2][2]; // of the cookies, by the slot's parity
	__u32 parity;     // of the slot whose key makes cookies
	__u32 clock;      // what to add to the milliseconds of CLOCK_MONOTONIC
	__u32 answer;     // 1: answer SYNs
	__u32 recognise;  // 1: mark ACKs that bring a cookie
	__u32 mark;       // the mark that steers
	__u32 mask;       // the bits of it
	__u32 hub;        // the interface that the mark steers to
	__u16 mss4, mss6; // what our SYN-ACKs say
	__u32 scale;
	__u32 pad;
};

#define ROTATE(x, b) ((x) << (b) | (x) >> (64 - (b)))
#define ROUND                                                                                      \
	do {                                                                                       \
		v0 += v1; v1 = ROTATE(v1, 13); v1 ^= v0; v0 = ROTATE(v0, 32);                      \
		v2 += v3; v3 = ROTATE(v3, 16); v3 ^= v2;                                           \
		v0 += v3; v3 = ROTATE(v3, 21); v3 ^= v0;                                           \
		v2 += v1; v1 = ROTATE(v1, 17); v1 ^= v2; v2 = ROTATE(v2, 32);                      \
	} while (0)

// mac is SipHash-2-4 of what a segment vouches for.
static __noinline __u32 mac(struct segment *s, struct settings *set)
{
	if (!s || !set)
		return 0;
	__u32 which = le32(s->vouched.cookie) >> 31 & 1;
	__u64 k0 = set->keys[which][0], k1 = set->keys[which][1];
	__u64 v0 = k0 ^ 0x736f6d6570736575ULL, v1 = k1 ^ 0x646f72616e646f6dULL;
	__u64 v2 = k0 ^ 0x6c7967656e657261ULL, v3 = k1 ^ 0x7465646279746573ULL;
#pragma unroll
	for (int i = 0; i < 6; i++) {
		__u64 m = le64(s->words[i]);
		v3 ^= m;
		ROUND; ROUND;
		v0 ^= m;
	}
	__u64 last = 48ULL << 56;
	v3 ^= last;
	ROUND; ROUND;
	v0 ^= last;
	v2 ^= 0xff;
	ROUND; ROUND; ROUND; ROUND;
	return (__u32)(v0 ^ v1 ^ v2 ^ v3);
}

// class16 and class8 are guard.class16 and guard.class8.
static __always_inline __u32 class16(__u16 mss)
{
	return (mss >= 536) + (mss >= 1220) + (mss >= 1300) + (mss >= 1380) + (mss >= 1420) + (mss >= 1440) + (mss >= 1460);
}

static __always_inline __u32 class8(__s8 scale)
{
	return (scale >= 0) + (scale >= 2) + (scale >= 4) + (scale >= 6) + (scale >= 7) + (scale >= 8) + (scale >= 10);
}

// bake is Jar.Bake of a SYN-ACK with window 0.
static __always_inline __u32 bake(struct segment *s, struct hello *h, struct settings *set, __u32 *stamp)
{
	__u32 c = (set->parity & 1) << 31 | class16(h->mss) << 27, bits = 27;
	if (!h->stamps) {
		c |= class8(h->scale) << 24 | (__u32)h->sack << 23;
		bits = 23;
	} else {
		__u32 clock = (__u32)(bpf_ktime_get_ns() / 1000000) + set->clock;
		*stamp = (clock & ~31U) | (h->scale >= 0 ? h->scale : 15) | (__u32)h->sack << 4;
		if ((__s32)(*stamp - clock) > 0)
			*stamp -= 32;
	}
	s->vouched.cookie = le32(c);
	s->vouched.bits = le32(bits);
	return c | (mac(s, set) & ((1U << bits) - 1));
}

// valid is Jar.Check.
static __always_inline bool valid(struct segment *s, struct settings *set, __u32 isn, __u32 cookie, __u32 bits)
{
	__u32 low = (1U << bits) - 1;
	s->vouched.isn = le32(isn);
	s->vouched.cookie = le32(cookie & ~low);
	s->vouched.bits = le32(bits);
	return (mac(s, set) & low) == (cookie & low);
}
