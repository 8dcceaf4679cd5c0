package e2e

import (
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"hawser/e2e/pair"
	"hawser/pkg/identity"
)

// TestWrongKeys: an edge that expects another cloud, and a cloud that expects
// another edge, never connect, and both ends say why in one line.
func TestWrongKeys(t *testing.T) {
	other, err := identity.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, file string
		edge       string // what the edge's log must say
		cloud      string // and the cloud's
	}{
		{"the edge has a wrong key for the cloud", "edge.yaml", "shows key", "the edge expects another cloud key"},
		{"the cloud does not know the edge", "cloud.yaml", "is not configured at the cloud", "unknown edge"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := prepare(t, fast(), pair.Options{})
			if err := r.pair.ReplaceKey(c.file, other.String()); err != nil {
				t.Fatal(err)
			}
			if err := r.pair.StartCloud(); err != nil {
				t.Fatal(err)
			}
			if err := r.pair.StartEdge(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Second)
			links, err := r.pair.Links()
			if err != nil {
				t.Fatal(err)
			}
			for name, l := range links {
				if l.State == "up" || l.LastError == "" {
					t.Errorf("link %s: %+v", name, l)
				}
			}
			t.Logf("edge:\n%s\ncloud:\n%s", r.pair.Edge.Output(), r.pair.Cloud.Output())
			if !strings.Contains(r.pair.Edge.Output(), c.edge) {
				t.Errorf("the edge does not say %q", c.edge)
			}
			if !strings.Contains(r.pair.Cloud.Output(), c.cloud) {
				t.Errorf("the cloud does not say %q", c.cloud)
			}
		})
	}
}
