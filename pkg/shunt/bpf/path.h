// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//
// The connections that are translated here. The agent writes both maps, which it
// has in its memory, while the program runs.

#define CLIENT 0
#define SERVER 1

// Bits of a path: what both ends speak, and which has sent a FIN.
#define SACK 1
#define STAMPS 2
#define CLIENT_ENDS 4
#define SERVER_ENDS 8

#define TICK 20   // of seen: 2^20 ns
#define BUCKET 8  // entries
#define PLACES 20 // bits of an entry that say which path; the others are of the hash

// path is one connection; the agent's splice.Path and splice.Trace. Addresses of
// IPv4 are in mapped form, ports in network byte order.
struct path {
	__u8 client[16], server[16];
	__be16 client_port, server_port, hub_port;
	__u8 bits, worker;
	__u32 up, down, clock;
	__u16 mss[2];
	__u8 left[2], right[2]; // shifts of the windows that an end sends
	// What the program writes.
	__u32 next[2], acked[2], stamp[2];
	__u16 window[2];
	__u32 seen; // when the last segment came
	__u8 scale[2], pad[2]; // scale is the shift of the windows as the end means them
};

struct bucket {
	__u32 entries[BUCKET]; // 0: none
};

// passed counts what was translated, by the end that has sent it.
struct passed {
	__u64 packets[2], bytes[2];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct path);
} paths SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct bucket);
} places SEC(".maps");

// Set before the program is loaded.
volatile const __u32 hub4, hub6[4]; // the stack's addresses
volatile const __u32 mask;          // number of buckets, less one
volatile const __u32 seed;

// ends are a packet's, as they stand in it.
struct ends {
	__u32 from[4], to[4], ports;
};

static __always_inline bool same(const volatile void *a, const volatile void *b)
{
	const volatile __u32 *x = a, *y = b;
	return x[0] == y[0] && x[1] == y[1] && x[2] == y[2] && x[3] == y[3];
}

// mix and finish are those of MurmurHash3.
static __always_inline __u32 mix(__u32 h, __u32 word)
{
	word *= 0xcc9e2d51;
	word = (word << 15 | word >> 17) * 0x1b873593;
	h ^= word;
	return (h << 13 | h >> 19) * 5 + 0xe6546b64;
}

static __always_inline __u32 finish(__u32 h)
{
	h = (h ^ h >> 16) * 0x85ebca6b;
	h = (h ^ h >> 13) * 0xc2b2ae35;
	return h ^ h >> 16;
}

// find finds the path of a packet to the server (up) or from it.
static __always_inline struct path *find(struct ends *e, bool up)
{
	__u32 h = seed;
#pragma unroll
	for (int i = 0; i < 4; i++)
		h = mix(mix(h, e->from[i]), e->to[i]);
	h = finish(mix(h, e->ports));
	__u32 which = h & mask;
	struct bucket *b = bpf_map_lookup_elem(&places, &which);
	if (!b)
		return 0;
	__be16 source = ((__be16 *)&e->ports)[0], dest = ((__be16 *)&e->ports)[1];
	for (int i = 0; i < BUCKET; i++) {
		__u32 entry = b->entries[i], place = (entry & ((1 << PLACES) - 1)) - 1;
		if (!entry || (entry ^ h) >> PLACES)
			continue;
		struct path *p = bpf_map_lookup_elem(&paths, &place);
		if (!p || p->server_port != (up ? dest : source) || !same(p->server, up ? e->to : e->from))
			continue;
		if (up ? p->client_port == source && same(p->client, e->from) : p->hub_port == dest)
			return p;
	}
	return 0;
}
