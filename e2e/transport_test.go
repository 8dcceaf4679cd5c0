package e2e

import (
	"strings"
	"testing"
	"time"

	"hawser/e2e/lab"
	"hawser/e2e/pair"
	"hawser/pkg/admin"
)

// TestTransportBlocked: where the network lets only one transport through,
// `transport: auto` is up by the other one soon.
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

// policed is what an uplink lets through of UDP towards the edge: some 2 Mbit/s of
// full packets, and no queue.
var policed = [][]string{
	{"-p", "udp", "-m", "limit", "--limit", "200/s", "--limit-burst", "40", "-j", "ACCEPT"},
	{"-p", "udp", "-j", "DROP"},
}

// TestTransportPoliced: a block that comes later is noticed, too, and a link that
// went over to QUIC for it comes back when TCP passes again and UDP is policed:
// the next comparison of the transports finds that TCP delivers far more.
func TestTransportPoliced(t *testing.T) {
	r := start(t, twins(), pair.Options{Links: map[string]string{"lte": "trial_seconds: 5"}})
	rule := func(verb string, words []string) {
		r.mustExec("edge", append([]string{"iptables", "-w", "-t", "raw", verb, "PREROUTING", "-i", r.Interface("lte")}, words...)...)
	}
	block := []string{"-p", "tcp", "-j", "DROP"}
	// Which one came first, and whether a trial is under way, is chance.
	r.untilLink(t, "lte", func(l admin.Link) bool { return l.State == "up" && l.Transport == "tcp" })
	rule("-A", block)
	took := r.untilLink(t, "lte", func(l admin.Link) bool { return l.State == "up" && l.Transport == "quic" })
	t.Logf("TCP blocked: up by QUIC after %v", took)

	g := r.during(t, func() {
		for _, words := range policed {
			rule("-A", words)
		}
		rule("-D", block)
		took := r.untilChosen(t, "lte", "tcp: under load")
		t.Logf("UDP policed: by TCP after %v, %s", took, r.link(t, "lte").Choice)
	})
	if g.err != nil {
		t.Error(g.err)
	}
	for _, words := range policed {
		rule("-D", words)
	}
	r.quiet()
}

// untilChosen waits for a comparison of a link's transports that ends as wanted.
func (r *rig) untilChosen(t *testing.T, name, want string) time.Duration {
	t.Helper()
	begin := time.Now()
	for {
		l := r.link(t, name)
		took := time.Since(begin).Round(ms)
		if l.State == "up" && strings.HasPrefix(l.Choice, want) {
			return took
		}
		if took > 45*time.Second {
			t.Fatalf("link %s after %v: %s by %s, choice %q, want %q", name, took, l.State, l.Transport, l.Choice, want)
		}
		time.Sleep(50 * ms)
	}
}
