package e2e

import (
	"strings"
	"testing"
	"time"

	"hawser/e2e/pair"
)

// TestMetrics scrapes both agents as Prometheus would, after one connection.
func TestMetrics(t *testing.T) {
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
			"hawser_memory_budget_bytes 2.68435456e+08\n",
		} {
			if !strings.Contains(out, want) {
				t.Errorf("%s: no %s in\n%s", role, want, out)
			}
		}
	}
	r.quiet()
}
