package tunnel

import (
	"slices"
	"time"

	"hawser/pkg/wire"
	"hawser/scheduler"
)

// LinkTerms are what the edge knows of a link and the cloud must know, too:
// what the link costs, and what a user source says of it.
type LinkTerms struct {
	Serial   uint32 // from 1, goes up with every change; what is older than what is known counts for nothing
	Tier     scheduler.Tier
	Weight   int       // for path choice by weight; 0 counts as 1
	Leaving  bool      // until Until: the link is about to die
	Up, Down float64   // until Until: forecasts, bytes per second; 0: none
	Until    time.Time // zero: no hint
	// Removed says that the link is no more in the edge's configuration; Leaving for Removal
	// goes with it.
	Removed bool
}

// Removal is for how long a removed link leaves: as long as LINK can say.
const Removal = wire.ValidMost * time.Millisecond

// SetTerms changes a link's terms at both ends. Edge only; the link need not be
// connected.
func (s *Session) SetTerms(link int, t LinkTerms) {
	s.post(func(in *mail) {
		in.calls = append(in.calls, func() { s.setTerms(s.findLink(link), t) })
	})
}

// setTerms takes in terms of the edge's own and tells the cloud (LINK,
// PROTOCOL.md section 5.6).
func (s *Session) setTerms(l *link, t LinkTerms) {
	if t.Serial <= l.terms.Serial {
		return // known, and told
	}
	l.terms = t
	l.hint = scheduler.Hint{Leaving: t.Leaving, Rate: t.Up, Until: t.Until}
	valid := max(t.Until.Sub(s.now), 0)
	if t.Tier == scheduler.Primary && t.Weight <= 1 && valid == 0 && !l.told {
		return // all is as the cloud takes it to be
	}
	l.told = true
	if t.Removed {
		valid = Removal
	}
	id := l.info.ID
	s.addCtrl(func(b []byte) []byte {
		return wire.AppendLink(b, wire.LinkTerms{
			Link: uint16(id), Serial: t.Serial, Tier: uint8(t.Tier), Weight: uint8(max(t.Weight, 1)),
			Usable: !t.Leaving || valid == 0, Rate: uint64(t.Down), Valid: uint32(valid.Milliseconds()),
		})
	})
}

// maxTold bounds the links that a cloud notes before they are connected. An edge
// with more of them is told apart by nothing but its bad intentions.
const maxTold = 256

// linkTold takes in what the edge says of a link, which may not be connected yet.
func (s *Session) linkTold(t wire.LinkTerms) {
	if !s.knows(int(t.Link)) && len(s.links) >= maxTold {
		return
	}
	l := s.findLink(int(t.Link))
	if t.Serial <= l.terms.Serial {
		return
	}
	until := s.now.Add(time.Duration(t.Valid) * time.Millisecond)
	l.terms = LinkTerms{
		Serial: t.Serial, Tier: scheduler.Tier(t.Tier), Weight: int(t.Weight),
		Leaving: !t.Usable, Down: float64(t.Rate), Until: until, Removed: !t.Usable && t.Valid == wire.ValidMost,
	}
	l.hint = scheduler.Hint{Leaving: !t.Usable, Rate: float64(t.Rate), Until: until}
}

// restful is the evidence on a link that may be at rest: a standby one while a
// cheaper one is up. It is probed rarely, since its bytes are dear.
func (s *Session) restful(c *conn) scheduler.Evidence {
	ev := c.evidence()
	ev.Asking = c.asking() && !s.loaded() // beside bulk each way has to be watched
	if tier := c.link.terms.Tier; tier >= scheduler.Standby {
		ev.Resting = slices.ContainsFunc(s.links, func(l *link) bool {
			return l.terms.Tier < tier && l.health.State() == scheduler.Up
		})
	}
	return ev
}

// loaded reports whether bulk is under way by any link.
func (s *Session) loaded() bool {
	return slices.ContainsFunc(s.links, func(l *link) bool { return l.conn != nil && l.conn.underLoad(s.now) })
}

// knows reports whether a link was connected or spoken of before.
func (s *Session) knows(id int) bool {
	return slices.ContainsFunc(s.links, func(l *link) bool { return l.info.ID == id })
}

// spared reports whether link i gets less than it could carry: it is of a dearer
// tier, or leaves, or is bounded by a forecast. That says nothing about what it
// can carry.
func (s *Session) spared(i int) bool {
	if i >= len(s.views) {
		return false
	}
	v := &s.views[i]
	return v.Bounded || v.Room > 0 && scheduler.Narrow(s.views)
}

// pick lets the path choice choose among the links that the chunk may use.
func (s *Session) pick(c scheduler.Chunk) (int, bool) {
	return s.path.Pick(s.admitted(c), c)
}

// admitted are the links that a chunk may use; the others look as if they were
// down. All stand in their places. Valid until the next call.
func (s *Session) admitted(c scheduler.Chunk) []scheduler.Link {
	if !c.Refused && !scheduler.Narrow(s.views) {
		return s.views
	}
	s.narrowed = scheduler.Admit(s.narrowed[:0], s.views, c)
	return s.narrowed
}

// chunk describes a piece to admitted.
func (p *piece) chunk() scheduler.Chunk {
	return scheduler.Chunk{Size: p.seg.Len(), Class: p.flow.node.Class(), Refused: p.refused}
}

// impatient is a chunk for which dearer links join as soon as for any.
func impatient() scheduler.Chunk {
	return scheduler.Chunk{Size: ordinary, Class: scheduler.Latency}
}

// dearer reports whether control frames should rather go on other than on c.
func (c *conn) dearer(other *conn, now time.Time) bool {
	a, b := c.link, other.link
	if a.leaves(now) != b.leaves(now) {
		return a.leaves(now)
	}
	return a.terms.Tier > b.terms.Tier
}

// leaves reports whether nothing new should go by the link: it is about to die, or not to be
// trusted.
func (l *link) leaves(now time.Time) bool {
	return l.hint.Leaving && now.Before(l.hint.Until) || now.Before(l.distrust.Until())
}
