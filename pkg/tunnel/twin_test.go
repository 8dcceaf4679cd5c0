package tunnel

import (
	"slices"
	"testing"
	"time"

	"hawser/pkg/buffer"
	"hawser/pkg/wire"
	"hawser/scheduler"
)

// threeStrands is a carrier with an urgent strand and its twin; nobody calls the rest.
type threeStrands struct{ simCarrier }

func (threeStrands) Urgent() Strand { return otherStrand{} }
func (threeStrands) Twin() Strand   { return otherStrand{} }

// TestTwinTakesCopy: under load a small message goes by the urgent strand, and a moment
// later by its twin, unless it has been answered; where the twin is late the bulk strand
// has the copy, and at rest there is none.
func TestTwinTakesCopy(t *testing.T) {
	for _, c := range []struct {
		name       string
		busy       bool
		late, acks bool
		bulk, twin int // records in the end
	}{{"under load", true, false, false, 0, 1}, {"answered", true, false, true, 0, 0}, {"late twin", true, true, false, 1, 0}, {"idle", false, false, false, 0, 0}} {
		t.Run(c.name, func(t *testing.T) {
			before := buffer.Live()
			s, cn := oneLink(threeStrands{}, c.busy)
			records := 0
			if c.late {
				cn.twin.commit(cn.twin.batch(), wire.AppendPing(nil), noSeg, entry{at: s.now.Add(-time.Second)})
				records++
			}
			f := s.makeFlow(1, 0)
			f.node.Flow = f
			s.order.Join(&f.node, scheduler.Terms{Class: scheduler.Normal, Weight: 1}, s.now)
			f.send.add(f, buffer.Copy(make([]byte, 1200)))
			s.order.Activate(&f.node, s.now)
			s.notePressing(f)
			s.pump()
			if cn.urgent.log.n != 1 || cn.twin.log.n != records {
				t.Errorf("%d records by the urgent strand, %d by its twin, want 1 and %d", cn.urgent.log.n, cn.twin.log.n, records)
			}
			if due := cn.twinDue(); due.IsZero() == (c.twin > 0) && !c.acks {
				t.Errorf("the copy is due at %v", due)
			}
			if c.acks {
				if err := s.frame(cn.bulk, &wire.Frame{Kind: wire.KindUrgent, Seq: 1}, noSeg); err != nil {
					t.Error(err)
				}
			}
			s.now = s.now.Add(twinDelay)
			for range 2 {
				s.pump()
			}
			if cn.bulk.log.n != c.bulk || cn.twin.log.n != records+c.twin {
				t.Errorf("%d records by the bulk strand, %d by the twin, want %d and %d", cn.bulk.log.n, cn.twin.log.n, c.bulk, records+c.twin)
			}
			if err := s.frame(cn.bulk, &wire.Frame{Kind: wire.KindTwin, Seq: uint64(cn.twin.log.n)}, noSeg); err != nil || cn.twin.log.n != 0 {
				t.Errorf("the twin's acknowledgement: %v, %d records are left", err, cn.twin.log.n)
			}
			f.drop()
			discardSent(t, cn, before)
		})
	}
}

// TestLostMessages: where one packet in a hundred is lost a message beside bulk waits
// neither for its own copy on the slow line nor for a time-out.
func TestLostMessages(t *testing.T) {
	if raceDetector {
		t.Skip("runs on one goroutine, and takes long with the race detector: make unit runs it without")
	}
	lines := fixedLines()
	g := lines[slices.IndexFunc(lines, func(g terrain) bool { return g.name == "loss" })]
	var o bulkOutcome
	for seed := range uint64(3) {
		g.bulk(true, seed+1, &o)
	}
	t.Logf("%.4f of the capacity, message p50 %.0f p99 %.0f ms, the longest but one %.0f in the mean", mean(o.used), quantile(o.message, 0.5), quantile(o.message, 0.99), mean(o.late))
	if o.wrong > 0 {
		t.Errorf("%d pieces with wrong bytes", o.wrong)
	}
	if p99 := quantile(o.message, 0.99); p99 > 55 || mean(o.late) > 50 {
		t.Errorf("message p99 %.0f ms, the longest but one %.0f in the mean, 55 and 50 wanted", p99, mean(o.late))
	}
}
