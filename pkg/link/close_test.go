package link

import (
	"errors"
	"strings"
	"testing"

	"hawser/pkg/wire"
)

// TestCloseEndsBoth closes while Send and Receive are blocked.
func TestCloseEndsBoth(t *testing.T) {
	reason := errors.New("agent stops")
	transports(t, func(t *testing.T, transport Transport) {
		edge, cloud := startCloud(t, loopback, nil).connect(transport)
		sending, receiving := make(chan error, 1), make(chan error, 1)
		started := make(chan struct{})
		go func() {
			rec, err := edge.Receive()
			rec.Body.Release()
			receiving <- err
		}()
		go func() { // nobody reads at the other end: this blocks sooner or later
			close(started)
			for {
				if err := edge.Send([]wire.Record{record(0, 10, 16<<10)}); err != nil {
					sending <- err
					return
				}
			}
		}()
		<-started
		edge.Close(reason)
		edge.Close(errors.New("second reason"))
		for _, ch := range []chan error{sending, receiving} {
			err := <-ch
			if !errors.Is(err, ErrClosed) || !errors.Is(err, reason) {
				t.Errorf("got %v", err)
			}
			if want := "link lte of cloud-a: " + string(transport); transport == TCP && !strings.HasPrefix(err.Error(), want) {
				t.Errorf("got %q, want it to begin with %q", err, want)
			}
		}
		if err := edge.Send([]wire.Record{record(0, 10, 10)}); !errors.Is(err, reason) {
			t.Errorf("Send after Close: %v", err)
		}
		if _, err := edge.Receive(); !errors.Is(err, reason) {
			t.Errorf("Receive after Close: %v", err)
		}
		if !edge.Buffered() {
			t.Error("Receive would return at once, Buffered denies it")
		}
		for { // the peer sees the end as well, after what had arrived
			rec, err := cloud.Receive()
			rec.Body.Release()
			if err != nil {
				if !errors.Is(err, ErrPeerClosed) && !errors.Is(err, ErrTruncated) {
					t.Errorf("peer: %v", err)
				}
				break
			}
		}
		_ = edge.Stats()
	})
}

// TestCloseWrite delivers what was sent before, and the other direction lives.
func TestCloseWrite(t *testing.T) {
	transports(t, func(t *testing.T, transport Transport) {
		edge, cloud := startCloud(t, loopback, nil).connect(transport)
		if err := edge.Send([]wire.Record{record(0, 10, 1000)}); err != nil {
			t.Fatal(err)
		}
		if err := edge.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		rec, err := cloud.Receive()
		if err != nil || !samePattern(rec.Block, 0) {
			t.Fatal(err)
		}
		rec.Body.Release()
		if err := cloud.Send([]wire.Record{record(4, 10, 0)}); err != nil {
			t.Fatal(err)
		}
		if rec, err := edge.Receive(); err != nil || !samePattern(rec.Block, 4) {
			t.Fatal(err)
		}
		if _, err := cloud.Receive(); !errors.Is(err, ErrPeerClosed) {
			t.Fatalf("got %v, want ErrPeerClosed", err)
		}
	})
}

// TestPeerVanishes: a reset is reported as what it is.
func TestPeerVanishes(t *testing.T) {
	a, b := socketPair(t)
	edge, _ := rawPair(t, a, b, new(Counters))
	if err := b.SetLinger(0); err != nil {
		t.Fatal(err)
	}
	b.Close()
	_, err := edge.Receive()
	if err == nil || !strings.Contains(err.Error(), "connection reset by peer") {
		t.Fatalf("got %v", err)
	}
}
