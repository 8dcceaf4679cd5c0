package repair

import "slices"

// Range is a piece of the sequence space, from From up to and without To.
type Range struct{ From, To uint32 }

// Len is the number of bytes in r.
func (r Range) Len() int { return int(r.To - r.From) }

// before compares sequence numbers (RFC 9293 section 3.4).
func before(a, b uint32) bool { return int32(a-b) < 0 }

func latest(a, b uint32) uint32 {
	if before(a, b) {
		return b
	}
	return a
}

func earliest(a, b uint32) uint32 {
	if before(b, a) {
		return b
	}
	return a
}

// insert adds a selectively acknowledged range.
func (f *Flow) insert(b Range) {
	i := 0
	for i < len(f.sacked) && before(f.sacked[i].To, b.From) {
		i++
	}
	j := i
	for j < len(f.sacked) && !before(b.To, f.sacked[j].From) {
		b.From, b.To = earliest(b.From, f.sacked[j].From), latest(b.To, f.sacked[j].To)
		j++
	}
	if i == j && len(f.sacked) >= mostRanges {
		return // at worst it is sent again
	}
	f.sacked = slices.Replace(f.sacked, i, j, b)
}

// trimFixes drops what has arrived of the repairs.
func (f *Flow) trimFixes() {
	if len(f.fixes) == 0 {
		return
	}
	kept := f.spare[:0]
	for _, x := range f.fixes {
		x.From = latest(x.From, f.una)
		for _, s := range f.sacked {
			if !before(x.From, s.To) {
				continue
			}
			if !before(s.From, x.To) {
				break
			}
			if before(x.From, s.From) {
				part := x
				part.To = s.From
				kept = append(kept, part)
			}
			x.From = s.To
		}
		if before(x.From, x.To) {
			kept = append(kept, x)
		}
	}
	f.fixes, f.spare = kept, f.fixes
}

// covered reports whether all of a gap is being repaired.
func (f *Flow) covered(gap Range) bool {
	for _, x := range f.fixes {
		if !before(gap.From, x.From) && before(gap.From, x.To) {
			gap.From = x.To
		}
	}
	return !before(gap.From, gap.To)
}

// Owes reports whether the sender takes the end of r for acknowledged, and the peer may lack
// it.
func (f *Flow) Owes(r Range) bool {
	return f.begun && before(f.una, r.To) && !before(f.told, r.To)
}

// Mends reports whether all of what the sender sends again is being repaired, or the peer
// has said to have it.
func (f *Flow) Mends(r Range) bool {
	if f.open || !f.reached || before(r.From, f.una) {
		return false
	}
	for i, j := 0, 0; before(r.From, r.To); {
		switch {
		case i < len(f.fixes) && !before(r.From, f.fixes[i].To):
			i++
		case j < len(f.sacked) && !before(r.From, f.sacked[j].To):
			j++
		case i < len(f.fixes) && !before(r.From, f.fixes[i].From):
			r.From = f.fixes[i].To
		case j < len(f.sacked) && !before(r.From, f.sacked[j].From):
			r.From = f.sacked[j].To
		default:
			return false
		}
	}
	return true
}
