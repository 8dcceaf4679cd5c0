package box

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"hawser/pkg/buffer"
	"hawser/pkg/card"
	"hawser/pkg/party"
	"hawser/pkg/relay"
	"hawser/pkg/sock"
	"hawser/pkg/stream"
	"hawser/pkg/tunnel"
	"hawser/pkg/wire"
	"hawser/scheduler"
)

// parcel is a record on its way through a tube.
type parcel struct {
	block [wire.MaxBlock]byte
	n     int
	body  buffer.Seg
}

// tube is one end of a link in memory: bodies change hands, blocks are copied.
type tube struct {
	out, in chan parcel
	last    parcel
	from    *end                 // whose blocks are watched, see copied
	moved   atomic.Int64         // blocks that are not where they were read
	sealed  [4][card.TagLen]byte // the last tags: what is sent again is not where the last was read
	at      int
	once    sync.Once
	closed  chan struct{}
}

func newTubes() (a, b *tube) {
	ab, ba := make(chan parcel, 64), make(chan parcel, 64)
	return &tube{out: ab, in: ba, closed: make(chan struct{})}, &tube{out: ba, in: ab, closed: make(chan struct{})}
}

func (t *tube) Send(batch []wire.Record) error {
	for _, r := range batch {
		if n := r.Body.Len(); t.from != nil && n > buffer.Small && t.fresh([card.TagLen]byte(r.Body.P[n-card.TagLen:])) && &r.Body.P[card.HeaderLen] != t.from.place {
			t.moved.Add(1)
		}
		p := parcel{n: len(r.Block), body: r.Body}
		copy(p.block[:], r.Block)
		select {
		case t.out <- p:
		case <-t.closed:
			r.Body.Release()
		}
	}
	return nil
}

// fresh says that a record with this tag was not sent lately. Where the machine is busy a
// session sends once more what is not acknowledged in time.
func (t *tube) fresh(tag [card.TagLen]byte) bool {
	if slices.Contains(t.sealed[:], tag) {
		return false
	}
	t.sealed[t.at] = tag
	t.at = (t.at + 1) % len(t.sealed)
	return true
}

func (t *tube) Receive() (wire.Record, error) {
	select {
	case t.last = <-t.in:
		return wire.Record{Block: t.last.block[:t.last.n], Body: t.last.body}, nil
	case <-t.closed:
		return wire.Record{}, io.EOF
	}
}

func (t *tube) Buffered() bool         { return len(t.in) > 0 }
func (t *tube) Sense() scheduler.Sense { return scheduler.Sense{} }
func (t *tube) Pace(float64)           {}
func (t *tube) Close(error)            { t.once.Do(func() { close(t.closed) }) }

// end is a party: it may be read as much as it was given, takes all that is
// written, and gives it back where it is an echo.
type end struct {
	data   []byte // repeated
	notify func(party.Ready)
	given  atomic.Int64 // bytes that may be read
	read   int64
	place  *byte // where the last block was read to
	echo   bool
	want   int64 // written bytes that a round takes
	taken  int64
	wrong  bool
	round  chan struct{}
}

func (e *end) Watch(fn func(party.Ready)) {
	e.notify = fn
	fn(party.Writable)
	if e.given.Load() > 0 {
		fn(party.Readable)
	}
}
func (e *end) Connected() error       { return nil }
func (e *end) CloseWrite() error      { return nil }
func (e *end) Abort()                 {}
func (e *end) Close()                 {}
func (e *end) Remote() netip.AddrPort { return netip.AddrPort{} }

func (e *end) Read(p []byte) (int, error) {
	n := min(int64(len(p)), e.given.Load()-e.read, int64(len(e.data))-e.read%int64(len(e.data)))
	if n == 0 {
		return 0, party.ErrAgain
	}
	e.place = &p[0]
	n = int64(copy(p[:n], e.data[e.read%int64(len(e.data)):]))
	e.read += n
	return int(n), nil
}

func (e *end) Write(p []byte) (int, error) {
	at := int(e.taken % int64(len(e.data)))
	k := min(len(p), len(e.data)-at)
	e.wrong = e.wrong || !bytes.Equal(p[:k], e.data[at:at+k]) || !bytes.Equal(p[k:], e.data[:len(p)-k])
	e.taken += int64(len(p))
	if e.echo {
		e.give(int64(len(p)))
	} else if e.taken >= e.want {
		e.want += int64(len(e.data))
		e.round <- struct{}{}
	}
	return len(p), nil
}

func (e *end) Writev(bufs [][]byte) (n int, err error) {
	for _, p := range bufs {
		k, _ := e.Write(p) // takes all
		n += k
	}
	return n, nil
}

func (e *end) give(n int64) {
	e.given.Add(n)
	e.notify(party.Readable)
}

// sink hands a session's events to its workers, which are made later. Of the flows that the
// peer opens the first is the first worker's, the others are the last one's.
type sink struct {
	w atomic.Pointer[[]*relay.Worker]
}

