package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"hawser/e2e/crowd"
	"hawser/e2e/lab"
	"hawser/e2e/pair"
)

// TestDeadServers: clients that push all they can to a server that never
// answers, an address each, get no more taken than the bounds say, to the byte;
// auto turns to zero-window; the agents' memory stays, and a server that does not
// answer leaves half of the places to others.
// `make bench-crowd CROWD="-only dead"` does it with 20,000.
func TestDeadServers(t *testing.T) {
	t.Parallel()
	const clients, pending, flight, flights = 1500, 400, 8192, 200_000
	r := start(t, fast(), pair.Options{
		Limits:   "{pending: 400, first_flight: 8KiB, first_flights: 200000}",
		Policies: "[{name: fast, ports: [81], handshake: fast}]",
	})
	r.serve(80, sender(100_000))
	r.deadNetwork(t)
	for _, c := range []struct {
		mode string
		port uint16
	}{{"auto", 80}, {"fast", 81}} {
		t.Run(c.mode, func(t *testing.T) {
			r.untilNonePending(t)
			before := r.memory(t)
			p := crowd.Pushers{
				To: []netip.AddrPort{netip.AddrPortFrom(dead, c.port)}, From: netip.MustParsePrefix("10.64.0.0/16"),
				Conns: clients, Rate: 1500, Buffer: 4096,
			}
			stop := make(chan struct{})
			var got crowd.Pushed
			done := make(chan error, 1)
			go func() {
				done <- r.Do("client", func() (err error) { got, err = p.Push(stop); return err })
			}()
			time.Sleep(2500 * ms)
			r.eventually(t, "the clients to reach the bounds", func() bool {
				h := r.status().Handshakes
				return h.Now == "zero-window" && h.FirstFlightsPeak > flights/3
			})
			s := r.status()
			if g := r.fetch(r.origin(lab.IPv4, 80), 10*time.Second); g.err != nil || g.size != 100_000 {
				t.Errorf("others meanwhile: %v, %v", g, g.err)
			}
			grown := r.memory(t) - before
			close(stop)
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			h := s.Handshakes
			t.Logf("%+v; pending %d, first flights %d, %s; memory has grown by %.1f MB", got, h.Pending, h.FirstFlightsPeak, h.Now, float64(grown)/(1<<20))
			if h.Pending > pending/2 || h.FirstFlightsPeak > flights || h.Now != "zero-window" {
				t.Errorf("beyond the bounds, or the wrong mode: %+v", h)
			}
			if got.Most > flight {
				t.Errorf("%d bytes taken, %d of one", got.Acked, got.Most)
			}
			// Windows are told in units of 128 bytes, rounded down: a client that has
			// sent odd segments and waits for the answers is told of less than is left. Where
			// all together have reached their bound, half for servers that have not answered,
			// nobody is left anything for a last short segment.
			if c.mode == "fast" && got.Most <= flight-128 && h.FirstFlightsPeak <= flights/2-128 {
				t.Errorf("%d bytes of one first flight were taken, want %d but for a unit of the window", got.Most, flight)
			}
			if grown > 48<<20 {
				t.Errorf("memory has grown by %d bytes", grown)
			}
		})
	}
}

// untilNonePending waits for the connections of before, whose clients' resets may
// still be under way.
func (r *rig) untilNonePending(t *testing.T) {
	t.Helper()
	for began := time.Now(); time.Since(began) < 20*time.Second; time.Sleep(50 * ms) {
		if s, err := r.pair.Status("edge"); err == nil && s.Handshakes.Pending == 0 {
			return
		}
	}
	t.Error("connections of before are pending still")
}

// dead is an address that drops everything.
var dead = netip.MustParseAddr("198.18.201.10")

// deadNetwork makes a network of addresses that answer nothing, and gives the
// client 65,000 addresses.
func (r *rig) deadNetwork(t *testing.T) {
	client := r.Address("client", lab.IPv4).String()
	for _, s := range []struct{ node, on, off string }{
		{"cloud", "ip route add 198.18.201.0/24 via " + r.Address("origin", lab.IPv4).String(), "ip route del 198.18.201.0/24"},
		{"origin", "iptables -w -t raw -I PREROUTING -d 198.18.201.0/24 -j DROP", "iptables -w -t raw -D PREROUTING -d 198.18.201.0/24 -j DROP"},
		{"client", "ip route add local 10.64.0.0/16 dev lo", "ip route del local 10.64.0.0/16 dev lo"},
		{"edge", "ip route add 10.64.0.0/16 via " + client, "ip route del 10.64.0.0/16"},
	} {
		r.mustExec(s.node, strings.Fields(s.on)...)
		t.Cleanup(func() { r.mustExec(s.node, strings.Fields(s.off)...) })
	}
}

// memory is what both agents have resident, in bytes.
func (r *rig) memory(t *testing.T) int64 {
	t.Helper()
	var sum int64
	for _, p := range []*lab.Proc{r.pair.Edge, r.pair.Cloud} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Pid()))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
				n, _ := strconv.ParseInt(strings.Fields(v)[0], 10, 64)
				sum += n << 10
			}
		}
	}
	return sum
}
