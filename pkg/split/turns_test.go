package split

import (
	"encoding/binary"
	"errors"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"hawser/pkg/guard"
)

// turns is a stack whose owner keeps what it gets, and clients of it.
type turns struct {
	*lab
	s    *Stack
	pump *pump

	mu    sync.Mutex
	conns []*Conn // handed out
}

func newTurns(t *testing.T, mode guard.Mode) *turns {
	r := &turns{lab: newLab(t, true), pump: newPump(t)}
	r.s, _ = r.start(r.guarded(mode, guard.Limits{}), func(c *Conn) {
		r.pump.echo(c, nil)
		r.mu.Lock()
		r.conns = append(r.conns, c)
		r.mu.Unlock()
	})
	return r
}

func (r *turns) out() []*Conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.conns
}

// connect connects n clients to one server; in strict mode that ends when the
// server has answered.
func (r *turns) connect(n int) (clients chan *net.TCPConn, errs chan error) {
	clients, errs = make(chan *net.TCPConn, n), make(chan error, n)
	for range n {
		go func() {
			c, err := r.dialErr(anywhere(false, 80))
			if err != nil {
				errs <- err
				return
			}
			clients <- c
		}()
	}
	return clients, errs
}

func (r *turns) pending() int { return r.s.keeper.opts.Gate.Status().Pending }

// TestTurns: a server that has not answered is asked for some of its clients;
// the others cost no connection, here or further on, and are served as soon as it
// has answered one.
func TestTurns(t *testing.T) {
	const n, first = 100, 32
	for _, mode := range []guard.Mode{guard.ZeroWindow, guard.Fast, guard.Strict} {
		t.Run(mode.String(), func(t *testing.T) {
			r := newTurns(t, mode)
			clients, errs := r.connect(n)
			waitFor(t, "all to be pending", func() bool { return r.pending() == n })
			if got := len(r.out()); got != first {
				t.Fatalf("the server is asked for %d of %d", got, n)
			}
			if in := len(r.s.net.Load().RegisteredEndpoints()); in > first {
				t.Errorf("the stack has %d connections", in)
			}
			r.out()[7].Open(-1)
			waitFor(t, "the others' turn", func() bool { return len(r.out()) == n })
			for _, c := range r.out() {
				c.Open(-1)
			}
			data := random(20 << 10)
			for range n {
				select {
				case c := <-clients:
					must(t, roundTrip(c, data))
				case err := <-errs:
					t.Error(err)
				}
			}
			if g := r.s.Stats().Guard; g.Waited != n-first || g.Silent != 0 || g.Admitted != n {
				t.Errorf("%+v", g)
			}
		})
	}
}

// TestTurnsInVain: when a server has not answered one, those that wait for it are
// reset, and so is who comes in the second after; then it is tried again.
func TestTurnsInVain(t *testing.T) {
	const n, first = 100, 32
	r := newTurns(t, guard.ZeroWindow)
	clients, errs := r.connect(n)
	waitFor(t, "all to be pending", func() bool { return r.pending() == n })
	silent := time.Now() // not after it: the test may be away between
	r.out()[0].Refuse(true)
	r.out()[0].Abort()
	waitFor(t, "the others to go", func() bool { return r.pending() == first-1 })
	r.comesLater(n, n-first, silent)
	var left []*net.TCPConn
	for range n {
		select {
		case c := <-clients:
			left = append(left, c)
		case err := <-errs: // a client that was slow to see that it is connected
			if !errors.Is(err, syscall.ECONNRESET) {
				t.Fatal(err)
			}
		}
	}
	waitFor(t, "the resets of those that wait, and of the one", func() bool {
		left = slices.DeleteFunc(left, func(c *net.TCPConn) bool {
			must(t, c.SetReadDeadline(time.Now().Add(time.Millisecond)))
			return errors.Is(readOne(c), syscall.ECONNRESET)
		})
		return len(left) == first-1
	})
	waitFor(t, "the server to be tried again", func() bool {
		_ = r.tryOne()
		return r.s.Stats().Guard.Admitted > n
	})
	if after := time.Since(silent); after < time.Second {
		t.Errorf("tried again after %v", after)
	}
}

