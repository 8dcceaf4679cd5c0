package split

import (
	"context"
	"io"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"hawser/pkg/guard"
)

// wire joins two netstacks, delays all packets, and loses data of the first,
// which sends frames of up to 64 KB: a packet of the MTU at a time, or whole.
type wire struct {
	ends  [2]*channel.Endpoint
	delay time.Duration
	mend  *mender     // on the first end's side; nil: none
	clock tcpip.Clock // of the ends; nil: netstack's own
	every uint32      // frames are lost whole, one per so many bytes; 0: packets at random
	count counters
	bottleneck

	air [2]chan flying
	end chan struct{} // closed when nothing is delivered any more

	mu                sync.Mutex
	rng               *rand.Rand
	loss              float64
	start, next       uint32 // sequence numbers: of the data, and of the next byte to be lost
	lost              atomic.Int64
	pumps, deliveries sync.WaitGroup
}

func newWire(mends bool, loss float64, delay time.Duration) *wire {
	w := &wire{loss: loss, delay: delay, rng: rand.New(rand.NewPCG(1, 2)), end: make(chan struct{})}
	for i := range w.ends {
		w.ends[i] = channel.New(4096, 1500, "")
		w.air[i] = make(chan flying, 1<<14)
		w.ends[i].LinkEPCapabilities = stack.CapabilityRXChecksumOffload
	}
	w.ends[0].SupportedGSOKind = stack.HostGSOSupported
	if mends {
		w.mend = &mender{
			count: &w.count, peers: newPeers(), flows: map[guard.Ends]*mended{},
			scale: func(*guard.Ends) (uint8, bool) { return uint8(tcp.FindWndScale(wireBuffer)), true },
			send:  func(pkt *stack.PacketBuffer) { w.carry(0, pkt); pkt.DecRef() },
			reset: func(*guard.Ends, uint32, bool) {}, waiting: func() int { return 0 },
		}
	}
	return w
}

// pump carries what one end sends until ctx ends.
func (w *wire) pump(ctx context.Context, from int) {
	defer w.pumps.Done()
	for {
		pkt := w.ends[from].ReadContext(ctx)
		if pkt == nil {
			return
		}
		if from != 0 || w.mend == nil || w.mend.outbound(pkt) {
			w.carry(from, pkt)
		}
		pkt.DecRef()
	}
}

// carry delivers one frame, and loses it or parts of it.
func (w *wire) carry(from int, pkt *stack.PacketBuffer) {
	frame := pkt.ToView().AsSlice()
	segments := cut(frame, int(pkt.GSOOptions.MSS))
	if w.every > 0 && w.losesFrame(from, pkt) {
		return
	}
	for _, p := range segments {
		if w.every > 0 || !w.loses(from, pkt.Data().Size()) {
			at, ok := w.leaves(from, len(p))
			if !ok {
				continue
			}
			select {
			case w.air[from] <- flying{at.Add(w.delay), p}:
			case <-w.end: // a last tick of the mender's
			}
		}
	}
}

// loses says that what has so much payload is lost.
func (w *wire) loses(from, payload int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if from != 0 || payload == 0 || w.rng.Float64() >= w.loss {
		return false
	}
	w.lost.Add(1)
	return true
}

// losesFrame says that a frame is lost whole: each that is the first to carry
// one of the bytes that are every bytes apart. So many are lost whatever size
// the frames have, which depends on how busy the machine is.
func (w *wire) losesFrame(from int, pkt *stack.PacketBuffer) bool {
	seq, n := header.TCP(pkt.TransportHeader().Slice()).SequenceNumber(), uint32(pkt.Data().Size())
	w.mu.Lock()
	defer w.mu.Unlock()
	if from != 0 || n == 0 {
		return false
	}
	if w.start == 0 {
		w.start, w.next = seq, seq+w.every
	}
	if int32(seq+n-w.next) <= 0 {
		return false
	}
	for int32(seq+n-w.next) > 0 {
		w.next += w.every
	}
	w.lost.Add(1)
	return true
}

// cut makes packets of at most mss bytes of payload out of a frame, as a kernel
// does. Checksums are left as they are: nobody looks at them.
func cut(frame []byte, mss int) (out [][]byte) {
	ip := header.IPv4(frame)
	start := int(ip.HeaderLength())
	head := start + int(header.TCP(frame[start:]).DataOffset())
	if mss == 0 || len(frame)-head <= mss {
		return [][]byte{frame}
	}
	seq := header.TCP(frame[start:]).SequenceNumber()
	for at := head; at < len(frame); at += mss {
		p := append(append([]byte(nil), frame[:head]...), frame[at:min(at+mss, len(frame))]...)
		header.IPv4(p).SetTotalLength(uint16(len(p)))
		header.IPv4(p).SetChecksum(0)
		header.IPv4(p).SetChecksum(^header.IPv4(p).CalculateChecksum())
		header.TCP(p[start:]).SetSequenceNumber(seq + uint32(at-head))
		out = append(out, p)
	}
	return out
}

// flying is a packet on its way.
type flying struct {
	at time.Time
	p  []byte
}

// deliver hands over what one end has sent, in order, until the end.
func (w *wire) deliver(from int) {
	defer w.deliveries.Done()
	for {
		select {
		case f := <-w.air[from]:
			time.Sleep(time.Until(f.at))
			w.arrive(1-from, f.p)
		case <-w.end:
			return
		}
	}
}

