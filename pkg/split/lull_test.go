package split

import (
	"context"
	"io"
	"net/netip"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/faketime"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"hawser/pkg/guard"
)

// lullMSS is the longest segment of the tests' clients.
const lullMSS = 1460

// newLull is a lull beside others that are shut.
func newLull(c tcpip.Clock, others int, shift uint8, inject func(ip []byte)) *lull {
	l := &lull{
		scale:  func(*guard.Ends) (int, uint8, bool) { return lullMSS, shift, true },
		inject: func(ip []byte, _ bool) { inject(ip) }, relax: func(*guard.Ends, time.Duration) {},
		clock: c, count: &counters{}, flows: map[guard.Ends]*lulled{},
	}
	for i := range others {
		l.flows[guard.Ends{Client: [16]byte{1}, ClientPort: uint16(i)}] = &lulled{since: c.NowMonotonic()}
	}
	l.live.Store(int32(len(l.flows)))
	return l
}

// lullStep is a segment of a client's with a window of so many bytes after some time, and
// what netstack hears of it: a window, or -1: nothing.
type lullStep struct {
	after  time.Duration
	ack    uint32
	window int
	want   int64
}

// TestLull: what netstack hears of a client's windows, and when. In a crowd it does not
// hear of a small one before the client has room for some segments, or the pause is over;
// of what was received it hears at once. In a small one nothing changes.
func TestLull(t *testing.T) {
	const (
		few, many = 10, 10_000
		room      = lullSegments * lullMSS
		ms        = time.Millisecond
	)
	for name, tt := range map[string]struct {
		others int
		steps  []lullStep
		later  int64 // what netstack hears 10 s after that; -1: nothing
	}{
		"few":       {few, []lullStep{{0, 1, 0, 0}, {0, 1, 1500, 1500}, {0, 2, 100, 100}, {0, 2, 0, 0}}, -1},
		"trickle":   {many, []lullStep{{0, 1, 0, 0}, {1400 * ms, 1, 1500, -1}, {1400 * ms, 1, 3000, -1}, {1400 * ms, 1, 5800, 5800}}, -1},
		"slower":    {many, []lullStep{{0, 1, 0, 0}, {3 * time.Second, 1, 1500, -1}, {3 * time.Second, 1, 3000, 3000}}, -1},
		"stops":     {many, []lullStep{{0, 1, 0, 0}, {time.Second, 1, 1500, -1}, {time.Second, 1, 3000, -1}}, 3000},
		"takes all": {many, []lullStep{{0, 1, 0, 0}, {10 * ms, 1, room, room}, {10 * ms, 9000, room, room}}, -1},
		"leftover":  {many, []lullStep{{0, 1, 0, 0}, {10 * ms, 1, room, room}, {0, 3000, 1400, 0}, {0, 3000, 1400, -1}, {0, 4400, 100, 0}}, 100},
		"shuts":     {many, []lullStep{{0, 1, 0, 0}, {10 * ms, 1, 1500, -1}, {10 * ms, 1, 0, 0}}, -1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const shift = 2
				c := newClock()
				defer c.stop()
				var heard atomic.Int64
				hear := func(ip []byte) { heard.Store(int64(header.TCP(ip[header.IPv4MinimumSize:]).WindowSize()) << shift) }
				l := newLull(c, tt.others, shift, hear)
				for i, step := range tt.steps {
					time.Sleep(step.after)
					s := inboundSegment(tcpHeader(step.ack, uint16(step.window>>shift)))
					heard.Store(-1)
					if l.inbound(&s) == pass {
						hear(s.ip)
					}
					if got := heard.Load(); got != step.want {
						t.Errorf("segment %d: netstack hears %d, want %d", i, got, step.want)
					}
				}
				heard.Store(-1)
				time.Sleep(10 * time.Second)
				if synctest.Wait(); heard.Load() != tt.later {
					t.Errorf("at last netstack hears %d, want %d", heard.Load(), tt.later)
				}
			})
		})
	}
}

// TestLullForgotten: a client that the guard forgets while its window is shut is not kept.
func TestLullForgotten(t *testing.T) {
	const others = 10
	c := newClock()
	defer c.stop()
	l := newLull(c, others, 0, func([]byte) {})
	asked := 0
	l.scale = func(*guard.Ends) (int, uint8, bool) {
		asked++
		return lullMSS, 0, asked == 1
	}
	s := inboundSegment(tcpHeader(1, 0))
	if l.inbound(&s) != pass || l.live.Load() != others || len(l.flows) != others {
		t.Errorf("%d clients are kept, %d wanted", l.live.Load(), others)
	}
}

