package link

import (
	"errors"
	"net"
	"testing"

	"hawser/pkg/wire"
)

// mitm forwards a to b, with bit flipped in what it forwards.
func mitm(a, b *net.TCPConn, bit int) {
	defer b.CloseWrite()
	buf := make([]byte, 32<<10)
	for at := 0; ; {
		n, err := a.Read(buf)
		if i := bit/8 - at; i >= 0 && i < n {
			buf[i] ^= 1 << (bit % 8)
		}
		at += n
		if _, werr := b.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

// TestEveryBitThroughConn flips every bit of prefix and block on the way
// between two connections: nothing wrong is delivered, and the end is counted.
func TestEveryBitThroughConn(t *testing.T) {
	const block = 24
	step := 1
	if testing.Short() {
		step = 17
	}
	for bit := 0; bit < (prefixSize+block+tagSize)*8; bit += step {
		t.Run("", func(t *testing.T) { flipThroughConn(t, block, bit) })
	}
}

func flipThroughConn(t *testing.T, block, bit int) {
	var counters Counters
	out, midIn := socketPair(t)
	midOut, in := socketPair(t)
	sender, receiver := rawConn(t, out, 1, 2, &counters), rawConn(t, in, 2, 1, &counters)
	done := make(chan struct{})
	go func() { defer close(done); mitm(midIn, midOut, bit) }()
	if err := sender.Send([]wire.Record{record(0, block, 500), record(1, 4000, 9000), record(2, 10, wire.MaxBody)}); err != nil {
		t.Fatal(err)
	}
	if err := sender.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	rec, err := receiver.Receive()
	if err == nil {
		rec.Body.Release()
		t.Fatalf("bit %d: a changed record was delivered", bit)
	}
	if !errors.Is(err, ErrTampered) && !errors.Is(err, ErrRecord) {
		t.Fatalf("bit %d: %v", bit, err)
	}
	if counters.Tampered.Load()+counters.Oversize.Load() != 1 {
		t.Fatalf("bit %d: not counted: %v", bit, err)
	}
	if _, err := receiver.Receive(); err == nil {
		t.Fatalf("bit %d: the connection went on", bit)
	}
	<-done
}

func TestTruncationIsCounted(t *testing.T) {
	var counters Counters
	a, b := socketPair(t)
	_, receiver := rawPair(t, a, b, &counters)
	data := encode(t, testSealer(t, 1, RekeyRecords), record(0, 10, 5000))
	if _, err := a.Write(data[:3000]); err != nil {
		t.Fatal(err)
	}
	a.CloseWrite()
	if _, err := receiver.Receive(); !errors.Is(err, ErrTruncated) || counters.Truncated.Load() != 1 {
		t.Fatalf("got %v, counted %d", err, counters.Truncated.Load())
	}
}