func (w *wire) arrive(at int, p []byte) {
	if at == 0 && w.mend != nil {
		ip := header.IPv4(p)
		s := segment{ip: p, start: int(ip.HeaderLength()), end: len(p)}
		s.data = s.start + int(s.tcp().DataOffset())
		if w.mend.inbound(&s) == swallow {
			return
		}
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(p)})
	w.ends[at].InjectInbound(ipv4.ProtocolNumber, pkt)
	pkt.DecRef()
}

// wireBuffer is what each end of a wire may hold, in bytes.
const wireBuffer = 4 << 20

// newEnd makes a netstack at one end.
func (w *wire) newEnd(t *testing.T, i int, addr netip.Addr) *stack.Stack {
	ns := stack.New(stack.Options{
		Clock:              w.clock,
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocolCUBIC},
	})
	buf := wireBuffer
	moderate := tcpip.TCPModerateReceiveBufferOption(false)
	sack := tcpip.TCPSACKEnabled(true)
	recovery := tcpip.TCPRecovery(0)
	for _, o := range []tcpip.SettableTransportProtocolOption{&sack, &moderate, &recovery,
		&tcpip.TCPReceiveBufferSizeRangeOption{Min: 4096, Default: buf, Max: buf},
		&tcpip.TCPSendBufferSizeRangeOption{Min: 4096, Default: buf, Max: buf}} {
		if err := ns.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			t.Fatal(err)
		}
	}
	if err := ns.SetTransportProtocolOption(tcp.ProtocolNumber, &w.congestion); w.congestion != "" && err != nil {
		t.Fatal(err)
	}
	if err := ns.CreateNIC(nic, w.ends[i]); err != nil {
		t.Fatal(err)
	}
	full := tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber, AddressWithPrefix: address(addr).WithPrefix()}
	if err := ns.AddProtocolAddress(nic, full, stack.AddressProperties{}); err != nil {
		t.Fatal(err)
	}
	ns.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: nic}})
	return ns
}

// transfer sends n bytes over a lossy wire, checks them and returns the time, and
// how often netstack has slowed down.
func transfer(t *testing.T, w *wire, n int) (took time.Duration, slowed uint64) {
	from, to := netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.1.0.2")
	a, b := w.newEnd(t, 0, from), w.newEnd(t, 1, to)
	w.sender = a.Stats().TCP
	ctx, cancel := context.WithCancel(t.Context())
	for i := range w.ends {
		w.pumps.Add(1)
		w.deliveries.Add(1)
		go w.pump(ctx, i)
		go w.deliver(i)
	}
	defer func() {
		a.Close()
		b.Close()
		if w.mend != nil {
			w.mend.close()
		}
		cancel()
		w.pumps.Wait()
		close(w.end)
		w.deliveries.Wait()
		a.Wait()
		b.Wait()
	}()
	server, err := gonet.ListenTCP(b, tcpip.FullAddress{Addr: address(to), Port: 80}, ipv4.ProtocolNumber)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(i>>8) ^ byte(i*7)
	}
	client, err := gonet.DialTCP(a, tcpip.FullAddress{Addr: address(to), Port: 80}, ipv4.ProtocolNumber)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	began := time.Now()
	go func() {
		_, _ = client.Write(data)
		_ = client.CloseWrite()
	}()
	peer, err := server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	_ = peer.SetDeadline(time.Now().Add(ample))
	got := make([]byte, n)
	if have, err := io.ReadFull(peer, got); err != nil {
		t.Fatalf("%d of %d bytes arrived: %v", have, n, err)
	}
	w.timeouts += w.sender.Timeouts.Value() // the FIN's are no matter of the mender's
	if more, err := io.ReadAll(peer); err != nil || len(more) > 0 {
		t.Fatalf("%d bytes too many: %v", len(more), err)
	}
	for i := range got {
		if got[i] != data[i] {
			t.Fatalf("byte %d is wrong", i)
		}
	}
	st := a.Stats().TCP
	return time.Since(began), st.FastRecovery.Value() + st.SACKRecovery.Value() + st.Timeouts.Value()
}

// TestMendRandomLoss: netstack need not slow down where packets are lost at
// random, and every byte arrives once and in order, be it single packets that
// are lost or whole frames.
func TestMendRandomLoss(t *testing.T) {
	const n, delay, loss = 8 << 20, 2 * time.Millisecond, 0.01
	for name, every := range map[string]uint32{"packets": 0, "frames": n / 20} {
		t.Run(name, func(t *testing.T) {
			for try := 1; ; try++ {
				plain, mended := newWire(false, loss, delay), newWire(true, loss, delay)
				plain.every, mended.every = every, every
				slow, often := transfer(t, plain, n/8)
				fast, seldom := transfer(t, mended, n)
				t.Logf("with 1 %% loss: %d KB in %v, slowed down %d times, without; %d KB in %v, %d times, with mending; %d lost, %d mended",
					n/8>>10, slow, often, n>>10, fast, seldom, mended.lost.Load(), mended.count.mended.Load())
				if mended.count.mended.Load() == 0 || mended.lost.Load() == 0 {
					t.Error("nothing was lost or mended")
				}
				if len(mended.mend.flows) != 0 || mended.mend.debt != 0 {
					t.Errorf("%d flows are kept, %d bytes owed", len(mended.mend.flows), mended.mend.debt)
				}
				if every > 0 { // too few are lost to compare
					return
				}
				// A busy machine is slow in both ways: then it counts how often
				// netstack has slowed down per byte.
				if fast < 8*slow || 4*seldom < 3*8*often {
					return
				}
				if try == 3 {
					t.Fatal("mending does not help")
				}
			}
		})
	}
}
