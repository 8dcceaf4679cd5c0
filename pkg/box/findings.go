package box

import (
	"hawser/netns"
	"hawser/pkg/admin"
)

// Findings converts what the virtual host's check has found.
func Findings(in []netns.Finding) []admin.Finding {
	out := make([]admin.Finding, len(in))
	for i, f := range in {
		out[i] = admin.Finding{Level: admin.Level(f.Level), What: f.What, Remedy: f.Remedy}
	}
	return out
}
