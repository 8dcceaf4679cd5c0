package tunnel

import (
	"net/netip"
	"testing"
	"time"

	"hawser/pkg/wire"
)

// What waits for a link is two of its windows, but little where links are fast:
// there it would only leave the processors' caches.
func TestBacklogOfFastLinks(t *testing.T) {
	s := New(Config{Peer: "edge", Budget: NewBudget(1 << 30)})
	s.now = time.Unix(1000, 0)
	f := s.makeFlow(1, 0)
	s.join(f, netip.MustParseAddr("10.0.0.1"), wire.DefaultTerms())
	s.order.Activate(&f.node, s.now)
	const caps = 6 << 20
	for _, k := range []struct {
		rate float64
		want int
	}{{6e6, 2 * caps}, {fastRate / 2, 2 * caps}, {fastRate * 3 / 4, caps}, {fastRate, backlogFast}, {400e6, backlogFast}} {
		s.backlog = backlog{srtt: time.Millisecond, rate: k.rate, caps: caps}
		if got := s.allowance(f); got != k.want {
			t.Errorf("%.0f MB/s: %d bytes may wait, want %d", k.rate/1e6, got, k.want)
		}
	}
}
