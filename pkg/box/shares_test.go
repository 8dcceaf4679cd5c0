package box

import "testing"

// TestPayload: what payload takes twice over, what flows take at rest and the program
// itself are together what there is, as long as flows alone do not take most of it.
func TestPayload(t *testing.T) {
	for _, c := range []struct {
		memory int64
		flows  int
		want   int64
	}{
		{512 << 20, 0, 203 << 20},
		{512 << 20, 11_000, 113 << 20},
		{512 << 20, 100_000, 64 << 20},
		{64 << 20, 0, 16 << 20},
		{64 << 20, 5_000, 8 << 20},
	} {
		got := Payload(c.memory, c.flows)
		if got>>20 != c.want>>20 {
			t.Errorf("%d bytes and %d flows: %d of payload, want %d", c.memory, c.flows, got, c.want)
		}
		if all := programMemory + int64(c.flows)*(flowMemory+flowPieces) + int64(payloadBytes*float64(got)); got > c.memory/payloadLeast && all > c.memory {
			t.Errorf("%d bytes and %d flows: %d in all", c.memory, c.flows, all)
		}
	}
}

// TestGrowthFollowsFlows: what the user-space TCP's buffers may grow by is a part of what
// flows leave for payload, which many of them make less.
func TestGrowthFollowsFlows(t *testing.T) {
	w := &Workers{opts: Options{Memory: 512 << 20, Count: 2}}
	few, many := w.maxGrowth(0), w.maxGrowth(10_000)
	if want := Payload(512<<20, 0) / 32; int64(few) != want {
		t.Errorf("%d bytes for few flows, want %d", few, want)
	}
	if want := Payload(512<<20, 10_000) / 32; int64(many) != want || many >= few*3/4 {
		t.Errorf("%d bytes for many, want %d, less than for few, %d", many, want, few)
	}
}
