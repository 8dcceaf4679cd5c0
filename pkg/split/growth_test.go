package split

import (
	"net"
	"sync"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"hawser/pkg/guard"
	"hawser/pkg/party"
	"hawser/pkg/proof"
)

// TestGrowthIsBounded: receive buffers grow where a client sends all it can, but
// together by no more than MaxGrowth and one buffer, and what an ended connection
// had is free again.
func TestGrowthIsBounded(t *testing.T) {
	const clients, size, most = 8, 1 << 20, 512 << 10
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
		_ = client.SetWriteDeadline(time.Now().Add(ample))
		go func() { _, _ = client.Write(random(4 * buffer)) }()
		last = <-conns
		size := int(last.ep.SocketOptions().GetReceiveBufferSize())
		if want := s.growth.start(int64(i+1), buffer); size != want {
			t.Fatalf("connection %d begins with %d bytes, want %d", i, size, want)
		}
		if size := int(last.ep.SocketOptions().GetSendBufferSize()); size != chunked(s.growth.start(int64(i+1), buffer)) || size < 16<<10 && size&(size-1) != 0 {
			t.Fatalf("connection %d may be sent %d bytes, which is no power of two", i, size)
		}
	}
	if n := s.growth.conns.Load(); n != clients {
		t.Errorf("%d connections are counted, want %d", n, clients)
	}
	size := func() int64 { return last.ep.SocketOptions().GetReceiveBufferSize() }
	if s.Resize(256 << 10); s.growth.next(buffer) != 6<<10 {
		t.Errorf("with half of it the next one begins with %d bytes, want 6 KB", s.growth.next(buffer))
	}
	s.Resize(512 << 10)
	if n := chunked(6 << 10); n != 4<<10 {
		t.Errorf("a send buffer begins with %d bytes where a receive buffer has 6 KB, want 4 KB", n)
	}
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

// TestWindowsDoNotShrink: what a connection that begins small has offered it takes,
// behind a guard that lets a first flight in before and without; one whose client has
// filled all of it is read to the end.
func TestWindowsDoNotShrink(t *testing.T) {
	const size, first = 64 << 10, 16 << 10
	for _, c := range []struct {
		name   string
		guard  bool
		window uint32 // most of what is offered at first
	}{{"alone", false, leastBuffer / 2}, {"guarded", true, first}} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t, true)
			o := l.options(0, 1)
			if c.guard {
				o = l.guarded(guard.Fast, guard.Limits{FirstFlight: first})
			}
			o.MaxGrowth = 1
			conns := make(chan *Conn, 1)
			s, _ := l.start(o, func(c *Conn) { conns <- c })
			s.growth.conns.Store(1 << 20)
			sniff := l.sniff()
			client := l.dial(anywhere(false, 4711))
			sent := make(chan error, 1)
			go func() {
				_, err := client.Write(random(size))
				sent <- err
			}()
			conn := <-conns
			if c.guard {
				waitFor(t, "the first flight", func() bool { return conn.is(isUp) })
				conn.Open(-1)
			}
			waitFor(t, "a full buffer", func() bool { return conn.Waiting() >= leastBuffer/4 })
			p := make([]byte, 1<<10)
			for read := 0; read < size; {
				n, err := conn.Read(p)
				if err != nil && err != party.ErrAgain {
					t.Fatal(err)
				}
				if read += n; n == 0 {
					time.Sleep(time.Millisecond)
				}
			}
			must(t, <-sent)
			edge, begun := uint32(0), uint32(0)
			for _, f := range sniff.of(client.LocalAddr().(*net.TCPAddr).Port) {
				if f.out {
					continue
				}
				scale := tcp.FindWndScale(seqnum.Size(s.opts.MaxBuffer))
				if f.flags&header.TCPFlagSyn != 0 {
					if scale, begun = 0, f.ack; uint32(f.window) > c.window {
						t.Errorf("begins with a window of %d, want at most %d", f.window, c.window)
					}
				}
				now := f.ack + uint32(f.window)<<scale - begun
				if now+1<<scale <= edge {
					t.Errorf("the window's edge falls from %d to %d", edge, now)
				}
				edge = max(edge, now)
			}
			if edge < size {
				t.Errorf("the window's edge is %d at last, want %d", edge, size)
			}
		})
	}
}

// TestGrowthBesideCrowd: where a crowd has taken all that buffers might grow by while there
// were few, which is more than they may now, that of a connection which is read grows all
// the same; but not without bound.
func TestGrowthBesideCrowd(t *testing.T) {
	const few, many, buffer = 6 << 20, 4 << 20, 128 << 10
	s := &Stack{clock: newClock(), opts: Options{Buffer: buffer}}
	s.growth.resize(few)
	s.growth.resize(many)
	g := &s.growth
	g.taken.Store(4 * few)
	c := &Conn{stack: s}
	if c.allows(leastBuffer) || c.allows(buffer) {
		t.Error("one that is not read grows")
	}
	c.pass(proof.After)
	if !c.allows(leastBuffer) || !c.allows(buffer) {
		t.Error("one that is read does not grow")
	}
	if g.taken.Store(5 * few); c.allows(leastBuffer) {
		t.Error("it grows without bound")
	}
}
