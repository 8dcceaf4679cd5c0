package tunnel

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hawser/pkg/buffer"
	"hawser/pkg/card"
	"hawser/pkg/simlink"
	"hawser/pkg/stream"
)

var (
	server = netip.MustParseAddrPort("198.51.100.7:80")
	client = netip.MustParseAddrPort("10.1.1.9:4711")
)

// world is two sessions with simulated links, in virtual time.
type world struct {
	version     uint16 // of the protocol; set before connect
	t           *testing.T
	edge, cloud *side
	pairs       []*simlink.Pair
	cancel      context.CancelFunc
	wg          sync.WaitGroup
}

// side is one session and the worker that uses it.
type side struct {
	w       *world
	s       *Session
	stop    context.CancelFunc
	err     error
	redials atomic.Int32

	mu     sync.Mutex
	flows  map[stream.ID]*user
	accept func(*user) // cloud: what to do with a new flow
	all    map[stream.ID]*user
	mutes  []muted
}

// muted is one call of Config.Mute.
type muted struct {
	mute bool
	at   time.Time
}

func (sd *side) told() []muted {
	sd.mu.Lock()
	defer sd.mu.Unlock()
	return slices.Clone(sd.mutes)
}

// user is a flow as a test's worker sees it.
type user struct {
	side   *side
	id     stream.ID
	limit  uint64
	sent   uint64
	left   int // bytes still to send
	fin    bool
	finOut bool

	got      uint64
	lastGot  time.Time
	gap      time.Duration // longest time between two receipts
	gotFin   bool
	accepted bool
	reset    stream.Code
	over     bool   // forgotten
	stuck    bool   // consumes nothing
	appetite uint64 // consumes no more than this and one segment; 0: all
	done     chan struct{}
	segs     []buffer.Seg
	forge    func(off uint64) bool // says that the byte at off cannot be authenticated
	rejected bool                  // waits for the rewind
	records  bool                  // sends sealed records, or what looks like them, and looks into those that come
	tries    int                   // times that the one that is next was refused
}

// patternLen is prime, so that no cut of a stream looks like another.
const patternLen = 65521

// pattern is what every stream repeats, with room to read any 64 KiB at once.
var pattern = func() []byte {
	p := make([]byte, 2*patternLen)
	for i := range p {
		p[i] = byte(i%patternLen*7 + i%patternLen>>8)
	}
	return p
}()

// patternAt returns the n bytes at an offset of every stream.
func patternAt(off uint64, n int) []byte { return pattern[off%patternLen:][:n] }

func newWorld(t *testing.T, specs ...simlink.Spec) *world {
	return newNeighbour(t, NewBudget(64<<20), specs...)
}

// newNeighbour is a world whose cloud's budget is shared with others.
func newNeighbour(t *testing.T, shared *Budget, specs ...simlink.Spec) *world {
	w := &world{t: t}
	ctx, cancel := context.WithCancel(t.Context())
	w.cancel = cancel
	w.edge, w.cloud = w.newSide(true, NewBudget(64<<20)), w.newSide(false, shared)
	for _, s := range []*side{w.edge, w.cloud} {
		ctx, stop := context.WithCancel(ctx)
		s.stop = stop
		w.wg.Go(func() { s.err = s.s.Run(ctx) })
	}
	for i, spec := range specs {
		w.pairs = append(w.pairs, nil)
		w.connect(i, spec)
	}
	synctest.Wait()
	return w
}

func (w *world) newSide(edge bool, b *Budget) *side {
	sd := &side{w: w, flows: map[stream.ID]*user{}, all: map[stream.ID]*user{}}
	sd.s = New(Config{
		Peer: "peer", Edge: edge, Secret: make([]byte, 32), Sink: sd,
		Budget: b, Log: slog.New(slog.DiscardHandler),
		Silent: func(_ int, silent bool) {
			if silent {
				sd.redials.Add(1)
			}
		},
		Mute: func(_ int, mute bool) {
			sd.mu.Lock()
			defer sd.mu.Unlock()
			sd.mutes = append(sd.mutes, muted{mute, time.Now()})
		},
	})
	return sd
}

