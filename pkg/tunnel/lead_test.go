package tunnel

import (
	"slices"
	"testing"
	"time"
)

// TestLead: the congestion control of a link is led where its rate changes, as after an
// outage, and asked for volleys, and left alone where it does not.
func TestLead(t *testing.T) {
	if raceDetector {
		t.Skip("runs on one goroutine, and takes long with the race detector: make unit runs it without")
	}
	for _, k := range []struct {
		terrain string
		want    bool
	}{{"outage", true}, {"twins", false}} {
		g := terrains()[slices.IndexFunc(terrains(), func(g terrain) bool { return g.name == k.terrain })]
		m, _ := g.enter(everything, 1)
		m.After(simStart, func() { m.request(1, endless) })
		m.Run(m.Now().Add(4*time.Second), nil)
		if led := m.uplinks[0].led > 0; led != k.want {
			t.Errorf("%s: led %v, wanted %v", k.terrain, led, k.want)
		}
		if volleys := m.uplinks[0].volleys > 0; volleys != k.want {
			t.Errorf("%s: asked for volleys %v, wanted %v", k.terrain, volleys, k.want)
		}
		m.end()
	}
}

// TestBurst: a line that delivers in bunches, as a train's do, is not paced by its mean
// rate; others are.
func TestBurst(t *testing.T) {
	if raceDetector {
		t.Skip("runs on one goroutine, and takes long with the race detector: make unit runs it without")
	}
	for _, k := range []struct {
		terrain string
		want    bool
	}{{"train-trace", true}, {"outage", false}, {"jitter", false}} {
		all := append(terrains(), recorded(t)...)
		g := all[slices.IndexFunc(all, func(g terrain) bool { return g.name == k.terrain })]
		m, _ := g.enter(everything, 1)
		m.After(simStart, func() { m.request(1, endless) })
		m.Run(m.Now().Add(8*time.Second), nil)
		if burst := m.uplinks[0].burst > 0; burst != k.want {
			t.Errorf("%s: let burst %v, wanted %v", k.terrain, burst, k.want)
		}
		m.end()
	}
}
