package scheduler

import "time"

// Sense is what a transport knows of its path. It sees more than the tunnel's
// own acknowledgements show: behind a lost packet everything that arrives waits
// at the other end's transport, unseen by the tunnel there, but no longer in the
// network.
type Sense struct {
	Known     bool          // the rest, but for RTT, means something
	At        time.Time     // when the transport said so, which may be later than the loop's turn began; zero: not known
	RTT       time.Duration // the transport's own measure, or 0
	Arrived   uint64        // bytes of the stream that the peer's end has in order; 0: not counted
	Ahead     int           // bytes that it has beyond a gap
	InFlight  int           // bytes in the network
	Progress  uint64        // grows with everything that the peer's end acknowledges
	Delivered uint64        // bytes that it has acknowledged, in order or not; with all that the transport adds to them
	Whole     uint64        // grows with each packet as large as may be that it acknowledges; 0: not counted
	Lost      uint64        // packets of the connection that it has taken for lost so far; by TCP those that it has sent again
	Carries   float64       // what the path carries by how far apart packets arrived that were sent at once, bytes per second
	Volleys   uint64        // how many times that was measured so far
	Due       bool          // the queue had better drain for a moment, or the transport will stop for a longer one
}
