package guard

import (
	"testing"
	"time"
)

// TestPace: how a server is asked that answers each client after a while, or so many
// a second if that is slower. Nobody waits for long on a line that is long but fast;
// where the wait is the server's, the crowd waits in the guard.
func TestPace(t *testing.T) {
	for _, c := range []struct {
		name      string
		after     time.Duration // an answer takes, at least
		limit     int           // answers per second, at most
		come      int           // clients per second
		most      int           // asked for at a time, never more
		perSecond int           // answers, in the last second of three, at least
	}{
		{name: "near", after: 500 * time.Microsecond, limit: 20_000, come: 5000, most: crowd, perSecond: 4900},
		{name: "far", after: 80 * time.Millisecond, limit: 20_000, come: 5000, most: 1000, perSecond: 4900},
		{name: "very far", after: 600 * time.Millisecond, limit: 20_000, come: 1000, most: 1400, perSecond: 900},
		{name: "near and slow", after: 500 * time.Microsecond, limit: 2000, come: 5000, most: crowd, perSecond: 1900},
		{name: "far and slow", after: 80 * time.Millisecond, limit: 2000, come: 5000, most: 450, perSecond: 1900},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newPaced(c.after, c.limit)
			for range 2000 { // it is known, and in use, before the crowd comes
				w.step(c.come / 50)
			}
			for range 3000 {
				w.step(c.come)
			}
			if w.most > c.most {
				t.Errorf("asked for %d at a time, want %d at most", w.most, c.most)
			}
			if n := w.answers(time.Second); n < c.perSecond {
				t.Errorf("%d answers in the last second, want %d", n, c.perSecond)
			}
		})
	}
}

// TestPaceAnew: the time of an answer is measured again, and not with a queue of
// one's own making: a long flood does not raise what it may have at a time.
func TestPaceAnew(t *testing.T) {
	w := newPaced(500*time.Microsecond, 3000)
	w.step(1000)
	for range 60_000 {
		w.step(5000)
	}
	if w.most > 2*crowd+5 { // a step's clients more
		t.Errorf("asked for %d at a time after a minute", w.most)
	}
	w.after = 80 * time.Millisecond // another uplink
	w.done = nil
	for range 15_000 {
		w.step(2500)
	}
	if n := w.answers(time.Second); n < 2400 {
		t.Errorf("%d answers a second when the line has become longer", n)
	}
}

// TestPaceOfAnswers: what has ended without an answer says nothing of how fast the server
// answers, so that a flood which gives up does not raise what it may have at a time.
func TestPaceOfAnswers(t *testing.T) {
	begin := time.Now()
	for vain, want := range map[int]float64{0: 10, 5000: 10} {
		var p pace
		p.end(true, begin)
		for i := range vain {
			p.end(false, begin.Add(time.Duration(i)*time.Second/5000))
		}
		for i := range 9 {
			p.end(true, begin.Add(time.Duration(i)*time.Millisecond))
		}
		if p.end(true, begin.Add(time.Second)); p.rate != want {
			t.Errorf("%v answers per second beside %d in vain, want %v", p.rate, vain, want)
		}
	}
}

// paced is a server that answers, in steps of a millisecond. Of those that are pending
// it knows only how many: who has come first is asked for first.
type paced struct {
	g     *Gate
	now   time.Time
	after time.Duration
	limit int

	come, room float64 // parts of a client and of an answer
	coming     int     // clients so far
	asked      []time.Time
	done       []time.Time // when it has answered
	next       int         // client to be answered next
	most       int
}

func newPaced(after time.Duration, limit int) *paced {
	return &paced{g: NewGate(Auto, Limits{PendingClient: 4096}), now: t0, after: after, limit: limit}
}

var pacedServer = Server{Port: 80}

// step is a millisecond in which perSecond / 1000 clients come.
func (w *paced) step(perSecond int) {
	w.now = w.now.Add(time.Millisecond)
	for w.come += float64(perSecond) / 1000; w.come >= 1; w.come-- {
		if w.g.Admit(addr(w.coming), pacedServer, w.now) == Admitted {
			w.coming++
			w.ask()
		}
	}
	w.room = min(w.room+float64(w.limit)/1000, 1+float64(w.limit)/1000)
	for len(w.asked) > 0 && w.room >= 1 && w.now.Sub(w.asked[0]) >= w.after {
		w.asked, w.room = w.asked[1:], w.room-1
		w.done = append(w.done, w.now)
		wait := w.g.Connected(addr(w.next), pacedServer, w.now)
		w.g.Closed(addr(w.next))
		w.next++
		for wait && w.ask() {
		}
	}
}

func (w *paced) ask() bool {
	r := w.g.servers[pacedServer]
	if r.asked >= r.pending || !w.g.Ask(pacedServer, w.now) {
		return false
	}
	w.asked = append(w.asked, w.now)
	w.most = max(w.most, len(w.asked))
	return true
}

// answers counts those of late.
func (w *paced) answers(of time.Duration) (n int) {
	for _, t := range w.done {
		if w.now.Sub(t) < of {
			n++
		}
	}
	return n
}
