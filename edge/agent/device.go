package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"hawser/netns"
	"hawser/pkg/link"
)

// device is what an uplink knows of its interface, and the connection that
// depends on it.
type device struct {
	known bool   // the kernel has told of it
	why   string // why it cannot be used; "" when it can
	addrs []netip.Addr
	all   []netip.Addr // with those of a version by which no connection is made now
	four  bool         // connections are made by IPv4
	six   bool         // by IPv6
	mtu   int          // bytes; 0 while it cannot be used
	had   bool         // it had an address before

	conn *link.Conn   // the newest connection
	from []netip.Addr // addresses of the interface that conn may use
	most int          // bytes of a packet of conn, by what the interface took then; 0 if it finds that out by itself
}

// carry notes the connection that is the link's from now on.
func (u *uplink) carry(conn *link.Conn) {
	u.mu.Lock()
	defer u.mu.Unlock()
	d := &u.device
	d.conn, d.from, d.most = conn, d.addrs, 0
	if conn.Info().Transport == link.QUIC {
		d.most = d.mtu
	}
	if local := conn.Info().Local.Addr().Unmap(); local.IsValid() && !local.IsUnspecified() {
		d.from = []netip.Addr{local}
		if !slices.Contains(d.all, local) {
			d.from = nil // borrowed from another interface
		}
	}
	switch { // it went while the connection was made
	case d.why != "":
		conn.Close(errors.New(d.why))
	case u.left != nil:
		conn.Close(u.left)
	}
}

// usable tells whether the interface can send.
func (u *uplink) usable() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.device.why == ""
}

// event takes in what the kernel says of the interface (netns.Host.Watch). A
// connection that cannot go on ends, so that what it carried goes to the other
// links now and not after a silence; one that can be made is made now and not
// after a pause.
func (u *uplink) event(e netns.UplinkEvent) {
	for _, lane := range u.lanes {
		lane.event(e)
	}
	conn, why, dial := u.judge(e)
	if why != "" {
		u.log.Warn("uplink lost", "reason", why)
	}
	if conn != nil {
		conn.Close(errors.New(why))
	}
	if dial {
		u.where.moved()
		select {
		case u.moved <- struct{}{}:
		default:
		}
	}
}

// judge returns the connection that must end and why, and whether it is time
// to dial, or to stop dialling.
func (u *uplink) judge(e netns.UplinkEvent) (end *link.Conn, why string, dial bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	d := &u.device
	was := *d
	d.known, d.why, d.addrs, d.mtu = true, e.State.Why, e.State.Addrs, e.State.MTU
	d.all, d.four, d.six = slices.Concat(d.addrs, e.State.Beside), e.State.Four, e.State.Six
	d.had = was.had || len(d.all) > 0
	if d.why == "" && d.had && len(d.all) == 0 {
		d.why = "the interface has lost its address"
	}
	// What is told first of an interface that can be used changes nothing for the
	// attempts that have begun.
	dial = d.why != was.why || was.known && !slices.Equal(d.addrs, was.addrs) || e.Rerouted
	switch {
	case d.why != "" && was.why == "":
		why = d.why
	case d.why == "":
		why = d.gone()
		if why == "" && d.conn != nil && d.narrowed() {
			why = fmt.Sprintf("the interface takes packets of %d bytes now, not of %d", d.mtu, d.most)
		}
	}
	if why != "" {
		end, d.conn = d.conn, nil
	}
	return end, why, dial
}

// gone says which address of the connection the interface has no more.
func (d *device) gone() string {
	if d.conn == nil {
		return ""
	}
	for _, a := range d.from {
		if !slices.Contains(d.all, a) {
			return fmt.Sprintf("address %s was removed", a)
		}
	}
	return ""
}

// narrowed tells whether the connection may send packets that its interface no longer takes. By
// QUIC it finds out how long they may be, and never again: they vanish then, while short ones
// go on. The kernel's TCP follows its interface.
func (d *device) narrowed() bool { return 0 < d.mtu && d.mtu < d.most }

// versions tells by which IP versions connections are made on the uplink. Before the kernel
// has told of it, it is asked.
func (u *uplink) versions(r netns.LinkRoute) (four, six bool) {
	u.mu.Lock()
	known, four, six := u.device.known, u.device.four, u.device.six
	u.mu.Unlock()
	if !known {
		return netns.Versions(r)
	}
	return four, six
}
