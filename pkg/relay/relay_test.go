package relay

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hawser/pkg/card"
)

// traffic runs one flow: both ends send and receive at their own pace. cut is
// the chance that one end resets the connection somewhere.
func (r *rig) traffic(seed uint64, most int, cut float64) {
	rnd := rand.New(rand.NewPCG(seed, 7))
	some := func(n int) *rand.Rand {
		if rnd.IntN(n) == 0 {
			return rand.New(rand.NewPCG(seed, 8))
		}
		return nil
	}
	client := newDuct(1+rnd.IntN(100<<10), 1+rnd.IntN(100<<10), some(3))
	up, down := content(seed, rnd.IntN(most)), content(seed+1<<32, rnd.IntN(most))
	reset := rnd.Float64() < cut
	ends := [2]*duct{client, nil}
	server := newDuct(1+rnd.IntN(100<<10), 1+rnd.IntN(100<<10), some(3))
	ends[1] = server
	lateEnd := rnd.IntN(3)
	addr := netip.AddrPortFrom(serverAt.Addr(), uint16(seed))
	registry.put(addr, server)
	r.workers[0].Accept(client, addr, clientAt, r.loop.ends[0])

	var all sync.WaitGroup
	for i, d := range ends {
		mine, theirs := up, down
		if i == 1 {
			mine, theirs = down, up
		}
		var paces [2]pace
		for j := range paces {
			paces[j] = pace{r: rand.New(rand.NewPCG(seed, uint64(10+2*i+j))), chunk: 1 + rnd.IntN(50<<10), pause: time.Duration(rnd.IntN(3)) * time.Millisecond}
		}
		late := lateEnd == i
		breakAt := -1
		if reset && rnd.IntN(2) == i {
			breakAt = rnd.IntN(len(mine) + 1)
		}
		received := make(chan struct{})
		all.Add(2)
		go func() {
			defer all.Done()
			defer close(received)
			got, err := d.receive(paces[0])
			if !bytes.HasPrefix(theirs, got) {
				r.t.Errorf("flow %d end %d: wrong bytes", seed, i)
			}
			if !reset && (err != nil || len(got) != len(theirs)) {
				r.t.Errorf("flow %d end %d: %d of %d bytes, %v", seed, i, len(got), len(theirs), err)
			}
		}()
		go func() {
			defer all.Done()
			if breakAt >= 0 {
				_ = d.send(paces[1], mine[:breakAt])
				d.reset()
				d.wait(func() bool { return d.aborted || d.closed })
				return
			}
			if err := d.send(paces[1], mine); err != nil {
				if !reset {
					r.t.Errorf("flow %d end %d: sending: %v", seed, i, err)
				}
				return
			}
			if late { // half-close only after the other side has
				<-received
			}
			d.finish()
			d.wait(func() bool { return d.aborted || d.closed })
		}()
	}
	all.Wait()
}

// directory finds the server of an address.
type directory struct {
	mu sync.Mutex
	m  map[netip.AddrPort]*duct
}

func (d *directory) put(a netip.AddrPort, s *duct) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.m[a] = s
}

func (d *directory) dial(dst, _ netip.AddrPort) (*duct, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.m[dst], nil
}

var registry = &directory{m: map[netip.AddrPort]*duct{}}

func TestRandomSchedules(t *testing.T) {
	for _, k := range []struct {
		name  string
		flows int
		most  int
		cut   float64
		setup setup
	}{
		{name: "inline", flows: 30, most: 400 << 10},
		{name: "resets", flows: 60, most: 200 << 10, cut: 0.5},
		{name: "small credit", flows: 20, most: 60 << 10, setup: setup{loop: func(l *loop) { l.window = 900 }}},
		{name: "tiny credit", flows: 4, most: 600, setup: setup{loop: func(l *loop) { l.window = 2 * card.MinRecord }}},
		{name: "bytes one by one", flows: 4, most: 20 << 10, setup: setup{loop: func(l *loop) { l.piece = 2 }}},
		{name: "forged", flows: 20, most: 300 << 10, setup: setup{loop: func(l *loop) { l.flip = 0.02 }}},
		{name: "window 4", flows: 20, most: 300 << 10, setup: setup{slow: 2, options: func(o *Options) { o.Window = 4 }}},
		{name: "slow card, window 1", flows: 20, most: 200 << 10, setup: setup{slow: 1}},
		{name: "slow card, forged, resets", flows: 40, most: 200 << 10, cut: 0.3,
			setup: setup{slow: 3, options: func(o *Options) { o.Window = 3 }, loop: func(l *loop) { l.flip = 0.02 }}},
		{name: "pool, window 1", flows: 20, most: 300 << 10, setup: setup{card: pooled(1, 1)}},
		{name: "pool, window 4, resets", flows: 40, most: 300 << 10, cut: 0.3, setup: setup{card: pooled(2, 8), options: func(o *Options) { o.Window = 4 }}},
		{name: "pool, forged", flows: 20, most: 300 << 10, setup: setup{card: pooled(1, 64), options: func(o *Options) { o.Window = 4 }, loop: func(l *loop) { l.flip = 0.02 }}},
		{name: "card with faults", flows: 20, most: 200 << 10, setup: setup{card: faulty, options: func(o *Options) { o.Window = 4 }}},
		{name: "card with faults, forged, resets", flows: 40, most: 200 << 10, cut: 0.3,
			setup: setup{card: faulty, options: func(o *Options) { o.Window = 2 }, loop: func(l *loop) { l.flip = 0.02 }}},
		{name: "small budget", flows: 20, most: 300 << 10, setup: setup{options: func(o *Options) { o.Budget = 1 }}},
	} {
		for seed := range seeds() {
			t.Run(fmt.Sprintf("%s/%d", k.name, seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					k.setup.seed = seed
					r := newRig(t, k.setup)
					r.loop.mu.Lock()
					r.loop.delay = time.Duration(seed*seed) * time.Millisecond
					r.loop.mu.Unlock()
					r.mu.Lock()
					r.servers = registry.dial
					r.mu.Unlock()
					var all sync.WaitGroup
					for i := range k.flows {
						all.Add(1)
						go func() {
							defer all.Done()
							r.traffic(seed*1000+uint64(i), k.most, k.cut)
						}()
					}
					all.Wait()
					synctest.Wait()
					r.check(k.flows, k.cut)
					r.stop()
				})
			})
		}
	}
}

// seeds is fewer with the race detector, which is slow.
func seeds() uint64 {
	if raceEnabled {
		return 1
	}
	return 3
}

// check compares what the workers counted with what the tunnel saw.
func (r *rig) check(flows int, cut float64) {
	l := r.loop
	l.mu.Lock()
	defer l.mu.Unlock()
	forged := uint64(0)
	for i, w := range r.workers {
		s := w.Status()
		forged += s.Forged
		if s.Started != uint64(flows) || s.Flows != 0 {
			r.t.Errorf("worker %d: %+v", i, s)
		}
		if cut == 0 && (s.Done != uint64(flows) || len(s.Resets)+len(s.PeerResets) > 0) {
			r.t.Errorf("worker %d: not all flows ended well: %+v", i, s)
		}
		if len(w.sessions) != 0 {
			r.t.Errorf("worker %d keeps sessions without flows", i)
		}
	}
	if l.flip > 0 && (l.flipped == 0 || forged == 0) || uint64(l.rejects) > forged {
		r.t.Errorf("%d bits flipped, %d records refused, %d times rewound", l.flipped, forged, l.rejects)
	}
}
