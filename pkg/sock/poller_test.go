package sock

import (
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func TestAttach(t *testing.T) {
	r := newRig(t)
	var fds [2]int
	must(t, syscall.Pipe2(fds[:], syscall.O_NONBLOCK|syscall.O_CLOEXEC))
	defer syscall.Close(fds[0])
	defer syscall.Close(fds[1])
	must(t, r.p.Attach(fds[0]))
	must(t, r.p.Wait(0))
	for range 3 {
		go syscall.Write(fds[1], []byte("x"))
		must(t, r.p.Wait(-1)) // would wait for ever
		buf := make([]byte, 10)
		if n, err := syscall.Read(fds[0], buf); n != 1 {
			t.Errorf("read %d bytes, %v", n, err)
		}
	}
	must(t, r.p.Detach(fds[0]))
	if r.p.Detach(fds[0]) == nil {
		t.Error("detached twice")
	}
}

func TestListen(t *testing.T) {
	r := newRig(t)
	var ends []*end
	l, err := Listen(r.p, netip.MustParseAddrPort("127.0.0.1:0"), func(c *Conn) { ends = append(ends, r.watch(c)) })
	must(t, err)
	second, err := Listen(r.p, l.Addr(), func(c *Conn) { ends = append(ends, r.watch(c)) })
	must(t, err)
	defer second.Close()
	const n = 600 // more than one batch
	clients := make(chan net.Conn, n)
	go func() {
		for range n {
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Error(err)
				close(clients)
				return
			}
			clients <- c
		}
		close(clients)
	}()
	for limit := time.Now().Add(time.Minute); len(ends) < n; {
		must(t, r.p.Wait(time.Second))
		if time.Now().After(limit) {
			t.Fatalf("accepted %d of %d", len(ends), n)
		}
	}
	for _, e := range ends {
		must(t, e.Connected())
		if e.Local() != l.Addr() || !e.Remote().IsValid() {
			t.Fatalf("local %v, remote %v; want %v and a client", e.Local(), e.Remote(), l.Addr())
		}
		e.Close()
	}
	for c := range clients {
		c.Close()
	}
	l.Close()
	l.Close()
}

func TestWaitTimes(t *testing.T) {
	r := newRig(t)
	for _, timeout := range []time.Duration{30 * time.Millisecond, 5 * time.Millisecond, 50 * time.Millisecond, 0} {
		d := time.Hour
		for try := 0; try < 5 && d > timeout+time.Second; try++ { // the machine may be busy
			start := time.Now()
			for time.Since(start) < timeout { // early returns are allowed, as long as they end
				must(t, r.p.Wait(timeout-time.Since(start)))
			}
			must(t, r.p.Wait(0))
			d = time.Since(start)
		}
		if d > timeout+time.Second {
			t.Errorf("a wait of %v took %v", timeout, d)
		}
	}
}

// TestRest: others may have the turn while the poller has nothing to report, and
// its caller has it again afterwards.
func TestRest(t *testing.T) {
	p := newRig(t).p
	var turn sync.Mutex
	turn.Lock()
	had := make(chan struct{})
	go func() {
		defer close(had)
		turn.Lock()
		defer turn.Unlock()
		p.Wake()
	}()
	if err := p.Rest(&turn, -1); err != nil {
		t.Fatal(err)
	}
	<-had
	if turn.TryLock() {
		t.Error("the turn is not the caller's after Rest")
	}
}

func TestWakeEndsEveryWait(t *testing.T) {
	r := newRig(t)
	r.p.Wake() // before the wait
	must(t, r.p.Wait(-1))
	for i := range 2000 {
		go r.p.Wake() // before, during or just after falling asleep
		timeout := time.Duration(-1)
		if i%2 == 0 {
			timeout = time.Hour
		}
		must(t, r.p.Wait(timeout))
	}
}

func TestPollerLeaksNothing(t *testing.T) {
	files := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		return len(entries)
	}
	g0, f0 := runtime.NumGoroutine(), files()
	for range 200 {
		p, err := NewPoller()
		must(t, err)
		l, err := Listen(p, netip.MustParseAddrPort("127.0.0.1:0"), func(c *Conn) { c.Abort() })
		must(t, err)
		c, err := Dial(p, l.Addr(), 0, "")
		must(t, err)
		must(t, p.Wait(time.Second))
		c.Abort()
		l.Close()
		must(t, p.Wait(0))
		must(t, p.Close())
	}
	g, f := runtime.NumGoroutine(), files()
	for range 3000 { // other tests' timers may just fire
		if g <= g0 && f <= f0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
		g, f = runtime.NumGoroutine(), files()
	}
	t.Errorf("goroutines %d -> %d, files %d -> %d", g0, g, f0, f)
}

// BenchmarkWake is a ping-pong between two workers: what it costs to wake a
// sleeper, and to sleep. Busy is the same while other goroutines have work for
// every processor, in slices of 20 us.
func BenchmarkWake(b *testing.B) {
	b.Run("idle", pingPong)
	b.Run("busy", func(b *testing.B) {
		var stop atomic.Bool
		var wg sync.WaitGroup
		for range 2 * runtime.GOMAXPROCS(0) {
			wg.Go(func() {
				for !stop.Load() {
					for end := time.Now().Add(20 * time.Microsecond); time.Now().Before(end); {
					}
					runtime.Gosched()
				}
			})
		}
		pingPong(b)
		stop.Store(true)
		wg.Wait()
	})
}

func pingPong(b *testing.B) {
	ping, pong := newRig(b).p, newRig(b).p
	done := make(chan struct{})
	turns, back := make(chan struct{}, 1), make(chan struct{}, 1)
	go func() {
		defer close(done)
		for range b.N {
			for len(turns) == 0 {
				_ = pong.Wait(time.Second)
			}
			<-turns
			back <- struct{}{}
			ping.Wake()
		}
	}()
	b.ResetTimer()
	for range b.N {
		turns <- struct{}{}
		pong.Wake()
		for len(back) == 0 {
			_ = ping.Wait(time.Second)
		}
		<-back
	}
	<-done
}
