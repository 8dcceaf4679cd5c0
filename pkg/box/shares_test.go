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
		{512 << 20, 11_000, 167 << 20},
		{512 << 20, 100_000, 64 << 20},
		{64 << 20, 0, 16 << 20},
		{64 << 20, 5_000, 8 << 20},
	} {
		got := Payload(c.memory, c.flows)
		if got>>20 != c.want>>20 {
			t.Errorf("%d bytes and %d flows: %d of payload, want %d", c.memory, c.flows, got, c.want)
		}
		if all := programMemory + int64(c.flows)*flowMemory + int64(payloadBytes*float64(got)); got > c.memory/payloadLeast && all > c.memory {
			t.Errorf("%d bytes and %d flows: %d in all", c.memory, c.flows, all)
		}
	}
}
