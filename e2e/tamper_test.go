package e2e

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
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
	r := prepare(t, twins(), pair.Options{Transport: "tcp"})
	m := newMeddler(pair.Port)
	m.serve(r)
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
	m.flipEvery.Store(1_500_000)
	c := r.mustDial(r.origin(lab.IPv4, 81), time.Minute)
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
	c.Close()
	m.flipEvery.Store(0)
	counted := r.ended("edge") + r.ended("cloud")
	flips := m.flips.Load()
	t.Logf("%d bits flipped, %d counted errors; download %v", flips, counted, g)
	if flips < 3 || counted == 0 {
		t.Errorf("%d bits flipped, %d errors counted", flips, counted)
	}
	r.quiet()
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

// meddler is a TCP proxy on the cloud's node that flips bits.
type meddler struct {
	port      uint16       // that it passes on to
	flipEvery atomic.Int64 // mean bytes between flips per direction; 0 = none
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
