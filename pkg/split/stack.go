// Package split ends the TCP connections of plain parties in user space: it
// feeds gVisor's netstack from a packet socket on the hub and hands its
// endpoints out as non-blocking party connections.
//
// One Stack serves one worker. At the edge it accepts connections to any
// address and port; at the cloud it dials servers from the hub's address.
//
//	hub1 --packet socket--> receiver (checks, guard) --> netstack --> Conn
//	hub1 <--packet socket-- outbox <-- (guard) <-- netstack <-- Conn
//
// Frames of up to 64 KB cross the socket in both directions (virtio headers,
// PACKET_VNET_HDR); without that the speed is a tenth.
//
// Goroutines, all ended when Run returns:
//   - receiver.loop, one, stopped by receiver.stop and the socket's
//     read deadline
//   - synLoop.loop, one where there is a guard, stopped by its socket's
//     read deadline
//   - outbox.loop, one, stopped by outbox.Close after the last frame
//   - netstack's segment processors, GOMAXPROCS many, stopped by its Close
//   - Stack.handshake, one per passive handshake under way (netstack starts
//     it), stopped by aborting the endpoint; some of them wait for the next
//     handshake, until porters.close
//
// Timer functions (clock.fire for netstack's, Conn.expire, keeper.expire, mender.tick) run on short goroutines of the
// runtime's; those that fire later find an ended connection and do nothing.
//
// # Files
//
// The stack and the way of a frame:
//   - stack: makes, runs and ends it; options: its settings; stats: its counters; clock:
//     netstack's timers
//   - receive: reads the hub; frame: parses and checks; vnet: virtio headers; train: joins
//     segments
//   - filter: what stands before netstack; link: netstack's view of the hub
//   - transmit: sends to the hub; mmsg: recvmmsg and sendmmsg
//   - probe: asks connections at rest whether they still stand
//   - errorin: ICMP errors that netstack must not take at their word; shut: ACKs while a
//     window is shut
//
// Connections:
//   - conn: the party.Conn of a netstack endpoint; errors: its errors; dial: connections to
//     servers
//   - door: handshakes under way, their number and end; porters: goroutines that wait for
//     handshakes; tuple: both ends' addresses
//   - offer: the window and segment size that a server answers with
//
// Handshake guard (package guard decides):
//   - synloop: answers SYNs; flood: counts them and shares cookies with the kernel
//   - gate: bounds and modes, of all workers; admit: a client that has proved its address
//   - keeper: the guard's flows; early: such a flow as a party.Conn; entry: its handshake with
//     netstack
//   - pending: flows whose servers are asked; turns: those that wait to be asked
//   - unused: connections without a byte; splicer: connections past the tunnel (package
//     splice)
//
// Memory and packets that netstack alone would spend:
//   - growth: what buffers take in all; parts: each edge's part of it; orphans: closed, not
//     taken
//   - trim, tables, inside: memory and settings inside netstack, found by name
//   - lull: fewer packets for a crowd of slow readers
//
// Losses on poor LANs (package repair decides):
//   - mend: sends again; mendpacket: makes the segments; mendparts: bounds per client;
//     mendpeers: which clients
package split

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"hawser/pkg/party"
)

const (
	// nic is the only network interface's number.
	nic = tcpip.NICID(1)
	// timeWait is how long a connection that we closed first keeps its ports.
	// Both its ends are on one machine or one LAN, where late segments do not
	// live for minutes.
	timeWait = 2 * time.Second
	// flushTime bounds the sending of the last resets when Run ends.
	flushTime = time.Second
)

// ErrNotRunning is what Dial wraps before Run has begun or after it has ended.
var ErrNotRunning = errors.New("split: stack is not running")

// Stack is the user-space TCP of one worker.
type Stack struct {
	opts    Options
	accept  func(*Conn)
	file    *os.File
	raw     syscall.RawConn
	count   counters
	door    door
	growth  growth
	orphans orphans
	ports   ports
	tools   sync.Pool // of *tools, for one call of a Conn each
	link    *link
	clock   *clock
	trimmer *trimmer // nil: netstack is not as expected
	inside  *inside  // the same
	tables  *tables  // the same
	porters *porters
	in      *receiver
	out     *outbox
	keeper  *keeper                     // nil: netstack makes the handshakes
	syns    *synLoop                    // with keeper only
	splice  *splicer                    // nil without Options.Direct
	net     atomic.Pointer[stack.Stack] // set by Run
	ran     atomic.Bool
}

