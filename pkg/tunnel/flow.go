package tunnel

import (
	"time"

	"hawser/pkg/proof"
	"hawser/pkg/reassembly"
	"hawser/pkg/slim"
	"hawser/pkg/stream"
	"hawser/scheduler"
)

// flow is one connection's two streams as the session keeps them.
//
// A flow lives from OPEN until the worker is done with it and the peer has
// consumed all that was sent, or until either side resets it.
type flow struct {
	id      stream.ID
	worker  int
	node    scheduler.Node[*flow] // place in the connection order
	send    sendQueue
	peer    uint64 // limit that the peer gave us
	allowed uint64 // limit that the worker was told
	recv    reassembly.Stream
	credit  credit
	read    proof.Proof // of what we send, by the peer
	via     []via       // which connection brought what was not consumed yet
	counted int32       // bytes with which it is among the session's lefts
	room    uint16      // in the party of a slow reader, while memory is scarce, in bytes; 0: he is none
	dirty   bool        // in the session's list of flows with credit to tell
	listed  bool        // in its list of those that may have something that presses
	opened  bool        // the worker knows the flow
	finOut  bool        // the worker was told of the end
	finTold bool        // the peer was told that the end was consumed
	done    bool        // the worker is done
	dying   bool        // and has reset it: the peer hears of that when it has consumed all before
	stands  bool        // edge: the server is connected
}

// moments are what flows note of the time.
var moments = slim.NewClock(time.Now())

// left is the number of bytes that wait to be sent, as path choice wants it. A
// flow that has used up its credit has more than what is here.
func (f *flow) left() int {
	if f.held() {
		return f.send.left() + bulkLeft
	}
	return f.send.left()
}

// held reports whether a limit holds the flow: it has more than what is here.
func (f *flow) held() bool { return !f.send.fin && f.send.end+creditEdge > f.allowed }

// usedUp reports whether the worker has used up what it was allowed, and so is likely to
// have more. A crowd that reads slowly has credit for a kilobyte at a time: those are no
// messages for which people wait.
func (f *flow) usedUp() bool { return !f.send.fin && f.send.end+leastCredit > f.allowed }

const (
	leastCredit = leastWindow / 4 // with less the worker reads nothing

	creditEdge = 32 << 10  // bytes of credit below which a flow counts as held by it
	bulkLeft   = 512 << 10 // bytes that such a flow is taken to have behind it: with twice that an object of 1 MB waits for no quick link
)

// heldIn is how many received bytes wait here or at the worker.
func (f *flow) heldIn() int {
	return int(f.recv.Offset()-f.credit.consumed) + f.recv.Held()
}

// needsTelling reports whether the peer does not know all that was consumed.
func (f *flow) needsTelling() bool {
	return f.credit.stale() || f.finOut && !f.finTold
}

// finished reports whether nothing is left to do for either side.
func (f *flow) finished() bool { return f.done && f.finTold && f.send.finSeen }

// drop releases all buffers.
func (f *flow) drop() {
	f.send.clear()
	f.recv.Drop()
	f.via = nil
}

// spareMost is how many emptied slices of a kind a session keeps for others.
const spareMost = 64

// takeVia and spareVia lend flows the memory for what they note of connections:
// a flow at rest keeps none.
func (s *Session) takeVia() []via {
	n := len(s.vias)
	if n == 0 {
		return nil
	}
	v := s.vias[n-1]
	s.vias = s.vias[:n-1]
	return v
}

func (s *Session) spareVia(f *flow) {
	if len(s.vias) < spareMost && cap(f.via) <= 4*viaRoom {
		clear(f.via)
		s.vias = append(s.vias, f.via[:0])
	}
	f.via = nil
}
