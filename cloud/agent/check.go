package agent

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"hawser/netns"
	"hawser/pkg/admin"
	"hawser/pkg/box"
	"hawser/pkg/config"
	"hawser/pkg/identity"
	"hawser/pkg/tunnel"
)

// Check finds out whether Run would work: the host's side (netns.Check) and
// whether the port can be had. It changes nothing.
func Check(ctx context.Context, cfg *config.Cloud, id identity.Key) []admin.Finding {
	var findings []admin.Finding
	if cfg.Egress.Mode == config.EgressHub {
		findings = box.Findings(netns.Check(plan(cfg)))
	}
	findings = append(findings, box.CheckCard(cfg.Card)...)
	findings = append(findings, box.CheckMetrics(cfg.Settings())...)
	findings = append(findings, box.CheckMemory(cfg.Settings())...)
	findings = append(findings, box.CheckCongestion()...)
	if id.IsZero() {
		return findings
	}
	a := &agent{cfg: cfg, id: id, started: time.Now()}
	a.sessions = newSessions(cfg, tunnel.NewBudget(0), nil)
	if err := a.listen(ctx); err != nil {
		return append(findings, admin.Finding{Level: admin.LevelFail, What: err.Error(), Taken: errors.Is(err, unix.EADDRINUSE)})
	}
	a.listener.Close()
	return append(findings, admin.Finding{Level: admin.LevelOK, What: "listen: TCP and UDP " + cfg.Listen.String() + " are free"})
}

// Cleanup removes what a crashed run left on the host.
func Cleanup(namespace string) ([]string, error) { return netns.Cleanup(namespace, "") }
