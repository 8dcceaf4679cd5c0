package netns

import (
	"context"
	"sync/atomic"
	"testing"
)

// TestReturns: an interface and an address that went and are there again are told, an address
// that is renewed is not, nor is what had not gone.
func TestReturns(t *testing.T) {
	w := newWorld(t)
	h := w.install(w.plan)
	var back atomic.Int32
	h.OnReturn(func() { back.Add(1) })
	ctx, cancel := context.WithCancel(context.Background())
	ended, watching := make(chan error, 1), make(chan struct{})
	go func() {
		said := false
		ended <- h.Watch(ctx, func(UplinkEvent) {
			if !said {
				close(watching)
			}
			said = true
		})
	}()
	<-watching
	for _, c := range []struct {
		name string
		do   []string
		told bool
	}{
		{"a new address", []string{"ip addr add 198.18.2.77/24 dev wan0"}, false},
		{"a renewed address", []string{"ip addr change 198.18.2.77/24 dev wan0 valid_lft 600 preferred_lft 600"}, false},
		{"a default route", []string{"ip route replace default via 198.18.2.1 dev wan0"}, false},
		{"an interface that is up", []string{"ip link set wan0 up"}, false},
		{"down and up", []string{"ip link set wan0 down", "ip link set wan0 up"}, true},
		{"an address", []string{"ip addr del 198.18.2.77/24 dev wan0", "ip addr add 198.18.2.77/24 dev wan0"}, true},
		{"a default route afterwards", []string{"ip route replace default via 198.18.2.1 dev wan0"}, true},
	} {
		back.Store(0)
		if w.run(c.do...); c.told {
			eventually(t, c.name+" to be told", func() bool { return back.Load() > 0 })
			continue
		}
		w.run("ip link add seen0 type veth peer name seen1", "ip link del seen0") // what comes before is read by then
		if n := back.Load(); n > 0 {
			t.Errorf("%s is told %d times", c.name, n)
		}
	}
	cancel()
	must(t, <-ended)
}
