package simlink

import "time"

// Recording says when a line could deliver a packet, as recordings of real uplinks do
// (e2e/emu.Trace): opportunities are numbered from 0 on, in order of time.
type Recording interface {
	// First returns the first opportunity at or after a time.
	First(time.Duration) int64
	// Time returns when an opportunity occurs.
	Time(int64) time.Duration
	// Bytes returns what all opportunities carry from one time to another.
	Bytes(from, to time.Duration) float64
	// Rate returns the mean rate in bit/s.
	Rate() float64
}

// opportunity is what one carries, in bytes.
const opportunity = 1500

// Replay has a line follow a recording as Mahimahi does: an opportunity is spent even
// if nobody waits, and a packet that does not fill it leaves the rest to those behind
// it.
type Replay struct {
	of    Recording
	began time.Time // time 0 of the recording
	next  int64     // first unused opportunity
	free  time.Time // when the last one was used
	left  int       // bytes of it
}

// NewReplay returns a replay of a recording whose time 0 is began.
func NewReplay(r Recording, began time.Time) *Replay { return &Replay{of: r, began: began} }

// Replay makes the line follow a recording from now on, from a time of it. Its queue
// holds as many bytes as go in wait at the mean rate.
func (l *Line) Replay(r Recording, from, wait time.Duration) {
	l.Rate = r.Rate() / 8
	l.Queue = int(l.Rate * wait.Seconds())
	l.replay = NewReplay(r, l.events.now.Add(-from))
}

// Replays reports whether the line follows a recording.
func (l *Line) Replays() bool { return l.replay != nil }

// Could is how many bytes the line could have carried from a time until now, alive or
// not.
func (l *Line) Could(from time.Time) float64 {
	if r := l.replay; r != nil {
		return r.Could(from, l.events.now)
	}
	return l.Rate * l.events.now.Sub(from).Seconds()
}

// Could is how many bytes could have been carried from one time to another.
func (r *Replay) Could(from, to time.Time) float64 {
	return r.of.Bytes(max(from.Sub(r.began), 0), to.Sub(r.began))
}

// Serve returns when a packet has left that is the first in the queue since now.
func (r *Replay) Serve(now time.Time, size int) time.Time {
	need := size
	if !now.After(r.free) {
		if need <= r.left {
			r.left -= need
			return now
		}
		need -= r.left
	}
	n := (need + opportunity - 1) / opportunity
	last := max(r.next, r.of.First(now.Sub(r.began))) + int64(n) - 1
	r.next, r.left = last+1, n*opportunity-need
	r.free = r.began.Add(r.of.Time(last))
	return r.free
}
