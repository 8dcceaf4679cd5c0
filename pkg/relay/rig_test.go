package relay

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"hawser/pkg/buffer"
	"hawser/pkg/card"
	"hawser/pkg/party"
	"hawser/pkg/stream"
)

// bell is a fake Poller without descriptors.
type bell struct {
	ring chan struct{}
	fail chan error
}

func newBell() *bell { return &bell{ring: make(chan struct{}, 1), fail: make(chan error, 1)} }

func (b *bell) Wake() {
	select {
	case b.ring <- struct{}{}:
	default:
	}
}

func (b *bell) Wait(timeout time.Duration) error {
	if timeout == 0 {
		select {
		case <-b.ring:
		default:
		}
		return nil
	}
	var over <-chan time.Time
	if timeout > 0 {
		timer := time.NewTimer(timeout)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-b.ring:
		return nil
	case <-over:
		return nil
	case err := <-b.fail:
		return err
	}
}

func (b *bell) Rest(turn sync.Locker, timeout time.Duration) error {
	turn.Unlock()
	defer turn.Lock()
	return b.Wait(timeout)
}

// slowCard is an asynchronous card: an Inline one behind queues, at work in a
// goroutine of its own that dawdles.
type slowCard struct {
	inner    *card.Inline
	wake     func()
	r        *rand.Rand
	inMax    int
	mu       sync.Mutex
	cond     *sync.Cond
	in, out  []*card.Job
	closed   bool
	refusals int
	ended    chan struct{}
}

func newSlowCard(t *testing.T, seed uint64, inMax int, wake func()) *slowCard {
	c := &slowCard{inner: inlineCard(t), wake: wake, r: rand.New(rand.NewPCG(seed, 5)), inMax: inMax, ended: make(chan struct{})}
	c.cond = sync.NewCond(&c.mu)
	go c.serve()
	return c
}

func (c *slowCard) serve() {
	defer close(c.ended)
	for {
		c.mu.Lock()
		for len(c.in) == 0 && !c.closed {
			c.cond.Wait()
		}
		if c.closed {
			c.mu.Unlock()
			return
		}
		j := c.in[0]
		c.mu.Unlock()
		time.Sleep(time.Duration(c.r.IntN(3000)) * time.Microsecond)
		c.inner.TryPut(j)
		c.inner.TryGet()
		c.mu.Lock()
		c.in = c.in[1:]
		c.out = append(c.out, j)
		c.mu.Unlock()
		c.wake()
	}
}

func (c *slowCard) TryPut(j *card.Job) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.in) >= c.inMax {
		c.refusals++
		return false
	}
	c.in = append(c.in, j)
	c.cond.Signal()
	return true
}

func (c *slowCard) TryGet() *card.Job {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.out) == 0 {
		return nil
	}
	j := c.out[0]
	c.out = c.out[1:]
	return j
}

func (c *slowCard) Park(time.Time) (time.Duration, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return -1, len(c.out) == 0
}

func (c *slowCard) FD() int { return 1 << 30 }

func (c *slowCard) Close() {
	c.mu.Lock()
	c.closed = true
	c.cond.Signal()
	c.mu.Unlock()
	<-c.ended
	for _, j := range append(c.in, c.out...) {
		if j.Slab != nil {
			j.Slab.Release()
		}
		j.In.Release()
		j.Out.Release()
	}
}

