package relay

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hawser/pkg/buffer"
	"hawser/pkg/card"
	"hawser/pkg/sock"
)

// ownPool is a channel that ends its pool when it is closed.
type ownPool struct {
	card.Channel
	end func()
}

func (p ownPool) Close() {
	p.Channel.Close()
	p.end()
}

// pooled makes guarded channels of a pool, one pool each.
func pooled(threads, queue int) func(*testing.T, uint64, func()) card.Channel {
	return func(t *testing.T, _ uint64, wake func()) card.Channel {
		p, err := card.NewPool(card.PoolOptions{Threads: threads, Queue: queue})
		must(t, err)
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(func() {
			if err := p.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		c, err := p.Open(wake)
		must(t, err)
		g, err := card.NewGuard(c, card.GuardOptions{Depth: queue})
		must(t, err)
		return ownPool{Channel: g, end: func() { cancel(); running.Wait() }}
	}
}

// faulty is a Guard before a card that has all faults but wrong tags.
func faulty(t *testing.T, seed uint64, wake func()) card.Channel {
	f := card.NewFaulty(newSlowCard(t, seed, 6, wake), card.FaultOptions{Seed: seed, Every: 15, Late: 100 * time.Millisecond, Stall: 100 * time.Millisecond})
	g, err := card.NewGuard(f, card.GuardOptions{Depth: 6, Deadline: 40 * time.Millisecond, Retry: time.Millisecond})
	must(t, err)
	return checked{Guard: g, t: t, f: f}
}

// checked makes sure that the faults happened and were noticed.
type checked struct {
	*card.Guard
	t *testing.T
	f *card.Faulty
}

func (c checked) Close() {
	n, hits := c.Counts(), c.f.Hits()
	// What was held back may have come again in time, and what is wrong too late.
	if hits[card.FaultLost] > 0 && n.Failures == 0 {
		c.t.Errorf("faults %v, noticed %+v", hits, n)
	}
	c.t.Logf("faults %v, noticed %+v", hits, n)
	c.Guard.Close()
}

// tagger seals records with wrong tags.
type tagger struct {
	*card.Inline
	from uint32 // first counter
}

func (c tagger) TryGet() *card.Job {
	j := c.Inline.TryGet()
	if j != nil && j.Op == card.Seal && j.Counter >= c.from {
		j.Out.P[len(j.Out.P)-1] ^= 1
	}
	return j
}

// A card that seals wrong tags costs the flows that it does so to, and nothing
// else: what came before is delivered, both parties see a reset, and the
// workers live on.
func TestWrongTags(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, setup{options: func(o *Options) {
			if o.Index == 0 {
				o.Card = tagger{Inline: o.Card.(*card.Inline), from: 2}
			}
		}})
		client, server := r.pair()
		var writing sync.WaitGroup
		writing.Go(func() {
			for range 4 {
				_ = client.write(noise(3000))
				time.Sleep(time.Second)
			}
		})
		got, err := server.receive(pace{r: rand.New(rand.NewPCG(1, 1)), chunk: 100 << 10})
		if err != errGone || !bytes.Equal(got, append(noise(3000), noise(3000)...)) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		client.wait(client.isAborted)
		second, other := r.pair()
		go func() { _ = second.write(noise(100)) }()
		if p, err := other.read(1000); err != nil || !bytes.Equal(p, noise(100)) {
			t.Errorf("the next flow: %d bytes, %v", len(p), err)
		}
		if s := r.workers[1].Status(); s.Resets["protocol"] != 1 {
			t.Errorf("%+v", s.Resets)
		}
		writing.Wait()
		r.stop()
	})
}

