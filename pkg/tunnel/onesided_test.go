package tunnel

import (
	"errors"
	"testing"
	"time"

	"hawser/pkg/wire"
	"hawser/scheduler"
)

// TestOneSided: a connection ends whose peer speaks all along and has answered nothing for
// long, on whichever strand; not one that is slow, or whose peer has only begun to speak
// again.
func TestOneSided(t *testing.T) {
	const s = time.Second
	for _, c := range []struct {
		name                          string
		speech, spoke, sent, answered time.Duration // ago
		ends                          bool
	}{
		{"nothing answered", 60 * s, s, 16 * s, 20 * s, true},
		{"nothing ever answered", 60 * s, s, 16 * s, 1e9 * s, true},
		{"a slow line", 60 * s, s, 50 * s, 14 * s, false},
		{"sent lately", 60 * s, s, 14 * s, 50 * s, false},
		{"back after an outage", 10 * s, s, 50 * s, 50 * s, false},
		{"silent", 60 * s, 4 * s, 50 * s, 50 * s, false},
	} {
		for strand := range 2 {
			ses := newBareSim(1, scheduler.Kinds{}).cloud.s
			ses.now = ses.now.Add(1000 * time.Hour)
			co := newConn(ses.findLink(0), twoStrands{})
			co.link.conn = co
			st := co.strands[strand]
			st.commit(st.batch(), wire.AppendPing(nil), noSeg, entry{at: ses.now.Add(-c.sent)})
			st.answered = ses.now.Add(-c.answered)
			for at := -c.speech; at <= -c.spoke; at += s {
				co.speaks(ses.now.Add(at))
			}
			if ses.stepStuck(co); co.closed != c.ends || c.ends && !errors.Is(co.link.lastErr, ErrOneSided) {
				t.Errorf("%s, strand %d: ended: %v, %v", c.name, strand, co.closed, co.link.lastErr)
			}
		}
	}
}

// TestOneSidedSlow: a connection is not taken for one-sided while its transport's largest
// packets arrive: it is slow, and what was lost first is still to come.
func TestOneSidedSlow(t *testing.T) {
	for _, whole := range []uint64{0, 1} {
		ses := newBareSim(1, scheduler.Kinds{}).cloud.s
		ses.now = ses.now.Add(1000 * time.Hour)
		carrier := &wholeCarrier{}
		co := newConn(ses.findLink(0), carrier)
		co.link.conn = co
		for _, st := range co.strands {
			st.commit(st.batch(), wire.AppendPing(nil), noSeg, entry{at: ses.now})
		}
		for range 30 {
			ses.now = ses.now.Add(time.Second)
			carrier.sense.Whole += whole
			carrier.sense.Progress++ // small ones do all along
			co.speaks(ses.now)
			co.look(ses.now)
			ses.stepStuck(co)
		}
		if co.closed == (whole > 0) {
			t.Errorf("%d large packets a second arrive: ended: %v", whole, co.closed)
		}
	}
}

// wholeCarrier counts the largest packets that have arrived.
type wholeCarrier struct {
	twoStrands
	sense scheduler.Sense
}

func (c *wholeCarrier) Sense() scheduler.Sense {
	c.sense.Known = true
	return c.sense
}
