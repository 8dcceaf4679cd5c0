package policy

import (
	"cmp"
	"math/bits"
	"net/netip"
	"slices"

	"hawser/pkg/config"
)

// set is a set of policies, one bit each.
type set []uint64

func (s set) add(i int) { s[i/64] |= 1 << (i % 64) }

// firstCommon returns the smallest member of three sets, which have one: the
// last policy is in all.
func firstCommon(a, b, c set) int {
	for i := range a {
		if w := a[i] & b[i] & c[i]; w != 0 {
			return i*64 + bits.TrailingZeros64(w)
		}
	}
	return 64*len(a) - 1
}

// axis is one dimension: sets[i] holds for values from bounds[i] on, up to the
// next bound.
type axis[T any] struct {
	bounds []T
	sets   []set
	order  func(a, b T) int
}

// at returns the set of the interval in which v lies. The first bound is the
// dimension's least value.
func (x *axis[T]) at(v T) set {
	i, found := slices.BinarySearchFunc(x.bounds, v, x.order)
	if !found {
		i--
	}
	return x.sets[i]
}

// interval is what a policy takes of a dimension; end is the first value
// behind it, unless it reaches to the end of the dimension.
type interval[T any] struct {
	policy int
	from   T
	end    T
	open   bool
}

// makeAxis cuts the dimension that begins at least, for n policies.
func makeAxis[T any](n int, least T, order func(a, b T) int, taken []interval[T]) axis[T] {
	x := axis[T]{bounds: []T{least}, order: order}
	for _, iv := range taken {
		x.bounds = append(x.bounds, iv.from)
		if !iv.open {
			x.bounds = append(x.bounds, iv.end)
		}
	}
	slices.SortFunc(x.bounds, order)
	x.bounds = slices.CompactFunc(x.bounds, func(a, b T) bool { return order(a, b) == 0 })
	words := (n + 63) / 64
	space := make([]uint64, words*len(x.bounds))
	for i := range x.bounds {
		x.sets = append(x.sets, set(space[i*words:(i+1)*words]))
	}
	for _, iv := range taken {
		i, _ := slices.BinarySearchFunc(x.bounds, iv.from, order)
		for ; i < len(x.bounds) && (iv.open || order(x.bounds[i], iv.end) < 0); i++ {
			x.sets[i].add(iv.policy)
		}
	}
	return x
}

// addressAxis orders addresses as netip does: IPv4 before IPv6. An invalid
// prefix takes all of both; invalid addresses come before either and fall
// under what takes all.
func addressAxis(n int, prefixOf func(int) netip.Prefix) axis[netip.Addr] {
	var taken []interval[netip.Addr]
	for i := range n {
		iv := interval[netip.Addr]{policy: i, open: true}
		if p := prefixOf(i); p.IsValid() {
			iv.from = p.Masked().Addr()
			if last := lastOf(p); last.Next().IsValid() {
				iv.end, iv.open = last.Next(), false
			} else if last.Is4() {
				iv.end, iv.open = netip.IPv6Unspecified(), false
			}
		}
		taken = append(taken, iv)
	}
	return makeAxis(n, netip.Addr{}, netip.Addr.Compare, taken)
}

// lastOf returns the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	raw := p.Masked().Addr().AsSlice()
	for bit := p.Bits(); bit < 8*len(raw); bit++ {
		raw[bit/8] |= 0x80 >> (bit % 8)
	}
	last, _ := netip.AddrFromSlice(raw)
	return last
}

// portAxis orders ports; no ranges take all.
func portAxis(n int, rangesOf func(int) []config.PortRange) axis[uint16] {
	var taken []interval[uint16]
	for i := range n {
		ranges := rangesOf(i)
		if len(ranges) == 0 {
			taken = append(taken, interval[uint16]{policy: i, open: true})
		}
		for _, r := range ranges {
			taken = append(taken, interval[uint16]{policy: i, from: r.First, end: r.Last + 1, open: r.Last == 65535})
		}
	}
	return makeAxis(n, 0, cmp.Compare[uint16], taken)
}
