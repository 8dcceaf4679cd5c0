package tunnel

import (
	"sync/atomic"
	"time"

	"hawser/pkg/places"
)

// Places are what an agent's workers have for flows. Its sessions share them: one edge with
// a fault, or bad intentions, must not take those that the others need. A flow has its place
// for as long as its session knows it, also when its worker is done with it: what the peer
// does not consume is kept. Any goroutine may call the methods.
type Places struct {
	each   int            // of a worker
	most   int            // that a session may have, of all workers together; 0: no such bound
	shared bool           // there are several sessions
	taken  []atomic.Int64 // by worker
}

// NewPlaces returns the places of so many workers, each for so many flows. A session may
// have most of all, 0 for no such bound, and its fair part of a worker's where they are
// shared.
func NewPlaces(workers, each, most int, shared bool) *Places {
	return &Places{each: each, most: most, shared: shared, taken: make([]atomic.Int64, workers)}
}

// allows says whether a session that has own places of a worker, and all in all, may have
// one more there. Two sessions that ask at once may both have the last one.
func (p *Places) allows(worker, own, all int) bool {
	free := p.each - int(p.taken[worker].Load())
	return free > 0 && (p.most == 0 || all < p.most) && (!p.shared || places.Fair(own, free))
}

// occupy takes a place of a worker for a flow that the peer begins, if there is one.
func (s *Session) occupy(worker int) bool {
	p := s.cfg.Places
	if p == nil {
		return true
	}
	if s.places == nil {
		s.places = make([]int, len(p.taken))
	}
	if !p.allows(worker, s.places[worker], len(s.flows)) {
		s.count.FlowsCrowded++
		if s.now.Sub(s.crowdedAt) >= crowdedAgain {
			s.log.Warn("connections are reset: this edge has as many as it may have (egress.limits.edge_flows)", "connections", len(s.flows))
		}
		s.crowdedAt = s.now
		return false
	}
	p.taken[worker].Add(1)
	s.places[worker]++
	return true
}

// crowdedAgain is for how long no flow must have wanted a place for that to be news.
const crowdedAgain = time.Minute

// vacate gives the place of a flow back.
func (s *Session) vacate(f *flow) {
	if p := s.cfg.Places; p != nil {
		p.taken[f.worker].Add(-1)
		s.places[f.worker]--
	}
}
