package link

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"hawser/pkg/buffer"
	"hawser/pkg/wire"
)

// traffic sends n records of random sizes in random batches.
func traffic(c *Strand, n int, done chan<- error) {
	rng := rand.New(rand.NewPCG(uint64(n), 1))
	for i := 0; i < n; {
		var batch []wire.Record
		for k := 1 + rng.IntN(40); k > 0 && i < n; k-- {
			batch = append(batch, record(i, 1+rng.IntN(300), rng.IntN(3)*rng.IntN(8000)))
			i++
		}
		if err := c.Send(batch); err != nil {
			done <- err
			return
		}
	}
	done <- nil
}

// expect receives n records of traffic.
func expect(c *Strand, n int, done chan<- error) {
	for i := range n {
		rec, err := c.Receive()
		if err != nil {
			done <- err
			return
		}
		if i%3 == 0 {
			c.Buffered()
		}
		ok := samePattern(rec.Block, i) && (rec.Body.Len() == 0 || samePattern(rec.Body.P, i+1))
		rec.Body.Release()
		if !ok {
			done <- errors.New("wrong bytes")
			return
		}
	}
	done <- nil
}

func TestTrafficBothWays(t *testing.T) {
	transports(t, func(t *testing.T, transport Transport) {
		edge, cloud := startCloud(t, loopback, nil).connect(transport)
		const n = 1500
		done := make(chan error, 4)
		go traffic(&edge.Strand, n, done)
		go traffic(&cloud.Strand, n, done)
		go expect(&edge.Strand, n, done)
		go expect(&cloud.Strand, n, done)
		for range 4 {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		e, c := edge.Stats(), cloud.Stats()
		if e.BytesOut != c.BytesIn || e.BytesIn != c.BytesOut || e.RecordsOut != n || c.RecordsIn != n {
			t.Errorf("counts differ: %+v, %+v", e, c)
		}
		if e.RTT <= 0 || e.MinRTT <= 0 || e.PacketsIn == 0 {
			t.Errorf("no figures of the transport: %+v", e)
		}
		if transport == TCP && (e.Window <= 0 || e.DeliveryRate <= 0) {
			t.Errorf("no figures of TCP_INFO: %+v", e)
		}
	})
}

// TestTrySend sends without blocking until the transport takes no more, in the
// middle of a batch or between two, and has Resume send the rest. By TCP a little on a
// connection at rest goes at once, whatever the size of the kernel's buffers.
func TestTrySend(t *testing.T) {
	transports(t, func(t *testing.T, transport Transport) {
		edge, cloud := startCloud(t, loopback, nil).connect(transport)
		const rounds, perRound = 60, 10
		live := buffer.Live()
		resumed, full := make(chan int, 1), make(chan struct{}, rounds)
		failed := make(chan error, 2)
		go func() {
			n := 0
			for i := range rounds {
				batch := make([]wire.Record, perRound)
				size := 16 << 10
				if i == 0 {
					size = 100
				}
				for k := range batch {
					batch[k] = record(perRound*i+k, 60, size)
				}
				done, err := edge.TrySend(batch)
				if i == 0 && transport == TCP && !done {
					t.Errorf("a little on a connection at rest is not taken: %v", err)
				}
				if err == nil && !done {
					n++
					full <- struct{}{}
					err = edge.Resume(batch)
				}
				if err != nil {
					failed <- err
				}
			}
			resumed <- n
			full <- struct{}{}
			failed <- nil
		}()
		<-full // or all is sent
		for i := range perRound * rounds {
			rec, err := cloud.Receive()
			if err != nil {
				t.Fatal(err)
			}
			if !samePattern(rec.Block, i) || !samePattern(rec.Body.P, i+1) {
				t.Fatalf("record %d has wrong bytes", i)
			}
			rec.Body.Release()
		}
		if err := <-failed; err != nil {
			t.Fatal(err)
		}
		if n := <-resumed; n == 0 {
			t.Errorf("none of %d batches had to be resumed", rounds)
		}
		if now := buffer.Live(); now != live {
			t.Errorf("%d bytes of bodies are not released", now-live)
		}
		edge.Close(nil)
		if _, err := edge.TrySend([]wire.Record{record(0, 60, 9)}); !errors.Is(err, ErrClosed) {
			t.Errorf("after the end: %v", err)
		}
	})
}

// TestLargeBatch sends more than one arena and one writev can take.
func TestLargeBatch(t *testing.T) {
	edge, cloud := startCloud(t, loopback, nil).connect(TCP)
	done := make(chan error, 2)
	const n = 3000
	var batch []wire.Record
	for i := range n {
		size := 10
		if i%500 == 3 {
			size = wire.MaxBlock
		}
		batch = append(batch, record(i, size, 100))
	}
	go expect(&cloud.Strand, n, done)
	if err := edge.Send(batch); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if batch[0].Body.Len() != 0 {
		t.Error("a sent body was left in the batch")
	}
}

func TestBlockOutlivesBuffered(t *testing.T) {
	edge, cloud := startCloud(t, loopback, nil).connect(TCP)
	var batch []wire.Record
	for i := range 8 {
		batch = append(batch, record(i, wire.MaxBlock, 3000))
	}
	done := make(chan error, 1)
	go func() { done <- edge.Send(batch) }()
	for i := range 8 {
		rec, err := cloud.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if i < 7 {
			for !cloud.Buffered() { // reads on until the next record is whole
			}
		}
		if !samePattern(rec.Block, i) {
			t.Fatalf("block %d was overwritten", i)
		}
		rec.Body.Release()
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestBufferedOnSilence(t *testing.T) {
	transports(t, func(t *testing.T, transport Transport) {
		edge, cloud := startCloud(t, loopback, nil).connect(transport)
		if edge.Buffered() || cloud.Buffered() {
			t.Fatal("a record out of nothing")
		}
		if err := edge.Send([]wire.Record{record(0, 10, 100), record(1, 10, 0)}); err != nil {
			t.Fatal(err)
		}
		rec, err := cloud.Receive()
		if err != nil || !samePattern(rec.Block, 0) {
			t.Fatal(err)
		}
		rec.Body.Release()
	})
}

func TestSendRefusesOversize(t *testing.T) {
	for name, rec := range map[string]wire.Record{
		"block": record(0, wire.MaxBlock+1, 0),
		"body":  record(0, 1, wire.MaxBody+1),
		"empty": record(0, 0, 10),
	} {
		a, b := socketPair(t)
		edge, _ := rawPair(t, a, b, new(Counters))
		if err := edge.Send([]wire.Record{rec}); !errors.Is(err, ErrRecord) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestNoAllocations: a connection in steady state allocates nothing.
func TestNoAllocations(t *testing.T) {
	if raceDetector {
		t.Skip("needs a build without the race detector: it makes sync.Pool drop slabs")
	}
	a, b := socketPair(t)
	edge, cloud := rawPair(t, a, b, new(Counters))
	block := make([]byte, 50)
	batch := make([]wire.Record, 4)
	round := func() {
		for i := range batch {
			batch[i] = wire.Record{Block: block, Body: buffer.Get(16<<10).Seg(0, 16<<10)}
		}
		if err := edge.Send(batch); err != nil {
			t.Fatal(err)
		}
		for range batch {
			cloud.Buffered()
			rec, err := cloud.Receive()
			if err != nil {
				t.Fatal(err)
			}
			rec.Body.Release()
		}
	}
	round()
	if n := testing.AllocsPerRun(300, round); n != 0 {
		t.Errorf("%v allocations per batch", n)
	}
}

func TestInfo(t *testing.T) {
	transports(t, func(t *testing.T, transport Transport) {
		c := startCloud(t, loopback, nil)
		edge, cloud := c.connect(transport)
		e, k := edge.Info(), cloud.Info()
		if e.Transport != transport || k.Transport != transport || e.Remote != c.listener.Addr() || k.Remote.Port() != e.Local.Port() {
			t.Errorf("addresses: %+v, %+v", e, k)
		}
		if e.Peer != "cloud-a" || k.Peer != "train-7" || e.PeerKey != c.party.key || k.PeerKey != c.edge.key {
			t.Errorf("parties: %+v, %+v", e, k)
		}
		if e.Link != "lte" || k.Link != "lte" || k.Index != 3 || e.Version != wire.VersionMax || k.Version != e.Version {
			t.Errorf("link: %+v, %+v", e, k)
		}
		if k.Session != sampleHello().Session || !e.Resumed || !k.Resumed || e.Suite == "" || e.Congestion == "" {
			t.Errorf("session: %+v, %+v", e, k)
		}
	})
}

// TestUrge: a connection whose congestion control begins its search anew goes on
// with the same one, and carries on.
func TestUrge(t *testing.T) {
	transports(t, func(t *testing.T, transport Transport) {
		c := startCloud(t, "127.0.0.1:0", nil)
		edge, cloud := c.connect(transport)
		defer edge.Close(ErrClosed)
		before := edge.Info().Congestion
		sent, got := make(chan error, 1), make(chan error, 1)
		go traffic(&edge.Strand, 300, sent)
		go expect(&cloud.Strand, 300, got)
		for range 5 {
			edge.Urge()
			time.Sleep(2 * time.Millisecond)
		}
		if err := errors.Join(<-sent, <-got); err != nil {
			t.Fatal(err)
		}
		var after Info
		edge.pipe.describe(&after)
		if after.Congestion != before {
			t.Errorf("%s after %s", after.Congestion, before)
		}
	})
}