// watched gives a worker a channel of a pool that its poller watches.
func watched(t testing.TB, queue, window int) (change func(*sock.Poller, *Options), end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	return func(p *sock.Poller, o *Options) {
		pool, err := card.NewPool(card.PoolOptions{Threads: 1, Queue: queue})
		must(t, err)
		running.Go(func() {
			if err := pool.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		c, err := pool.Open(nil)
		must(t, err)
		must(t, p.Attach(c.FD()))
		o.Window = window
		o.Card, err = card.NewGuard(c, card.GuardOptions{Depth: queue})
		must(t, err)
	}, func() { cancel(); running.Wait() }
}

// The card's descriptor, in the real poller: echoes through kernel sockets.
func TestPoolWithKernelSockets(t *testing.T) {
	live := buffer.Live()
	server, at := listenTCP(t)
	defer server.Close()
	at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	change, end := watched(t, 16, 4)
	g := newGateway(t, 1, at, change)
	var all sync.WaitGroup
	for i := range 20 {
		c := dialTCP(t, g.addr)
		s, err := server.AcceptTCP()
		must(t, err)
		data := content(uint64(i), 100<<10*i)
		all.Go(func() { _, _ = io.Copy(s, s); s.Close() })
		all.Go(func() { _, _ = c.Write(data); _ = c.CloseWrite() })
		all.Go(func() {
			got, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("connection %d: %d of %d bytes, %v", i, len(got), len(data), err)
			}
			c.Close()
		})
	}
	all.Wait()
	g.stop()
	end()
	if now := buffer.Live(); now != live {
		t.Errorf("%d bytes of slabs are not released", now-live)
	}
}

// poor gives a worker such a channel of a pool that has all faults of a poor accelerator.
func poor(t *testing.T, seed uint64) (change func(*sock.Poller, *Options), noticed func() card.GuardCounts, end func()) {
	const queue = 16
	plain, end := watched(t, queue, 4)
	var guards []*card.Guard
	return func(p *sock.Poller, o *Options) {
			plain(p, o)
			f := card.NewFaulty(o.Card, card.FaultOptions{Seed: seed + uint64(o.Index), Every: 15, Late: 60 * time.Millisecond, Stall: 60 * time.Millisecond})
			g, err := card.NewGuard(f, card.GuardOptions{Depth: queue, Deadline: 40 * time.Millisecond, Retry: time.Millisecond})
			must(t, err)
			o.Card, guards = g, append(guards, g)
		}, func() (sum card.GuardCounts) {
			for _, g := range guards {
				n := g.Counts()
				sum.Failures, sum.Again, sum.Wrong = sum.Failures+n.Failures, sum.Again+n.Again, sum.Wrong+n.Wrong
			}
			return sum
		}, end
}

// Cards with faults under kernel sockets whose ends come, pause and go at random: every
// byte is right, whatever the cards do.
func TestFaultsWithKernelSockets(t *testing.T) {
	live := buffer.Live()
	server, at := listenTCP(t)
	defer server.Close()
	at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	change, noticed, end := poor(t, 3)
	g := newGateway(t, 1, at, change)
	var all sync.WaitGroup
	for i := range 20 {
		c := dialTCP(t, g.addr)
		s, err := server.AcceptTCP()
		must(t, err)
		up, down := content(uint64(i), 20<<10*i), content(uint64(100+i), 10<<10*(20-i))
		for k, way := range []struct {
			from, to *net.TCPConn
			data     []byte
		}{{c, s, up}, {s, c, down}} {
			r := rand.New(rand.NewPCG(uint64(i), uint64(k)))
			all.Go(func() { sendAtRandom(r, way.from, way.data) })
			all.Go(func() {
				got, err := io.ReadAll(way.to)
				if err != nil || !bytes.Equal(got, way.data) {
					t.Errorf("connection %d, way %d: %d of %d bytes, %v", i, k, len(got), len(way.data), err)
				}
			})
		}
		t.Cleanup(func() { c.Close(); s.Close() })
	}
	all.Wait()
	n := noticed()
	if t.Logf("noticed %+v", n); n.Failures == 0 || n.Again == 0 {
		t.Errorf("the cards had no faults: %+v", n)
	}
	g.stop()
	end()
	if now := buffer.Live(); now != live {
		t.Errorf("%d bytes of slabs are not released", now-live)
	}
}

// sendAtRandom writes in pieces, some after a pause, and then the end.
func sendAtRandom(r *rand.Rand, c *net.TCPConn, data []byte) {
	for len(data) > 0 {
		if r.IntN(4) == 0 {
			time.Sleep(time.Duration(r.IntN(3000)) * time.Microsecond)
		}
		n := min(1+r.IntN(60<<10), len(data))
		if _, err := c.Write(data[:n]); err != nil {
			return // the reader says what is missing
		}
		data = data[n:]
	}
	_ = c.CloseWrite()
}

// BenchmarkWindow moves bytes one way between kernel sockets through an edge
// and a cloud worker, with each card and window. The tunnel between is a fake
// and takes its share.
func BenchmarkWindow(b *testing.B) {
	const amount = 16 << 20
	for _, flows := range []int{1, 8} {
		for window := range 9 {
			if window&(window-1) != 0 {
				continue
			}
			name := fmt.Sprintf("flows=%d/pool/window=%d", flows, window)
			if window == 0 {
				name = fmt.Sprintf("flows=%d/inline", flows)
			}
			b.Run(name, func(b *testing.B) {
				server, at := listenTCP(b)
				defer server.Close()
				at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
				change, end := func(*sock.Poller, *Options) {}, func() {}
				if window > 0 {
					change, end = watched(b, 64, window)
				}
				g := newGateway(b, 1, at, change)
				block := noise(1 << 20)
				b.SetBytes(amount)
				for b.Loop() {
					var all sync.WaitGroup
					for range flows {
						c := dialTCP(b, g.addr)
						s, err := server.AcceptTCP()
						must(b, err)
						all.Go(func() {
							for range amount / flows / len(block) {
								_, _ = c.Write(block)
							}
							_ = c.CloseWrite()
						})
						all.Go(func() {
							_, _ = io.Copy(io.Discard, s)
							s.Close()
							c.Close()
						})
					}
					all.Wait()
				}
				g.stop()
				end()
			})
		}
	}
}
