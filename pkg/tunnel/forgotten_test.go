package tunnel

import (
	"slices"
	"testing"
	"time"

	"hawser/pkg/buffer"
)

// TestForgottenUrgent: a NAT has forgotten a link's urgent connections while it was at rest,
// and nothing passes by them any more. Bulk that begins, one way or both, does not stand
// still until that is found out, and neither do connections that are opened beside it.
func TestForgottenUrgent(t *testing.T) {
	for name, ways := range map[string]struct{ down, up bool }{"down": {true, false}, "up": {false, true}, "both": {true, true}} {
		t.Run(name, func(t *testing.T) {
			before := buffer.Live()
			g := terrain{lines: []lineSpec{{mbit: 20, rtt: 40 * time.Millisecond}}}
			m, _ := g.enter(variant{beside: true}, 1)
			u := m.uplinks[0]
			u.lost = 2
			for _, one := range u.urgent {
				one.Close(nil) // the next ones are
			}
			var bulk, short []*simFlow
			m.After(provedFor+time.Second, func() {
				if ways.down {
					bulk = append(bulk, m.request(1, endless))
				}
				if ways.up {
					bulk = append(bulk, m.upload(2, endless))
				}
			})
			for at := provedFor + 1100*time.Millisecond; at < provedFor+5*time.Second; at += 150 * time.Millisecond {
				m.After(at, func() { short = append(short, m.request(3, 1000)) })
			}
			m.Run(m.Now().Add(provedFor+6*time.Second), nil)
			var worst time.Duration
			for _, f := range short {
				if f.ended.IsZero() {
					f.ended = m.Now()
				}
				worst = max(worst, f.ended.Sub(f.began))
			}
			stall := slices.MaxFunc(bulk, func(a, b *simFlow) int { return int(a.longest - b.longest) }).longest
			t.Logf("the slowest short connection took %v, bulk stood still for %v", worst.Round(time.Millisecond), stall.Round(time.Millisecond))
			if u.lost > 0 {
				t.Error("the urgent connections were not there")
			}
			if worst > 600*time.Millisecond || stall > 400*time.Millisecond {
				t.Errorf("the slowest short connection took %v, bulk stood still for %v", worst, stall)
			}
			m.end()
			if m.faults > 0 || buffer.Live() != before {
				t.Errorf("%d faults, slabs are left: %v", m.faults, buffer.Live() != before)
			}
		})
	}
}
