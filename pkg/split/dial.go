package split

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	netports "gvisor.dev/gvisor/pkg/tcpip/ports"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"hawser/pkg/party"
)

const (
	// firstPort is the lowest local port. The hub's address is ours alone, so
	// nothing but custom keeps us from all above the well-known ones.
	firstPort = 1024
	// portSteps bounds the random step from one local port to the next, in
	// ports of this worker (RFC 6056 section 3.3.5, random increments).
	portSteps = 64
	// portTries is how many local ports a dial tries before it gives up. A
	// port is only taken if the same server port was dialled from it.
	portTries = 256
)

// ports hands out local ports p with p % workers == worker. The answers to
// them come to this worker's socket.
type ports struct {
	worker, workers, count uint32
	next                   *atomic.Uint32 // index of a port
}

func newPorts(worker, workers int) ports {
	p := ports{worker: uint32(worker), workers: uint32(workers), next: new(atomic.Uint32)}
	p.count = (65536 - firstPort) / p.workers
	p.next.Store(rand.Uint32N(p.count))
	return p
}

// take returns a port; steps says how far it may be from the last one.
func (p ports) take(steps uint32) uint16 {
	i := p.next.Add(1+rand.Uint32N(steps)) % p.count
	base := uint32(firstPort) + (p.worker+p.workers-firstPort%p.workers)%p.workers
	port := base + i*p.workers
	if port > 65535 {
		port = base
	}
	return uint16(port)
}

// Dial starts a connection from the hub's address to dst and returns at once. Its buffers
// are that edge's, if one is named, which has its part of all.
// Conn.Watch reports Writable when the outcome is known, Conn.Connected says
// what it is. An error means that the attempt could not be made; it wraps
// party.ErrUnreachable.
func (s *Stack) Dial(dst netip.AddrPort, edge string) (*Conn, error) {
	if !s.door.enterDial() {
		return nil, fmt.Errorf("%w (%w)", ErrNotRunning, party.ErrUnreachable)
	}
	defer s.door.leaveDial()
	dst = netip.AddrPortFrom(dst.Addr().Unmap().WithZone(""), dst.Port())
	from := s.opts.Hub6
	if dst.Addr().Is4() {
		from = s.opts.Hub4
	}
	if !from.IsValid() {
		s.count.dialFails.Add(1)
		return nil, fmt.Errorf("split: dial %v: the hub has no address of that family (%w)", dst, party.ErrUnreachable)
	}
	steps, number := uint32(portSteps), s.growth.parts.number(edge)
	var last tcpip.Error
	for range portTries {
		c := &Conn{stack: s, ends: between(netip.AddrPortFrom(from, s.ports.take(steps)), dst)}
		c.set(isDialed)
		if last = c.connect(number); last == nil {
			s.count.dialed.Add(1)
			return c, nil
		}
		if _, taken := last.(*tcpip.ErrBadLocalAddress); !taken {
			break
		}
		steps = 1
	}
	s.count.dialFails.Add(1)
	return nil, fmt.Errorf("split: dial %v: %s (%w)", dst, last, party.ErrUnreachable)
}

// connect sends the first SYN. netstack answers a local port that is taken for
// this server with ErrBadLocalAddress.
func (c *Conn) connect(number uint32) tcpip.Error {
	ns, local, remote := c.stack.net.Load(), c.Local(), c.Remote()
	ep, err := ns.NewEndpoint(tcp.ProtocolNumber, protocolOf(remote.Addr()), &c.queue)
	if err != nil {
		return err
	}
	c.adopt(ep, c.stack.growth.furnish(ep, c.stack.opts.Buffer, true, number))
	// Connections to different servers may share a local port.
	ep.SocketOptions().SetReuseAddress(true)
	c.stack.keepAlive(ep, c.stack.opts.KeepAlive/2) // on the way there are more that forget
	if err := ep.Bind(tcpip.FullAddress{NIC: nic, Addr: address(local.Addr()), Port: local.Port()}); err != nil {
		c.strip()
		ep.Close()
		return err
	}
	c.stack.in.offers.await(c)
	c.stack.out.hold()
	defer c.stack.out.flush()
	err = ep.Connect(tcpip.FullAddress{NIC: nic, Addr: address(remote.Addr()), Port: remote.Port()})
	c.unreserve(ns)
	if _, started := err.(*tcpip.ErrConnectStarted); !started {
		c.stack.in.offers.forget(c)
		c.strip()
		ep.Close()
		return err
	}
	c.deadline = time.AfterFunc(c.stack.opts.DialTimeout, c.expire)
	return nil
}

// unreserve gives the local port back to netstack's table of reservations, whose
// three maps per port would be a quarter of what a connection takes. From
// Connect on netstack's demultiplexer knows the connection by both its ends, and
// refuses a second one; more than that the reservation does not say, because
// connections to different servers share ports. That the endpoint gives it back
// once more at its end does no harm for the same reason.
func (c *Conn) unreserve(ns *stack.Stack) {
	ns.ReleasePort(netports.Reservation{
		Networks:  []tcpip.NetworkProtocolNumber{protocolOf(c.Remote().Addr())},
		Transport: tcp.ProtocolNumber,
		Addr:      address(c.Local().Addr()),
		Port:      c.ends.nearPort,
		Flags:     netports.Flags{TupleOnly: true},
	})
}
