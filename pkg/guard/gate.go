package guard

import (
	"time"

	"hawser/pkg/slim"
)

// Mode says when a client's connection is accepted and its data taken.
type Mode uint8

// Modes.
const (
	Auto       Mode = iota // Fast while little is pending, else ZeroWindow; Strict by IPv6 that is not known to work
	ZeroWindow             // accepted at once, data when the server is there
	Fast                   // accepted at once, and the first data taken
	Strict                 // accepted when the server is there
)

var modeNames = [...]string{"auto", "zero-window", "fast", "strict"}

// String returns the mode's name as in the configuration.
func (m Mode) String() string {
	if int(m) < len(modeNames) {
		return modeNames[m]
	}
	return "unknown"
}

// Limits bound what clients can make the edge hold. A flow is pending from its
// valid ACK (strict: its SYN) until the server is connected.
type Limits struct {
	Pending       int // pending flows
	PendingClient int // of them, of one client
	OpenClient    int // flows of one client that are not pending
	Unused        int // of these, flows of all clients that have not carried a byte; negative: no bound
	// FirstFlight is what a pending flow may have sent in fast mode, in bytes;
	// at most 65535. FirstFlights bounds that of all pending flows together.
	FirstFlight  int
	FirstFlights int
	// AutoFlows and AutoBytes are how many pending flows, and bytes sent by
	// them, turn Auto to ZeroWindow. It turns back at half of both.
	AutoFlows, AutoBytes int
}

// Defaults of Limits.
const (
	DefaultPending       = 4096
	DefaultPendingClient = 1024
	DefaultOpenClient    = 16384
	DefaultUnused        = 512
	DefaultFirstFlight   = 16 << 10
	DefaultFirstFlights  = 4 << 20
)

// WithDefaults fills in what is zero. The thresholds of auto follow from the
// bounds: an eighth of the flows, a quarter of the bytes.
func (l Limits) WithDefaults() Limits {
	set := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	set(&l.Pending, DefaultPending)
	set(&l.PendingClient, DefaultPendingClient)
	set(&l.OpenClient, DefaultOpenClient)
	set(&l.Unused, DefaultUnused)
	set(&l.FirstFlight, DefaultFirstFlight)
	set(&l.FirstFlights, DefaultFirstFlights)
	set(&l.AutoFlows, max(l.Pending/8, 1))
	set(&l.AutoBytes, max(l.FirstFlights/4, 1))
	return l
}

// calm is how long pending flows and bytes must have been below half of the
// thresholds before Auto turns back to Fast: one burst is followed by the next.
const calm = time.Second

// Verdict is a Gate's answer.
type Verdict uint8

// Verdicts of Gate.Admit.
const (
	Admitted      Verdict = iota
	TooMany               // Limits.Pending
	TooManyClient         // what of it this client may have
	TooManyServer         // what of it connections to this server may have
	TooManyOpen           // Limits.OpenClient
	SilentServer          // it was asked in vain a moment ago
	Verdicts              // how many there are
)

// Gate bounds flows per client, per server and in total, and holds Auto's
// choice. A client is an IPv4 address or an IPv6 /64 network.
type Gate struct {
	limits  Limits
	mode    Mode
	pending int
	bytes   int
	clients map[[16]byte]*client

	servers    map[Server]*server // those with pending flows, and of which something is remembered
	serverPeak slim.Peak
	swept      time.Time

	six      six
	zero     bool      // Auto's choice
	calmAt   time.Time // since when it could turn back; zero: not calm
	switches uint64
	peak     int // most bytes ever
}

// client is one client's flows.
type client struct{ pending, open int }

// NewGate returns a gate without flows; m is the mode where no policy says
// another.
func NewGate(m Mode, l Limits) *Gate {
	return &Gate{mode: m, limits: l.WithDefaults(), clients: map[[16]byte]*client{}, servers: map[Server]*server{}}
}

// Change has other bounds and another mode be in force. Flows that are there stay.
func (g *Gate) Change(m Mode, l Limits) { g.mode, g.limits = m, l.WithDefaults() }

// Limits are the bounds in force.
func (g *Gate) Limits() Limits { return g.limits }

// Resolve returns the mode of a flow by IPv6, or IPv4, that asks for m: Auto becomes what
// the load allows now.
func (g *Gate) Resolve(m Mode, v6 bool, now time.Time) Mode {
	if m != Auto {
		return m
	}
	g.weigh(now)
	switch {
	case g.zero:
		return ZeroWindow
	case v6 && !g.six.works:
		return Strict
	}
	return Fast
}

// Default is the mode where no policy says another.
func (g *Gate) Default() Mode { return g.mode }

