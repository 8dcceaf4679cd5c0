package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"hawser/e2e/pair"
	"hawser/pkg/box"
	"hawser/pkg/config"
)

// TestMetrics scrapes both agents as Prometheus would, after one connection.
func TestMetrics(t *testing.T) {
	t.Parallel()
	const address = "127.0.0.1:9477"
	r := start(t, fast(), pair.Options{Metrics: address})
	r.serve(80, sendNoise)
	if err := ask(r, 1000, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	for role, peer := range map[string]string{"edge": "", "cloud": "lab-edge"} {
		out, err := r.Exec(role, "curl", "-sS", "--max-time", "5", "http://"+address+"/metrics")
		if err != nil {
			t.Fatalf("%s: %v", role, err)
		}
		for _, want := range []string{
			`role="` + role + `"`,
			`what="opened"} 1` + "\n",
			`link="wifi",peer="` + peer,
			`hawser_link_state{link="lte"`,
		} {
			if !strings.Contains(out, want) {
				t.Errorf("%s: no %s in\n%s", role, want, out)
			}
		}
		var budget float64 // of payload: a flow or two may have a little of the default
		_, text, _ := strings.Cut(out, "\nhawser_memory_budget_bytes ")
		_, err = fmt.Sscan(text, &budget)
		if most := box.Payload(int64(config.DefaultMemory), 0); err != nil || budget > float64(most) || budget < 0.999*float64(most) {
			t.Errorf("%s: %v bytes for payload (%v), want %d", role, budget, err, most)
		}
	}
	r.quiet()
}
