package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"hawser/e2e/lab"
	"hawser/e2e/pair"
	"hawser/pkg/admin"
)

// TestReloadGoesOn: a reload that adds an uplink, removes the first one, changes the only one
// that is left, policies or what is not steered, has the edge go on: a download that is under
// way all the time uses what there is and arrives whole, and connections that come later are
// under the new policies, or not steered. Nothing of it is left on the host.
func TestReloadGoesOn(t *testing.T) {
	for _, intercept := range []string{"hub", "tproxy"} {
		t.Run(intercept, func(t *testing.T) {
			t.Parallel()
			reloadGoesOn(t, intercept)
		})
	}
}

func reloadGoesOn(t *testing.T, intercept string) {
	const size, small = 60 << 20, 512 << 10
	r := prepare(t, twins(), pair.Options{Intercept: intercept, Transport: "tcp"})
	all := r.pair.EdgeYAML()
	wifi, lte := without(all, "{name: lte,"), without(all, "{name: wifi,")
	r.writeEdge(wifi)
	if err := r.pair.StartCloud(); err != nil {
		t.Fatal(err)
	}
	if err := r.pair.StartEdge(); err != nil {
		t.Fatal(err)
	}
	if err := r.pair.WaitUp(1, 20*time.Second); err != nil {
		t.Fatal(err)
	}
	r.serve(80, sender(size))
	r.serve(81, sender(small))
	c := r.mustDial(r.origin(lab.IPv4, 80), 2*time.Minute)
	defer c.Close()
	done := make(chan gauge, 1)
	go func() { done <- receive(c, nil) }()

	time.Sleep(time.Second)
	r.reload(all, `"links (lte added)"`)
	r.untilLink(t, "lte", func(l admin.Link) bool { return l.BytesDown > 4<<20 })
	r.reload(lte+"policies: [{name: slow, ports: [81], limit: 2Mbit/s}]\n", `"links (wifi removed), policies"`)
	if g := r.fetch(r.origin(lab.IPv4, 81), 30*time.Second); g.err != nil || g.sum != sumOf(1, small) || g.took < time.Second {
		t.Errorf("under a limit of 2 Mbit/s: %v, %v", g, g.err)
	}
	last := strings.NewReplacer("transport: tcp", "transport: quic", "exclude: []", fmt.Sprintf("exclude: [%q]", r.Address("origin", lab.IPv4)))
	r.reload(last.Replace(lte), `"links (lte made anew), policies, steer.exclude"`)
	opened := r.status().Sessions[0].Flows.Opened
	if g := r.fetch(r.origin(lab.IPv4, 81), 30*time.Second); g.err != nil || g.sum != sumOf(1, small) {
		t.Errorf("afterwards: %v, %v", g, g.err)
	}
	if n := r.status().Sessions[0].Flows.Opened; n != opened {
		t.Errorf("what is excluded by now still goes through the tunnel: %d flows and then %d", opened, n)
	}
	if len(done) > 0 {
		t.Fatal("the download has ended too soon")
	}
	g := <-done
	t.Logf("the download: %v", g)
	if g.err != nil || g.sum != sumOf(1, size) {
		t.Errorf("the download has %v, %v", g, g.err)
	}
	for _, role := range []string{"edge", "cloud"} {
		s, err := r.pair.Status(role)
		if err != nil || len(s.Sessions) != 1 || len(s.Sessions[0].Links) != 1 || s.Sessions[0].Links[0].Transport != "quic" || s.Sessions[0].Flows.Reset > 0 {
			t.Errorf("the %s has %+v, %v", role, s.Sessions, err)
		}
		if role == "edge" && (s.Taken == nil || s.Taken.What != "links (lte made anew), policies, steer.exclude") {
			t.Errorf("status says that %+v was taken over", s.Taken)
		}
	}
	if log := r.pair.Edge.Output(); strings.Contains(log, "starts anew") || strings.Contains(log, "level=ERROR") {
		t.Errorf("the edge's log:\n%s", log)
	}
}

// without leaves out the lines with a text.
func without(yaml, text string) string {
	var b strings.Builder
	for line := range strings.Lines(yaml) {
		if !strings.Contains(line, text) {
			b.WriteString(line)
		}
	}
	return b.String()
}

func (r *rig) writeEdge(yaml string) {
	r.t.Helper()
	if _, err := r.WriteFile("edge.yaml", yaml); err != nil {
		r.t.Fatal(err)
	}
}

// reload has the edge read another configuration, and waits until it has taken over what.
func (r *rig) reload(yaml, what string) {
	r.t.Helper()
	r.writeEdge(yaml)
	if err := r.pair.Edge.Signal(syscall.SIGHUP); err != nil {
		r.t.Fatal(err)
	}
	if err := r.pair.Edge.WaitFor("taken_over="+what, 30*time.Second); err != nil {
		r.t.Fatalf("%v\n%s", err, r.pair.Edge.Output())
	}
}
