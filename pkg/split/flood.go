package split

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"hawser/pkg/guard"
)

// cookies are what makes cookies, the same for all stacks of an agent and for
// the kernel, where it answers SYNs.
type cookies struct {
	jar   atomic.Pointer[guard.Jar]
	start time.Time
	epoch uint32 // timestamp at start
}

func newCookies() *cookies {
	c := &cookies{start: time.Now()}
	var p [4]byte
	fill(p[:])
	c.epoch = binary.LittleEndian.Uint32(p[:])
	c.turn(c.start)
	return c
}

// clock is the time in timestamp units (1 ms) as clients know it.
func (c *cookies) clock() uint32 { return c.epoch + uint32(time.Since(c.start).Milliseconds()) }

// turn renews the keys when their time is over.
func (c *cookies) turn(now time.Time) *guard.Jar {
	for {
		old := c.jar.Load()
		j := old.Turn(now, fill)
		if j == old || c.jar.CompareAndSwap(old, j) {
			return j
		}
	}
}

// floods notices floods of SYNs.
type floods struct {
	rise  chan struct{} // one slot: there is a flood
	valid atomic.Uint64 // first ACKs with a cookie

	mu    sync.Mutex
	alarm guard.Alarm // guarded by mu
}

// count is Alarm.Count.
func (f *floods) count(syns, acks int, now time.Time) bool {
	f.mu.Lock()
	flood := f.alarm.Count(syns, acks, now)
	f.mu.Unlock()
	if flood {
		select {
		case f.rise <- struct{}{}:
		default:
		}
	}
	return flood
}

// WatchFloods makes Flood tell when more than limit SYNs per second stay
// without an ACK. It is to be called before the stacks run.
func (g *Gate) WatchFloods(limit int) { g.floods.alarm = guard.NewAlarm(limit) }

// Flood tells again and again while there is a flood of SYNs.
func (g *Gate) Flood() <-chan struct{} { return g.floods.rise }

// Elsewhere counts SYNs that somebody else has answered with the gate's
// cookies, and says whether there is a flood.
func (g *Gate) Elsewhere(syns int, now time.Time) bool { return g.floods.count(syns, 0, now) }

// Valid is how many first ACKs have brought a valid cookie.
func (g *Gate) Valid() uint64 { return g.floods.valid.Load() }

// Cookies returns what makes cookies at the moment: the jar, and the time in
// the units of timestamps.
func (g *Gate) Cookies(now time.Time) (*guard.Jar, uint32) {
	return g.cookies.turn(now), g.cookies.clock()
}

// Offers are what SYN-ACKs of a stack with o offer with a closed window, for
// IPv4 and IPv6.
func (o Options) Offers() (v4, v6 guard.Offer) {
	o = o.withDefaults()
	v4 = guard.Offer{
		MSS:   uint16(o.MTU - header.IPv4MinimumSize - header.TCPMinimumSize),
		Scale: int8(tcp.FindWndScale(seqnum.Size(o.MaxBuffer))),
	}
	v6 = v4
	v6.MSS -= header.IPv6MinimumSize - header.IPv4MinimumSize
	return v4, v6
}
