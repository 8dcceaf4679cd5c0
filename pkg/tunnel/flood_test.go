package tunnel

import (
	"bytes"
	"log/slog"
	"runtime"
	"syscall"
	"testing"
	"time"

	"hawser/pkg/buffer"
	"hawser/pkg/stream"
	"hawser/pkg/wire"
)

// floodSink counts what a session tells its workers.
type floodSink struct{ events int }

func (x *floodSink) Place(stream.ID) int { return 0 }
func (x *floodSink) Settle(int)          {}
func (x *floodSink) Deliver(_ int, batch []stream.Event) {
	x.events += len(batch)
	for _, e := range batch {
		e.Seg.Release()
	}
}

// floodFlows is how many flows a flooded session has, each with floodKept bytes that the peer
// has not consumed, of which half have left.
const (
	floodFlows = 200
	floodKept  = 16 << 10
	floodLarge = 4 << 20 // the same of the first one
)

// flooded is a session with flows and a peer that says the same again and again.
type flooded struct {
	s    *Session
	c    *conn
	sink floodSink
	log  bytes.Buffer
}

func newFlooded(edge bool) *flooded {
	x := &flooded{}
	x.s = New(Config{Peer: "peer", Edge: edge, Secret: make([]byte, 32), Sink: &x.sink, Budget: NewBudget(64 << 20), Log: slog.New(slog.NewTextHandler(&x.log, nil))})
	x.s.now = time.Now()
	x.s.lastLink = x.s.now
	x.c = newConn(&link{}, simCarrier{})
	x.s.attach(x.c)
	if !edge {
		x.s.promote(x.c)
	}
	for i := range floodFlows {
		kept := floodKept
		if i == 0 {
			kept = floodLarge
		}
		id := stream.ID(i + 1)
		if edge {
			x.s.NewFlow(0)
			x.s.drain(x.s.box.collect(mail{}))
			x.s.obey(&stream.Command{Kind: stream.CmdOpen, Flow: id, Dst: server, Src: client})
		} else if err := x.s.peerOpens(&wire.Frame{Kind: wire.KindOpen, Flow: uint64(id), Dst: server, Src: client, Terms: wire.DefaultTerms()}); err != nil {
			panic(err)
		}
		for range kept / 512 {
			x.s.obey(&stream.Command{Kind: stream.CmdSend, Flow: id, Seg: buffer.Copy(make([]byte, 512))})
		}
		q := &x.s.flows[id].send
		for q.left() > kept/2 {
			q.take(q.first, 512)
		}
	}
	x.s.deliver()
	x.s.sendCtrl()
	x.take()
	x.sink.events = 0
	x.log.Reset()
	return x
}

// take is the transport's: it takes what is to be sent. It returns the bytes.
func (x *flooded) take() (n int) {
	for _, st := range x.c.strands {
		for st.flush(); len(st.out) > 0; {
			b := <-st.out
			for _, r := range b.recs {
				n += len(r.Block) + r.Body.Len()
				r.Body.Release()
			}
			st.returned(b)
		}
	}
	return n
}

// floods are what a peer can say without end, as bytes of frames.
var floods = []struct {
	name  string
	frame func(i uint64) []byte
}{
	{"ACCEPTED", func(i uint64) []byte { return wire.AppendAccepted(nil, 1+i%floodFlows, 1000) }},
	{"ACCEPTED of no flow", func(i uint64) []byte { return wire.AppendAccepted(nil, 1<<40+i, 1000) }},
	{"CREDIT that rises by a byte", func(i uint64) []byte { return wire.AppendCredit(nil, 1+i%floodFlows, 0, 1<<15+i/floodFlows) }},
	{"CREDIT without end", func(i uint64) []byte { return wire.AppendCredit(nil, 1+i%floodFlows, 0, 1<<61+i) }},
	{"CREDIT of new flows", func(i uint64) []byte { return wire.AppendCredit(nil, 0, i, i%40_000) }},
	{"RESEND of all", func(i uint64) []byte { return wire.AppendResend(nil, 1+i%floodFlows, 0) }},
	{"RESEND of more and more", func(i uint64) []byte {
		return wire.AppendResend(nil, 1+i%floodFlows, uint64(floodKept/2-1)-i/floodFlows%(floodKept/2))
	}},
	{"RESEND of nothing", func(i uint64) []byte { return wire.AppendResend(nil, 1, floodLarge/2) }},
	{"RESEND of what was not sent", func(i uint64) []byte { return wire.AppendResend(nil, 1, 1<<40) }},
	{"PING", func(uint64) []byte { return wire.AppendPing(nil) }},
	{"ACK of nothing", func(uint64) []byte { return wire.AppendAck(nil, 0, 0) }},
}

