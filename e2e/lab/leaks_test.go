package lab

import "testing"

// TestOthersNamespaces: whoever makes namespaces on this machine meanwhile, for longer
// than a test runs, does not fail it.
func TestOthersNamespaces(t *testing.T) {
	l := &Lab{id: "hwlab-e2e-7-1", nodes: []*node{{name: edgeNode, full: "hwlab-e2e-7-1-edge"}}}
	for line, want := range map[string]bool{
		"namespace hwlab-e2e-7-1-edge":    true,
		"namespace hwlab-e2e-7-1-edgehub": false,
		"namespace hwlab-e2e-7-12-edge":   true,
		"namespace hwlab-soak-8-1-edge":   true,
		"namespace hawser":                false,
		"namespace hawsertest8-1":         true,
		"namespace cni-77":                true,
		"namespace blue":                  true,
		"interface hub0":                  false,
	} {
		if got := l.expected(line); got != want {
			t.Errorf("%s: expected %v, want %v", line, got, want)
		}
	}
}
