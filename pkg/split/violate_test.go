package split

import (
	"encoding/binary"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"hawser/pkg/guard"
	"hawser/pkg/party"
)

// crook is a client that makes its segments itself, at an address that its
// kernel does not have.
type crook struct {
	l        *lab
	sniff    *sniffer
	fd       int
	from, to net.HardwareAddr
	ends     guard.Ends
}

const crookPort = 1234

func newCrook(l *lab) *crook {
	c := &crook{l: l, sniff: l.sniff()}
	c.ends.ClientPort, c.ends.ServerPort = crookPort, 80
	put(&c.ends.Client, net.IPv4(198, 18, 1, 99).To4())
	put(&c.ends.Server, net.IPv4(198, 18, 200, 7).To4())
	in(l.t, l.client, func() {
		dev, err := net.InterfaceByName("lan-c")
		must(l.t, err)
		c.from = dev.HardwareAddr
		c.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		must(l.t, err)
		must(l.t, unix.Bind(c.fd, &unix.SockaddrLinklayer{Ifindex: dev.Index}))
	})
	l.t.Cleanup(func() { unix.Close(c.fd) })
	l.with(l.host, func(h *netlink.Handle) error {
		lan, err := h.LinkByName("lan0")
		must(l.t, err)
		c.to = lan.Attrs().HardwareAddr
		return h.NeighSet(&netlink.Neigh{LinkIndex: lan.Attrs().Index, State: netlink.NUD_PERMANENT, IP: net.IPv4(198, 18, 1, 99), HardwareAddr: c.from})
	})
	return c
}

// send sends a segment with payload; spoil may change the whole IP packet.
func (c *crook) send(s guard.Segment, payload int, spoil func(ip []byte)) {
	frame := append(append(append([]byte{}, c.to...), c.from...), 8, 0)
	frame = s.Append(frame, &c.ends, false, guard.ToServer)
	frame = append(frame, make([]byte, payload)...)
	ip := frame[14:]
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	ip[10], ip[11], ip[36], ip[37] = 0, 0, 0, 0
	binary.BigEndian.PutUint16(ip[10:], ^checksum.Checksum(ip[:20], 0))
	sum := checksum.Combine(checksum.Checksum(ip[12:20], 6), uint16(len(ip)-20))
	binary.BigEndian.PutUint16(ip[36:], ^checksum.Checksum(ip[20:], sum))
	if spoil != nil {
		spoil(ip)
	}
	_, err := unix.Write(c.fd, frame)
	must(c.l.t, err)
}

// last waits for the n-th frame to the crook.
func (c *crook) last(n int) (f seen) {
	c.l.t.Helper()
	waitFor(c.l.t, "an answer", func() bool {
		k := 0
		for _, g := range c.sniff.of(crookPort) {
			if !g.out {
				if k++; k == n {
					f = g
				}
			}
		}
		return k >= n
	})
	return f
}

