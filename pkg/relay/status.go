package relay

import (
	"sync/atomic"

	"hawser/pkg/stream"
)

// codes is how many reset codes are counted apart.
const codes = int(stream.CodeLost) + 1

// counters are written by the worker, and resets by Accept, and read by Status.
type counters struct {
	started, done          atomic.Uint64
	sealed, opened, forged atomic.Uint64
	plainUp, sealedUp      atomic.Uint64
	plainDown, sealedDown  atomic.Uint64
	resets, peerResets     [codes]atomic.Uint64
	visits                 atomic.Uint64
}

func count(by *[codes]atomic.Uint64, c stream.Code) {
	if int(c) < codes {
		by[c].Add(1)
	}
}

// Traffic is what one direction has moved.
type Traffic struct {
	Records uint64 `json:"records"`
	Plain   uint64 `json:"plain"`  // bytes read from or taken by the plain parties
	Sealed  uint64 `json:"sealed"` // bytes of their records
}

// Status is a snapshot of a worker's counters, since it was made.
type Status struct {
	Flows      int               `json:"flows"` // now
	Started    uint64            `json:"started"`
	Done       uint64            `json:"done"`        // ended well
	Resets     map[string]uint64 `json:"resets"`      // ended from here, by code
	PeerResets map[string]uint64 `json:"peer_resets"` // ended from the other end or by the session, by code
	Forged     uint64            `json:"forged"`      // records refused
	Visits     uint64            `json:"visits"`      // rounds done by those who brought the mail
	Sealed     Traffic           `json:"sealed"`      // plain party to tunnel
	Opened     Traffic           `json:"opened"`      // tunnel to plain party
}

// Status returns the counters as they stand. The numbers are not taken at one
// instant.
func (w *Worker) Status() Status {
	c := &w.stats
	return Status{
		Flows:      int(w.flows.Load()),
		Started:    c.started.Load(),
		Done:       c.done.Load(),
		Resets:     byName(&c.resets),
		PeerResets: byName(&c.peerResets),
		Forged:     c.forged.Load(),
		Visits:     c.visits.Load(),
		Sealed:     Traffic{Records: c.sealed.Load(), Plain: c.plainUp.Load(), Sealed: c.sealedUp.Load()},
		Opened:     Traffic{Records: c.opened.Load(), Plain: c.plainDown.Load(), Sealed: c.sealedDown.Load()},
	}
}

// Moved is how many bytes of payload have gone through, either way.
func (w *Worker) Moved() uint64 { return w.stats.plainUp.Load() + w.stats.plainDown.Load() }

// byName leaves out codes that did not occur.
func byName(by *[codes]atomic.Uint64) map[string]uint64 {
	m := map[string]uint64{}
	for c := range by {
		if n := by[c].Load(); n > 0 {
			m[stream.Code(c).String()] = n
		}
	}
	return m
}
