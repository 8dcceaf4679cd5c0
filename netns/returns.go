package netns

import (
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// returnMost is how long after a loss something is taken for its return.
const returnMost = time.Minute

// returns notices that what connections are masqueraded by is back. The kernel forgets them
// when their interface goes down, or their address is taken away, as by who applies the
// host's network settings anew. Whoever speaks first afterwards decides: a packet of ours
// leads to the same translation again, one of a server's is answered by a reset.
type returns struct {
	back func() // nil: nobody asks
	lost time.Time
}

// OnReturn has back called when an interface is up again that was down, or an address or a
// default route is there again, each time that one of these is within returnMost of a loss.
// back must not block. Call it before Watch.
func (h *Host) OnReturn(back func()) { h.returns.back = back }

func (r *returns) link(u netlink.LinkUpdate, now time.Time) {
	a := u.Attrs()
	const fresh = ^uint32(0) // all of it has changed: it was made just now
	switch {
	case a.Name == hubHost || a.MasterIndex != 0: // a part of a bridge, such as a container's, has no address
	case a.RawFlags&unix.IFF_UP != 0:
		r.come(now)
	case u.Change != fresh && u.Change&unix.IFF_UP != 0: // also before it is removed
		r.lost = now
	}
}

func (r *returns) addr(u netlink.AddrUpdate, now time.Time) {
	switch ip := u.LinkAddress.IP; {
	case !ip.IsGlobalUnicast():
	case !u.NewAddr:
		r.lost = now
	default:
		r.come(now)
	}
}

func (r *returns) route(u netlink.RouteUpdate, now time.Time) {
	if ones := 0; u.Type == unix.RTM_NEWROUTE {
		if u.Dst != nil {
			ones, _ = u.Dst.Mask.Size()
		}
		if ones == 0 {
			r.come(now)
		}
	}
}

func (r *returns) come(now time.Time) {
	if r.back != nil && !r.lost.IsZero() && now.Sub(r.lost) < returnMost {
		r.back()
	}
}
