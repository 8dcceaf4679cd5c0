// Package stream is the contract between a relay worker, which owns flows,
// and a tunnel session, which owns their transport. Each side posts batches of
// messages into the other's mailbox; neither ever calls into the other's state.
//
// Per flow and direction the tunnel carries one sealed byte stream addressed
// by offset from 0. Amounts are sealed bytes throughout.
//
// The package starts no goroutines.
package stream

import (
	"net/netip"
	"time"

	"hawser/pkg/buffer"
	"hawser/pkg/wire"
)

// ID names a flow within one session. Edges count up from 1 and never reuse
// an ID within a session: the card's nonces contain it (PROTOCOL.md section 6).
type ID uint64

// Code says why a flow was reset (PROTOCOL.md section 5.4).
type Code uint8

// Reset codes.
const (
	CodeNone        Code = iota
	CodeAbort            // the party aborted (RST) or vanished
	CodeRefused          // the server refused the connection
	CodeUnreachable      // no route, or no answer from the server in time
	CodeDenied           // the cloud's egress rules forbid the destination
	CodeStopping         // the agent is stopping
	CodeProtocol         // the peer broke the protocol, or a record was forged
	CodeResources        // a budget is spent
	CodeLost             // the session ended; its flows cannot be continued
)

// String returns the code's name as status and logs show it.
func (c Code) String() string {
	names := [...]string{"none", "abort", "refused", "unreachable", "denied", "stopping", "protocol", "resources", "lost"}
	if int(c) < len(names) {
		return names[c]
	}
	return "unknown"
}

// CommandKind is what a worker asks of a session.
type CommandKind uint8

// Commands, worker to session.
const (
	CmdOpen     CommandKind = iota + 1 // edge only: a new flow; Dst and Src set
	CmdAccepted                        // cloud only: the server is connected, and takes Bytes at first; negative: it does not say
	CmdSend                            // append Seg to the flow's send stream; Seg passes to the session. Never beyond the last EventCredit
	CmdFin                             // the send stream ends here; nothing is sent after it
	CmdConsumed                        // Bytes more of the receive stream were opened; the fin counts as none. Room is set where the party reads slowly
	CmdReject                          // what follows the consumed bytes, of which Bytes are one record, could not be authenticated: deliver it anew
	CmdReset                           // the flow is over for the worker; Code says why. The worker forgets it now
	CmdDone                            // both directions ended well and all was consumed. The worker forgets it now
)

// Plain returns how many plain bytes a record is to hold at most that is sent by a line
// of so many bytes per second: what that carries in 0.4 ms, from buffer.Plain
// to most. Each record costs both ends the same, and who has a part of one can
// open nothing of it (PROTOCOL.md section 6.1).
func Plain(rate float64, most int) int {
	return min(max(int(rate*plainTime.Seconds()), buffer.Plain), most)
}

const plainTime = 400 * time.Microsecond

// Command is one request of a worker. Commands of one flow are obeyed in order.
type Command struct {
	Kind  CommandKind
	Code  Code
	Room  uint16 // CmdConsumed: what the party takes now without reading, in bytes and at least 1; 0: it does not read slowly
	Flow  ID
	Bytes int
	Seg   buffer.Seg
	Dst   netip.AddrPort // CmdOpen: the server the client wanted
	Src   netip.AddrPort // CmdOpen: the client
	Terms wire.Terms     // CmdOpen: its place in the connection order; the zero Terms are the default
}

// EventKind is what a session tells a worker.
type EventKind uint8

// Events, session to worker.
const (
	EventOpen     EventKind = iota + 1 // cloud only: the peer opened a flow; Dst and Src set
	EventAccepted                      // edge only: the server is connected, and takes Limit bytes at first; wire.NoWindow: it does not say
	EventData                          // the next bytes of the receive stream, in order; Seg passes to the worker
	EventFin                           // the receive stream ends here
	EventCredit                        // the worker may have sent Limit bytes in all
	EventReset                         // the flow is over, Code says why. The session has forgotten it
	EventRewind                        // after CmdReject: drop what was delivered beyond the consumed bytes; it comes again
)

// Event is one message of a session. Events of one flow arrive in order.
type Event struct {
	Kind  EventKind
	Code  Code
	Flow  ID
	Limit uint64
	Seg   buffer.Seg
	Dst   netip.AddrPort // EventOpen
	Src   netip.AddrPort // EventOpen
	From  Tunnel         // the session that speaks
	Keys  any            // EventData: what opens it, a *card.Keys; nil: what the session has now
}

// Tunnel is a session as a worker sees it.
type Tunnel interface {
	// Post hands a batch to the session; the session copies the slice. It does
	// not block, but may do the session's work at once, deliveries to the Sink
	// included: the caller holds nothing that those need. The queue is bounded
	// by the flows' credit. After the session has ended commands are dropped and
	// their Segs released.
	Post(batch []Command)
	// NewFlow returns a fresh ID for CmdOpen (edge only). The flow's events go
	// to the worker whose index was given. It returns 0 after the session has
	// ended: nobody would ever say anything of the flow.
	NewFlow(worker int) ID
	// Keys returns the session's sealing keys (32 bytes secret); role says
	// which direction is ours. The card derives its keys from it.
	Secret() []byte
	// Record returns how many plain bytes a record of a flow holds now at most,
	// buffer.Plain to buffer.Most. Each worker that has flows of the session may ask.
	Record() int
	// Tag names the session in logs and status: the peer's name.
	Tag() string
}

// Sink takes a session's events; the agent connects it to the workers.
// Deliver is called by the session's loop only, must not block, and must copy
// the slice before it returns. worker is the index of the owning worker.
type Sink interface {
	Deliver(worker int, batch []Event)
	// Settle follows Deliver soon, when the session's loop has nothing else to
	// do: what little was delivered may be worked on at once, by the caller.
	Settle(worker int)
	// Place chooses the worker for a flow that the peer opened.
	Place(flow ID) int
}
