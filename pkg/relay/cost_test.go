package relay

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"hawser/pkg/buffer"
	"hawser/pkg/card"
	"hawser/pkg/party"
	"hawser/pkg/stream"
)

// well is a party that has one block to read per edge and takes all that is
// written.
type well struct {
	block []byte
	given bool // the block was read; the next Read says that there is none
	taken int
}

func (c *well) Watch(func(party.Ready)) {}
func (c *well) Connected() error        { return nil }
func (c *well) Read(p []byte) (int, error) {
	if c.given || len(c.block) == 0 {
		c.given = false
		return 0, party.ErrAgain
	}
	c.given = true
	return copy(p, c.block), nil
}
func (c *well) Writev(bufs [][]byte) (n int, err error) {
	for _, p := range bufs {
		n += len(p)
	}
	c.taken += n
	return n, nil
}
func (c *well) CloseWrite() error      { return nil }
func (c *well) Abort()                 {}
func (c *well) Close()                 {}
func (c *well) Remote() netip.AddrPort { return clientAt }

// sieve is a tunnel that throws away what it is given.
type sieve struct {
	sent, records, consumed int
	next                    stream.ID
	ended                   bool
}

func (s *sieve) Post(batch []stream.Command) {
	for i := range batch {
		switch c := &batch[i]; c.Kind {
		case stream.CmdSend:
			s.sent += c.Seg.Len()
			s.records++
			c.Seg.Release()
		case stream.CmdConsumed:
			s.consumed += c.Bytes
		}
	}
}
func (s *sieve) NewFlow(int) stream.ID {
	if s.ended {
		return 0
	}
	s.next++
	return s.next
}
func (s *sieve) Secret() []byte { return make([]byte, card.SecretLen) }
func (s *sieve) Record() int    { return buffer.Plain }
func (s *sieve) Tag() string    { return "sieve" }

// bench is a worker that the test turns by hand.
type bench struct {
	w    *Worker
	tun  *sieve
	conn *well
	f    *flow
}

func newBench(t testing.TB, block []byte) *bench {
	w, err := New(Options{Poller: newBell(), Card: inlineCard(t), Ring: card.NewRings(card.Edge).Get})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{w: w, tun: &sieve{}, conn: &well{block: block}}
	w.Accept(b.conn, serverAt, clientAt, b.tun)
	b.turn()
	b.f = w.find(b.tun, 1)
	return b
}

// turn is one wake-up of Run.
func (b *bench) turn() {
	b.w.now = time.Unix(1_700_000_000, 0)
	b.w.box.take(&b.w.mail)
	b.w.handle(&b.w.mail)
	b.w.collect()
	b.w.work()
	b.w.flush()
}

// seal moves one block up: an edge of readiness, and credit for it.
func (b *bench) seal(events []stream.Event) {
	events[0] = stream.Event{Kind: stream.EventCredit, Flow: 1, Limit: b.f.up.sent + 256<<10, From: b.tun}
	b.w.Deliver(events)
	b.f.note(party.Readable)
	b.turn()
}

// sealer makes the peer's records.
type sealer struct {
	c    *card.Inline
	ring *card.Keyring
	job  card.Job
}

func newSealer(t testing.TB) *sealer {
	ring, err := card.NewKeyring(make([]byte, card.SecretLen), card.Cloud)
	if err != nil {
		t.Fatal(err)
	}
	return &sealer{c: inlineCard(t), ring: ring}
}

func (s *sealer) record(counter uint32, block []byte) buffer.Seg {
	slab := buffer.Get(len(block) + card.Overhead)
	copy(slab.Bytes()[card.HeaderLen:], block)
	s.job = card.Job{Op: card.Seal, Ring: s.ring, Flow: 1, Counter: counter, Now: time.Unix(1_700_000_000, 0), Slab: slab, N: len(block)}
	s.c.TryPut(&s.job)
	s.c.TryGet()
	return s.job.Out
}

func noise(n int) []byte {
	r := rand.New(rand.NewPCG(9, 9))
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return p
}

