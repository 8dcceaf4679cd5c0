package tunnel

import (
	"errors"

	"hawser/pkg/stream"
	"hawser/pkg/wire"
)

// What a peer makes a session remember has bounds besides the budget, far above what an
// edge comes to: one with a fault, or bad intentions, must not take a cloud's memory and
// descriptors away from the others.
const (
	earlyMost      = 16 << 10 // flows of which data has come and no OPEN
	gapsMost       = 64 << 10 // between flow IDs that were used
	candidatesMost = 128      // connections that nothing has come by
	tellMost       = 16 << 20 // bytes of control frames that wait for a link, or an answer: two for each flow that an edge may have with four workers
	tellMostEdge   = 64 << 20 // the same at an edge, whose clients come and go while no link is up
)

var (
	errGaps = errors.New("uses flow numbers with too many gaps between them")
	errDeaf = errors.New("asks for answers and takes none")
)

// turnAway resets a flow that the peer begins. Where its OPEN has not come that will open
// nothing.
func (s *Session) turnAway(id stream.ID) error {
	s.countReset(stream.CodeResources)
	s.addCtrl(func(b []byte) []byte { return wire.AppendReset(b, uint64(id), uint8(stream.CodeResources)) })
	return s.use(id)
}

// hears returns an error when too much waits that the peer is to be told, or does not say that
// it was.
func (s *Session) hears() error {
	most := tellMost
	if s.cfg.Edge {
		most = tellMostEdge
	}
	if s.ctrl.wait()+s.ctrl.asked > most {
		return errDeaf
	}
	return nil
}

// orderly returns an error when there are too many gaps between the IDs.
func (s *idSet) orderly() error {
	if len(s.spans) > gapsMost {
		return errGaps
	}
	return nil
}
