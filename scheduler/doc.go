// Package scheduler decides, and does nothing else: which flow goes next
// (connection order), which of its bytes (data order), which link takes a chunk
// (path choice), how much a link may carry (Estimator) and whether it is alive
// (Health). Kinds name the policies of the three families. Values go in, a decision comes out; now is an argument.
//
// Nothing here sends, locks, reads a clock or starts a goroutine, so that every
// policy can be tested and compared alone.
//
// # Files
//
// Connection order, which flow goes next:
//   - order: what an order is; drr: the default, shares of classes, users and flows
//   - rates: users' guarantees and limits; bucket: the token bucket; list: its lines
//   - simple: round robin and strict classes, to compare with
//
// Data order, which bytes go twice:
//   - data: what a data order is; overdue: the default, copies of what is late
//
// Path choice, which link takes a chunk:
//   - doc: what a choice knows and answers; path: makes one; kinds: names of all policies
//   - earliest: the default, by predicted arrival
//   - blest, ecf, minrtt, redundant, roundrobin, weighted: others, to compare with
//   - tier: which links are asked at all: standby ones, forecasts; distrust: who brings forged
//     bytes
//
// What a link carries, and whether it lives:
//   - estimate: the Estimator, from acknowledgements; sample: one of these; sense: what the
//     transport knows
//   - distance: the least round trip, and draining the queue to see it
//   - follow: the Follower, for rates that change: a window by the transport's round trip
//   - volley: rates by how far apart packets arrive; short: a transport that should send more
//   - ebb: less is delivered than sent; sure: a rate that two round trips have shown
//   - health: the states of a link; lull: silences of a busy link that is well
//   - transport: TCP or QUIC
//
// What a path is like, for the two above:
//   - unrest: its rate changes; tremble: its round trips swing by themselves; calm: neither
//   - bunch: it delivers in heaps
package scheduler

import "time"

// Link is what a path choice knows of one link at one instant.
type Link struct {
	ID       int
	Uplink   int // links of one uplink, its lanes, die together
	Tier     Tier
	Leaving  bool    // about to die, or not to be trusted: nothing new
	Shunned  bool    // it has brought what was forged lately
	Bounded  bool    // a forecast bounds what it is given
	Blamed   float64 // what it has to answer for (Distrust)
	Weight   int     // as configured, for path choice by weight; 0 counts as 1
	State    State
	MinRTT   time.Duration
	SRTT     time.Duration
	RTTVar   time.Duration
	Rate     float64       // predicted delivery rate, bytes per second
	Swift    float64       // what it may carry once it is busy, where that is more; 0: not known
	Silent   time.Duration // without an answer for so long, where that is more than round trips explain
	InFlight int           // bytes handed to the link and not acknowledged
	Room     int           // bytes it may take now; <= 0: none
}

// ETA predicts how long n more bytes take to arrive at the other end:
// eta(n) = max(minRTT/2, f/r - minRTT/2) + n/r. Bytes in flight beyond one
// bandwidth-delay product wait in the uplink's queue, those within it do not.
func (l Link) ETA(n int) time.Duration {
	half := l.MinRTT / 2
	queue := l.drain(l.InFlight) - half
	return max(half, queue) + l.drain(n)
}

// drain is the time that n bytes take at the link's rate.
func (l Link) drain(n int) time.Duration {
	if l.Rate <= 0 {
		return time.Hour
	}
	return time.Duration(float64(n) / l.Rate * float64(time.Second))
}

// Path chooses the link for the next chunk of a flow.
type Path interface {
	// Pick returns the index into links of the link that takes the chunk, or
	// false when the flow had better wait for a link that has no room now.
	Pick(links []Link, c Chunk) (int, bool)
}

// Chunk is what a path choice knows of the bytes to be sent.
type Chunk struct {
	Size    int       // bytes
	Left    int       // bytes of the flow that were not sent yet, these included
	Work    int       // bytes of all flows until the last of these, where they take turns; 0: Left
	Window  int       // bytes that the flow may have sent and not consumed by the peer
	Blocked bool      // the flow has used that up
	Class   Class     //
	Refused bool      // the peer had it before and could not authenticate it
	Now     time.Time //
}