// New makes a stack and takes over o.FD, unless it returns an error. It starts
// nothing. accept is called with every connection that a client has
// established; it must not block, and may refuse by Conn.Abort. It may be
// called on several goroutines at the same time. With a nil accept every
// connection is refused.
func New(o Options, accept func(*Conn)) (*Stack, error) {
	o = o.withDefaults()
	if err := o.check(); err != nil {
		return nil, err
	}
	// Our own frames must not come back to us.
	if err := unix.SetsockoptInt(o.FD, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
		return nil, fmt.Errorf("split: FD %d is not a packet socket, or the kernel is older than 4.20: %w", o.FD, err)
	}
	if err := unix.SetNonblock(o.FD, true); err != nil {
		return nil, fmt.Errorf("split: FD %d: set non-blocking: %w", o.FD, err)
	}
	s := &Stack{opts: o, accept: accept, clock: newClock(), trimmer: newTrimmer(), inside: newInside(), tables: newTables(), porters: newPorters()}
	s.file = os.NewFile(uintptr(o.FD), "hub1")
	raw, err := s.file.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("split: FD %d: %w", o.FD, err)
	}
	s.raw = raw
	s.door.limit = o.MaxHandshakes
	s.orphans.waiting = s.left
	s.growth.resize(int64(o.MaxGrowth))
	s.ports = newPorts(o.Worker, o.Workers)
	s.out = newOutbox(raw, &s.count)
	scale := tcp.FindWndScale(seqnum.Size(o.MaxBuffer))
	s.out.shut.slack = 1<<scale - 1
	s.out.shut.gap = uint16((o.MTU - header.IPv4MinimumSize - header.TCPMinimumSize - 1) >> scale)
	s.link = &link{
		mtu:  uint32(o.MTU),
		hub:  tcpip.LinkAddress(o.HubMAC),
		host: tcpip.LinkAddress(o.HostMAC),
		out:  s.out,
	}
	s.in = newReceiver(raw, s.link, &s.opts, &s.count)
	if o.Direct != nil {
		if s.splice, err = newSplicer(o, raw, s.link, &s.count); err != nil {
			return nil, err
		}
		s.in.filters = append(s.in.filters, s.splice) // before the guard
	}
	if o.Guard != nil && accept != nil {
		if err := s.guarded(*o.Guard); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Run serves until ctx is done or the hub fails. Then it resets every
// connection that still stands, sends the resets, waits for all goroutines and
// closes the socket. It returns nil after ctx, and must be called once.
func (s *Stack) Run(ctx context.Context) error {
	if s.ran.Swap(true) {
		return errors.New("split: Run called twice")
	}
	defer s.file.Close()
	if s.syns != nil {
		defer s.syns.file.Close()
	}
	if s.keeper != nil {
		defer s.mend().close()
		s.lulls()
	}
	defer s.clock.stop()
	var wg sync.WaitGroup
	wg.Go(s.out.loop)
	ns, err := s.build()
	if err != nil {
		s.out.Close()
		wg.Wait()
		return err
	}
	s.net.Store(ns)
	failed := make(chan error, 2)
	var loops sync.WaitGroup
	loops.Go(func() { s.receive(failed) })
	s.door.open()
	stop := make(chan struct{})
	if s.splice != nil {
		wg.Go(func() { s.splice.loop(stop) })
	}
	if s.syns != nil {
		loops.Go(func() { s.answer(failed) })
	}
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	s.halt()
	loops.Wait()
	close(stop)
	s.shut(ns)
	s.porters.close()
	wg.Wait()
	return err
}

// halt stops the loops that receive.
func (s *Stack) halt() {
	s.in.stop()
	_ = s.file.SetReadDeadline(time.Unix(1, 0))
	if s.syns != nil {
		s.syns.stop()
	}
}

// receive runs the receive loop and tells Run how it ended.
func (s *Stack) receive(failed chan<- error) { failed <- s.in.loop() }

// shut ends every connection and netstack. The receive loop has ended, so
// nothing new comes in but what is already on its way: those are waited for.
func (s *Stack) shut(ns *stack.Stack) {
	s.door.shut()
	for {
		for _, ep := range ns.RegisteredEndpoints() {
			ep.Abort()
		}
		if s.door.empty() {
			break
		}
		// Rare and short: a handshake or dial was between its check of the
		// door and the registration of its endpoint.
		time.Sleep(time.Millisecond)
	}
	ns.Close() // aborts what was registered last
	_ = s.file.SetWriteDeadline(time.Now().Add(flushTime))
	s.out.Close()
	ns.Wait()
}

// build makes the netstack with its interface, routes and options.
func (s *Stack) build() (*stack.Stack, error) {
	ns := stack.New(stack.Options{
		Clock:              s.clock,
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocolCUBIC},
	})
	if err := s.configure(ns); err != nil {
		ns.Close()
		s.out.Close()
		ns.Wait()
		return nil, fmt.Errorf("split: set up netstack: %w", err)
	}
	return ns, nil
}

