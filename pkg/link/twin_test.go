package link

import (
	"context"
	"errors"
	"testing"

	"hawser/pkg/wire"
)

// twins makes both ends of an urgent connection's twin beside another's.
func twins(t *testing.T, edge, cloud *Conn) (*Conn, *Conn) {
	t.Helper()
	got := make(chan *Conn, 1)
	go func() {
		c, err := cloud.NextUrgent(context.Background(), true)
		if err != nil {
			t.Error(err)
		}
		got <- c
	}()
	e, err := edge.NextUrgent(context.Background(), true)
	if err != nil {
		t.Fatal(err)
	}
	k := <-got
	t.Cleanup(func() { e.Close(nil); k.Close(nil) })
	return e, k
}

// TestTwinBeside: an urgent connection and its twin stand beside one over TCP, neither in
// the other's place; a record of the one does not open on the other, and the end of one is
// that of it alone (PROTOCOL.md section 4.4).
func TestTwinBeside(t *testing.T) {
	edge, cloud := startCloud(t, loopback, nil).connect(TCP)
	if !edge.TakesTwin() || !cloud.TakesTwin() {
		t.Fatal("there is no twin")
	}
	e, k := urgentPair(t, edge, cloud)
	et, kt := twins(t, edge, cloud)
	const n = 100
	done := make(chan error, 8)
	for _, p := range [][2]*Conn{{e, k}, {k, e}, {et, kt}, {kt, et}} {
		go traffic(&p[0].Strand, n, done)
		go expect(&p[1].Strand, n, done)
	}
	for range 8 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	kt.Strand.seal = k.Strand.seal
	if err := kt.Send([]wire.Record{{Block: []byte{1}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := et.Receive(); !errors.Is(err, ErrTampered) {
		t.Errorf("a record of the other: %v", err)
	}
	go traffic(&e.Strand, 1, done)
	go expect(&k.Strand, 1, done)
	if err := errors.Join(<-done, <-done); err != nil {
		t.Errorf("the urgent connection after the end of its twin: %v", err)
	}
}

// TestTwinOfOlder: a peer of version 3 has no twins, of a connection or of a stream, and
// one that asks for one by a token of such a connection is refused.
func TestTwinOfOlder(t *testing.T) {
	transports(t, func(t *testing.T, transport Transport) {
		c := startCloud(t, loopback, nil)
		older := sampleHello()
		older.VersionMin, older.VersionMax = 1, wire.VersionTwin-1
		edge, _, err := c.dialer(transport, nil).Dial(context.Background(), older)
		if err != nil {
			t.Fatal(err)
		}
		cloud := <-c.conns
		defer edge.Close(nil)
		defer cloud.Close(nil)
		if edge.TakesTwin() || cloud.TakesTwin() || edge.Twin() != nil || cloud.Twin() != nil {
			t.Error("there is one")
		}
		if transport == QUIC {
			return
		}
		hello := older
		hello.Beside, hello.Twin, hello.VersionMin = edge.berth.token, true, wire.VersionTwin-1
		if u, _, err := c.dialer(TCP, nil).Dial(context.Background(), hello); !errors.Is(err, ErrBadLink) {
			t.Errorf("asked for: %v, %v", u, err)
		}
		<-c.failures
	})
}

// TestTwinStream: on QUIC the twin is another stream each way, whichever is used first.
func TestTwinStream(t *testing.T) {
	edge, cloud := startCloud(t, loopback, nil).connect(QUIC)
	if edge.Twin() == nil || cloud.Twin() == nil {
		t.Fatal("there is no twin")
	}
	const n = 100
	done := make(chan error, 4)
	for _, by := range []func(*Conn) *Strand{(*Conn).Twin, (*Conn).Urgent} {
		for _, p := range [][2]*Conn{{edge, cloud}, {cloud, edge}} {
			go traffic(by(p[0]), n, done)
			go expect(by(p[1]), n, done)
		}
		for range 4 {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
	}
	edge.Twin().seal = edge.Urgent().seal
	if err := edge.Twin().Send([]wire.Record{{Block: []byte{1}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := cloud.Twin().Receive(); !errors.Is(err, ErrTampered) {
		t.Errorf("a record of the other stream: %v", err)
	}
}