// TestViolator: a client that sends although its window is 0 gets an answer
// with window 0 each time, and nothing of it reaches the server; what is
// forged, damaged or absurd is counted and makes nothing.
func TestViolator(t *testing.T) {
	l := newLab(t, true)
	var flows, bytes atomic.Int64
	conns := make(chan *Conn, 10)
	s, _ := l.start(l.guarded(guard.ZeroWindow, guard.Limits{}), func(c *Conn) {
		flows.Add(1)
		drain(t, c, func(n int) { bytes.Add(int64(n)) })
		conns <- c
	})
	c := newCrook(l)
	ack := guard.Segment{Flags: guard.FlagACK, Seq: 1001, Window: 1000, Scale: guard.NoScale}
	// Before any SYN: forged ACKs make nothing.
	for i := range 500 {
		forged := ack
		forged.Ack = uint32(i) * 8_000_003
		c.send(forged, 10, nil)
	}
	waitFor(t, "forged ACKs to be counted", func() bool { return s.Stats().Guard.Forged == 500 })
	c.last(500)
	resets := 0
	for _, f := range c.sniff.of(crookPort) {
		if !f.out && f.flags.Contains(header.TCPFlagRst) {
			resets++
		}
	}
	if flows.Load() != 0 || resets != 500 {
		t.Fatalf("%d flows, %d resets", flows.Load(), resets)
	}
	syn := guard.Segment{Flags: guard.FlagSYN, Seq: 1000, Window: 64000, MSS: 1460, Scale: guard.NoScale}
	bad := s.Stats()
	c.send(syn, 0, func(ip []byte) { ip[37] ^= 1 })                         // checksum
	c.send(syn, 0, func(ip []byte) { ip[10] ^= 1 })                         // IP's
	c.send(syn, 0, func(ip []byte) { ip[32] = 0xf0; fixTCP(ip) })           // options beyond the end
	c.send(syn, 0, func(ip []byte) { ip[41] = 0; fixTCP(ip) })              // option of length 0
	c.send(syn, 0, func(ip []byte) { ip[42], ip[43] = 0, 9; fixTCP(ip) })   // segments of 9 bytes
	c.send(syn, 0, func(ip []byte) { ip[33] |= guard.FlagFIN; fixTCP(ip) }) // SYN and FIN
	c.send(syn, 0, func(ip []byte) { ip[33] |= guard.FlagRST; fixTCP(ip) }) // SYN and RST
	waitFor(t, "bad SYNs to be counted", func() bool {
		st := s.Stats()
		return st.Guard.BadSYNs-bad.Guard.BadSYNs == 5 && st.BadChecksums-bad.BadChecksums >= 1
	})
	c.send(syn, 0, nil)
	answer := c.last(501)
	if answer.flags != header.TCPFlagSyn|header.TCPFlagAck || answer.window != 0 {
		t.Fatalf("SYN-ACK %+v", answer)
	}
	ack.Ack = answer.seq + 1
	c.send(ack, 1000, nil) // data at once
	if f := c.last(502); f.window != 0 || f.ack != 1001 || f.seq != answer.seq+1 {
		t.Errorf("answer to early data: %+v", f)
	}
	later := ack
	later.Seq += 1000
	c.send(later, 500, nil)
	if f := c.last(503); f.window != 0 || f.ack != 1001 {
		t.Errorf("answer to more of it: %+v", f)
	}
	c.send(ack, 0, nil) // the cookie again: the flow is there
	c.send(guard.Segment{Flags: guard.FlagRST, Seq: 500, Scale: guard.NoScale}, 0, nil)
	waitFor(t, "the forged reset to be counted", func() bool { return s.Stats().Guard.Forged == 501 })
	c.send(guard.Segment{Flags: guard.FlagRST, Seq: 5000, Scale: guard.NoScale}, 0, nil)
	if f := c.last(504); f.window != 0 || f.ack != 1001 || s.Stats().Guard.Doubted != 1 {
		t.Errorf("answer to a reset in doubt: %+v", f)
	}
	if g := s.Stats().Guard; flows.Load() != 1 || bytes.Load() != 0 || g.Discarded != 1500 || g.Admitted != 1 {
		t.Fatalf("%d flows, %d bytes read: %+v", flows.Load(), bytes.Load(), g)
	}
	// The server is there: now the same data is taken.
	(<-conns).Open(-1)
	if f := c.last(505); f.window == 0 || f.ack != 1001 {
		t.Errorf("update %+v", f)
	}
	c.send(ack, 1000, nil)
	waitFor(t, "the data to be read", func() bool { return bytes.Load() == 1000 })
}

// fixTCP sets the checksum of an IPv4 packet's TCP segment.
func fixTCP(ip []byte) {
	ip[36], ip[37] = 0, 0
	sum := checksum.Combine(checksum.Checksum(ip[12:20], 6), uint16(len(ip)-20))
	binary.BigEndian.PutUint16(ip[36:], ^checksum.Checksum(ip[20:], sum))
}

// TestDeadServers: clients that send all they can to servers that never answer
// get no more taken than the bounds say, to the byte, and auto has turned to
// zero-window; other connections still work.
func TestDeadServers(t *testing.T) {
	for _, mode := range []guard.Mode{guard.Fast, guard.Auto} {
		t.Run(mode.String(), func(t *testing.T) { deadServers(t, mode) })
	}
}