func inlineCard(t testing.TB) *card.Inline {
	c, err := card.NewInline(8)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// rig is an edge and a cloud worker with a loop between them.
type rig struct {
	t       *testing.T
	loop    *loop
	workers [2]*Worker
	bells   [2]*bell
	errs    chan error
	cancel  context.CancelFunc
	live    int64
	dials   chan *duct // the servers' ends
	mu      sync.Mutex
	servers func(dst, src netip.AddrPort) (*duct, error)
}

// setup is what tests vary.
type setup struct {
	seed    uint64
	options func(*Options)
	slow    int // input queue of an asynchronous card; 0 inline
	card    func(t *testing.T, seed uint64, wake func()) card.Channel
	loop    func(*loop)
}

func newRig(t *testing.T, s setup) *rig {
	r := &rig{t: t, loop: newLoop(t, s.seed), errs: make(chan error, 2), live: buffer.Live(), dials: make(chan *duct, 1000)}
	if s.loop != nil {
		s.loop(r.loop)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	for i := range r.workers {
		r.bells[i] = newBell()
		o := Options{Index: i, Poller: r.bells[i], Ring: card.NewRings(card.Role(i + 1)).Get}
		if s.card != nil {
			o.Card = s.card(t, s.seed+uint64(i), r.bells[i].Wake)
		} else if s.slow > 0 {
			o.Card = newSlowCard(t, s.seed+uint64(i), s.slow, r.bells[i].Wake)
		} else {
			o.Card = inlineCard(t)
		}
		if i == 1 {
			o.Dial = r.dial
		}
		if s.options != nil {
			s.options(&o)
		}
		w, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		r.workers[i], r.loop.ends[i].worker = w, w
		go func() { r.errs <- w.Run(ctx) }()
	}
	go r.loop.run()
	return r
}

// dial connects at once unless the test has its own idea.
func (r *rig) dial(dst, src netip.AddrPort, _ string) (party.Conn, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.servers != nil {
		d, err := r.servers(dst, src)
		if err != nil {
			return nil, err
		}
		r.dials <- d
		return d, nil
	}
	d := newDuct(64<<10, 64<<10, nil)
	r.dials <- d
	return d, nil
}

// client opens a connection at the edge.
func (r *rig) client(d *duct) { r.workers[0].Accept(d, serverAt, clientAt, r.loop.ends[0]) }

// pair opens a connection through both.
func (r *rig) pair() (client, server *duct) {
	client = newDuct(64<<10, 64<<10, nil)
	r.client(client)
	return client, <-r.dials
}

// stop ends all and checks that nothing is left.
func (r *rig) stop() {
	r.cancel()
	for range r.workers {
		if err := <-r.errs; err != nil {
			r.t.Error(err)
		}
	}
	r.loop.stop()
	for i, w := range r.workers {
		if s := w.Status(); s.Flows != 0 || len(w.sessions) > 0 && len(w.sessions[r.loop.ends[i]].flows) > 0 {
			r.t.Errorf("worker %d still has %d flows", i, s.Flows)
		}
	}
	if now := buffer.Live(); now != r.live {
		r.t.Errorf("%d bytes of slabs are not released", now-r.live)
	}
}

// content is n bytes, alternately compressible and not.
func content(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 6))
	p := make([]byte, 0, n)
	for len(p) < n {
		switch r.IntN(3) {
		case 0:
			p = append(p, bytes.Repeat([]byte("all the same, "), 1+r.IntN(3000))...)
		default:
			for range 1 + r.IntN(30000) {
				p = append(p, byte(r.Uint32()))
			}
		}
	}
	return p[:n]
}

// pace is how a test's end of a connection behaves.
type pace struct {
	r     *rand.Rand
	chunk int
	pause time.Duration // mean, before each chunk
}

func (p pace) next() int {
	if p.pause > 0 && p.r.IntN(3) == 0 {
		time.Sleep(time.Duration(p.r.Int64N(int64(p.pause) * 6)))
	}
	return 1 + p.r.IntN(p.chunk)
}

func (d *duct) send(p pace, data []byte) error {
	for len(data) > 0 {
		n := min(p.next(), len(data))
		if err := d.write(data[:n]); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

// receive reads to the end and returns what came.
func (d *duct) receive(p pace) ([]byte, error) {
	var got []byte
	for {
		part, err := d.read(p.next())
		got = append(got, part...)
		if errors.Is(err, io.EOF) {
			return got, nil
		}
		if err != nil {
			return got, err
		}
	}
}

var _ stream.Tunnel = (*port)(nil)

func bufferOf(p ...byte) buffer.Seg { return buffer.Copy(p) }
