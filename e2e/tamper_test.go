package e2e

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hawser/e2e/lab"
	"hawser/e2e/pair"
)

// meddlerPort is where the proxy in front of the cloud listens.
const meddlerPort = 7449

// TestTampering puts a proxy into one uplink's way that flips one bit of what
// it passes, at random places in both directions, again and again. Each flip
// ends that link with a counted error; downloads and uploads arrive whole.
func TestTampering(t *testing.T) {
	t.Parallel()
	m := newMeddler(pair.Port)
	r, g := tampered(t, "tcp", 1_500_000, m, m.serve)
	counted := r.ended("edge") + r.ended("cloud")
	flips := m.flips.Load()
	t.Logf("%d bits flipped, %d counted errors; download %v", flips, counted, g)
	if flips < 3 || counted == 0 {
		t.Errorf("%d bits flipped, %d errors counted", flips, counted)
	}
	r.quiet()
}

// TestTamperingQUIC does the same to a QUIC link's packets. They count as lost: nothing ends, and
// nobody is blamed.
func TestTamperingQUIC(t *testing.T) {
	t.Parallel()
	m := newMeddler(pair.Port)
	r, g := tampered(t, "quic", 200, m, m.serveUDP)
	flips, counted, l := m.flips.Load(), r.ended("edge")+r.ended("cloud"), r.link(t, "wifi")
	t.Logf("%d packets with a bit flipped, %d bytes by the link; download %v", flips, l.BytesDown+l.BytesUp, g)
	if flips < 20 || counted != 0 || l.Reconnects != 0 {
		t.Errorf("%d bits flipped, %d errors counted, %d reconnections", flips, counted, l.Reconnects)
	}
	r.quiet()
}

// tampered runs a download and an upload whose first link leads through a meddler, and
// returns when both have come whole.
func tampered(t *testing.T, transport string, every int64, m *meddler, serve func(*rig)) (*rig, gauge) {
	t.Helper()
	r := prepare(t, twins(), pair.Options{Transport: transport})
	serve(r)
	conf := strings.Replace(r.pair.EdgeYAML(), ":7443", fmt.Sprintf(":%d", meddlerPort), 1) // the first link
	if _, err := r.WriteFile("edge.yaml", conf); err != nil {
		t.Fatal(err)
	}
	if err := r.pair.Start(); err != nil {
		t.Fatal(err)
	}
	r.startedBase()
	up := make(chan gauge, 1)
	r.serve(80, func(c *net.TCPConn) {
		defer c.Close()
		_, _ = io.Copy(c, newNoise(1, bulk/2))
	})
	r.serve(81, func(c *net.TCPConn) {
		defer c.Close()
		up <- receive(c, nil)
	})
	m.flipEvery.Store(every)
	c := r.mustDial(r.origin(lab.IPv4, 81), time.Minute)
	defer c.Close()
	go func() {
		_, _ = io.Copy(c, newNoise(2, bulk/2))
		_ = c.CloseWrite()
	}()
	g := r.fetch(r.origin(lab.IPv4, 80), time.Minute)
	if g.err != nil || g.sum != sumOf(1, bulk/2) {
		t.Errorf("download: %v, %v", g, g.err)
	}
	if g := await(t, up); g.err != nil || g.sum != sumOf(2, bulk/2) {
		t.Errorf("upload: %v, %v", g, g.err)
	}
	m.flipEvery.Store(0)
	return r, g
}

// ended adds up an agent's counters of forged and tampered records.
func (r *rig) ended(role string) (n uint64) {
	s, err := r.pair.Status(role)
	if err != nil {
		r.t.Fatal(err)
	}
	n = s.Counters["links_tampered"] + s.Counters["links_oversize"] + s.Counters["records_forged"]
	for _, session := range s.Sessions {
		n += session.Counters["violations"]
	}
	return n
}

// meddler is a TCP or UDP proxy on the cloud's node that flips bits.
type meddler struct {
	port      uint16       // that it passes on to
	flipEvery atomic.Int64 // mean bytes between flips per direction, packets of UDP; 0 = none
	flips     atomic.Int64

	mu     sync.Mutex
	random *rand.Rand
}

func newMeddler(port uint16) *meddler {
	return &meddler{port: port, random: rand.New(rand.NewPCG(7, 7))}
}

func (m *meddler) serve(r *rig) {
	ln := r.listen("cloud", meddlerPort)
	go func() {
		for {
			a, err := ln.Accept()
			if err != nil {
				return
			}
			var b net.Conn
			if r.Do("cloud", func() (err error) {
				b, err = net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", m.port))
				return err
			}) != nil {
				a.Close()
				continue
			}
			go m.pass(a, b)
			go m.pass(b, a)
		}
	}()
}

// pass copies until one side ends. The first bytes, the handshake, stay as
// they are.
func (m *meddler) pass(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	buf := make([]byte, 32<<10)
	left := int64(20_000)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if every := m.flipEvery.Load(); every > 0 {
			if left -= int64(n); left < 0 {
				m.mu.Lock()
				buf[m.random.IntN(n)] ^= 1 << m.random.IntN(8)
				left = every/2 + m.random.Int64N(every)
				m.mu.Unlock()
				m.flips.Add(1)
			}
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// serveUDP passes packets on both ways, each edge's port by a socket of its own.
func (m *meddler) serveUDP(r *rig) {
	in := m.socket(r, func() (*net.UDPConn, error) {
		return net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(r.Address("cloud", lab.IPv4), meddlerPort)))
	})
	go func() {
		out := map[netip.AddrPort]*net.UDPConn{}
		buf := make([]byte, 1<<16)
		for {
			n, from, err := in.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			c := out[from]
			if c == nil {
				c = m.socket(r, func() (*net.UDPConn, error) {
					return net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(r.Address("cloud", lab.IPv4), m.port)))
				})
				out[from] = c
				go m.answer(c, in, from)
			}
			m.meddle(buf[:n])
			_, _ = c.Write(buf[:n])
		}
	}()
}

// socket opens one on the cloud's node until the test ends.
func (m *meddler) socket(r *rig, open func() (*net.UDPConn, error)) (c *net.UDPConn) {
	if err := r.Do("cloud", func() (err error) {
		c, err = open()
		return err
	}); err != nil {
		r.t.Error(err)
		return &net.UDPConn{}
	}
	r.t.Cleanup(func() { c.Close() })
	return c
}

func (m *meddler) answer(from, by *net.UDPConn, to netip.AddrPort) {
	buf := make([]byte, 1<<16)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		m.meddle(buf[:n])
		_, _ = by.WriteToUDPAddrPort(buf[:n], to)
	}
}

// meddle flips a bit of one packet in so many.
func (m *meddler) meddle(p []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if every := m.flipEvery.Load(); every > 0 && m.random.Int64N(every) == 0 {
		p[m.random.IntN(len(p))] ^= 1 << m.random.IntN(8)
		m.flips.Add(1)
	}
}
