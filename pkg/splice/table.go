package splice

import (
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"net/netip"
	"time"
)

// Config makes a Table. MSS, Emit and Random are required.
type Config struct {
	// Hub4 and Hub6 are the addresses that servers are connected from. What
	// goes to them comes to this table. A family without one is not spliced.
	Hub4, Hub6 netip.Addr
	// Worker and Workers say which ports are this table's: those with
	// port % Workers == Worker.
	Worker, Workers int
	MSS             uint16 // that clients are told over IPv4; IPv6 takes 20 bytes less
	Scale           int8   // shift of our windows towards clients, 0 to 14
	Limit           int    // most flows; 0 = DefaultLimit
	// Door says which clients may have another flow; nil lets all in.
	Door Door
	// Emit takes an IP packet with all checksums, and must not keep it.
	Emit func(packet []byte)
	// Random returns 32 unpredictable bits.
	Random func() uint32
	// Shunt may carry open flows; nil: the table carries all.
	Shunt Shunt
}

// DefaultLimit is a table's usual number of flows.
const DefaultLimit = 1 << 16

const (
	chunk     = 256  // flows that are allocated at a time
	firstPort = 1024 // lowest port towards servers
	portTries = 64
	roomLooks = 64 // slots that are looked at for one that can be given away
	none      = -1
	// grace is how late a deadline may be met: looking at all flows costs time.
	grace = 100 * time.Millisecond
)

// Counters are a table's totals.
type Counters struct {
	Begun       uint64 // handshakes of clients taken
	Opened      uint64 // servers that answered
	Refused     uint64 // servers that reset the connection at once
	Unreachable uint64 // ICMP errors in answer to our SYN
	TimedOut    uint64 // servers that never answered
	Abandoned   uint64 // clients that gave up before the server answered
	Closed      uint64 // flows whose ends closed or reset them
	Idle        uint64 // flows forgotten because nothing came
	Full        uint64 // clients not taken because there was no room
	Greedy      uint64 // clients not taken because the door did not let them in
	Discarded   uint64 // segments with data before the window was open
	Malformed   uint64 // segments whose headers contradict themselves
	Oversize    uint64 // segments with no room for a timestamp
	Up, Down    uint64 // packets translated towards servers and clients
	BytesUp     uint64 // their payload
	BytesDown   uint64
	Shunted     uint64 // flows given to the shunt, each time
}

// Table holds the spliced flows of one worker.
type Table struct {
	cfg   Config
	seed  maphash.Seed
	now   time.Duration
	next  time.Duration // no deadline is before it
	count Counters

	flows   []*[chunk]flow
	unused  int32   // first free slot, by nextHere
	hand    int32   // the slot that makeRoom has looked at last
	used    int     // flows
	shunted int     // of them those that the shunt carries
	here    []int32 // chains by the client's ends
	hubs    []int32 // chains by the server's ends
	port    uint32  // last port taken

	out, scratch, opts []byte
}

// New returns an empty table.
func New(cfg Config) (*Table, error) {
	if cfg.Limit == 0 {
		cfg.Limit = DefaultLimit
	}
	switch {
	case cfg.Emit == nil || cfg.Random == nil:
		return nil, errors.New("splice: Emit and Random are required")
	case cfg.MSS < 536:
		return nil, fmt.Errorf("splice: MSS: %d, want at least 536", cfg.MSS)
	case cfg.Scale < 0 || cfg.Scale > maxScale:
		return nil, fmt.Errorf("splice: Scale: %d, want 0 to %d", cfg.Scale, maxScale)
	case cfg.Workers < 1 || cfg.Worker < 0 || cfg.Worker >= cfg.Workers || cfg.Workers > 1024:
		return nil, fmt.Errorf("splice: Worker %d of %d: want 0 <= Worker < Workers <= 1024", cfg.Worker, cfg.Workers)
	case cfg.Limit < 0 || cfg.Limit > math.MaxInt32-chunk:
		return nil, fmt.Errorf("splice: Limit: %d flows", cfg.Limit)
	}
	t := &Table{cfg: cfg, seed: maphash.MakeSeed(), unused: none, next: math.MaxInt64, port: cfg.Random()}
	t.out, t.scratch, t.opts = make([]byte, 0, 256), make([]byte, 0, 256), make([]byte, 0, tcpMax)
	t.reindex(chunk)
	return t, nil
}

// Flows returns the number of flows, those that are ending included.
func (t *Table) Flows() int { return t.used }

// Counters returns the totals.
func (t *Table) Counters() Counters {
	c := t.count
	if t.cfg.Shunt != nil {
		p := t.cfg.Shunt.Passed()
		c.Up, c.BytesUp = c.Up+p.Packets[client], c.BytesUp+p.Bytes[client]
		c.Down, c.BytesDown = c.Down+p.Packets[server], c.BytesDown+p.Bytes[server]
	}
	return c
}

// Deadline is when Sweep is wanted next; false when never.
func (t *Table) Deadline() (time.Duration, bool) {
	return t.next + grace, t.next != math.MaxInt64
}

func (t *Table) at(i int32) *flow { return &t.flows[i/chunk][i%chunk] }

// key is a flow's place in one of the indexes.
type key struct {
	a, b   [16]byte
	pa, pb uint16
}