// comesLater connects one more client, which is reset: the server, silent since
// then, was asked for n clients, and some were reset.
func (r *turns) comesLater(n, some uint64, silent time.Time) {
	r.t.Helper()
	c, err := r.dialErr(anywhere(false, 80))
	if errors.Is(err, syscall.ECONNRESET) {
		return
	}
	must(r.t, err)
	defer c.Close()
	var g GuardStats
	waitFor(r.t, "the one that comes later to be judged", func() bool {
		g = r.s.Stats().Guard
		return g.Silent > some || g.Admitted > n
	})
	if g.Admitted > n {
		if after := time.Since(silent); after < time.Second {
			r.t.Errorf("one that comes %v later is let in", after)
		}
		return // the machine was busy for a second
	}
	if err := readOne(c); !errors.Is(err, syscall.ECONNRESET) {
		r.t.Errorf("one that comes later: %v", err)
	}
}

// tryOne connects one more client and waits a moment for what comes of it.
func (r *turns) tryOne() error {
	c, err := r.dialErr(anywhere(false, 80))
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	return readOne(c)
}

func readOne(c *net.TCPConn) error {
	_, err := c.Read(make([]byte, 1))
	return err
}

// TestTurnsGiveUp: who gives up while it waits leaves nothing behind, and who
// gives up for whom the server was asked lets the next one proceed.
func TestTurnsGiveUp(t *testing.T) {
	const n, first = 60, 32
	r := newTurns(t, guard.ZeroWindow)
	clients, errs := r.connect(n)
	waitFor(t, "all to be pending", func() bool { return r.pending() == n })
	for range n {
		select {
		case c := <-clients:
			_ = c.SetLinger(0)
			c.Close()
		case err := <-errs:
			t.Fatal(err)
		}
	}
	waitFor(t, "all to be forgotten", func() bool {
		r.s.keeper.mu.Lock()
		defer r.s.keeper.mu.Unlock()
		return r.pending() == 0 && len(r.s.keeper.waiting) == 0 && len(r.s.keeper.flows) == 0 && r.s.keeper.pending == wards{}
	})
	if got := len(r.out()); got < first || got > n {
		t.Errorf("the server was asked for %d", got)
	}
}

// enrollMany makes n pending flows to a server as valid ACKs would.
func enrollMany(k *keeper, n int) {
	for i := range n {
		var e guard.Ends
		put(&e.Client, []byte{10, 64, byte(i >> 8), byte(i)})
		put(&e.Server, []byte{198, 18, 200, 7})
		e.ClientPort, e.ServerPort = 1024, 80
		tcp := make([]byte, 20)
		tcp[12] = 5 << 4
		binary.BigEndian.PutUint32(tcp[8:], 2)
		w, asked := k.enroll(&e, true, func() *ward {
			return &ward{ends: e, flow: guard.NewFlow(guard.Hello{ISN: 1, MSS: 1460}, 1, false, tcp)}
		})
		if asked {
			k.begin(w, false)
		}
	}
}

// TestTurnsCost: what a flow costs that waits for its turn, and that all are told
// when nobody takes them, however many wait.
func TestTurnsCost(t *testing.T) {
	const n, most = 1500, 640
	l := newLab(t, false)
	var refuse atomic.Bool
	s, _ := l.start(l.guarded(guard.ZeroWindow, guard.Limits{Pending: 2 * n}), func(c *Conn) {
		if refuse.Load() {
			c.Abort()
		}
	})
	before := heapInUse()
	enrollMany(s.keeper, n)
	each := (heapInUse() - before) / n
	t.Logf("%d bytes each", each)
	if g := s.keeper.opts.Gate.Status(); g.Pending != n || each > most {
		t.Errorf("%d of %d are pending and cost %d bytes each, want at most %d", g.Pending, n, each, most)
	}
	ends := guard.Ends{ServerPort: 80}
	put(&ends.Server, []byte{198, 18, 200, 7})
	if a := testing.AllocsPerRun(100, func() {
		if w, _ := s.keeper.enroll(&ends, true, func() *ward { return &ward{ends: ends} }); w != nil {
			t.Error("there is a place for one more")
		}
	}); a > 0 {
		t.Errorf("one for whom there is no place costs %v allocations", a)
	}
	refuse.Store(true)
	s.keeper.mu.Lock()
	w := s.keeper.pending.oldest
	s.keeper.mu.Unlock()
	w.conn.Abort()
	if g := s.keeper.opts.Gate.Status(); g.Pending != 31 {
		t.Errorf("%d are pending though nobody takes them", g.Pending)
	}
}

func heapInUse() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
