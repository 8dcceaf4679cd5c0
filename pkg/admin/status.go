// Package admin is an agent's local control socket: a unix socket, open to the
// agent's own user alone, on which a client sends one request line and gets
// one line of JSON. It also holds the status document, how people are shown
// it, and the findings of the verb check.
//
// Goroutines: Server.Run owns all that it starts. Its accept loop runs on the
// caller's goroutine; Server.stop ends the loop when the context does; one
// Server.serve per client, at most MaxClients, ends with its reply, with its
// deadline, or with the context. Run returns after all of them.
package admin

import "time"

// Release is the version of this tree.
const Release = "0.1.0"

// Rates and amounts are named by the direction of the payload: up is from edge
// to cloud, down from cloud to edge, in the documents of both agents.

// Status is the document that the verb status shows.
type Status struct {
	Role     string    `json:"role"`     // "edge" or "cloud"
	Name     string    `json:"name"`     // the box's name
	Key      string    `json:"key"`      // the box's public key, base64
	Version  string    `json:"version"`  // of the program
	Protocol int       `json:"protocol"` // highest protocol version spoken
	Started  time.Time `json:"started"`  // by the box's clock as it is now
	Uptime   float64   `json:"uptime_s"` // seconds since the start
	Workers  int       `json:"workers"`  // relay workers
	// Intercept is how the edge takes clients' connections: "hub" or "tproxy".
	Intercept  string      `json:"intercept,omitempty"`
	Handshakes *Handshakes `json:"handshakes,omitempty"` // edge with a hub
	// FailOpen says that new connections go around the tunnel while it is down,
	// Detour that they do now. Edge only.
	FailOpen bool              `json:"fail_open,omitempty"`
	Detour   bool              `json:"detour,omitempty"`
	Taken    *Taken            `json:"taken_over,omitempty"` // by reload, without a new start; nil: nothing yet
	Card     Card              `json:"card"`
	Memory   Memory            `json:"memory"`             // payload of all flows
	Sessions []Session         `json:"sessions"`           // the edge has one
	Counters map[string]uint64 `json:"counters,omitempty"` // of the agent as a whole
}

// Taken says which changes of the configuration the running agent has taken over last.
type Taken struct {
	At   time.Time `json:"at"`
	What string    `json:"what"` // in words
}

// Handshakes says how clients' connections are accepted. They are pending
// until their server has accepted.
type Handshakes struct {
	Mode             string `json:"mode"`               // configured: "auto", "zero-window", "fast" or "strict"
	Now              string `json:"now"`                // in force: not "auto"
	Now6             string `json:"now_ipv6"`           // the same by IPv6
	Switches         uint64 `json:"switches"`           // times that auto has changed its choice
	Pending          uint64 `json:"pending"`            // connections
	Unused           uint64 `json:"unused"`             // connections that stand and have not carried a byte
	FirstFlights     uint64 `json:"first_flights"`      // bytes that pending connections have sent
	FirstFlightsPeak uint64 `json:"first_flights_peak"` // the most there ever were
	Clients          uint64 `json:"clients"`            // with connections
	Flood            bool   `json:"flood"`              // SYNs are answered in the kernel now
	Floods           uint64 `json:"floods"`             // times that this has begun
}

// Card is what encrypts and decrypts records.
type Card struct {
	Kind    string `json:"kind"`    // "inline", "pool" or "kernel"
	Why     string `json:"why"`     // "configured", or what was measured at the start
	Workers int    `json:"workers"` // threads of its own; 0 for inline
	Queue   int    `json:"queue"`   // jobs of one relay worker that it holds at most; 0 for inline
	Window  int    `json:"window"`  // blocks per direction of a flow in it at most
}

// Memory says how much payload there is, and how much there may be now, in bytes.
type Memory struct {
	Used   uint64 `json:"used"` // received, and not taken yet
	Peak   uint64 `json:"peak"` // the most of that
	Kept   uint64 `json:"kept"` // until the peers have delivered it
	Budget uint64 `json:"budget"`
}

// Session is the tunnel between this box and one peer.
type Session struct {
	Peer     string            `json:"peer"`               // the peer's name, or "" when it has none
	Key      string            `json:"key"`                // the peer's public key, base64
	State    string            `json:"state"`              // "up", or "down" while no link lives
	Since    time.Time         `json:"since"`              // of the state; zero means never
	Protocol int               `json:"protocol"`           // version agreed upon; 0 before the first handshake
	Conflict string            `json:"conflict,omitempty"` // cloud only: what two boxes with the peer's key were told of late
	Links    []Link            `json:"links"`
	Flows    Flows             `json:"flows"`
	Counters map[string]uint64 `json:"counters,omitempty"`
}