// configure sets ns up; every error names its step.
func (s *Stack) configure(ns *stack.Stack) error {
	for _, o := range s.tcpOptions() {
		if err := ns.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return fmt.Errorf("option %T: %s", o, err)
		}
	}
	if err := ns.CreateNICWithOptions(nic, s.link, stack.NICOptions{Name: "hub1", QDisc: s.out}); err != nil {
		return fmt.Errorf("interface: %s", err)
	}
	// The stack answers for every address that clients want to reach.
	if err := ns.SetPromiscuousMode(nic, true); err != nil {
		return fmt.Errorf("promiscuous mode: %s", err)
	}
	if err := ns.SetSpoofing(nic, true); err != nil {
		return fmt.Errorf("spoofing: %s", err)
	}
	for _, a := range []netip.Addr{s.opts.Hub4, s.opts.Hub6} {
		if !a.IsValid() {
			continue
		}
		full := tcpip.ProtocolAddress{Protocol: protocolOf(a), AddressWithPrefix: address(a).WithPrefix()}
		if err := ns.AddProtocolAddress(nic, full, stack.AddressProperties{}); err != nil {
			return fmt.Errorf("address %v: %s", a, err)
		}
	}
	ns.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: nic}, {Destination: header.IPv6EmptySubnet, NIC: nic}})
	if s.accept != nil {
		ns.SetTransportProtocolHandler(tcp.ProtocolNumber, s.knock(ns))
	}
	return nil
}

// tcpOptions returns netstack's settings for all connections.
func (s *Stack) tcpOptions() []tcpip.SettableTransportProtocolOption {
	sack := tcpip.TCPSACKEnabled(true)
	moderate := tcpip.TCPModerateReceiveBufferOption(true)
	congestion := tcpip.CongestionControlOption(s.opts.Congestion)
	minRTO := tcpip.TCPMinRTOOption(s.opts.MinRTO)
	wait := tcpip.TCPTimeWaitTimeoutOption(timeWait)
	// Without netstack's RACK: its probes come too early where round trips are short
	// and vary, as they do when a processor is busy, and netstack takes what they
	// find for losses. Without any loss that costs half of an upload's goodput. Behind
	// a guard the mender does what they are for, elsewhere SACK and the timer do.
	recovery := tcpip.TCPRecovery(0)
	return []tcpip.SettableTransportProtocolOption{
		&sack, &moderate, &congestion, &minRTO, &wait, &recovery,
		&tcpip.TCPReceiveBufferSizeRangeOption{Min: 4 << 10, Default: s.opts.Buffer, Max: s.opts.MaxBuffer},
		&tcpip.TCPSendBufferSizeRangeOption{Min: 4 << 10, Default: s.opts.Buffer, Max: s.opts.MaxBuffer},
	}
}

