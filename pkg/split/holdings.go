package split

import (
	"reflect"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

const (
	// lookEvery is how often is looked at what buffers hold, while they are given any,
	// and lookRarely how many times as long it is apart otherwise, while they hold any.
	lookEvery, lookRarely = 50 * time.Millisecond, 16
	// lookMany is how many connections make it as long apart again.
	lookMany = 8 << 10
	// shares is in how many parts what is left is given away, where there are as many
	// connections: those that come at the same time find something, too.
	shares = 16
)

// holdings is what netstack holds for a stack's connections, in bytes. Its queues say
// it themselves, when they are asked. What buffers have been given since then counts
// in full, as nobody knows yet what will be in them, and for one look more: they do not
// fill at once. So a connection whose data moves costs others nothing, however large
// its buffers are, and those of many that nobody reads from become ever smaller.
type holdings struct {
	seen  atomic.Int64 // at the last look
	given atomic.Int64 // since
	then  atomic.Int64 // between the two last looks

	mu   sync.Mutex
	all  []*Conn // with a place in it each
	used uintptr // where an endpoint has the bytes in its send queue
	got  uintptr // and those in its receive queues, with what they cost
	lost bool    // netstack is not as expected: nobody can be asked
}

// find looks where netstack's endpoints have what they hold.
func (h *holdings) find() {
	l := lookup{}
	end := reflect.TypeFor[tcp.Endpoint]()
	used := l.in(end, &h.used, "sndQueueInfo", "TCPSndBufState", "SndBufUsed")
	got := l.in(end, &h.got, "rcvMemUsed")
	h.lost = l.failed || used != reflect.TypeFor[int]() || got.Size() != 4
}

// sum is what they count as, in bytes.
func (h *holdings) sum() int64 { return h.seen.Load() + h.given.Load() + h.then.Load() }

// add lists a connection.
func (h *holdings) add(c *Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c.place = int32(len(h.all))
	h.all = append(h.all, c)
}

// remove takes it out.
func (h *holdings) remove(c *Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	last := len(h.all) - 1
	h.all[c.place] = h.all[last]
	h.all[c.place].place = c.place
	h.all[last] = nil
	h.all = h.all[:last]
	if cap(h.all) > 1<<10 && last < cap(h.all)/8 {
		h.all = append(make([]*Conn, 0, 2*last), h.all...)
	}
}

// loop looks until stop is closed.
func (h *holdings) loop(stop <-chan struct{}) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var room []*Conn
	for i, pause := 0, 1; ; {
		select {
		case <-stop:
			return
		case <-tick.C:
			if i++; i >= pause && h.given.Load()+h.then.Load() > 0 || i >= lookRarely*pause && h.seen.Load() > 0 {
				room = h.look(room)
				i, pause = 0, 1+cap(room)/lookMany
			}
		}
	}
}

// look asks all of them. room is for the list of them, and is returned. No lock may be
// held.
func (h *holdings) look(room []*Conn) []*Conn {
	h.then.Store(h.given.Swap(0))
	h.mu.Lock()
	room = append(room[:0], h.all...)
	h.mu.Unlock()
	sum := int64(0)
	for _, c := range room {
		if e, ok := c.ep.(*tcp.Endpoint); ok && !h.lost {
			sum += h.of(e)
		}
	}
	h.seen.Store(sum)
	clear(room)
	return room[:0]
}

// of is what one endpoint holds, in bytes. netstack guards the send queue by the
// endpoint's lock wherever it changes.
func (h *holdings) of(e *tcp.Endpoint) int64 {
	e.LockUser()
	defer e.UnlockUser()
	p := unsafe.Pointer(e)
	return int64(*(*int)(unsafe.Add(p, h.used))) + int64(atomic.LoadInt32((*int32)(unsafe.Add(p, h.got))))
}
