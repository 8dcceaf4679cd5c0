package split

import (
	"reflect"
	"time"
	"unsafe"

	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"hawser/pkg/guard"
)

// inside is where netstack's endpoints keep what it has no way to ask for or to change.
// It is looked up by name; where a later netstack has none of that name, all goes on
// without.
type inside struct {
	sender uintptr // in the endpoint
	rto    uintptr // in the sender: how long it waits before it asks or sends again
	cwnd   uintptr // in the sender: its congestion window, in segments
	used   uintptr // in the endpoint: bytes in its send buffer
}

// newInside returns nil if netstack is not as expected.
func newInside() *inside {
	i := &inside{}
	l := lookup{}
	end := reflect.TypeFor[tcp.Endpoint]()
	snd := l.behind(end, &i.sender, "snd")
	rto := l.in(snd, &i.rto, "TCPSenderState", "RTO")
	cwnd := l.in(snd, &i.cwnd, "TCPSenderState", "SndCwnd")
	used := l.in(end, &i.used, "sndQueueInfo", "TCPSndBufState", "SndBufUsed")
	if l.failed || rto != reflect.TypeFor[time.Duration]() || cwnd != reflect.TypeFor[int]() || used != cwnd {
		return nil
	}
	return i
}

// waiting is how many bytes are in e's send buffer. Only the caller adds to them.
func (i *inside) waiting(e *tcp.Endpoint) int {
	e.LockUser() // whoever takes from them holds it
	defer e.UnlockUser()
	return *(*int)(unsafe.Add(unsafe.Pointer(e), i.used))
}

// relaxMore is for how much longer a question waits than the pause, whose end may tell
// what it asks for.
const relaxMore = slackMost

// relax is told that a question of e's whether a window is still shut did not leave, by
// whoever asks, who holds e's lock: e asks again once rest is over, instead of four times
// before. netstack takes a window that stays shut for a loss and would then fill it by a
// segment, and two when that has come, and so on; but nothing is lost.
func (i *inside) relax(e *tcp.Endpoint, rest time.Duration) {
	snd := follow(unsafe.Pointer(e), i.sender)
	if snd == nil {
		return
	}
	rto, cwnd := (*time.Duration)(unsafe.Add(snd, i.rto)), (*int)(unsafe.Add(snd, i.cwnd))
	*rto, *cwnd = max(*rto, rest+relaxMore), max(*cwnd, tcp.InitialCwnd)
}

// relax does so for the endpoint of a client.
func (k *keeper) relax(ends *guard.Ends, rest time.Duration) {
	i := k.stack.inside
	if i == nil {
		return
	}
	var c *Conn
	k.mu.Lock()
	if w := k.flows[*ends]; w != nil {
		c = w.conn
	}
	k.mu.Unlock()
	if c == nil || !c.is(isUp) {
		return
	}
	if e, ok := c.ep.(*tcp.Endpoint); ok {
		i.relax(e, rest)
	}
}
