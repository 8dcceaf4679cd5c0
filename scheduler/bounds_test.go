package scheduler

import (
	"testing"
	"time"
)

// TestBudgetsOfCopies: what copies may take is a share of what was carried, and of what
// nobody used a bounded part is saved up: after an hour of clean bulk a fault may not
// have a hundred megabytes sent twice.
func TestBudgetsOfCopies(t *testing.T) {
	links := []Link{up(20*ms, 50, 30_000, 1<<30), up(40*ms, 50, 0, 1<<30)}
	copies := func(o *Overdue) (n int) {
		for {
			if _, ok := o.Copy(links, 0, 1000, time.Second); !ok {
				return n
			}
			o.Spend(1000)
			n += 1000
		}
	}
	urgent := func(o *Overdue) (n int) {
		for {
			if _, ok := o.Urgent(links, 0, 1<<20, 1000, true); !ok {
				return n
			}
			n += 1000
		}
	}
	near := func(what string, got, want int) {
		t.Helper()
		if got > want+2000 || got < want-2000 { // what is left of a chunk counts later
			t.Errorf("%s: %d bytes, want %d", what, got, want)
		}
	}
	o := NewOverdue()
	near("copies at the start", copies(&o), budgetStart)
	near("urgent ones", urgent(&o), urgentDepth)
	o.Delivered(1 << 20)
	near("copies after 1 MB", copies(&o), 31_457)
	near("urgent ones", urgent(&o), 10_485)
	o.Received(4 << 20)
	near("urgent ones after 4 MB received", urgent(&o), 10_485)
	near("copies", copies(&o), 0)
	for range 1000 {
		o.Delivered(1 << 20)
		o.Received(1 << 20)
	}
	near("copies after a gigabyte", copies(&o), budgetDepth)
	near("urgent ones", urgent(&o), urgentDepth)
	for range 1000 {
		o.Received(1 << 20)
	}
	near("urgent ones after a gigabyte received", urgent(&o), urgentDepth)
}

// TestBucketKeepsItsDebt: other rates neither forgive what was taken nor save up more.
func TestBucketKeepsItsDebt(t *testing.T) {
	now := time.Unix(1000, 0)
	b := newBucket(1e6, now)
	b.take(200_000)
	for i := range 10 { // to and fro
		b.setRate(1e6+float64(i%2)*1e5, now)
	}
	if !b.empty() || b.tokens > bucketFloor+50_000-200_000 {
		t.Errorf("%.0f bytes may be sent after 200,000", b.tokens)
	}
	b.setRate(0, now)
	if b.empty() {
		t.Error("without a rate the bucket holds somebody up")
	}
	b.setRate(1e6, now)
	b.fill(now.Add(time.Hour))
	if b.tokens != b.depth || b.depth > 60_000 {
		t.Errorf("%.0f bytes are saved up in an hour", b.tokens)
	}
}

// TestForecastBoundsAll: a forecast bounds what a link may get once it is busy, too, and says
// so, and a stale one neither.
func TestForecastBoundsAll(t *testing.T) {
	now := time.Unix(1000, 0)
	for _, c := range []struct {
		h     Hint
		swift float64
		bound bool
	}{{Hint{Rate: 1e6, Until: now.Add(1)}, 0, true}, {Hint{Rate: 1e6, Until: now}, 9e6, false}, {Hint{Rate: 1e9, Until: now.Add(1)}, 9e6, false}} {
		l := up(20*ms, 50, 0, 1<<20)
		l.Swift = 9e6
		if c.h.Apply(&l, now); l.Swift != c.swift || l.Bounded != c.bound {
			t.Errorf("%+v: swift %.0f, bounded %v", c.h, l.Swift, l.Bounded)
		}
	}
}

// TestProbingUntilHeard: a link that is only probed stays so while nothing comes, also
// where what it waits for becomes less than what makes one so: suspect it had copies of
// all that it holds.
func TestProbingUntilHeard(t *testing.T) {
	p := newPatient(t, 20*ms)
	p.connect()
	p.send()
	p.pass(1200 * ms)
	p.want(Probing)
	p.ev.Oldest = p.now.Add(-300 * ms) // what was older has been given to others
	p.ev.Heard = p.ev.Oldest.Add(-time.Second)
	p.step()
	p.want(Probing)
	p.hear()
	p.want(Up)
}

// TestShareOfWhoRests: who has nothing in line, or is held at its limit, would have its part.
func TestShareOfWhoRests(t *testing.T) {
	l := newLineup(t, NewDRR[int](0))
	a := l.join(1, plainTerms(1))
	heavy := plainTerms(2)
	heavy.Weight = 3
	l.join(2, heavy)
	l.o.Deactivate(a)
	if s := l.o.Share(a); s != 0.25 {
		t.Errorf("at rest beside weight 3: %v", s)
	}
	held := plainTerms(3)
	held.Limit = 1e6
	c := l.join(3, held)
	for !l.o.(*DRR[int]).users[held.User].held {
		l.o.Charge(c, Quantum)
	}
	if s := l.o.Share(c); s != 0.25 {
		t.Errorf("held at its limit beside weight 3: %v", s)
	}
}