func (s *sink) workers() []*relay.Worker { return *s.w.Load() }

// Deliver leaves it to the caller of Settle to do a sleeping worker's round, but not that of
// the first of several, which a test may hold.
func (s *sink) Deliver(worker int, batch []stream.Event) {
	if all := s.workers(); worker == 0 && len(all) > 1 {
		all[worker].Deliver(batch)
	} else {
		all[worker].Leave(batch)
	}
}

func (s *sink) Place(id stream.ID) int {
	if id == 1 {
		return 0
	}
	return len(s.workers()) - 1
}

func (s *sink) Settle(worker int) { s.workers()[worker].Settle() }

// station is one agent's workers and session.
type station struct {
	workers []*relay.Worker
	session *tunnel.Session
}

// dial makes the connections to servers, at the cloud.
type dial func(_, _ netip.AddrPort, _ string) (party.Conn, error)

// newStation makes one with so many workers, whose channels open makes.
func newStation(t *testing.T, run func(func()), role card.Role, workers int, open func(*sock.Poller) (card.Channel, error), dial dial) station {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	s := &sink{}
	session := tunnel.New(tunnel.Config{
		Peer: "peer", Edge: role == card.Edge, Secret: make([]byte, card.SecretLen), Sink: s,
		Budget: tunnel.NewBudget(64 << 20), Log: slog.New(slog.DiscardHandler),
	})
	rings := card.NewRings(role)
	var list []*relay.Worker
	for i := range workers {
		poller, err := sock.NewPoller()
		if err != nil {
			t.Fatal(err)
		}
		channel, err := open(poller)
		if err != nil {
			t.Fatal(err)
		}
		w, err := relay.New(relay.Options{Index: i, Poller: poller, Card: channel, Ring: rings.Get, Dial: dial, Plain: true})
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, w)
		run(func() { _ = w.Run(ctx); poller.Close() })
	}
	s.w.Store(&list)
	run(func() { _ = session.Run(ctx) })
	return station{list, session}
}

func inline(*sock.Poller) (card.Channel, error) { return card.NewInline(16) }

// join makes a link between two stations, and returns its ends. They watch the blocks of
// these parties, if there are any.
func join(t *testing.T, run func(func()), edge, cloud station, client, server *end) (a, b *tube) {
	a, b = newTubes()
	a.from, b.from = client, server
	info := tunnel.LinkInfo{Name: "tube", Transport: "tcp"}
	run(func() { _ = edge.session.Serve(t.Context(), info, a) })
	run(func() { _ = cloud.session.Serve(t.Context(), info, b) })
	return a, b
}

// begin gives a client's connection to a worker of the edge.
func (s station) begin(worker int, c party.Conn) {
	s.workers[worker].Accept(c, netip.MustParseAddrPort("198.51.100.1:80"), netip.MustParseAddrPort("10.0.0.1:4000"), s.session)
}

// TestNoAllocationPerChunk sends chunks through all that they pass between two
// plain parties - relay, card, session, session, card, relay - and back. In the
// steady state none of it allocates: slabs, tasks, pieces, events and batches
// are used again. Nor is a block copied: a link is given the very slab that the
// party was read into, sealed in place, and the card opens what the other link
// was given. (A record of up to 4 KB is sealed into a slab of its size.) The payload is
// also checked.
func TestNoAllocationPerChunk(t *testing.T) {
	for _, size := range []int{100, 4 << 10, buffer.Plain} {
		data := noise(size)
		client := &end{data: data, want: int64(size), round: make(chan struct{}, 1)}
		server := &end{data: data, echo: true}
		var wg sync.WaitGroup
		t.Cleanup(wg.Wait)
		edge := newStation(t, wg.Go, card.Edge, 1, inline, nil)
		cloud := newStation(t, wg.Go, card.Cloud, 1, inline, func(_, _ netip.AddrPort, _ string) (party.Conn, error) { return server, nil })
		a, b := join(t, wg.Go, edge, cloud, client, server)
		client.given.Add(int64(size))
		edge.begin(0, client)
		<-client.round
		round := func() {
			client.give(int64(size))
			<-client.round
		}
		for range 2000 { // until all that grows has its size, and records are not cut any more
			round()
		}
		moved := a.moved.Load() + b.moved.Load()
		best := testing.AllocsPerRun(1000, round)
		for try := 0; try < 4 && best != 0 && !raceEnabled; try++ { // a collection empties pools
			best = min(best, testing.AllocsPerRun(1000, round))
		}
		t.Logf("%d bytes up and down: %v allocations", size, best)
		if best != 0 && !raceEnabled {
			t.Errorf("%d bytes up and down: %v allocations", size, best)
		}
		if n := a.moved.Load() + b.moved.Load() - moved; n > 0 {
			t.Errorf("%d bytes: %d blocks were copied between reading and the link", size, n)
		}
		if client.wrong || server.wrong {
			t.Errorf("%d bytes: not those that were sent", size)
		}
	}
}
