package scheduler

import (
	"math"
	"time"
)

// bucket is a token bucket. The zero bucket holds nobody to anything.
type bucket struct {
	rate   float64 // bytes per second; 0: without limit
	depth  float64
	tokens float64 // below zero after a chunk that was larger than what was left
	at     time.Time
}

// bucketTime is how much of its rate a bucket may save up; a few chunks at
// least.
const (
	bucketTime  = 50 * time.Millisecond
	bucketFloor = 2 * Quantum
	owedMost    = 4 * Quantum // see forgive; a chunk on a fast line is nearly as large
	laterMost   = time.Hour   // see later
)

// newBucket returns a full bucket.
func newBucket(rate float64, now time.Time) bucket {
	depth := max(rate*bucketTime.Seconds(), bucketFloor)
	return bucket{rate: rate, depth: depth, tokens: depth, at: now}
}

// setRate changes the rate and keeps what was saved up.
func (b *bucket) setRate(rate float64, now time.Time) {
	if b.rate == rate {
		return
	}
	b.fill(now)
	saved := b.tokens
	had := b.rate != 0
	*b = newBucket(rate, now)
	if had {
		b.tokens = min(saved, b.depth)
	}
}

func (b *bucket) fill(now time.Time) {
	if b.rate > 0 && now.After(b.at) {
		b.tokens = min(b.tokens+b.rate*now.Sub(b.at).Seconds(), b.depth)
	}
	b.at = now
}

func (b *bucket) take(n int) {
	if b.rate > 0 {
		b.tokens -= float64(n)
	}
}

// forgive bounds what a bucket owes from which more is taken than its rate, to what it may
// save up, or to some chunks.
func (b *bucket) forgive() { b.tokens = max(b.tokens, -max(b.depth, owedMost)) }

// empty reports whether nothing is left.
func (b *bucket) empty() bool { return b.rate > 0 && b.tokens <= 0 }

// ready is when an empty bucket holds enough for a chunk again.
func (b *bucket) ready() time.Time {
	return b.later(Quantum)
}

// full is when the bucket is full; its owner may be forgotten then.
func (b *bucket) full() time.Time {
	if b.rate == 0 {
		return time.Time{}
	}
	return b.later(b.depth)
}

// later is when the bucket holds so much, or in an hour: after b.at in any case but when it
// does already. Peers name the rates, and a wait may be less than a nanosecond, or more than a
// time.Duration lasts: who is woken and has to wait still would be woken again at once.
func (b *bucket) later(tokens float64) time.Time {
	wait := math.Ceil((tokens - b.tokens) / b.rate * float64(time.Second))
	return b.at.Add(time.Duration(min(wait, float64(laterMost))))
}