// connect makes a new connection of link i.
func (w *world) connect(i int, spec simlink.Spec) {
	p := simlink.NewPair(spec)
	w.pairs[i] = p
	info := LinkInfo{ID: i, Name: string(rune('a' + i)), Transport: "sim", Version: w.version}
	w.wg.Go(func() { _ = w.edge.s.Serve(w.t.Context(), info, p.A) })
	w.wg.Go(func() { _ = w.cloud.s.Serve(w.t.Context(), info, p.B) })
}

// close stops both sides and checks that all memory was given back.
func (w *world) close() {
	w.cancel()
	w.wg.Wait()
	for _, sd := range []*side{w.edge, w.cloud} {
		if held := sd.s.cfg.Budget.Held(); held != 0 {
			w.t.Errorf("edge=%v: budget still holds %d bytes", sd.s.cfg.Edge, held)
		}
		b := sd.s.cfg.Budget
		if b.kept.Load() != 0 {
			w.t.Errorf("edge=%v: %d bytes stay kept", sd.s.cfg.Edge, b.kept.Load())
		}
		for _, u := range sd.flows {
			release(u.segs)
		}
	}
}

func release(segs []buffer.Seg) {
	for _, s := range segs {
		s.Release()
	}
}

// Place implements stream.Sink.
func (sd *side) Place(stream.ID) int { return 0 }
func (sd *side) Settle(int)          {}

// Deliver implements stream.Sink.
func (sd *side) Deliver(_ int, batch []stream.Event) {
	sd.mu.Lock()
	defer sd.mu.Unlock()
	var out []stream.Command
	for _, ev := range batch {
		out = append(out, sd.event(ev)...)
	}
	if len(out) > 0 {
		sd.s.Post(out)
	}
}

func (sd *side) event(ev stream.Event) []stream.Command {
	u := sd.flows[ev.Flow]
	if u == nil {
		if ev.Kind != stream.EventOpen {
			ev.Seg.Release()
			return nil
		}
		u = sd.newUser(ev.Flow)
		if ev.Dst != server || ev.Src.Port() != client.Port() {
			sd.w.t.Errorf("opened for %v from %v", ev.Dst, ev.Src)
		}
		if sd.accept != nil {
			sd.accept(u)
		}
	}
	return u.event(ev)
}

func (sd *side) newUser(id stream.ID) *user {
	u := &user{side: sd, id: id, done: make(chan struct{}), lastGot: time.Now()}
	sd.flows[id], sd.all[id] = u, u
	return u
}

func (u *user) event(ev stream.Event) []stream.Command {
	switch ev.Kind {
	case stream.EventAccepted:
		u.accepted = true
	case stream.EventCredit:
		u.limit = ev.Limit
	case stream.EventData:
		u.gap = max(u.gap, time.Since(u.lastGot))
		u.lastGot = time.Now()
		u.segs = append(u.segs, ev.Seg)
	case stream.EventFin:
		u.gotFin = true
	case stream.EventReset:
		u.reset = ev.Code
		u.end()
		return nil
	case stream.EventRewind:
		release(u.segs)
		u.segs, u.gotFin, u.rejected = nil, false, false
	}
	return u.work()
}

func (u *user) end() {
	release(u.segs)
	u.segs = nil
	u.over = true
	delete(u.side.flows, u.id)
	close(u.done)
}

