package e2e

import (
	"testing"
	"time"

	"hawser/e2e/lab"
	"hawser/e2e/pair"
	"hawser/pkg/admin"
)

// TestTransportBlocked: where the network lets only one transport through,
// `transport: auto` is up by the other one soon, also when the block comes
// later.
func TestTransportBlocked(t *testing.T) {
	for _, c := range []struct{ name, block, want string }{
		{"UDP blocked", "udp", "tcp"},
		{"TCP blocked", "tcp", "quic"},
		{"TCP mangled", "tcp -m length --length 300:65535", "quic"}, // it connects, and nothing larger passes
	} {
		t.Run(c.name, func(t *testing.T) {
			r := prepare(t, twins(), pair.Options{})
			rule := []string{"-i", r.Interface("lte"), "-p", c.block, "-j", "DROP"}
			r.onEdge(t, "iptables -t raw -A PREROUTING "+joined(rule))
			defer r.onEdge(t, "iptables -t raw -D PREROUTING "+joined(rule))
			if err := r.pair.StartCloud(); err != nil {
				t.Fatal(err)
			}
			r.fairly(t, func() []string {
				if r.pair.Edge != nil {
					if err := r.pair.Edge.Stop(); err != nil {
						t.Fatal(err)
					}
				}
				if err := r.pair.StartEdge(); err != nil {
					t.Fatal(err)
				}
				begin := time.Now()
				r.untilLink(t, "lte", func(l admin.Link) bool { return l.State == "up" && l.Transport == c.want })
				took := time.Since(begin)
				t.Logf("up by %s %v after the edge runs", c.want, took.Round(ms))
				var b bounds
				b.within("up by "+c.want, took, 3*time.Second)
				return b
			})
			const size = 10_000_000
			r.serve(80, sender(size))
			check(t, r.fetch(r.origin(lab.IPv4, 80), time.Minute), 1, size)
		})
	}
}