// flood has the peer send about so many bytes of frames, and the session and its transport do
// what is due after each batch.
func (x *flooded) flood(t *testing.T, frame func(uint64) []byte, bytes int) (sent int) {
	st := x.c.bulk
	for i := uint64(0); bytes > 0; {
		b := <-st.rx
		b.at, b.recs, b.frames = x.s.now, b.recs[:0], b.frames[:0]
		for range 8 {
			var block []byte
			for f := frame(i); len(block)+len(f) <= 1200; f = frame(i) {
				block = append(block, f...)
				i++
			}
			bytes -= len(block)
			if err := b.decode(block, noSeg); err != nil {
				t.Fatal(err)
			}
		}
		x.s.receive(b)
		x.s.turn()
		sent += x.take()
		x.s.now = x.s.now.Add(100 * time.Microsecond)
	}
	return sent
}

// spent is the processor time of the process.
func spent(t *testing.T) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestFloods: what a peer says again and again costs little of a session, whichever of the ends
// it is: neither much memory, nor answers, nor lines of log, nor, for each byte, much processor time.
func TestFloods(t *testing.T) {
	const flood, cpu, heap, lines = 256 << 10, time.Second, 2 << 20, 2
	before := buffer.Live()
	for _, side := range []string{"edge", "cloud"} {
		for _, c := range floods {
			x := newFlooded(side == "edge")
			var at, then runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&at)
			begin := spent(t)
			x.flood(t, c.frame, flood)
			took := spent(t) - begin
			runtime.GC()
			runtime.ReadMemStats(&then)
			grown, said := int(then.HeapAlloc)-int(at.HeapAlloc), bytes.Count(x.log.Bytes(), []byte("\n"))
			if took > cpu && !raceDetector {
				t.Errorf("%s, %s: %v of a processor for %d bytes", side, c.name, took, flood)
			}
			if grown > heap || said > lines || x.s.ctrl.wait()+x.s.ctrl.asked > flood {
				t.Errorf("%s, %s: the heap has grown by %d, %d lines of log, %d bytes of answers", side, c.name, grown, said, x.s.ctrl.wait()+x.s.ctrl.asked)
			}
			x.end()
		}
	}
	if live := buffer.Live() - before; live != 0 {
		t.Errorf("%d bytes of slabs are left", live)
	}
}

func (x *flooded) end() {
	x.s.stopped = errAny
	x.s.shutdown()
	x.c.discard()
}

// TestAsksAnew: a peer may ask for what was not sent at no time, and for what was as often as one
// does whose links change records, all along a flow; beyond that the flow is reset.
func TestAsksAnew(t *testing.T) {
	x := newFlooded(true)
	defer x.end()
	f := x.s.flows[1]
	ask := func(from uint64) error {
		return x.s.flowFrame(&wire.Frame{Kind: wire.KindResend, Flow: 1, Offset: from})
	}
	again := func(from uint64) {
		t.Helper()
		if err := ask(from); err != nil || x.s.flows[1] == nil {
			t.Fatalf("asked for %d: %v, reset: %v", from, err, x.s.flows[1] == nil)
		}
		for p := f.send.ready(); p != nil && p.state != unsent; p = f.send.ready() {
			f.send.take(p, 512)
		}
	}
	if ask(f.send.next+1) == nil {
		t.Error("the peer may ask for what was not sent")
	}
	for range 20 {
		for range asksMost {
			again(f.send.base)
		}
		for range asksPer / 512 {
			x.s.obey(&stream.Command{Kind: stream.CmdSend, Flow: 1, Seg: buffer.Copy(make([]byte, 512))})
			f.send.take(f.send.first, 512)
		}
		if err := x.s.flowFrame(&wire.Frame{Kind: wire.KindCredit, Flow: 1, Offset: f.send.base + asksPer, Limit: 1 << 40}); err != nil {
			t.Fatal(err)
		}
	}
	for range asksMost {
		again(f.send.next - 512)
	}
	if err := ask(f.send.base); err != nil || x.s.flows[1] != nil || x.s.count.FlowsReset != 1 {
		t.Errorf("asked once more: %v, reset: %v", err, x.s.flows[1] == nil)
	}
}

// TestPings: many questions in a record are one.
func TestPings(t *testing.T) {
	var b rxBatch
	ping := wire.AppendPing(nil)
	block := append(bytes.Repeat(ping, 1000), wire.AppendAck(nil, 7, 0)...)
	if err := b.decode(append(block, ping...), noSeg); err != nil || len(b.frames) != 3 || b.frames[1].Seq != 7 {
		t.Errorf("%d frames, %v", len(b.frames), err)
	}
}
