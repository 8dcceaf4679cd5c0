package split

import (
	"sync"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"

	"hawser/pkg/guard"
	"hawser/pkg/party"
)

// TestGrowthIsBounded: receive buffers grow where a client sends all it can, but
// together by no more than MaxGrowth and one buffer, and what an ended connection
// had is free again.
func TestGrowthIsBounded(t *testing.T) {
	const clients, size, most = 8, 4 << 20, 512 << 10
	l := newLab(t, true)
	p := newPump(t)
	o := l.options(0, 1)
	o.MaxBuffer, o.MaxGrowth = most, 1
	s, _ := l.start(o, func(c *Conn) { p.echo(c, nil) })
	var all sync.WaitGroup
	for range clients {
		c := l.dial(anywhere(false, 4711))
		all.Go(func() {
			if err := roundTrip(c, random(size)); err != nil {
				t.Error(err)
			}
		})
	}
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	peak := int64(0)
	for open := true; open; {
		select {
		case <-done:
			open = false
		case <-time.After(time.Millisecond):
			peak = max(peak, s.growth.taken.Load())
		}
	}
	if peak == 0 || peak > most {
		t.Errorf("buffers have grown by %d bytes, want 1 to %d", peak, most)
	}
	waitFor(t, "what ended connections had", func() bool { return s.growth.taken.Load() == 0 })
}

// TestManyBeginSmall: each of many connections begins with its part, and one that
// is read grows to the room that a connection has alone; what ended connections
// had is free again.
func TestManyBeginSmall(t *testing.T) {
	const clients, buffer = 64, 128 << 10
	l := newLab(t, true)
	o := l.options(0, 1)
	o.Buffer, o.MaxGrowth = buffer, 512<<10 // 2 * 512 KB / 64 = 16 KB
	conns := make(chan *Conn, clients)
	s, _ := l.start(o, func(c *Conn) { conns <- c })
	var last *Conn
	for i := range clients {
		client := l.dial(anywhere(false, 4711))
		_ = client.SetWriteDeadline(time.Now().Add(20 * time.Second))
		go func() { _, _ = client.Write(random(4 * buffer)) }()
		last = <-conns
		size := int(last.ep.SocketOptions().GetReceiveBufferSize())
		if want := s.growth.start(int64(i+1), buffer); size != want {
			t.Fatalf("connection %d begins with %d bytes, want %d", i, size, want)
		}
	}
	if n := s.growth.conns.Load(); n != clients {
		t.Errorf("%d connections are counted, want %d", n, clients)
	}
	size := func() int64 { return last.ep.SocketOptions().GetReceiveBufferSize() }
	if size() != 16<<10 {
		t.Errorf("the last one begins with %d bytes, want 16 KB", size())
	}
	p := make([]byte, 4<<10)
	for read := 0; read < 4*buffer; {
		n, err := last.Read(p)
		if err != nil && err != party.ErrAgain {
			t.Fatal(err)
		}
		if read += n; n == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	if size() < buffer {
		t.Errorf("after %d bytes were read it has %d, want %d", 4*buffer, size(), buffer)
	}
	last.Abort()
	if n := s.growth.conns.Load(); n != clients-1 {
		t.Errorf("%d connections are counted after one has ended, want %d", n, clients-1)
	}
	if n := s.growth.taken.Load(); n != 0 {
		t.Errorf("%d bytes are still taken", n)
	}
}

// lockSeeker is an endpoint whose owner asks for the keeper's lock, as whoever
// holds an endpoint's own lock and sends does.
type lockSeeker struct {
	tcpip.Endpoint
	tcpip.DefaultSocketOptionsHandler
	k       *keeper
	options tcpip.SocketOptions
	told    int
	locked  bool
}

func (l *lockSeeker) SocketOptions() *tcpip.SocketOptions               { return &l.options }
func (l *lockSeeker) SetSockOpt(tcpip.SettableSocketOption) tcpip.Error { return nil }
func (l *lockSeeker) SetSockOptInt(tcpip.SockOptInt, int) tcpip.Error   { return nil }
func (l *lockSeeker) LastError() tcpip.Error                            { return nil }
func (l *lockSeeker) WakeupWriters() {
	l.told++
	if !l.k.mu.TryLock() {
		l.locked = true
		return
	}
	l.k.mu.Unlock()
}

// TestFurnishHoldsNoLock: an endpoint gets its buffers while the keeper's lock is
// free. Netstack takes the endpoint's lock for it, and who holds that and sends
// takes the keeper's: an edge came to rest for good on it.
func TestFurnishHoldsNoLock(t *testing.T) {
	st := &Stack{opts: Options{Buffer: 128 << 10, MaxBuffer: 1 << 20}}
	st.growth.most = 128 << 10
	st.growth.conns.Store(63)
	k := newKeeper(st, GuardOptions{Gate: NewGate(guard.Auto, guard.Limits{})})
	ep := &lockSeeker{k: k}
	ep.options.InitHandler(ep, nil, nil, nil)
	w := &ward{conn: &Conn{stack: st}}
	k.establish(w, ep, nil)
	if ep.told == 0 || ep.locked {
		t.Errorf("the endpoint was told %d times of its buffers, with the keeper's lock held: %t", ep.told, ep.locked)
	}
	if w.conn.ep != ep || !w.conn.up.Load() || w.conn.small == nil || st.growth.conns.Load() != 64 {
		t.Errorf("the connection has not begun: %+v", w.conn)
	}
}
