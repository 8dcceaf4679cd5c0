package split

import (
	"slices"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

const (
	// orphanStuck is for how long a party must have taken nothing to be reset where too
	// much waits for such: a phone may hear nothing for some seconds.
	orphanStuck = 10 * time.Second
	// orphanTimes is how many times as much as that may wait for all together.
	orphanTimes = 8
	// orphanPause is how long at least after the parties were looked at they are again.
	orphanPause = 100 * time.Millisecond
)

// orphans are connections that were closed and whose parties have not taken all yet:
// netstack goes on to send, for orphanTime and longer if they take a little now and then.
// Nobody else counts them, neither the worker nor growth nor the gate. So a client that
// asks for much, has nothing more to say and takes nothing would have a send buffer of
// memory for each connection that it makes, without end.
//
// Beyond growth.most, what those have together that have taken nothing for orphanStuck ends
// with a reset, the oldest first; beyond orphanTimes as much any of them, as the kernel does
// beyond net.ipv4.tcp_max_orphans. What every connection may have, leastBuffer, does not
// count. The zero orphans is ready but for waiting.
type orphans struct {
	waiting func(tcpip.Endpoint) int // bytes in its send buffer; takes its lock

	mu      sync.Mutex
	all     []orphan // in the order of their closing
	bytes   int64    // theirs, as far as is known
	kept    int      // of them when they were last looked at
	looked  int64    // when that was, in milliseconds
	looking bool     // somebody does
}

// orphan is one of them.
type orphan struct {
	ep    tcpip.Endpoint
	bytes int64 // that wait beyond leastBuffer
	since int64 // when it was first seen to be as many, in milliseconds
}

// orphan takes note of a connection that was closed. No lock may be held.
func (s *Stack) orphan(ep tcpip.Endpoint) {
	s.count.orphans.Add(s.orphans.add(ep, s.growth.most.Load(), s.now()))
}

// left is what is still in an endpoint's send buffer.
func (s *Stack) left(ep tcpip.Endpoint) int {
	e, ok := ep.(*tcp.Endpoint)
	if !ok || s.inside == nil {
		return 0
	}
	return s.inside.waiting(e)
}

// add notes a connection, if enough waits for its party, and returns how many were reset.
func (o *orphans) add(ep tcpip.Endpoint, most, now int64) (ended uint64) {
	n := int64(o.waiting(ep)) - leastBuffer
	if n <= 0 {
		return 0
	}
	o.mu.Lock()
	o.all = append(o.all, orphan{ep: ep, bytes: n, since: now})
	o.bytes += n
	due := o.bytes > most && now-o.looked >= orphanPause.Milliseconds() || len(o.all) > 2*o.kept+64
	o.mu.Unlock()
	if !due {
		return 0
	}
	return o.look(most, now)
}

// look forgets those whose parties have taken enough, and resets what is too much.
func (o *orphans) look(most, now int64) (ended uint64) {
	o.mu.Lock()
	if o.looking {
		o.mu.Unlock()
		return 0
	}
	all := o.all
	o.looking, o.all, o.bytes = true, nil, 0
	o.mu.Unlock()
	sum, left := int64(0), all[:0]
	for _, x := range all {
		n := int64(o.waiting(x.ep)) - leastBuffer
		if n <= 0 {
			continue
		}
		if n != x.bytes {
			x.bytes, x.since = n, now
		}
		sum, left = sum+n, append(left, x)
	}
	clear(all[len(left):])
	reset := func(beyond int64, after time.Duration) {
		left = slices.DeleteFunc(left, func(x orphan) bool {
			if sum <= beyond || now-x.since < after.Milliseconds() {
				return false
			}
			x.ep.Abort()
			sum -= x.bytes
			ended++
			return true
		})
	}
	reset(most, orphanStuck)
	reset(orphanTimes*most, 0)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all = append(left, o.all...) // some may have come meanwhile
	o.bytes += sum
	o.kept, o.looked, o.looking = len(left), now, false
	return ended
}
