package scheduler

import (
	"math"
	"time"
)

// Distrust is what a link has to answer for: what came by it and was not what the peer had
// sealed. Somebody on its way, or faulty hardware there, changes what passes, and will do so
// again; each time costs a flow a round trip and all that was under way behind.
//
// What came by several links counts for each in part. Half of it is forgotten in a while.
// Of a nil Distrust nothing is known.
type Distrust struct {
	score float64 // at that time
	at    time.Time
}

const (
	forgottenIn = 2 * time.Minute // half of it
	shunFirst   = time.Second     // for which a link gets nothing that others take; twice as long for each time more
	shunMost    = time.Minute
)

// Blame adds one time, or a share of it.
func (d *Distrust) Blame(now time.Time, share float64) { d.score, d.at = d.Score(now)+share, now }

// Score is how many times there were, as far as they are not forgotten.
func (d *Distrust) Score(now time.Time) float64 {
	if d == nil || d.score == 0 {
		return 0
	}
	return d.score * math.Exp2(-now.Sub(d.at).Seconds()/forgottenIn.Seconds())
}

// Bringer is a link that has brought so many bytes of what was forged.
type Bringer struct {
	*Distrust
	Bytes int
}

// Share holds links responsible for what one of them has done, by how many bytes it would
// have had for that and by what is known of it. It returns the number of the one that has
// most to answer for then.
func Share(now time.Time, among []Bringer) (worst int) {
	weight, sum := make([]float64, len(among)), 0.0
	for i, s := range among {
		weight[i] = float64(s.Bytes) * math.Pow(s.Score(now)+unknownScore, 2)
		sum += weight[i]
	}
	for i, s := range among {
		s.Blame(now, weight[i]/sum)
		if s.score > among[worst].score {
			worst = i
		}
	}
	return worst
}

// unknownScore is what a link may have to answer for of which nothing is known.
const unknownScore = 0.5

// Until is when the link may be used as any other again. One that shares the blame for a
// single time may be so at once.
func (d *Distrust) Until() time.Time {
	switch {
	case d == nil:
		return time.Time{}
	case d.score < 1:
		return d.at
	}
	return d.at.Add(time.Duration(min(shunFirst.Seconds()*math.Exp2(d.score-1), shunMost.Seconds()) * float64(time.Second)))
}

// Shun lets links about which Distrust says so get nothing new, but for those that are no
// worse than any that would be left.
func Shun(links []Link) {
	least := math.Inf(1)
	for _, l := range links {
		if l.State == Up && !l.Leaving {
			least = min(least, l.Blamed)
		}
	}
	for i := range links {
		l := &links[i]
		l.Leaving = l.Leaving || l.Shunned && l.Blamed > 2*least
	}
}

// trust takes out all links but the one that has least to answer for, of which the nearest:
// what comes by a single one tells whether that is to be trusted, what comes by two does not.
func trust(links []Link) {
	best := -1
	for i, l := range links {
		if l.State != Up {
			continue
		}
		if best < 0 || l.Blamed < links[best].Blamed || l.Blamed == links[best].Blamed && l.MinRTT < links[best].MinRTT {
			best = i
		}
	}
	for i := range links {
		if i != best {
			links[i].State = Down
		}
	}
}
