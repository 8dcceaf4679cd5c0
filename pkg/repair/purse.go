package repair

import "slices"

// A peer may say what it likes of what it has: that all of a window is missing but for what
// came last, each time that something comes, or that it has thrown away what it had. So no
// more is sent again in all than a few times what the sender has sent, which is more than
// a line needs that loses half of everything. Behind that only the first segment of all goes
// again, as often as by time: what is acknowledged with it lets others follow.

const (
	purseTimes = 2        // that each byte may be sent again: for being sent, and for being acknowledged
	purseMost  = 16 << 20 // bytes that an orderly time lets be sent again
)

// earn notes bytes that were sent for the first time, or acknowledged in order.
func (f *Flow) earn(bytes int) { f.purse = min(f.purse+purseTimes*bytes, purseMost) }

// afford pays for repair i, which becomes two if only a part of it can be paid for; false:
// none of it.
func (f *Flow) afford(i int) bool {
	n, x := f.purse, f.fixes[i]
	if i == 0 {
		n = max(n, f.mss)
	}
	switch {
	case n < min(x.Len(), f.mss):
		return false
	case n < x.Len():
		rest := x
		rest.From += uint32(n - n%f.mss)
		f.fixes[i].To = rest.From
		f.fixes = slices.Insert(f.fixes, i+1, rest)
	}
	f.purse = max(f.purse-f.fixes[i].Len(), 0)
	return true
}
