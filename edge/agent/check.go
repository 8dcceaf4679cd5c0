package agent

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"hawser/netns"
	"hawser/pkg/admin"
	"hawser/pkg/box"
	"hawser/pkg/config"
	"hawser/pkg/identity"
)

// Check finds out whether Run would work: the host's side (netns.Check) and
// whether the cloud answers and accepts this edge on every link. It changes
// nothing.
func Check(ctx context.Context, cfg *config.Edge, id identity.Key) []admin.Finding {
	p := plan(ctx, cfg)
	findings := append(box.Findings(netns.Check(p)), box.CheckCard(cfg.Card)...)
	findings = append(findings, box.CheckMetrics(cfg.Settings())...)
	findings = append(findings, box.CheckMemory(cfg.Settings())...)
	findings = append(findings, checkState(cfg)...)
	findings = append(findings, checkHints(cfg)...)
	findings = append(findings, checkTransparent(cfg)...)
	if slices.ContainsFunc(cfg.Links, func(l config.Link) bool { return l.Transport != config.TransportQUIC }) {
		findings = append(findings, box.CheckCongestion()...)
	}
	if id.IsZero() {
		return findings
	}
	a := &agent{cfg: cfg, id: id, started: time.Now()}
	return append(findings, a.checkLinks(ctx, p)...)
}

// checkState looks at the file of what links with a quota have carried.
func checkState(cfg *config.Edge) []admin.Finding {
	metered := func(l config.Link) bool { return l.Quota > 0 }
	if !slices.ContainsFunc(cfg.Links, metered) {
		return nil
	}
	f := stateFile{cfg.State}
	if err := f.check(); err != nil {
		return []admin.Finding{{Level: admin.LevelFail, What: err.Error(), Remedy: "set another path in state"}}
	}
	if err := f.writable(); err != nil {
		return []admin.Finding{{Level: admin.LevelWarn, What: err.Error(), Remedy: "set another path in state, or make that one writable"}}
	}
	return nil
}

// checkHints looks at what stands in the place of the file of hints; it need not exist.
func checkHints(cfg *config.Edge) []admin.Finding {
	info, err := os.Stat(cfg.Hints)
	if err != nil || info.Mode().IsRegular() {
		return nil
	}
	return []admin.Finding{{Level: admin.LevelWarn, What: fmt.Sprintf("hints: %s is %v", cfg.Hints, errNoHints), Remedy: "set another path in hints"}}
}

// checkTransparent names what only a hub does, of an edge that takes connections by TPROXY:
// who sends connections around the tunnel there has them in it.
func checkTransparent(cfg *config.Edge) []admin.Finding {
	if cfg.Steer.Intercept != config.InterceptTPROXY {
		return nil
	}
	var idle []string
	if cfg.Handshake != config.HandshakeAuto {
		idle = append(idle, "handshake")
	}
	for i, p := range cfg.Policies {
		if p.Action == config.ActionDirect {
			idle = append(idle, fmt.Sprintf("policies[%d].action", i))
		}
		if p.Handshake != config.HandshakeAuto {
			idle = append(idle, fmt.Sprintf("policies[%d].handshake", i))
		}
	}
	if len(idle) == 0 {
		return nil
	}
	what := strings.Join(idle[:min(len(idle), idleMost)], ", ")
	if n := len(idle) - idleMost; n > 0 {
		what += fmt.Sprintf(" and %d more", n)
	}
	return []admin.Finding{{Level: admin.LevelWarn, What: "without effect by steer.intercept tproxy: " + what,
		Remedy: "set steer.intercept: hub, or leave them out; steer.exclude and steer.ports say what is not steered by either"}}
}

// idleMost is how many keys one line names.
const idleMost = 4

// Cleanup removes what a crashed run left on the host.
func Cleanup(namespace string) ([]string, error) { return netns.Cleanup(namespace, "") }
