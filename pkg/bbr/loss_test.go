package bbr

import (
	"testing"
	"time"
)

// TestInFlightAtLoss: what was in flight when the losses crossed the threshold is all before
// the packet that was lost last, and the part of it that they had left (5.5.10.2).
func TestInFlightAtLoss(t *testing.T) {
	for _, c := range []struct {
		background float64
		lost, want int // this packet of 1000 bytes included
	}{
		{0, 1000, 100_000 - 1000 + 2020}, // 2 % of 99,000 are left, of 98 % of what follows
		{0, 2500, 99_489},
		{0, 3000, 99_000}, // crossed before
		{0, 9000, 99_000},
		{0.03, 3000, 102_105},
	} {
		b := newTest()
		b.background.share = c.background
		if got := b.inFlightAtLoss(sent{size: 1000, inFlight: 100_000}, c.lost); got != c.want {
			t.Errorf("%d bytes lost, background %g: %d, want %d", c.lost, c.background, got, c.want)
		}
	}
}

// TestLossRounds: a round of loss begins with the acknowledgement of the first packet that was
// sent when the last one had begun, or later; what it has delivered counts from then on.
func TestLossRounds(t *testing.T) {
	const size = 1000
	b := newTest()
	now, flying := time.Duration(0), 0
	send := func(numbers ...int64) {
		for _, n := range numbers {
			now += time.Millisecond
			flying += size
			b.Sent(now, n, size, flying)
		}
	}
	ack := func(n int64, began bool) {
		t.Helper()
		now += 10 * time.Millisecond
		flying -= size
		b.Acked(now, n)
		b.Settle(now, 0, flying)
		if b.loss.began != began {
			t.Errorf("packet %d begins a round: %v", n, b.loss.began)
		}
	}
	send(1, 2, 3, 4)
	ack(1, true)
	send(5) // the first of the next round
	ack(2, false)
	send(6)
	ack(3, false)
	most := b.latestBW
	now += 60 * time.Millisecond
	ack(4, false)
	if b.latestVolume != 4*size || b.latestBW != most || most <= b.rs.rate {
		t.Errorf("the most of the round is %d bytes, and %g of %g bytes per second", b.latestVolume, b.latestBW, most)
	}
	ack(5, true)
	if b.latestVolume != 4*size || b.latestBW != b.rs.rate {
		t.Errorf("the new round begins with %d bytes, and %g of %g bytes per second", b.latestVolume, b.latestBW, b.rs.rate)
	}
	ack(6, false)
	send(7)
	ack(7, true)
	if b.latestVolume != size {
		t.Errorf("the next one begins with %d bytes", b.latestVolume)
	}
}
