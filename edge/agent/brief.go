package agent

import (
	"math/rand/v2"
	"time"
)

// What is done about connections that end as soon as they stand.
const (
	briefLife = time.Second // as soon
	briefFree = 2           // in a row after which the next one is made at once
	// briefMuch is what one that ended soon must have carried, bytes both ways, to say nothing:
	// a fast line that damages a packet now and then. What one sends that nobody gets is less.
	briefMuch = 1 << 20
)

// brief counts a link's connections in a row that ended as soon as they stood. What does
// that goes on doing it: a firewall that lets handshakes pass and cuts what follows, a cloud
// whose program does not understand this one. Without a pause the link would be made as fast
// as handshakes go, each of some KB that a mobile line may have to pay for.
type brief struct{ row int }

// ended takes in that a connection has ended after so long, and had carried so many bytes.
func (b *brief) ended(after time.Duration, carried uint64) {
	if after >= briefLife || carried >= briefMuch {
		b.row = 0
		return
	}
	b.row++
}

// pause is how long the next attempt waits, random as attempts' pauses are.
func (b *brief) pause() time.Duration {
	if b.row <= briefFree {
		return 0
	}
	d := min(raceFirst<<min(b.row-briefFree-1, 8), raceMost)
	return d/2 + rand.N(d)
}

// weigh takes in, once, that another connection is wanted since some time than the one that
// the link uses: it has ended, or was silent and has been replaced. That its session has
// ended says nothing.
func (u *uplink) weigh(now *serving, wanted time.Time) {
	if now.session == nil || now.weighed {
		return
	}
	now.weighed = true
	if s, _ := u.tunnels.current(); s != now.session {
		return
	}
	u.brief.ended(wanted.Sub(now.since), now.carried())
	if u.brief.row >= briefFree && u.chooser.dialer != nil {
		u.chooser.dialer.Prefer(other(now.transport)) // what cuts one often lets the other pass
	}
	if u.brief.row == briefFree+1 {
		u.log.Warn("connections end as soon as they stand: a firewall on the way cuts them, or the two programs do not fit; they are made less often now", "transport", now.transport)
	}
}
