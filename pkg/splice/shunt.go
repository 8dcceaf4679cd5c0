package splice

import "time"

// Shunt translates the everyday segments of open flows elsewhere: in the kernel.
// The others still come to the Table, and so do all of a flow that both ends have
// closed, or one has reset.
type Shunt interface {
	// Take asks it to carry a flow; false leaves the flow to the table. The place
	// is at least 0, and the flow's until Leave.
	Take(p *Path) (place int32, ok bool)
	// Trace is what the segments that it has carried have told, and those that it
	// was told of.
	Trace(place int32) Trace
	// Tell tells it of what the table has carried meanwhile.
	Tell(place int32, all *Trace)
	// Ending tells it of an end's first FIN: what the other one sends without
	// payload, which may acknowledge it, is the table's.
	Ending(place int32, client bool)
	// Leave ends it: what comes from now on is the table's.
	Leave(place int32)
	// Passed counts what it has carried of this table's flows.
	Passed() Passed
}

// Path is an open flow, as far as who translates its everyday segments must know
// it. Of a pair the first is the client's, the second the server's.
type Path struct {
	Client, Server                  [16]byte // IPv4 as IPv4-mapped
	ClientPort, ServerPort, HubPort uint16
	// Up is added to the client's numbers, Down to the server's; Clock to the
	// server's timestamps.
	Up, Down, Clock uint32
	SACK, Stamps    bool      // both ends speak them
	MSS             [2]uint16 // the most that the end takes per segment without options
	// Windows that an end sends are shifted left, then right, and are 65535 at
	// most.
	Left, Right [2]uint8
	Scale       [2]uint8 // the shift of the windows as the end means them
	Trace
}

// Trace is what segments tell, in the numbers of those who sent them.
type Trace struct {
	Next   [2]uint32 // the end's first number that it has not used yet
	Acked  [2]uint32 // the other end's number that the end waits for
	Stamp  [2]uint32 // the end's last timestamp
	Window [2]uint16 // the end's last window
	// Quiet is how long ago the last one came; of no meaning in Take.
	Quiet time.Duration
}

// Passed are totals by the end that has sent it.
type Passed struct {
	Packets, Bytes [2]uint64 // bytes of payload
}

// shunt hands an open flow to the shunt, where there is one that has room. A
// flow is not for it while it ends, and where timestamps have to be made.
func (t *Table) shunt(f *flow) {
	if t.cfg.Shunt == nil || f.place != none || f.state != open || f.ends != 0 || f.has(resetSeen) || f.has(clientStamps) != f.has(serverStamps) {
		return
	}
	p := Path{
		Client: f.clientAddr, Server: f.serverAddr, ClientPort: f.clientPort, ServerPort: f.serverPort, HubPort: f.hubPort,
		Up: f.up, Down: f.down, Clock: f.clock, SACK: f.has(serverSACK), Stamps: f.has(serverStamps), MSS: f.mss,
		Trace: Trace{Next: f.next, Acked: f.acked, Stamp: f.stamp, Window: f.window},
	}
	p.Left[client], p.Right[client] = f.shifts(server)
	p.Left[server], p.Right[server] = f.shifts(client)
	for s := range p.Scale {
		p.Scale[s] = uint8(max(f.scale[s], 0))
	}
	if place, ok := t.cfg.Shunt.Take(&p); ok {
		f.place = place
		t.shunted++
		t.count.Shunted++
	}
}

// catchUp notes what the shunt has carried of a flow, and when the last of it
// came. Its trace is the whole truth, however far around the sequence space the
// ends have gone since the last look: what the table has carried is in it (tell).
func (t *Table) catchUp(f *flow) {
	if f.place == none {
		return
	}
	r := t.cfg.Shunt.Trace(f.place)
	f.next, f.acked, f.stamp, f.window = r.Next, r.Acked, r.Stamp, r.Window
	if f.has(serverStamps) {
		f.told = f.stamp[server] + f.clock
	}
	if d := t.now - r.Quiet + f.idle(); d > f.deadline {
		f.deadline, f.tries = d, 0
	}
}

// tell completes the shunt's trace of a flow by what the table has carried.
func (t *Table) tell(f *flow) {
	if f.place != none {
		t.cfg.Shunt.Tell(f.place, &Trace{Next: f.next, Acked: f.acked, Stamp: f.stamp, Window: f.window})
	}
}

// closing tells the shunt of a FIN or reset, before it goes on: of what answers
// it the table must not miss the last.
func (t *Table) closing(f *flow, from side, s *segment) {
	switch {
	case f.place == none || s.flags&(flagFIN|flagRST) == 0 || !f.fits(from, s):
	case s.flags&flagRST != 0 || f.ends&finSeen(from.other()) != 0:
		t.unshunt(f)
	default:
		t.cfg.Shunt.Ending(f.place, from == client)
	}
}

// unshunt takes a flow back.
func (t *Table) unshunt(f *flow) {
	if f.place == none {
		return
	}
	t.catchUp(f)
	t.cfg.Shunt.Leave(f.place)
	f.place = none
	t.shunted--
}

// Shunted returns the number of flows that the shunt carries.
func (t *Table) Shunted() int { return t.shunted }
