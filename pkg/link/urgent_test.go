package link

import (
	"context"
	"errors"
	"testing"
	"time"

	"hawser/pkg/buffer"
	"hawser/pkg/wire"
)

// TestUrgentStrand: a QUIC connection has a bulk and an urgent strand each way with keys and
// numbers of their own; a TCP connection has one.
func TestUrgentStrand(t *testing.T) {
	transports(t, func(t *testing.T, transport Transport) {
		edge, cloud := startCloud(t, loopback, nil).connect(transport)
		if has := transport == QUIC; (edge.Urgent() != nil) != has || (cloud.Urgent() != nil) != has {
			t.Fatalf("urgent strands %v, %v", edge.Urgent(), cloud.Urgent())
		}
		if transport == TCP {
			return
		}
		const n = 300
		done := make(chan error, 8)
		for _, c := range [][2]*Conn{{edge, cloud}, {cloud, edge}} {
			go traffic(&c[0].Strand, n, done)
			go expect(&c[1].Strand, n, done)
			go traffic(c[0].Urgent(), n, done)
			go expect(c[1].Urgent(), n, done)
		}
		for range 8 {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		if s := cloud.Stats(); s.RecordsIn != 2*n || s.RecordsOut != 2*n {
			t.Errorf("%d records in, %d out, want %d", s.RecordsIn, s.RecordsOut, 2*n)
		}
	})
}

// TestOlderPeers: an edge or a cloud of version 1 gets one stream, and works.
func TestOlderPeers(t *testing.T) {
	for name, versions := range map[string][2]uint16{"edge": {1, 2}, "cloud": {2, 1}} {
		t.Run(name, func(t *testing.T) {
			c := startCloud(t, loopback, func(_ *cloud, o *ListenOptions) { o.versions = [2]uint16{1, versions[1]} })
			hello := sampleHello()
			hello.VersionMin, hello.VersionMax = 1, versions[0]
			edge, w, err := c.dialer(QUIC, nil).Dial(context.Background(), hello)
			if err != nil {
				t.Fatal(err)
			}
			cloud := <-c.conns
			defer edge.Close(nil)
			defer cloud.Close(nil)
			if w.Version != 1 || edge.Urgent() != nil || cloud.Urgent() != nil {
				t.Fatalf("version %d, urgent strands %v, %v", w.Version, edge.Urgent(), cloud.Urgent())
			}
			done := make(chan error, 2)
			go traffic(&cloud.Strand, 100, done)
			go expect(&edge.Strand, 100, done)
			if err := errors.Join(<-done, <-done); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestUrgentPassesBulk: what is urgent arrives while bulk waits for a receiver
// that does not read, and is sent without blocking then.
func TestUrgentPassesBulk(t *testing.T) {
	edge, cloud := startCloud(t, loopback, nil).connect(QUIC)
	sent := make(chan error, 1)
	go func() {
		for {
			if err := cloud.Send([]wire.Record{{Block: []byte{1}, Body: buffer.Get(wire.MaxBody).Seg(0, wire.MaxBody)}}); err != nil {
				sent <- err
				return
			}
		}
	}()
	for cloud.Stats().BytesOut < quicWindow {
		time.Sleep(time.Millisecond)
	}
	for i := range 50 {
		batch := []wire.Record{record(i, 100, 1000)}
		done, err := cloud.Urgent().TrySend(batch)
		if err == nil && !done {
			err = cloud.Urgent().Resume(batch)
		}
		if err != nil {
			t.Fatal(err)
		}
		rec, err := edge.Urgent().Receive()
		if err != nil {
			t.Fatal(err)
		}
		if !samePattern(rec.Block, i) || !samePattern(rec.Body.P, i+1) {
			t.Error("wrong bytes")
		}
		rec.Body.Release()
	}
	cloud.Close(nil)
	if err := <-sent; !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// TestUrgentTampered: a forged record on the urgent stream ends the connection,
// and so does one of the bulk stream that is moved there: its key is another.
func TestUrgentTampered(t *testing.T) {
	for name, forge := range map[string]func(c *Conn) error{
		"noise": func(c *Conn) error {
			return c.urgent.duct.writev([][]byte{append([]byte{0, 20, 0, 0}, make([]byte, 20)...)})
		},
		"moved": func(c *Conn) error {
			c.duct = c.urgent.duct
			return c.Send([]wire.Record{{Block: []byte{1}}})
		},
		"crowd": func(c *Conn) error { // not one more than PROTOCOL.md section 4.3 allows
			_, err := c.pipe.(*quicPipe).conn.OpenUniStream()
			if err == nil {
				return errors.New("a third urgent stream was opened")
			}
			c.Close(ErrTampered)
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			edge, cloud := startCloud(t, loopback, nil).connect(QUIC)
			if err := forge(cloud); err != nil {
				t.Fatal(err)
			}
			_, err := edge.Urgent().Receive()
			if name != "crowd" && !errors.Is(err, ErrTampered) || err == nil {
				t.Errorf("urgent: %v", err)
			}
			if _, err := edge.Receive(); err == nil {
				t.Error("bulk lives on")
			}
		})
	}
}
