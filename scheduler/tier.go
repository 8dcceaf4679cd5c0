package scheduler

import "time"

// Tier is what a link costs to use: higher ones only when lower ones do not do.
type Tier uint8

// Tiers of links.
const (
	Primary    Tier = iota // always
	Secondary              // when the primary links are full or too late
	Standby                // when all of those are down or too late
	LastResort             // when all others are down: it has spent its quota
	tierCount
)

// String returns the name that stands in the configuration.
func (t Tier) String() string {
	return nameOf(uint8(t), "primary", "secondary", "standby", "last-resort")
}

// Hint is what a user source says of a link; it holds until a time.
type Hint struct {
	Leaving bool    // nothing new is given to the link, it is about to die
	Rate    float64 // forecast of what it carries, bytes per second; 0: none
	Until   time.Time
}

// Apply changes what policies see of a link by a hint that still holds. The
// forecast bounds the prediction; it never raises it.
func (h Hint) Apply(l *Link, now time.Time) {
	if !now.Before(h.Until) {
		return
	}
	l.Leaving = h.Leaving
	if h.Rate > 0 && h.Rate < l.Rate {
		l.Rate, l.Swift, l.Bounded = h.Rate, 0, true
		l.Room = min(l.Room, max(int(h.Rate*l.MinRTT.Seconds()), 2*packet)-l.InFlight)
	}
}

// deadlines are how late a class may be before a dearer tier joins. Background
// waits for as long as there is any cheaper link (the idea of MP-DASH,
// CoNEXT'16).
var deadlines = [classCount]time.Duration{
	Latency: 100 * time.Millisecond, Privileged: 250 * time.Millisecond,
	Normal: time.Second, Background: time.Hour,
}

// Admit appends to out the links as a chunk may use them: those of a tier that
// must not join, and those that are about to leave, look as if they were down. A chunk
// that was refused has a single link. Indexes stay the same.
func Admit(out, links []Link, c Chunk) []Link {
	out = append(out, links...)
	leave(out)
	if c.Refused {
		trust(out)
		return out
	}
	cut := Primary
	for cut+1 < tierCount && joins(out, cut, c) {
		cut++
	}
	for i := range out {
		if out[i].Tier > cut {
			out[i].State = Down
		}
	}
	return out
}

// leave takes out the links that are about to die, unless no other is up.
func leave(links []Link) {
	stays := false
	for _, l := range links {
		stays = stays || l.State == Up && !l.Leaving
	}
	for i := range links {
		if stays && links[i].Leaving {
			links[i].State = Down
		}
	}
}

// joins reports whether the tier above cut joins for a chunk.
func joins(links []Link, cut Tier, c Chunk) bool {
	alive, room, best := false, false, time.Duration(0)
	for _, l := range links {
		if l.State != Up || l.Tier > cut {
			continue
		}
		if eta := l.ETA(c.Size); !alive || eta < best {
			best = eta
		}
		alive, room = true, room || l.Room > 0
	}
	switch {
	case !alive:
		return true
	case cut == Primary && !room && c.Class != Background:
		return true
	case cut == Standby:
		return false
	}
	return best > deadlines[min(c.Class, Background)]
}

// Narrow reports whether Admit changes anything for chunks that were not refused.
func Narrow(links []Link) bool {
	for i := range links {
		if links[i].Leaving || links[i].Tier != Primary {
			return true
		}
	}
	return false
}
