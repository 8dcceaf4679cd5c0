package split

import (
	"bytes"
	"errors"
	"maps"
	"net"
	"slices"
	"syscall"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"hawser/pkg/guard"
	"hawser/pkg/party"
)

// addressed is a flow of a client that has a number.
func addressed(client byte) *ward {
	w := &ward{connected: true}
	copy(w.ends.Client[10:], []byte{0xff, 0xff, 10, 0, 0, client})
	return w
}

// TestUnusedIsFair: whoever makes too many connections that nobody uses loses his
// own, the oldest first; where all have a few the oldest of all goes, and nobody's
// that is about to be used.
func TestUnusedIsFair(t *testing.T) {
	some := func(client byte, n int) []byte { return bytes.Repeat([]byte{client}, n) }
	var each []byte // 40 clients, one connection each
	for i := range 40 {
		each = append(each, byte(100+i))
	}
	one := func(from, to int) map[byte]int {
		m := map[byte]int{}
		for i := from; i < to; i++ {
			m[byte(100+i)] = 1
		}
		return m
	}
	with := func(m map[byte]int, client byte, n int) map[byte]int {
		m[client] = n
		return m
	}
	// The bound is 32, a client's part 2.
	for name, c := range map[string]struct {
		most int
		come []byte       // clients, one connection each, in turn
		left map[byte]int // how many each has in the end
		lost []int        // whose: indices in come, in the order of their ends
	}{
		"within the bound":           {32, some(1, 32), map[byte]int{1: 32}, nil},
		"one alone":                  {32, some(1, 34), map[byte]int{1: 32}, []int{0, 1}},
		"a browser before a flooder": {32, append(some(1, 2), some(2, 33)...), map[byte]int{1: 2, 2: 30}, []int{2, 3, 4}},
		"a browser after a flooder":  {32, append(some(2, 32), some(1, 3)...), map[byte]int{1: 3, 2: 29}, []int{0, 1, 2}},
		// Each has one: nobody has more than a part, and a newcomer's two stay.
		"many with one each":               {32, each[:34], one(2, 34), []int{0, 1}},
		"a browser, and many with one":     {32, append(some(1, 2), each[:32]...), one(0, 32), []int{0, 1}},
		"many with one, and a browser":     {32, append(slices.Clone(each[:32]), 1, 1), with(one(2, 32), 1, 2), []int{0, 1}},
		"a third one of it ends its first": {32, append(slices.Clone(each[:32]), 1, 1, 1), with(one(2, 32), 1, 2), []int{0, 1, 32}},
		"no bound":                         {-1, some(1, 3), map[byte]int{}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			u := newUnused(c.most)
			began := time.Now()
			at := map[*ward]int{}
			var lost []int
			for i, client := range c.come {
				w := addressed(client)
				at[w] = i
				if old := u.add(w, began.Add(time.Duration(i)*grace)); old != nil {
					lost = append(lost, at[old])
				}
			}
			left := map[byte]int{}
			for k, h := range u.clients {
				left[k[15]] = h.count
			}
			if !maps.Equal(left, c.left) || !slices.Equal(lost, c.lost) {
				t.Errorf("left %v, want %v; lost %v, want %v", left, c.left, lost, c.lost)
			}
			for w := range at {
				u.remove(w)
				u.remove(w) // once more is harmless
			}
			if u.count() != 0 || len(u.clients) != 0 || len(u.ranks) != 0 {
				t.Errorf("%d connections of %d clients are left", u.count(), len(u.clients))
			}
		})
	}
}

// TestUnusedGrace: a crowd that comes at once is left alone up to twice the bound
// until its clients have had time to speak.
func TestUnusedGrace(t *testing.T) {
	const most = 64
	u := newUnused(most)
	u.sweeps = true // by this test
	now := time.Now()
	at := map[*ward]int{}
	come := func(i int) *ward {
		w := addressed(byte(i))
		at[w] = i
		return u.add(w, now)
	}
	for i := range 2 * most {
		if old := come(i); old != nil {
			t.Fatalf("%d ended when %d came", at[old], i)
		}
		now = now.Add(grace / (4 * most))
	}
	if old := come(200); old == nil || at[old] != 0 {
		t.Errorf("%v ended at twice the bound, want the oldest", old)
	}
	if old := u.excess(now); old != nil {
		t.Errorf("%d ended within its grace", at[old])
	}
	now = now.Add(grace)
	for range most {
		if old := u.excess(now); old == nil {
			t.Fatalf("%d are left", u.count())
		}
	}
	if old := u.excess(now); old != nil || u.count() != most {
		t.Errorf("%d are left, want %d", u.count(), most)
	}
}

