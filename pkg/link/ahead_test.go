package link

import (
	"bytes"
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"hawser/pkg/wire"
)

// TestAheadParts: of several edges each has its fair part of what windows may have grown by, a
// stranger nothing, and all of it comes back.
func TestAheadParts(t *testing.T) {
	const unit = 1 << 20
	a := newAhead(64 * unit)
	one, two := [32]byte{1}, [32]byte{2}
	grown := func(conn any) (n int) {
		for a.grow(conn, unit) {
			n++
		}
		return n
	}
	if n := grown("stranger"); n != 0 {
		t.Errorf("a stranger's window has grown by %d MB", n)
	}
	for i := range 3 {
		a.enter(i, one)
	}
	if n := grown(0) + grown(1) + grown(2); n != 48 {
		t.Errorf("one edge has %d MB of 64 by three connections, want 48", n)
	}
	a.enter("other", two)
	if n := grown("other"); n != 12 {
		t.Errorf("the next has %d MB of 16, want 12", n)
	}
	a.leave(1)
	a.leave(1) // once is enough
	a.leave(0)
	if n := grown("other"); n != 36 {
		t.Errorf("it has %d MB more of those that came back, want 36", n)
	}
	for i := 3; i < 200; i++ {
		if ok := a.enter(i, one); ok && i > aheadFree && a.edges[one].bytes > 16*unit {
			t.Fatalf("connection %d enters, of an edge that has %d bytes", i, a.edges[one].bytes)
		}
	}
	if n := a.edges[one].conns; n != aheadFree+19 { // 12 MB of the 16 that are left
		t.Errorf("an edge whose part is taken has %d connections", n)
	}
	for i := range 200 {
		a.leave(i)
	}
	a.leave("other")
	if a.taken != 0 || len(a.edges)+len(a.conns) != 0 {
		t.Errorf("left: %+v", a)
	}
	if none := newAhead(0); !none.enter(1, one) || !none.grow(1, unit) {
		t.Error("no bound is one")
	}
}

// far is an edge's socket on a line of a round trip of 40 ms.
type far struct {
	net.PacketConn
	out  chan farPacket
	quit chan struct{} // ends the sender
	end  chan struct{} // it has ended
}

type farPacket struct {
	p  []byte
	to net.Addr
	at time.Time
}

func newFar(context.Context) (net.PacketConn, error) {
	under, err := net.ListenPacket("udp4", loopback)
	f := &far{under, make(chan farPacket, 1<<14), make(chan struct{}), make(chan struct{})}
	go f.send()
	return f, err
}

func (f *far) send() {
	defer close(f.end)
	for {
		select {
		case <-f.quit:
			return
		case o := <-f.out:
			time.Sleep(time.Until(o.at))
			_, _ = f.PacketConn.WriteTo(o.p, o.to)
		}
	}
}

func (f *far) WriteTo(p []byte, to net.Addr) (int, error) {
	select {
	case f.out <- farPacket{bytes.Clone(p), to, time.Now().Add(40 * ms)}:
	default: // a full queue
	}
	return len(p), nil
}

func (f *far) Close() error {
	close(f.quit)
	<-f.end
	return f.PacketConn.Close()
}

// TestAhead: what an edge sends and the cloud cannot read waits up to the edge's part, not up to
// the window that a connection grows to.
func TestAhead(t *testing.T) {
	const most, records = 4 << 20, 1500
	c := startCloud(t, loopback, func(_ *cloud, o *ListenOptions) { o.Ahead = most })
	edge, _, err := c.dialer(QUIC, func(o *DialerOptions) { o.packets = newFar }).Dial(context.Background(), sampleHello())
	if err != nil {
		t.Fatal(err)
	}
	defer edge.Close(nil)
	cloud := <-c.conns
	defer cloud.Close(nil)
	var all sync.WaitGroup
	all.Go(func() { // the window grows while it is read
		for range records {
			rec, err := cloud.Receive()
			if err != nil {
				t.Error(err)
				return
			}
			rec.Body.Release()
		}
	})
	for k := range records {
		if err := edge.Send([]wire.Record{record(k, 20, 16<<10)}); err != nil {
			t.Error(err)
			break
		}
	}
	all.Wait()
	kept := 0
	for b := make([]byte, 16<<10); ; kept += len(b) {
		if err := edge.pipe.(*quicPipe).out.TryWriteAll(b); err != nil {
			if !errors.Is(err, errWouldBlock) {
				t.Error(err)
			}
			break
		}
	}
	t.Logf("%d bytes wait", kept)
	if first := quicFirst + quicFirstUrgent; kept > first+most*3/4 || kept < first/2 {
		t.Errorf("the cloud keeps %d bytes for an edge that may have %d", kept, first+most*3/4)
	}
}