// work consumes what came and sends what credit allows.
func (u *user) work() (out []stream.Command) {
	if u.records {
		if out = u.openRecords(); u.over {
			return out
		}
	}
	for len(u.segs) > 0 && !u.records && !u.stuck && !u.rejected && (u.appetite == 0 || u.got < u.appetite) {
		seg := u.segs[0]
		if u.forge != nil && u.forge(u.got) {
			u.rejected = true
			return append(out, stream.Command{Kind: stream.CmdReject, Flow: u.id})
		}
		if !bytes.Equal(seg.P, patternAt(u.got, seg.Len())) {
			u.side.w.t.Errorf("flow %d: wrong bytes at %d", u.id, u.got)
		}
		u.got += uint64(seg.Len())
		out = append(out, stream.Command{Kind: stream.CmdConsumed, Flow: u.id, Bytes: seg.Len()})
		seg.Release()
		u.segs = u.segs[1:]
	}
	for u.left > 0 && u.sent < u.limit {
		record := u.side.s.Record()
		if record == buffer.Plain {
			record = 16000
		}
		n := min(u.left, int(u.limit-u.sent), record)
		if u.records && n < min(u.left, record) {
			break // a record of some bytes is none
		}
		b := buffer.Get(n)
		copy(b.Bytes(), patternAt(u.sent, n))
		if u.records {
			binary.BigEndian.PutUint32(b.Bytes(), uint32(n-card.HeaderLen)<<16)
		}
		out = append(out, stream.Command{Kind: stream.CmdSend, Flow: u.id, Seg: b.Seg(0, n)})
		u.sent += uint64(n)
		u.left -= n
	}
	if u.left == 0 && u.fin && !u.finOut {
		u.finOut = true
		out = append(out, stream.Command{Kind: stream.CmdFin, Flow: u.id})
	}
	if u.finOut && u.gotFin && len(u.segs) == 0 {
		out = append(out, stream.Command{Kind: stream.CmdDone, Flow: u.id})
		u.end()
	}
	return out
}

// open starts a flow at the edge which sends n bytes and its end. prepare, if
// any, may change the user before its first event.
func (w *world) open(n int, prepare ...func(*user)) *user {
	return w.start(stream.Command{Kind: stream.CmdOpen, Dst: server, Src: client}, n, prepare)
}

// start opens a flow as c says. It posts without a lock: Post may deliver.
func (w *world) start(c stream.Command, n int, prepare []func(*user)) *user {
	c.Flow = w.edge.s.NewFlow(0)
	w.edge.mu.Lock()
	u := w.edge.newUser(c.Flow)
	for _, f := range prepare {
		f(u)
	}
	u.left, u.fin = n, true
	out := append([]stream.Command{c}, u.work()...)
	w.edge.mu.Unlock()
	w.edge.s.Post(out)
	return u
}

// serve makes the cloud answer every flow with n bytes.
func (w *world) serve(n int) {
	w.cloud.accept = func(u *user) {
		u.left, u.fin = n, true
		w.cloud.s.Post([]stream.Command{{Kind: stream.CmdAccepted, Flow: u.id}})
	}
}

// await waits for the flow's end at the edge and returns how long it took.
func (u *user) await(limit time.Duration) time.Duration {
	u.side.w.t.Helper()
	from := time.Now()
	select {
	case <-u.done:
	case <-time.After(limit):
		st, _ := u.side.s.Status()
		u.side.w.t.Fatalf("flow %d: not done after %v: got %d, sent %d; %+v", u.id, limit, u.got, u.sent, st)
	}
	return time.Since(from)
}

// gone waits until both sessions have forgotten all flows.
func (w *world) gone() {
	w.t.Helper()
	for range 100 {
		e, _ := w.edge.s.Status()
		c, _ := w.cloud.s.Status()
		if e.Flows == 0 && c.Flows == 0 {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	w.t.Error("flows were not forgotten")
}

// peerOf returns the cloud's end of a flow that was opened.
func (w *world) peerOf(u *user) *user {
	w.cloud.mu.Lock()
	defer w.cloud.mu.Unlock()
	return w.cloud.all[u.id]
}

// resetGap begins a new measurement of the longest gap; stall ends it.
func (u *user) resetGap() {
	u.side.mu.Lock()
	defer u.side.mu.Unlock()
	u.gap, u.lastGot = 0, time.Now()
}

// resetCode is how the flow was reset, if it was.
func (u *user) resetCode() stream.Code {
	u.side.mu.Lock()
	defer u.side.mu.Unlock()
	return u.reset
}

// total is how many bytes have come.
func (u *user) total() uint64 {
	u.side.mu.Lock()
	defer u.side.mu.Unlock()
	return u.got
}

func (u *user) stall() time.Duration {
	u.side.mu.Lock()
	defer u.side.mu.Unlock()
	return u.gap
}

var errAny = errors.New("any")

const mbit = 1e6 / 8