// TestUnusedRanks: the one with most is first, whoever comes and goes.
func TestUnusedRanks(t *testing.T) {
	u := newUnused(1000)
	var all []*ward
	now := time.Now()
	for i := range 900 {
		w := addressed(byte(i * i % 37))
		all = append(all, w)
		u.add(w, now.Add(time.Duration(i)))
		if i%3 == 2 {
			u.remove(all[i*7%len(all)])
		}
		most := 0
		for _, h := range u.clients {
			most = max(most, h.count)
			if u.ranks[h.rank] != h {
				t.Fatal("a client does not know its place")
			}
		}
		if u.ranks[0].count != most {
			t.Fatalf("first is one with %d, another has %d", u.ranks[0].count, most)
		}
	}
}

// TestUnusedEnd: of the connections on which nobody has sent a byte the oldest of
// the client with most are reset, and their owner hears of it; what has carried a
// byte in either direction, another client's, and the youngest stay.
func TestUnusedEnd(t *testing.T) {
	const most = 4
	for _, mode := range []guard.Mode{guard.ZeroWindow, guard.Fast, guard.Strict} {
		t.Run(mode.String(), func(t *testing.T) {
			l := newLab(t, true)
			conns := make(chan *Conn, 1)
			s, _ := l.start(l.guarded(mode, guard.Limits{Unused: most}), func(c *Conn) {
				c.Open(-1)
				conns <- c
			})
			gate := s.keeper.opts.Gate
			owners := map[*net.TCPConn]*watcher{}
			open := func(v6 bool) *net.TCPConn {
				c := l.dial(anywhere(v6, 80))
				owners[c] = watch(t, <-conns)
				return c
			}
			unused := func(n int) {
				t.Helper()
				waitFor(t, "what is unused", func() bool { return gate.Unused() == n })
			}
			asks, told, other := open(false), open(false), open(true)
			unused(3)
			_, err := asks.Write([]byte("a"))
			must(t, err)
			unused(2)
			must(t, owners[told].write([]byte("b")))
			unused(1)
			var spare []*net.TCPConn
			for i := range most - 1 {
				spare = append(spare, open(false))
				unused(2 + i)
			}
			for range 2 { // too many: the first two of spare go
				n := s.Stats().Guard.Unused
				spare = append(spare, open(false))
				waitFor(t, "one to go", func() bool { return s.Stats().Guard.Unused == n+1 })
			}
			for _, c := range spare[:2] {
				if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("one too many: %v, want a reset", err)
				}
				owners[c].wait(party.Hangup)
				owners[c].conn.Abort()
			}
			for _, c := range append([]*net.TCPConn{asks, told, other}, spare[2:]...) {
				must(t, owners[c].write([]byte("c")))
				if _, err := c.Read(make([]byte, 1)); err != nil {
					t.Errorf("one that was to stay: %v", err)
				}
			}
			unused(0)
			if g := s.Stats().Guard; g.Unused != 2 {
				t.Errorf("%+v", g)
			}
		})
	}
}

// TestUnusedEndsWhenServed: of those whose first flight is taken, and so have their connection
// before their server is there, one ends as well when there are too many.
func TestUnusedEndsWhenServed(t *testing.T) {
	l := newLockSeeker(t)
	l.s.keeper.opts.Gate = NewGate(guard.Fast, guard.Limits{Unused: 1})
	l.s.keeper.opts.Gate.unused.sweeps = true // by nobody
	var all []*Conn
	for range 3 { // as many again have a grace
		c := l.join(l.flow())
		c.Open(-1)
		all = append(all, c)
	}
	for i, c := range all {
		if got := c.ep.(*seekerEndpoint).state == tcp.StateError; got != (i == 0) {
			t.Errorf("connection %d is reset: %v", i, got)
		}
	}
	if n := l.s.keeper.count.unused.Load(); n != 1 {
		t.Errorf("%d were ended, want 1", n)
	}
}

// TestUnusedForgotten: connections that end before anybody has sent a byte do not
// count, whoever ends them.
func TestUnusedForgotten(t *testing.T) {
	l := newLab(t, true)
	conns := make(chan *Conn, 1)
	s, _ := l.start(l.guarded(guard.Auto, guard.Limits{}), func(c *Conn) {
		c.Open(-1)
		conns <- c
	})
	gate := s.keeper.opts.Gate
	for _, end := range []func(*net.TCPConn, *watcher){
		func(_ *net.TCPConn, w *watcher) { w.conn.Abort() },
		func(_ *net.TCPConn, w *watcher) { w.conn.Close() },
		func(c *net.TCPConn, w *watcher) { // a reset, which the owner hears of
			must(t, c.SetLinger(0))
			must(t, c.Close())
			w.wait(party.Hangup)
			w.conn.Abort()
		},
	} {
		c := l.dial(anywhere(false, 80))
		w := watch(t, <-conns)
		waitFor(t, "one that is unused", func() bool { return gate.Unused() == 1 })
		end(c, w)
		waitFor(t, "none that is unused", func() bool { return gate.Unused() == 0 })
	}
	if n := s.Stats().Guard.Unused; n != 0 {
		t.Errorf("%d were ended", n)
	}
}