// TestLullAsks: netstack's questions leave once the pause is over and not before, those of
// a small crowd all; data does in any case. What a client sends or ends is told whole.
func TestLullAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClock()
		defer c.stop()
		for _, others := range []int{10, 2000} {
			l := newLull(c, others, 0, func([]byte) {})
			shut := inboundSegment(tcpHeader(1, 0))
			l.inbound(&shut)
			for i, wait := range []time.Duration{200 * time.Millisecond, 400 * time.Millisecond, 800 * time.Millisecond, 2700 * time.Millisecond} {
				time.Sleep(wait)
				probe := netstackPacket(false, false, 0, []byte{0})
				if got, want := l.outbound(probe), others == 10 || i == 3; got != want {
					t.Errorf("question %d beside %d others leaves: %v", i, others, got)
				}
				header.TCP(probe.TransportHeader().Slice()).SetFlags(uint8(header.TCPFlagAck | header.TCPFlagPsh))
				if !l.outbound(probe) {
					t.Error("a byte of data does not leave")
				}
				probe.DecRef()
			}
			end := inboundSegment(tcpHeader(1, 100))
			end.tcp().SetFlags(uint8(header.TCPFlagAck | header.TCPFlagFin))
			if l.inbound(&end) != pass || end.tcp().WindowSize() != 100 || int(l.live.Load()) != others {
				t.Errorf("an end: window %d, %d known, want 100, %d", end.tcp().WindowSize(), l.live.Load(), others)
			}
		}
	})
}

// lulledWire is a wire with a lull at its first end, and a clock that the test turns.
type lulledWire struct {
	*wire
	lull *lull
	time *faketime.ManualClock
	sent [2]int    // packets
	mute time.Time // no window update comes through before
}

// pass lets time go by, and after each step everybody do what is to be done by then: all
// that happens is in goroutines, which have one processor with the test. So nothing is
// late, however busy the machine is.
func (w *lulledWire) pass(d time.Duration) {
	const step = time.Millisecond
	for range d / step {
		w.time.Advance(step)
		for range 20 {
			runtime.Gosched()
		}
	}
}

func (w *lulledWire) carry(ctx context.Context, from int) {
	defer w.pumps.Done()
	for {
		pkt := w.ends[from].ReadContext(ctx)
		if pkt == nil {
			return
		}
		w.mu.Lock()
		if ip := pkt.ToView().AsSlice(); from == 1 || w.lull.outbound(pkt) {
			w.sent[from]++
			w.arrive(1-from, append([]byte(nil), ip...))
		}
		w.mu.Unlock()
		pkt.DecRef()
	}
}

func (w *lulledWire) arrive(at int, ip []byte) {
	if at == 0 {
		s := segment{ip: ip, start: header.IPv4MinimumSize, end: len(ip)}
		s.data = s.start + int(s.tcp().DataOffset())
		if w.time.Now().Before(w.mute) && s.tcp().WindowSize() > 0 || w.lull.inbound(&s) == swallow {
			return
		}
	}
	w.inject(at, ip)
}

func (w *lulledWire) inject(at int, ip []byte) {
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(ip)})
	w.ends[at].InjectInbound(ipv4.ProtocolNumber, pkt)
	pkt.DecRef()
}