// weigh moves Auto's choice.
func (g *Gate) weigh(now time.Time) {
	l := &g.limits
	if !g.zero {
		if g.pending >= l.AutoFlows || g.bytes >= l.AutoBytes {
			g.zero, g.calmAt = true, time.Time{}
			g.switches++
		}
		return
	}
	switch {
	case g.pending > l.AutoFlows/2 || g.bytes > l.AutoBytes/2:
		g.calmAt = time.Time{}
	case g.calmAt.IsZero():
		g.calmAt = now
	case now.Sub(g.calmAt) >= calm:
		g.zero = false
		g.switches++
	}
}

// Admit asks for a pending flow of a client to a server; after Admitted,
// Connected or Refused must follow once, and Ask before Connected.
//
// A client may have at most as many pending flows as there are free places
// (dynamic thresholds, Choudhury and Hahne 1998): however many clients there
// are, each has its share, and one alone can take half. The same holds for a
// server: one that does not answer leaves half of the places to others, and
// sixteen such a seventeenth, however many clients ask for them.
func (g *Gate) Admit(addr [16]byte, s Server, now time.Time) Verdict {
	g.sweep(now)
	free := g.limits.Pending - g.pending
	switch {
	case g.deaf(s, now):
		return SilentServer
	case free <= 0:
		return TooMany
	}
	k := Identity(addr)
	known := g.clients[k]
	var c client
	if known != nil {
		c = *known
	}
	switch {
	case c.pending >= g.limits.PendingClient, c.pending >= free:
		return TooManyClient
	case c.open >= g.limits.OpenClient:
		return TooManyOpen
	case g.taken(s) >= free:
		return TooManyServer
	}
	if known == nil {
		known = &client{}
		g.clients[k] = known
	}
	known.pending++
	g.pending++
	g.arrive(s)
	return Admitted
}

// Connected notes that a pending flow's server, which was asked, is there; wait
// says that others wait for it. After it, Closed must follow once.
func (g *Gate) Connected(addr [16]byte, s Server, now time.Time) (wait bool) {
	c := g.clients[Identity(addr)]
	c.pending--
	c.open++
	g.six.reached(s)
	return g.left(s, true, now)
}

// Refused notes that a pending flow is over; asked is what Ask has said of it,
// wait says that others wait for its server.
func (g *Gate) Refused(addr [16]byte, s Server, asked bool) (wait bool) {
	k := Identity(addr)
	c := g.clients[k]
	c.pending--
	g.forget(k, c)
	return g.left(s, asked, time.Time{})
}

// Closed notes that a flow that was connected is over.
func (g *Gate) Closed(addr [16]byte) {
	k := Identity(addr)
	c := g.clients[k]
	c.open--
	g.forget(k, c)
}

func (g *Gate) forget(k [16]byte, c *client) {
	if c.pending == 0 && c.open == 0 {
		delete(g.clients, k)
	}
}

// Take asks for n bytes of the first flight of a flow to a server; false when
// they would be too many. Half of the room is for those whose server has answered
// of late: they give it back soon, those of one that is not there keep it.
func (g *Gate) Take(n int, s Server, now time.Time) bool {
	if n > g.room(s, now) {
		return false
	}
	g.bytes += n
	g.peak = max(g.peak, g.bytes)
	return true
}

// Room says whether there is room for one more first flight. A client that is
// offered a window without sends in vain, and again after a fifth of a second at
// best; one whose window is closed sends when its server is there.
func (g *Gate) Room(s Server, now time.Time) bool { return g.room(s, now) >= g.limits.FirstFlight }

func (g *Gate) room(s Server, now time.Time) int {
	most := g.limits.FirstFlights
	if !g.heard(s, now) {
		most /= 2
	}
	return most - g.bytes
}

// Give gives bytes of first flights back.
func (g *Gate) Give(n int) { g.bytes -= n }

// GateStatus are a gate's figures.
type GateStatus struct {
	Mode     Mode // in force: never Auto
	Mode6    Mode // the same by IPv6
	Pending  int
	Bytes    int    // of pending flows' first flights
	Peak     int    // most Bytes so far
	Clients  int    // with flows
	Switches uint64 // of Auto, both ways
}

// Status returns the figures as they stand.
func (g *Gate) Status(now time.Time) GateStatus {
	return GateStatus{
		Mode: g.Resolve(g.mode, false, now), Mode6: g.Resolve(g.mode, true, now), Pending: g.pending, Bytes: g.bytes, Peak: g.peak,
		Clients: len(g.clients), Switches: g.switches,
	}
}

// Identity is what counts as one client: an IPv6 client has a /64 for itself.
func Identity(addr [16]byte) [16]byte {
	if !mapped(&addr) {
		clear(addr[8:])
	}
	return addr
}

// mapped says that an address is IPv4 in its mapped form.
func mapped(a *[16]byte) bool {
	return a[10] == 0xff && a[11] == 0xff && [10]byte(a[:10]) == [10]byte{}
}