// Link is one uplink of a session.
type Link struct {
	Name        string    `json:"name"`
	Interface   string    `json:"interface,omitempty"`  // edge only
	State       string    `json:"state"`                // "up", "connecting", "suspect", "probing" or "down"
	Since       time.Time `json:"since"`                // of the state; zero means never
	Transport   string    `json:"transport"`            // "tcp", "quic", or "" before the first connection
	Congestion  string    `json:"congestion,omitempty"` // congestion control of what is sent from here
	Remote      string    `json:"remote"`               // the peer's address and port on this link
	NAT64       string    `json:"nat64,omitempty"`      // edge only: the prefix behind which that stands for an IPv4 address, where it does
	RTT         float64   `json:"rtt_ms"`               // smoothed; 0 means not measured
	MinRTT      float64   `json:"min_rtt_ms"`           // 0 means not measured
	RateUp      uint64    `json:"rate_up"`              // bit/s
	RateDown    uint64    `json:"rate_down"`            // bit/s
	BytesUp     uint64    `json:"bytes_up"`
	BytesDown   uint64    `json:"bytes_down"`
	InFlight    uint64    `json:"in_flight"`           // bytes sent and not yet acknowledged
	Losses      uint64    `json:"losses"`              // times that the link died under way
	PacketsLost uint64    `json:"packets_lost"`        // sent from here, as far as the transport knows
	Reconnects  uint64    `json:"reconnects"`          // connections made after the first
	Forged      uint64    `json:"forged,omitempty"`    // records that were changed on its way
	Shunned     float64   `json:"shunned_s,omitempty"` // seconds for which it gets nothing because of them, while another is up
	Lanes       []Lane    `json:"lanes,omitempty"`     // if there are several; the figures above are of all
	Device      *Device   `json:"device,omitempty"`    // edge only: the interface, while it is there
	Quota       *Quota    `json:"quota,omitempty"`     // edge only, of a link that has one
	Tier        string    `json:"tier,omitempty"`
	Hint        string    `json:"hint,omitempty"` // what another program says of it
	LastError   string    `json:"last_error,omitempty"`
	Choice      string    `json:"choice,omitempty"` // edge, transport auto: what the last comparison said
}

// Lane is one of several connections that a link runs on.
type Lane struct {
	Number     int       `json:"number"` // from 1
	State      string    `json:"state"`
	Since      time.Time `json:"since"`
	RTT        float64   `json:"rtt_ms"`
	BytesUp    uint64    `json:"bytes_up"`
	BytesDown  uint64    `json:"bytes_down"`
	InFlight   uint64    `json:"in_flight"`
	Losses     uint64    `json:"losses"`
	Reconnects uint64    `json:"reconnects"`
	LastError  string    `json:"last_error,omitempty"`
}

// Device is what the kernel has counted on a link's interface since that was
// made: traffic of all programs, with link-layer headers.
type Device struct {
	BytesUp     uint64 `json:"bytes_up"`
	BytesDown   uint64 `json:"bytes_down"`
	PacketsUp   uint64 `json:"packets_up"`
	PacketsDown uint64 `json:"packets_down"`
	ErrorsUp    uint64 `json:"errors_up"`
	ErrorsDown  uint64 `json:"errors_down"`
	DropsUp     uint64 `json:"drops_up"`
	DropsDown   uint64 `json:"drops_down"`
}

// Quota is what a link may carry in a month, both directions together.
type Quota struct {
	Bytes   uint64    `json:"bytes"`
	Used    uint64    `json:"used"`    // on the interface since Begun
	Allowed uint64    `json:"allowed"` // by now
	State   string    `json:"state"`   // "within", "ahead" or "spent"
	Begun   time.Time `json:"begun"`
	Ends    time.Time `json:"ends"`
}

// Flows counts the TCP connections that a session carries.
type Flows struct {
	Open    uint64 `json:"open"`    // now
	Opened  uint64 `json:"opened"`  // since the start, as are the following
	Refused uint64 `json:"refused"` // the server or the rules said no
	Reset   uint64 `json:"reset"`   // ended before their end
}

// by returns the status with its moments as a clock shows them that says wall at now. What
// the box's clock said at them is of no use once it was set: one without a battery says 1970
// until it has asked for the time, and all that began before then would be decades old, all
// that began since then would be yet to come.
func (s Status) by(now, wall time.Time) Status {
	tell := func(t *time.Time) {
		if !t.IsZero() {
			*t = wall.Add(-now.Sub(*t)).In(t.Location()) // by the monotonic clock where t has it
		}
	}
	tell(&s.Started)
	if s.Taken != nil {
		taken := *s.Taken // the agent's own stays
		tell(&taken.At)
		s.Taken = &taken
	}
	for i := range s.Sessions {
		session := &s.Sessions[i]
		tell(&session.Since)
		for j := range session.Links {
			tell(&session.Links[j].Since)
			for k := range session.Links[j].Lanes {
				tell(&session.Links[j].Lanes[k].Since)
			}
		}
	}
	return s
}

// Level grades a finding.
type Level string

// Levels of a finding.
const (
	LevelOK   Level = "ok"
	LevelWarn Level = "warn" // run works, but not as it could
	LevelFail Level = "fail" // run would fail
)

// Finding is one thing that the verb check has looked at.
type Finding struct {
	Level  Level  `json:"level"`
	What   string `json:"what"`             // one line
	Remedy string `json:"remedy,omitempty"` // one line; what to do about it
	Taken  bool   `json:"-"`                // it fails because a program that runs has what is needed
}