func deadServers(t *testing.T, mode guard.Mode) {
	const clients, first, all = 150, 4096, 200_000
	l := newLab(t, true)
	limits := guard.Limits{Pending: 1000, PendingClient: 1000, FirstFlight: first, FirstFlights: all, AutoFlows: 100}
	var total atomic.Int64
	p := newPump(t)
	s, _ := l.start(l.guarded(mode, limits), func(c *Conn) {
		if c.Local().Port() == 99 {
			p.echo(c, nil)
			c.Open(-1)
			return
		}
		mine := 0
		drain(t, c, func(n int) {
			total.Add(int64(n))
			if mine += n; mine > first {
				t.Errorf("a flow has given %d bytes", mine)
			}
		})
	})
	must(t, roundTrip(l.dial(anywhere(true, 99)), random(1))) // or auto would be strict by IPv6
	for i := range clients {
		c := l.dial(anywhere(i%2 == 0, 80))
		must(t, c.SetWriteDeadline(time.Now().Add(time.Second)))
		go c.Write(make([]byte, 1<<20))
	}
	// In fast mode the half of all first flights is reached that servers have
	// that do not answer, in auto the quarter at which it turns.
	least := all/2 - first
	if mode == guard.Auto {
		least = all / 4
	}
	waitFor(t, "first flights", func() bool { return s.keeper.opts.Gate.Status().Peak >= least })
	time.Sleep(300 * time.Millisecond)
	g := s.keeper.opts.Gate.Status()
	if g.Peak > all/2 || total.Load() > int64(g.Peak) || g.Pending != clients {
		t.Errorf("%d bytes read, %+v", total.Load(), g)
	}
	if mode == guard.Auto && (g.Mode != guard.ZeroWindow || g.Switches != 1) {
		t.Errorf("auto has not turned: %+v", g)
	}
	must(t, roundTrip(l.dial(anywhere(false, 99)), random(1<<20)))
	t.Logf("%d bytes read of %d flows: %+v", total.Load(), clients, g)
}

// drain reads what comes until the test ends, and tells took how much.
func drain(t *testing.T, c *Conn, took func(n int)) {
	wake, stop := make(chan struct{}, 1), make(chan struct{})
	c.Watch(func(party.Ready) {
		select {
		case wake <- struct{}{}:
		default:
		}
	})
	t.Cleanup(func() { close(stop) })
	go func() {
		p := make([]byte, 1<<16)
		for {
			select {
			case <-wake:
			case <-stop:
				return
			}
			for {
				n, err := c.Read(p)
				if err != nil {
					break
				}
				took(n)
			}
		}
	}()
}

// TestLostACK: a client whose ACK got lost and which waits for the server to
// speak first is sent the SYN-ACK again, and its second ACK makes the flow.
func TestLostACK(t *testing.T) {
	l := newLab(t, true)
	var flows atomic.Int64
	s, _ := l.start(l.guarded(guard.Auto, guard.Limits{}), func(c *Conn) { flows.Add(1) })
	c := newCrook(l)
	syn := guard.Segment{Flags: guard.FlagSYN, Seq: 1000, Window: 64000, MSS: 1460, Scale: guard.NoScale}
	began := time.Now()
	c.send(syn, 0, nil)
	first := c.last(1)
	again := c.last(2)
	if d := time.Since(began); d < 900*time.Millisecond || again.seq != first.seq || again.ack != first.ack || again.flags != first.flags {
		t.Errorf("after %v came %+v, the first was %+v", d, again, first)
	}
	c.send(guard.Segment{Flags: guard.FlagACK, Seq: 1001, Ack: again.seq + 1, Window: 1000, Scale: guard.NoScale}, 0, nil)
	waitFor(t, "the flow", func() bool { return flows.Load() == 1 })
	time.Sleep(2500 * time.Millisecond) // nothing more comes
	if g := s.Stats().Guard; g.Again != 1 || g.Answers != 1 || g.Admitted != 1 {
		t.Errorf("%+v", g)
	}
}
