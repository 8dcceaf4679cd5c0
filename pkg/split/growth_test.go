package split

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"hawser/pkg/guard"
	"hawser/pkg/party"
)

// TestGrowthIsBounded: receive buffers grow where a client sends all it can, but
// together by no more than MaxGrowth and one buffer, and what an ended connection
// had is free again.
func TestGrowthIsBounded(t *testing.T) {
	const clients, size, most, beyond = 8, 4 << 20, 512 << 10, 512 << 10
	l := newLab(t, true)
	p := newPump(t)
	o := l.options(0, 1)
	o.Buffer, o.MaxBuffer, o.MaxGrowth = 16<<10, beyond, most
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
	if peak == 0 || peak > most+beyond {
		t.Errorf("buffers have grown by %d bytes, want 1 to %d", peak, most+beyond)
	}
	waitFor(t, "what ended connections had", func() bool { return s.growth.taken.Load() == 0 })
}

// TestManyBeginSmall: of many connections that nobody reads from each begins with a
// part of what the others leave, and one that is read has grown to the room that a
// connection has alone when they have ended; what ended connections had is free again.
func TestManyBeginSmall(t *testing.T) {
	const clients, buffer, most = 64, 128 << 10, 4 << 20
	l := newLab(t, true)
	o := l.options(0, 1)
	o.Buffer, o.MaxGrowth = buffer, most
	conns := make(chan *Conn, clients)
	s, _ := l.start(o, func(c *Conn) { conns <- c })
	var all []*Conn
	size := func(c *Conn) int64 { return c.ep.SocketOptions().GetReceiveBufferSize() }
	for range clients {
		client := l.dial(anywhere(false, 4711))
		_ = client.SetWriteDeadline(time.Now().Add(20 * time.Second))
		go func() { _, _ = client.Write(random(8 * buffer)) }()
		c := <-conns
		all = append(all, c)
		waitFor(t, "what the client sends", func() bool { return int64(c.Waiting()) >= size(c)/4 })
	}
	if n := s.growth.conns.Load(); n != clients {
		t.Errorf("%d connections are counted, want %d", n, clients)
	}
	last := all[clients-1]
	if size(all[0]) != buffer || size(last) > buffer/2 {
		t.Errorf("the first one begins with %d bytes, the last one with %d", size(all[0]), size(last))
	}
	if n := s.held(); n > 2*most {
		t.Errorf("they hold %d bytes, want at most %d", n, 2*most)
	}
	for _, c := range all[:clients-1] {
		c.Abort()
	}
	waitFor(t, "what they have held", func() bool { return s.growth.sum() <= buffer })
	p := make([]byte, 4<<10)
	for read := 0; read < 8*buffer; {
		n, err := last.Read(p)
		if err != nil && err != party.ErrAgain {
			t.Fatal(err)
		}
		if read += n; n == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	if size(last) < buffer {
		t.Errorf("after %d bytes were read it has %d, want %d", 8*buffer, size(last), buffer)
	}
	last.Abort()
	if n := s.growth.conns.Load(); n != 0 {
		t.Errorf("%d connections are counted after all have ended", n)
	}
	if n := s.growth.taken.Load(); n != 0 {
		t.Errorf("%d bytes are still taken", n)
	}
}

// held is what netstack holds for all connections now, in bytes.
func (s *Stack) held() (sum int64) {
	s.growth.mu.Lock()
	defer s.growth.mu.Unlock()
	for _, c := range s.growth.all {
		sum += s.growth.of(c.ep.(*tcp.Endpoint))
	}
	return sum
}

// TestSlowReadersAreBounded: what is written to hundreds of clients that read nothing
// stays within what buffers may hold, and one that reads gets all beside them.
func TestSlowReadersAreBounded(t *testing.T) {
	const clients, most, size = 400, 1 << 20, 2 << 20
	l := newLab(t, true)
	o := l.options(0, 1)
	o.MaxGrowth = most
	conns := make(chan *Conn, clients)
	s, _ := l.start(o, func(c *Conn) { conns <- c })
	if s.growth.lost {
		t.Fatal("netstack is not as expected")
	}
	p := make([]byte, 16<<10)
	fill := func(c *Conn) {
		for {
			switch _, err := c.Write(p); err {
			case nil:
			case party.ErrAgain:
				return
			default:
				t.Fatal(err)
			}
		}
	}
	var all []*Conn
	peak := int64(0)
	for range clients {
		l.dial(anywhere(false, 4711))
		c := <-conns
		c.Watch(nopReady)
		fill(c)
		all = append(all, c)
	}
	for range 3 {
		for _, c := range all {
			fill(c)
		}
		peak = max(peak, s.held())
	}
	// Once more `most` is for what is given between two looks.
	if bound := int64(3*most + clients*leastBuffer); peak > bound {
		t.Errorf("%d clients that read nothing take %d bytes, want at most %d", clients, peak, bound)
	}
	t.Logf("%d clients that read nothing take %d KB", clients, peak>>10)
	client := l.dial(anywhere(false, 4711))
	c := <-conns
	c.Watch(nopReady)
	got := make(chan error, 1)
	go func() {
		_, err := io.CopyN(io.Discard, client, size)
		got <- err
	}()
	for sent := 0; sent < size; {
		n, err := c.Write(p[:min(len(p), size-sent)])
		if err != nil && err != party.ErrAgain {
			t.Fatal(err)
		}
		if sent += n; n == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	must(t, <-got)
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
			sniff := l.sniff()
			client := l.dial(anywhere(false, 4711))
			sent := make(chan error, 1)
			go func() {
				_, err := client.Write(random(size))
				sent <- err
			}()
			conn := <-conns
			if c.guard {
				waitFor(t, "the first flight", func() bool { return conn.up.Load() })
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
