package e2e

import (
	"crypto/rand"
	"errors"
	"testing"
	"time"

	"hawser/e2e/pair"
	"hawser/pkg/admin"
	"hawser/pkg/identity"
)

// TestWrongKeys: an edge that expects another cloud, and a cloud that expects
// another edge, never connect, and both ends say why in one line.
func TestWrongKeys(t *testing.T) {
	t.Parallel()
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
			// Each link has failed once, and has had time for another attempt.
			for _, u := range r.uplinks {
				r.untilLink(t, u.Name, func(l admin.Link) bool { return l.LastError != "" })
			}
			if err := errors.Join(r.pair.Edge.WaitFor(c.edge, 20*time.Second), r.pair.Cloud.WaitFor(c.cloud, 20*time.Second)); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Second)
			for _, u := range r.uplinks {
				if l := r.link(t, u.Name); l.State == "up" || l.LastError == "" {
					t.Errorf("link %s: %+v", u.Name, l)
				}
			}
			t.Logf("edge:\n%s\ncloud:\n%s", r.pair.Edge.Output(), r.pair.Cloud.Output())
		})
	}
}