// open moves one record down, in one piece or cut in two.
func (b *bench) open(events []stream.Event, record buffer.Seg, cut bool) {
	if cut {
		head, tail := record.Cut(record.Len() / 2)
		events[0] = stream.Event{Kind: stream.EventData, Flow: 1, Seg: head, From: b.tun}
		events[1] = stream.Event{Kind: stream.EventData, Flow: 1, Seg: tail, From: b.tun}
		b.w.Deliver(events[:2])
	} else {
		events[0] = stream.Event{Kind: stream.EventData, Flow: 1, Seg: record, From: b.tun}
		b.w.Deliver(events[:1])
	}
	b.turn()
}

func TestNoAllocationPerRecord(t *testing.T) {
	live := buffer.Live()
	events := make([]stream.Event, 2)
	for _, n := range []int{60, buffer.Plain} {
		block := noise(n)
		b := newBench(t, block)
		b.seal(events[:1])
		b.tun.records = 0
		if a := testing.AllocsPerRun(500, func() { b.seal(events[:1]) }); a != 0 && !raceEnabled {
			t.Errorf("sealing %d bytes: %v allocations", n, a)
		}
		if b.tun.records != 501 {
			t.Errorf("%d records came out", b.tun.records)
		}
		b.conn.block = nil
		for _, cut := range []bool{false, true} {
			s := newSealer(t)
			counter := b.f.down.counter
			before := b.conn.taken
			round := func() {
				b.open(events, s.record(counter, block), cut)
				counter++
			}
			round()
			if a := testing.AllocsPerRun(500, round); a != 0 && !raceEnabled {
				t.Errorf("opening %d bytes, cut %v: %v allocations", n, cut, a)
			}
			if b.conn.taken-before != 502*n {
				t.Errorf("%d bytes came out", b.conn.taken-before)
			}
		}
	}
	if now := buffer.Live(); now != live {
		t.Errorf("%d bytes of slabs are not released", now-live)
	}
}

// A record that lies in one piece is not copied before it is opened; a block
// that was read is sealed where it lies.
func TestNoCopy(t *testing.T) {
	var l nodes
	var q queue
	record := newSealer(t).record(0, noise(9000))
	q.push(&l, record.Share(), nil)
	q.push(&l, record, nil)
	for range 2 {
		s, slab := q.take(&l, record.Len())
		if slab != nil || &s.P[0] != &record.P[0] {
			t.Error("a record in one piece was copied")
		}
		s.Release()
	}
	if q.bytes != 0 || q.head != nil || q.tail != nil {
		t.Errorf("the queue is not empty: %+v", q)
	}
}

func TestFlowIsSmall(t *testing.T) {
	const bound = 512
	size := unsafe.Sizeof(flow{})
	t.Logf("flow %d bytes, task %d, session %d, event %d, command %d", size, unsafe.Sizeof(task{}),
		unsafe.Sizeof(session{}), unsafe.Sizeof(stream.Event{}), unsafe.Sizeof(stream.Command{}))
	if size > bound {
		t.Errorf("a flow has %d bytes, more than %d", size, bound)
	}
	const flows = 20000
	b := newBench(t, nil)
	conn := &well{}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before, live := heap(), buffer.Live()
	for range flows {
		b.w.Accept(conn, serverAt, clientAt, b.tun)
		b.turn()
	}
	each := (heap() - before) / flows
	t.Logf("%d bytes of heap per flow at rest", each)
	if each > 1024 {
		t.Errorf("a flow at rest holds %d bytes of heap", each)
	}
	if buffer.Live() != live {
		t.Error("flows at rest hold slabs")
	}
	runtime.KeepAlive(b)
}