// knock returns netstack's handler of segments that belong to no endpoint. It
// runs on the receive loop. SYNs go to a forwarder while there is room; netstack answers
// everything else with a reset.
func (s *Stack) knock(ns *stack.Stack) func(stack.TransportEndpointID, *stack.PacketBuffer) bool {
	forwarders := map[int]*tcp.Forwarder{}
	for _, size := range ladder(s.opts.Buffer) {
		// More than the door lets in: what a forwarder drops never leaves.
		forwarders[size] = tcp.NewForwarder(ns, size, s.door.limit+1, s.handshake)
	}
	return func(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
		flags := header.TCP(pkt.TransportHeader().Slice()).Flags()
		if !flags.Contains(header.TCPFlagSyn) || flags.Contains(header.TCPFlagAck) {
			return false
		}
		quick, least := s.keeper.quick(id)
		switch s.door.enter(id, quick) {
		case doorKnown:
			return true // a SYN sent again; the SYN-ACK will be, too
		case doorFull:
			s.count.handshakeDrops.Add(1)
			s.refuse(id)
			return true
		case doorShut:
			return true
		}
		size := fitting(max(s.growth.next(s.opts.Buffer), least), s.opts.Buffer)
		if !forwarders[size].HandlePacket(id, pkt) {
			s.door.leave(id)
			return false
		}
		return true
	}
}

// handshake has a porter meet a client, or becomes one. netstack starts it.
func (s *Stack) handshake(r *tcp.ForwarderRequest) {
	if s.porters.take(r) {
		return
	}
	for ; r != nil; r = s.porters.rest() {
		s.meet(r)
	}
}

// meet completes the handshake of one client and hands the connection to accept.
func (s *Stack) meet(r *tcp.ForwarderRequest) {
	id := r.ID()
	if s.keeper != nil {
		defer s.keeper.enterNext()
	}
	defer s.door.leave(id)
	if s.keeper != nil {
		s.join(r)
		return
	}
	local := netip.AddrPortFrom(netAddr(id.LocalAddress), id.LocalPort)
	remote := netip.AddrPortFrom(netAddr(id.RemoteAddress), id.RemotePort)
	c := &Conn{stack: s, ends: between(local, remote)}
	ep, err := r.CreateEndpoint(&c.queue)
	r.Complete(false)
	if err != nil {
		s.count.handshakeFails.Add(1)
		return
	}
	s.trimmer.prune(ep)
	c.adopt(ep, s.growth.furnish(ep, s.opts.Buffer, false, noPart))
	s.keepAlive(ep, s.opts.KeepAlive)
	s.count.accepted.Add(1)
	s.accept(c)
}

// keepAlive turns on probes after so much silence, so that a party that vanished silently
// does not hold its connection for ever.
func (s *Stack) keepAlive(ep tcpip.Endpoint, after time.Duration) {
	if s.opts.KeepAlive < 0 {
		return
	}
	most := s.opts.KeepAlive
	idle, interval := tcpip.KeepaliveIdleOption(after), tcpip.KeepaliveIntervalOption(most/4)
	// None of these can fail: the options exist and the values are in range.
	_ = ep.SetSockOpt(&idle)
	_ = ep.SetSockOpt(&interval)
	_ = ep.SetSockOptInt(tcpip.KeepaliveCountOption, 4+int(4*(most-after)/most))
	ep.SocketOptions().SetKeepAlive(true)
}

// address converts a to netstack's form.
func address(a netip.Addr) tcpip.Address {
	switch {
	case a.Is4():
		return tcpip.AddrFrom4(a.As4())
	case a.Is6():
		return tcpip.AddrFrom16(a.As16())
	}
	return tcpip.Address{}
}

// netAddr converts a from netstack's form.
func netAddr(a tcpip.Address) netip.Addr {
	r, _ := netip.AddrFromSlice(a.AsSlice())
	return r
}

// protocolOf returns the network protocol of a.
func protocolOf(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is4() {
		return ipv4.ProtocolNumber
	}
	return ipv6.ProtocolNumber
}

var _ party.Conn = (*Conn)(nil)
