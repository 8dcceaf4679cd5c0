package tunnel

import (
	"slices"

	"hawser/pkg/stream"
)

// idSet remembers which flow IDs were ever used, as ranges: IDs come nearly in
// order, so a session of any length needs a few of them.
type idSet struct {
	spans []span // sorted, disjoint, not touching
}

type span struct{ from, to stream.ID } // from <= id < to

func (s *idSet) find(id stream.ID) (int, bool) {
	i, _ := slices.BinarySearchFunc(s.spans, id, func(sp span, id stream.ID) int {
		if sp.to <= id {
			return -1
		}
		return 1
	})
	return i, i < len(s.spans) && s.spans[i].from <= id
}

// has reports whether id was added.
func (s *idSet) has(id stream.ID) bool {
	_, ok := s.find(id)
	return ok
}

// add puts id in; it returns false when it was there.
func (s *idSet) add(id stream.ID) bool {
	i, ok := s.find(id)
	if ok {
		return false
	}
	left := i > 0 && s.spans[i-1].to == id
	right := i < len(s.spans) && s.spans[i].from == id+1
	switch {
	case left && right:
		s.spans[i-1].to = s.spans[i].to
		s.spans = slices.Delete(s.spans, i, i+1)
	case left:
		s.spans[i-1].to++
	case right:
		s.spans[i].from--
	default:
		s.spans = slices.Insert(s.spans, i, span{id, id + 1})
	}
	return true
}