// trickle has a client read n pieces of 1 KB, one every 100 ms, beside others that are shut,
// and returns how many packets either side has sent for them. Where mute is not 0 no window
// update comes through during the time of so many pieces.
func trickle(t *testing.T, others, n, mute int) (sent [2]int) {
	const piece, turn, room = 1 << 10, 100 * time.Millisecond, 16 << 10
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	w := &lulledWire{wire: newWire(false, 0, 0), time: faketime.NewManualClock()}
	w.clock = w.time
	w.ends[0].SupportedGSOKind = stack.GSONotSupported
	from, to := netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.1.0.2")
	a, b := w.newEnd(t, 0, from), w.newEnd(t, 1, to)
	w.lull = newLull(w.time, others, uint8(tcp.FindWndScale(wireBuffer)), func(ip []byte) { w.inject(0, ip) })
	ctx, cancel := context.WithCancel(t.Context())
	w.pumps.Add(2)
	go w.carry(ctx, 0)
	go w.carry(ctx, 1)
	defer func() {
		a.Close()
		b.Close()
		cancel()
		w.pumps.Wait()
		a.Wait()
		b.Wait()
	}()
	soon := tcpip.TCPMinRTOOption(20 * time.Millisecond) // the test lives ten times as fast
	small := tcpip.TCPReceiveBufferSizeRangeOption{Min: 4096, Default: room, Max: wireBuffer}
	for _, err := range []tcpip.Error{a.SetTransportProtocolOption(tcp.ProtocolNumber, &soon), b.SetTransportProtocolOption(tcp.ProtocolNumber, &small)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	server, err := gonet.ListenTCP(b, tcpip.FullAddress{Addr: address(to), Port: 80}, ipv4.ProtocolNumber)
	must(t, err)
	defer server.Close()
	sender, err := gonet.DialTCP(a, tcpip.FullAddress{Addr: address(to), Port: 80}, ipv4.ProtocolNumber)
	must(t, err)
	defer sender.Close()
	for _, ep := range a.RegisteredEndpoints() {
		if e, ok := ep.(*tcp.Endpoint); ok {
			w.lull.relax = func(_ *guard.Ends, rest time.Duration) {
				e.LockUser() // the wire's own goroutine asks the filter
				defer e.UnlockUser()
				newInside().relax(e, rest)
			}
		}
	}
	go func() {
		for p := make([]byte, piece); ; {
			if _, err := sender.Write(p); err != nil {
				return
			}
		}
	}()
	client, err := server.Accept()
	must(t, err)
	defer client.Close()
	w.pass(5 * turn) // what fills the buffers
	w.mu.Lock()
	before := w.sent
	w.mu.Unlock()
	began := w.time.Now()
	for i := range n {
		w.mu.Lock()
		if i == n/3 {
			w.mute = w.time.Now().Add(time.Duration(mute) * turn)
		}
		w.mu.Unlock()
		w.pass(began.Add(time.Duration(i) * turn).Sub(w.time.Now()))
		read := make(chan error, 1)
		go func() {
			_, err := io.ReadFull(client, make([]byte, piece))
			read <- err
		}()
		for w.pass(time.Millisecond); len(read) == 0; w.pass(time.Millisecond) {
			if w.time.Now().Sub(began) > time.Duration(n)*turn+time.Second {
				t.Fatalf("piece %d has not come after %v", i, w.time.Now().Sub(began))
			}
		}
		must(t, <-read)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return [2]int{w.sent[0] - before[0], w.sent[1] - before[1]}
}

// TestLullTrickle: in a crowd a client that reads a little now and then costs two fifths of
// the packets that he does else, and has every piece in time, also when he is not heard for
// a while.
func TestLullTrickle(t *testing.T) {
	const pieces = 24
	few, many := trickle(t, 1, pieces, 0), trickle(t, 250, pieces, 0)
	t.Logf("%d pieces of 1 KB: %d and %d packets, in a crowd %d and %d", pieces, few[0], few[1], many[0], many[1])
	if 9*(many[0]+many[1]) > 4*(few[0]+few[1]) {
		t.Error("a crowd costs as many packets")
	}
	lost := trickle(t, 250, pieces, 8)
	t.Logf("%d and %d packets if some windows are not heard of", lost[0], lost[1])
}

// TestLullHeldAgain: what is held after the pause's end has come for nothing, as the window
// was shut again then, is told all the same when the pause is over, which has become longer
// by then.
func TestLullHeldAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const few, many = 100, 10_000 // pauses of 202 ms and 5 s
		c := newClock()
		defer c.stop()
		told := make(chan time.Time, 1)
		l := newLull(c, few, 0, func([]byte) { told <- time.Now() })
		hear := func(window uint16) {
			s := inboundSegment(tcpHeader(1, window))
			l.inbound(&s)
		}
		began := time.Now()
		hear(0)
		time.Sleep(100 * time.Millisecond)
		hear(1000)
		time.Sleep(50 * time.Millisecond)
		hear(0)
		time.Sleep(150 * time.Millisecond)
		l.live.Store(many)
		hear(1000) // the client has nothing more to say
		time.Sleep(time.Minute)
		select {
		case at := <-told:
			if got := at.Sub(began); got < lullMost || got > lullMost+slackMost {
				t.Errorf("netstack hears of the window after %v, want %v", got, lullMost)
			}
		default:
			t.Error("netstack never hears of the window")
		}
	})
}
