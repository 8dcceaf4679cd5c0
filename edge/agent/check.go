package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"hawser/netns"
	"hawser/pkg/admin"
	"hawser/pkg/box"
	"hawser/pkg/config"
	"hawser/pkg/identity"
	"hawser/pkg/link"
	"hawser/pkg/wire"
)

// checkTime bounds the attempt to reach the cloud over one link.
const checkTime = 6 * time.Second

// Check finds out whether Run would work: the host's side (netns.Check) and
// whether the cloud answers and accepts this edge on every link. It changes
// nothing.
func Check(ctx context.Context, cfg *config.Edge, id identity.Key) []admin.Finding {
	p := plan(ctx, cfg)
	findings := append(box.Findings(netns.Check(p)), box.CheckCard(cfg.Card)...)
	findings = append(findings, box.CheckMetrics(cfg.Settings())...)
	findings = append(findings, checkState(cfg)...)
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

// checkLinks tries all links at the same time.
func (a *agent) checkLinks(ctx context.Context, p netns.Plan) []admin.Finding {
	out := make([]admin.Finding, len(a.cfg.Links))
	var wg sync.WaitGroup
	for i := range a.cfg.Links {
		wg.Go(func() { out[i] = a.checkLink(ctx, i, p.Links[i]) })
	}
	wg.Wait()
	return out
}

// checkLink asks the cloud for a session that does not exist: the refusal that
// follows shows that the cloud is there, knows this edge and is the right one.
// An uplink that needs the route which only run sets cannot be judged.
func (a *agent) checkLink(ctx context.Context, i int, r netns.LinkRoute) admin.Finding {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	where := newWhereabouts(a.cfg.Links[i], func() (four, six bool) { return netns.Versions(r) })
	where.begin(ctx)
	defer where.wait()
	defer cancel()
	d, err := a.dialer(i, uint16(i), r, where)
	if err != nil {
		return admin.Finding{Level: admin.LevelFail, What: err.Error(), Remedy: "correct the link's entry"}
	}
	begin := time.Now()
	conn, err := tryAll(ctx, d, where)
	var refusal *link.Refusal
	switch {
	case err == nil:
		conn.Close(nil)
	case errors.Is(err, errNowhere):
		return admin.Finding{Level: admin.LevelWarn, What: err.Error(), Remedy: "run goes on trying; where only run makes the uplink's route it may well succeed"}
	case errors.As(err, &refusal) && refusal.Status == wire.StatusNoSession:
	case errors.As(err, &refusal), errors.Is(err, link.ErrPeerKey), errors.Is(err, link.ErrVersion):
		return admin.Finding{Level: admin.LevelFail, What: err.Error(), Remedy: "compare keys and versions of both ends: hawser-edge pubkey, hawser-cloud pubkey, version"}
	case r.Gateway.IsValid():
		return admin.Finding{Level: admin.LevelOK, What: fmt.Sprintf("link %s: not tried, run sets the route by its gateway %s", r.Name, r.Gateway)}
	default:
		return admin.Finding{Level: admin.LevelWarn, What: err.Error(), Remedy: "see that the uplink is up, that its gateway is right and that the cloud's TCP and UDP port are open; run goes on trying"}
	}
	took := time.Since(begin).Round(time.Millisecond)
	return admin.Finding{Level: admin.LevelOK, What: fmt.Sprintf("link %s: the cloud at %s answers and accepts this edge (%v)", r.Name, a.cfg.Links[i].Cloud, took)}
}

// tryAll dials every address of the cloud until one answers.
func tryAll(ctx context.Context, d *link.Dialer, where *whereabouts) (*link.Conn, error) {
	each := checkTime
	if where != nil {
		each /= 2
	}
	for tries := 1; ; tries++ {
		one, cancel := context.WithTimeout(ctx, each)
		conn, _, err := d.Dial(one, wire.Hello{Resume: true})
		cancel()
		var refusal *link.Refusal
		if err == nil || errors.As(err, &refusal) || errors.Is(err, errNowhere) || tries >= where.count() || ctx.Err() != nil {
			return conn, err
		}
	}
}

// Cleanup removes what a crashed run left on the host.
func Cleanup(namespace string) ([]string, error) { return netns.Cleanup(namespace, "") }
