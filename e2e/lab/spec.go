package lab

import (
	"errors"
	"fmt"
	"regexp"
	"time"

	"hawser/e2e/emu"
)

// Spec describes a lab.
type Spec struct {
	// Name is part of every namespace's name: 1 to 12 letters, digits or dots.
	Name    string
	Uplinks []Uplink // 1 to 99
	Clients int      // of the first edge; 0 means 1; at most 80
	// Edges is how many edges the cloud has, each with uplinks of its own; 0 means 1; at
	// most 9. Those after the first have one client each.
	Edges int
	// LAN shapes the clients' line: up is from the client to the edge. Nil is a
	// plain veth pair. One client only.
	LAN  *Uplink
	IPv6 bool
	// Seed fixes the random losses of the emulator.
	Seed uint64
	// Tick is how much the emulator may gather before it wakes up, to whole microseconds;
	// 0 means 200 µs. Longer costs less CPU and lets frames leave up to that much late.
	Tick time.Duration
	// Emulator is the hawser-emu binary; empty: see Binary.
	Emulator string
}

// Uplink is one line between edge and cloud. The plain fields hold for both
// directions; Up and Down, where set, replace them for one direction.
type Uplink struct {
	Name string
	// Edge is the number of the edge that has it; 0 means 1.
	Edge int
	// Rate in bit/s, counted on IP bytes; 0 is unlimited.
	Rate int64
	// Delay is one way: the line adds twice as much to the round-trip time.
	Delay  time.Duration
	Jitter time.Duration
	// Queue bounds the queue in time at the line's rate. 0 means one round trip
	// (2 Delay), but at least 20 ms.
	Queue time.Duration
	Loss  float64
	Burst emu.Burst
	// Trace is a Mahimahi trace file, instead of a rate. A relative name counts from the
	// directory of the process that builds the lab.
	Trace    string
	Up, Down *emu.Params
	// MTU of the line; 0 means 1500.
	MTU int
	// Unshaped makes the line a plain veth pair without emulator; all fields but
	// Name, Edge and MTU must be zero.
	Unshaped bool
}

const leastQueue = 20 * time.Millisecond

// params returns the emulator's parameters for both directions.
func (u Uplink) params() (up, down emu.Params) {
	p := emu.Params{
		Delay: u.Delay, Jitter: u.Jitter, Rate: u.Rate, QueueTime: u.Queue,
		Loss: u.Loss, Burst: u.Burst, Trace: u.Trace,
	}
	if p.QueueTime == 0 {
		p.QueueTime = max(leastQueue, 2*u.Delay)
	}
	up, down = p, p
	if u.Up != nil {
		up = *u.Up
	}
	if u.Down != nil {
		down = *u.Down
	}
	return up, down
}

func (u Uplink) edge() int { return max(u.Edge, 1) }

func (u Uplink) mtu() int {
	if u.MTU == 0 {
		return 1500
	}
	return u.MTU
}

func (s *Spec) check() error {
	if !regexp.MustCompile(`^[a-zA-Z0-9.]{1,12}$`).MatchString(s.Name) {
		return fmt.Errorf("lab name %q: 1 to 12 letters, digits or dots are needed", s.Name)
	}
	if len(s.Uplinks) == 0 || len(s.Uplinks) > 99 {
		return fmt.Errorf("lab %s: %d uplinks, 1 to 99 are needed", s.Name, len(s.Uplinks))
	}
	if s.Clients == 0 {
		s.Clients = 1
	}
	if s.Clients < 0 || s.Clients > 80 {
		return fmt.Errorf("lab %s: %d clients, 1 to 80 are needed", s.Name, s.Clients)
	}
	if err := s.checkLAN(); err != nil {
		return fmt.Errorf("lab %s: LAN: %w", s.Name, err)
	}
	if err := s.checkEdges(); err != nil {
		return fmt.Errorf("lab %s: %w", s.Name, err)
	}
	seen := map[string]bool{}
	for i, u := range s.Uplinks {
		if u.Name == "" || seen[u.Name] {
			return fmt.Errorf("lab %s: uplink %d: the name %q is empty or used twice", s.Name, i+1, u.Name)
		}
		seen[u.Name] = true
		if err := u.check(); err != nil {
			return fmt.Errorf("lab %s: uplink %s: %w", s.Name, u.Name, err)
		}
	}
	return nil
}

func (s *Spec) checkEdges() error {
	s.Edges = max(s.Edges, 1)
	if s.Edges > 9 {
		return fmt.Errorf("%d edges, 1 to 9 are possible", s.Edges)
	}
	for k := 1; k <= s.Edges; k++ {
		if s.first(k) == nil {
			return fmt.Errorf("edge %d has no uplink", k)
		}
	}
	for _, u := range s.Uplinks {
		if u.edge() > s.Edges {
			return fmt.Errorf("uplink %s is edge %d's, of %d", u.Name, u.edge(), s.Edges)
		}
	}
	return nil
}

// first is an edge's first uplink, nil if it has none.
func (s *Spec) first(edge int) *Uplink {
	for i := range s.Uplinks {
		if s.Uplinks[i].edge() == edge {
			return &s.Uplinks[i]
		}
	}
	return nil
}

// lanName is the shaped LAN's name where an uplink's is asked for.
const lanName = "lan"

func (s *Spec) checkLAN() error {
	switch {
	case s.LAN == nil:
		return nil
	case s.Clients != 1:
		return fmt.Errorf("shaped for %d clients, only one is possible", s.Clients)
	case s.LAN.Name != lanName || s.LAN.Unshaped || s.LAN.MTU != 0:
		return fmt.Errorf("its name is %q, it must be %q, shaped, and without an MTU", s.LAN.Name, lanName)
	}
	return s.LAN.check()
}

func (u Uplink) check() error {
	if u.Unshaped {
		if u != (Uplink{Name: u.Name, Edge: u.Edge, MTU: u.MTU, Unshaped: true}) {
			return errors.New("an unshaped uplink takes no emulator parameters")
		}
		return nil
	}
	up, down := u.params()
	return errors.Join(up.Validate(), down.Validate())
}