func keyOf(a, b netip.AddrPort) key {
	return key{a.Addr().As16(), b.Addr().As16(), a.Port(), b.Port()}
}

func (t *Table) slot(k key) int { return int(maphash.Comparable(t.seed, k)) & (len(t.here) - 1) }

// hereKey is a flow's key on the client's side, hubKey on the server's.
func (f *flow) hereKey() key {
	return key{f.clientAddr, f.serverAddr, f.clientPort, f.serverPort}
}

func (t *Table) hubKey(f *flow) key {
	return key{f.serverAddr, t.hub(f).As16(), f.serverPort, f.hubPort}
}

func (t *Table) hub(f *flow) netip.Addr {
	if f.has(isIPv6) {
		return t.cfg.Hub6
	}
	return t.cfg.Hub4
}

func (t *Table) hubEnd(f *flow) netip.AddrPort { return netip.AddrPortFrom(t.hub(f), f.hubPort) }

// byClient finds the flow of a packet that comes from its client.
func (t *Table) byClient(k key) int32 {
	for i := t.here[t.slot(k)]; i != none; i = t.at(i).nextHere {
		if t.at(i).hereKey() == k {
			return i
		}
	}
	return none
}

// byServer finds the flow of a packet that comes from its server.
func (t *Table) byServer(k key) int32 {
	for i := t.hubs[t.slot(k)]; i != none; i = t.at(i).nextHub {
		if f := t.at(i); f.serverAddr == k.a && f.serverPort == k.pa && f.hubPort == k.pb {
			return i
		}
	}
	return none
}

// add puts a flow into the table and gives it a port. It returns nil when there
// is no room.
func (t *Table) add(c, s netip.AddrPort) *flow {
	if t.used >= t.cfg.Limit && !t.makeRoom() {
		return nil
	}
	fresh := flow{clientAddr: c.Addr().As16(), serverAddr: s.Addr().As16(), clientPort: c.Port(), serverPort: s.Port(), place: none}
	if s.Addr().Is6() {
		fresh.bits = isIPv6
	}
	if !t.choosePort(&fresh) {
		return nil
	}
	if t.unused == none {
		t.extend()
	}
	i := t.unused
	f := t.at(i)
	t.unused, *f = f.nextHere, fresh
	t.used++
	if t.used > len(t.here) {
		t.reindex(2 * len(t.here)) // does not see the new flow, which has no state yet
	}
	t.link(i)
	return f
}

// makeRoom forgets a flow that has ended before its time: a client that begins and ends
// a thousand a second, of which no bound of the door knows, would else keep all others
// out. Each call looks at a few flows more, in turn.
func (t *Table) makeRoom() bool {
	all := int32(len(t.flows) * chunk)
	for range roomLooks {
		t.hand = (t.hand + 1) % all
		if t.at(t.hand).state == ended {
			t.drop(t.hand)
			return true
		}
	}
	return false
}

// choosePort takes a port that no flow to the same server has, some random
// steps from the last (RFC 6056 section 3.3.5), or else that of one that has ended,
// which is forgotten.
func (t *Table) choosePort(f *flow) bool {
	over := int32(none)
	n := uint32(t.cfg.Workers)
	count := (65536 - firstPort) / n
	base := firstPort + (uint32(t.cfg.Worker)+n-firstPort%n)%n
	step := 1 + t.cfg.Random()%portTries
	for range portTries {
		t.port = (t.port + step) % count
		step = 1
		port := base + t.port*n
		if port > 65535 {
			continue
		}
		f.hubPort = uint16(port)
		i := t.byServer(t.hubKey(f))
		if i == none {
			return true
		}
		if over == none && t.at(i).state == ended {
			over = i
		}
	}
	if over == none {
		return false
	}
	f.hubPort = t.at(over).hubPort
	t.drop(over)
	return true
}

// extend allocates more slots.
func (t *Table) extend() {
	first := int32(len(t.flows) * chunk)
	t.flows = append(t.flows, new([chunk]flow))
	for i := first + chunk - 1; i >= first; i-- {
		t.at(i).nextHere = t.unused
		t.unused = i
	}
}

func (t *Table) link(i int32) {
	f := t.at(i)
	a, b := t.slot(f.hereKey()), t.slot(t.hubKey(f))
	f.nextHere, t.here[a] = t.here[a], i
	f.nextHub, t.hubs[b] = t.hubs[b], i
}

// drop takes a flow out of the table.
func (t *Table) drop(i int32) {
	f := t.at(i)
	t.unshunt(f)
	t.leaveDoor(f)
	for p := &t.here[t.slot(f.hereKey())]; *p != none; p = &t.at(*p).nextHere {
		if *p == i {
			*p = f.nextHere
			break
		}
	}
	for p := &t.hubs[t.slot(t.hubKey(f))]; *p != none; p = &t.at(*p).nextHub {
		if *p == i {
			*p = f.nextHub
			break
		}
	}
	*f = flow{nextHere: t.unused}
	t.unused = i
	t.used--
}

// reindex makes the indexes n chains wide, a power of two.
func (t *Table) reindex(n int) {
	t.here, t.hubs = make([]int32, n), make([]int32, n)
	for i := range t.here {
		t.here[i], t.hubs[i] = none, none
	}
	for i := range int32(len(t.flows) * chunk) {
		if t.at(i).state != free {
			t.link(i)
		}
	}
}
