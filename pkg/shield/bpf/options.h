// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//
// TCP options, as pkg/guard reads them.

// struct hello is guard.Hello.
struct hello {
	__u32 value; // timestamp, big endian
	__u16 mss;
	__s8 scale; // -1: none
	bool sack, stamps;
};

// MARGIN lets option be read behind the options.
#define MARGIN 8

// struct walk is a walk over options. Bytes, because of them the verifier
// remembers nothing, which keeps its work small.
struct walk {
	struct hello hello;
	__u8 at, end; // where it is and how long they are
	__u8 bad, found;
	__u8 options[OPTIONS + MARGIN];
};

// option finds the option where the walk is, past which it goes; false ends it.
// kind 1 is no option.
static __always_inline bool option(struct walk *w, __u8 *kind, __u8 *length, __u8 *value)
{
	__u32 at = w->at;
	if (at >= w->end || at >= OPTIONS)
		return false;
	*kind = w->options[at];
	*length = w->options[at + 1];
	if (*kind < 2) {
		w->at++;
		return *kind;
	}
	if (at + 2 > w->end || *length < 2 || at + *length > w->end) {
		w->bad = true;
		return false;
	}
	__builtin_memcpy(value, &w->options[at + 2], 4);
	w->at += *length;
	return true;
}

// take is one step of guard.ParseSYN.
static long take(__u32 i, struct walk *w)
{
	struct hello *h = &w->hello;
	__u8 kind, length, v[4];
	if (!option(w, &kind, &length, v))
		return 1;
	switch (kind) {
	case 2:
		h->mss = v[0] << 8 | v[1];
		w->bad = length != 4;
		break;
	case 3:
		h->scale = v[0] < 14 ? v[0] : 14;
		w->bad = length != 3;
		break;
	case 4:
		h->sack = true;
		w->bad = length != 2;
		break;
	case 8:
		h->stamps = true;
		__builtin_memcpy(&h->value, v, 4);
		w->bad = length != 10;
	}
	return w->bad & 1; // the verifier wants to see that it is 0 or 1
}

// seek is one step of guard.Stamps.
static long seek(__u32 i, struct walk *w)
{
	__u8 kind, length, v[4];
	if (!option(w, &kind, &length, v))
		return 1;
	w->found = kind == 8 && length == 10;
	return w->found & 1;
}

// load gets the options of a segment; false if its header is no header.
static __always_inline bool load(struct __sk_buff *skb, struct segment *s, struct tcp *t, struct walk *w)
{
	__u32 end = (__u32)(t->offset >> 4) * 4;
	if (end < TCP || end > s->length)
		return false;
	end -= TCP;
	w->end = end;
	return end == 0 || (end <= OPTIONS && !bpf_skb_load_bytes(skb, s->start + TCP, w->options, end));
}
