package scheduler

import (
	"net/netip"
	"time"
)

// Class is how urgent a flow is; a lower number is more urgent.
type Class uint8

// Classes of flows.
const (
	Latency Class = iota
	Privileged
	Normal
	Background
	classCount
)

// User names whose a flow is: a client, or everything that a policy matches.
type User struct {
	Policy uint16
	Prefix netip.Prefix // invalid: the policy as a whole
}

// Terms are how a flow shares the links with others. Of flows of one user the
// latest terms count.
type Terms struct {
	User      User
	Class     Class
	Weight    int     // share of the user in its class, from 1
	Guarantee float64 // bytes per second that are served as privileged; 0: none
	Limit     float64 // bytes per second that the user does not exceed; 0: none
}

// Node is a flow's place in an Order. The zero Node may join one, whose it is
// from then on.
type Node[F any] struct {
	Flow    F
	class   Class
	user    *user[F]
	place   elem[*Node[F]]
	sent    int // bytes since it joined
	deficit int
}

// Class returns the class that the flow's terms name.
func (n *Node[F]) Class() Class { return n.class }

// Active reports whether the flow is in line.
func (n *Node[F]) Active() bool { return n.place.list != nil }

// Free reports whether the flow is in line and its user is not held back by a limit.
func (n *Node[F]) Free() bool { return n.Active() && (n.user == nil || !n.user.held) }

// Sent returns how many bytes of the flow were charged.
func (n *Node[F]) Sent() int { return n.sent }

// Order is connection order: which flow's turn it is to send. Flows join when
// they begin, are in line while they have something to send, and leave.
//
// A round of sending begins with Begin; then, while links have room, the flow
// that Next returns either sends and is charged, or passes.
type Order[F any] interface {
	// Join takes a flow in; one that has joined gets other terms.
	Join(n *Node[F], t Terms, now time.Time)
	Leave(n *Node[F], now time.Time)
	// Activate puts a flow in line, Deactivate takes it out. Both do nothing
	// when that is so already.
	Activate(n *Node[F], now time.Time)
	Deactivate(n *Node[F])
	// Begin begins a round: who passed in the last one may go again.
	Begin(now time.Time)
	// Next returns the flow whose turn it is; it stays in line. It returns nil
	// when no flow in line may go now.
	Next() *Node[F]
	// Charge takes n bytes that the flow has sent off what it may. The flow may
	// be out of line.
	Charge(node *Node[F], n int)
	// Pass lets others go first: the flow had better wait.
	Pass(node *Node[F])
	// Len returns the number of flows in line that may go by their rates.
	Len() int
	// Wake returns when a flow may go that must wait for its rate now; zero:
	// no flow waits for that.
	Wake() time.Time
	// Share returns the part of everything that the flow has a right to while
	// all who are in line send.
	Share(n *Node[F]) float64
}

// maxPasses is how many flows of a class may pass in a round. It bounds a
// round's work however many flows would rather wait; the next one asks others.
const maxPasses = 16

// NewOrder returns a connection order. total is what all flows together do not
// exceed, in bytes per second; 0: no limit.
func NewOrder[F any](k OrderKind, total float64) Order[F] {
	switch k {
	case OrderRoundRobin:
		return NewRoundRobin[F](total)
	case OrderStrict:
		return NewStrict[F](total)
	}
	return NewDRR[F](total)
}