// With a server that reads nothing, a flow holds one opened block and what its
// credit allows; at rest it holds nothing.
func TestBuffersAreBounded(t *testing.T) {
	for _, window := range []int{1, 4} {
		synctest.Test(t, func(t *testing.T) {
			const flows, credit = 10, 64 << 10
			r := newRig(t, setup{slow: window, options: func(o *Options) { o.Window = window },
				loop: func(l *loop) { l.window = credit; l.piece = 8 << 10 }})
			r.mu.Lock()
			r.servers = func(_, _ netip.AddrPort) (*duct, error) { return newDuct(1, 5000, nil), nil }
			r.mu.Unlock()
			var clients, servers []*duct
			for i := range flows {
				c, s := r.pair()
				clients, servers = append(clients, c), append(servers, s)
				go func() { _ = c.send(pace{r: rand.New(rand.NewPCG(1, 1)), chunk: 9000}, noise(300<<10)) }()
				if i == 0 {
					synctest.Wait()
					if n := buffer.Live() - r.live; n > credit*2+int64(window)*buffer.Large {
						t.Errorf("one flow holds %d bytes", n)
					}
				}
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			// Each piece is in a slab that is at most a quarter filled in this test.
			most := int64(flows) * (credit*4 + int64(window)*buffer.Large)
			if held := buffer.Live() - r.live; held > most || held < flows*credit/2 {
				t.Errorf("stuck flows hold %d bytes, bound %d", held, most)
			}
			for i, w := range r.workers {
				for _, s := range w.sessions {
					for _, f := range s.flows {
						if f.up.m.held > uint8(window) || f.down.m.held > uint8(window) || f.down.rx.bytes > credit {
							t.Errorf("worker %d: %+v", i, f.down.m)
						}
					}
				}
			}
			for _, s := range servers {
				s.mu.Lock()
				s.outMax = 1 << 20
				s.raise(party.Writable)
				s.mu.Unlock()
			}
			for i, s := range servers {
				s.wait(func() bool { return len(s.out) == 300<<10 })
				clients[i].wait(func() bool { return len(clients[i].in) == 0 })
			}
			synctest.Wait()
			if held := buffer.Live() - r.live; held != 0 {
				t.Errorf("flows at rest hold %d bytes", held)
			}
			if window == 1 {
				if c := r.workers[0].o.Card.(*slowCard); c.refusals == 0 {
					t.Error("the card was never full: nothing was tested")
				}
			}
			r.stop()
		})
	}
}

// A worker whose flows cannot move does nothing: no reads, no wake-ups.
func TestNoSpin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, setup{loop: func(l *loop) { l.window = 30000 }})
		client := newDuct(64<<10, 1000, nil)
		r.mu.Lock()
		r.servers = func(_, _ netip.AddrPort) (*duct, error) { return newDuct(1, 100, nil), nil }
		r.mu.Unlock()
		r.client(client)
		<-r.dials
		go func() { _ = client.write(noise(500 << 10)) }()
		synctest.Wait()
		before := client.reads
		time.Sleep(time.Hour)
		synctest.Wait()
		if client.reads != before || before > 50 {
			t.Errorf("%d reads of a flow without credit, %d while it was stuck", client.reads, client.reads-before)
		}
		r.stop()
	})
}

func BenchmarkRelay(b *testing.B) {
	for _, n := range []int{64, 1 << 10, 4 << 10, buffer.Plain} {
		block := noise(n)
		b.Run(fmt.Sprintf("seal/%d", n), func(b *testing.B) {
			w := newBench(b, block)
			events := make([]stream.Event, 2)
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				w.seal(events[:1])
			}
		})
		// The record is made outside; opening is this less BenchmarkCard/seal.
		for _, cut := range []bool{false, true} {
			b.Run(fmt.Sprintf("make+open/%d/cut=%v", n, cut), func(b *testing.B) {
				w, s := newBench(b, nil), newSealer(b)
				events := make([]stream.Event, 2)
				counter := uint32(0)
				b.SetBytes(int64(n))
				b.ReportAllocs()
				for b.Loop() {
					w.open(events, s.record(counter, block), cut)
					counter++
				}
			})
		}
	}
}

// What a wake-up costs beside the card: 64 flows move one small block each.
func BenchmarkWakeUp(b *testing.B) {
	const flows = 64
	w := newBench(b, noise(64))
	for range flows - 1 {
		w.w.Accept(w.conn, serverAt, clientAt, w.tun)
	}
	w.turn()
	events := make([]stream.Event, flows)
	b.ReportAllocs()
	for b.Loop() {
		for i := range events {
			f := w.w.find(w.tun, stream.ID(i+1))
			events[i] = stream.Event{Kind: stream.EventCredit, Flow: f.id, Limit: f.up.sent + 4096, From: w.tun}
			f.note(party.Readable)
		}
		w.w.Deliver(events)
		w.turn()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/flows, "ns/record")
}
