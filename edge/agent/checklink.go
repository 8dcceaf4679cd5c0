package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"hawser/netns"
	"hawser/pkg/admin"
	"hawser/pkg/config"
	"hawser/pkg/link"
	"hawser/pkg/wire"
)

// gatewayTime bounds the attempt to find a link's gateway: the kernel asks for three
// seconds. patience bounds those to reach the cloud.
const gatewayTime = 4 * time.Second

// checkLinks tries all links at the same time.
func (a *agent) checkLinks(ctx context.Context, p netns.Plan) []admin.Finding {
	out := make([][]admin.Finding, len(a.cfg.Links))
	var wg sync.WaitGroup
	for i := range a.cfg.Links {
		wg.Go(func() { out[i] = a.checkLink(ctx, i, p.Links[i]) })
	}
	wg.Wait()
	return slices.Concat(out...)
}

// checkLink tries a link by each transport that it may use. An uplink that needs the
// route which only run sets cannot be judged, but for its gateway; one whose gateway is
// the host's own can.
func (a *agent) checkLink(ctx context.Context, i int, r netns.LinkRoute) []admin.Finding {
	transports := []link.Transport{link.TCP, link.QUIC}
	switch a.cfg.Links[i].Transport {
	case config.TransportTCP:
		transports = transports[:1]
	case config.TransportQUIC:
		transports = transports[1:]
	}
	tried := make([]trialRun, len(transports))
	mute, p := false, newPatience()
	var wg sync.WaitGroup
	for n, t := range transports {
		ctx := p.wait(ctx, t)
		wg.Go(func() {
			tried[n] = a.try(ctx, i, r, t, p.hear)
			p.done(t, tried[n].works())
		})
	}
	if r.Gateway.IsValid() {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, gatewayTime)
			defer cancel()
			mute = netns.AskGateway(ctx, r)
		})
	}
	wg.Wait()
	return a.judge(i, r, tried, mute)
}

// trialRun is how the attempt by one transport ended. A cloud that knows this edge
// refuses the session that is asked for, which does not exist: that is success.
type trialRun struct {
	transport link.Transport
	err       error
	took      time.Duration
	by        netip.Prefix // of NAT64; invalid: it went without
}

// try dials every address of the cloud over link i by one transport until one answers.
// heard is told when one does.
func (a *agent) try(ctx context.Context, i int, r netns.LinkRoute, t link.Transport, heard func(link.Transport)) trialRun {
	ctx, cancel := context.WithCancel(ctx)
	where := newWhereabouts(a.cfg.Links[i], func() (four, six bool) { return netns.Versions(r) })
	where.begin(ctx)
	defer where.wait()
	defer cancel()
	var turn turn
	begin := time.Now()
	d, err := a.dialer(a.cfg.Links[i], uint16(i), r, where, func(t link.Transport) { turn.stays(); heard(t) })
	if err != nil {
		return trialRun{transport: t, err: err}
	}
	for tries := 1; ; tries++ {
		one := turn.next(ctx, where.asks())
		conn, _, err := d.DialBy(one, t, wire.Hello{Resume: true})
		if err != nil && one.Err() != nil {
			err = unheard(err)
		}
		turn.cancel()
		by := where.through(err)
		var refusal *link.Refusal
		switch {
		case err == nil:
			where.works(conn.Info().Remote)
			by = where.translated()
			conn.Close(nil)
		case errors.As(err, &refusal) && refusal.Status == wire.StatusNoSession:
			err = nil
		case !errors.As(err, &refusal) && !errors.Is(err, errNowhere) && tries < where.count() && ctx.Err() == nil:
			continue
		}
		return trialRun{t, where.explain(err), time.Since(begin).Round(time.Millisecond), by}
	}
}

// unheard is the error of an attempt that was given up because nothing had come.
func unheard(err error) error {
	var step *link.StepError
	if !errors.As(err, &step) {
		return err
	}
	silent := *step
	silent.Err = link.ErrSilent
	return &silent
}

// judge says what the attempts of link i have shown; mute: its gateway does not answer.
func (a *agent) judge(i int, r netns.LinkRoute, tried []trialRun, mute bool) (findings []admin.Finding) {
	l := a.cfg.Links[i]
	remedy := func(err error) string { return advice(err, i, l, around(r)) }
	works := slices.IndexFunc(tried, trialRun.works)
	if works >= 0 && mute { // the host has another way there, by which run's links do not go
		return []admin.Finding{{Level: admin.LevelWarn, What: fmt.Sprintf("link %s: the cloud at %s answers, but not by the link's gateway %s, which does not answer on %s", r.Name, l.Cloud, r.Gateway, r.Interface),
			Remedy: fmt.Sprintf("correct links[%d].gateway: run goes by it alone", i)}}
	}
	if works >= 0 {
		findings = append(findings, admin.Finding{Level: admin.LevelOK, What: fmt.Sprintf(
			"link %s: the cloud at %s answers and accepts this edge (%s)", r.Name, l.Cloud, tried[works])})
		for _, t := range tried {
			if !t.works() {
				findings = append(findings, admin.Finding{Level: admin.LevelWarn, What: t.err.Error(), Remedy: fmt.Sprintf(
					"the link does without %s; to let it choose, let the cloud's port in by TCP and UDP", t.transport)})
			}
		}
		return findings
	}
	var errs []error
	for _, t := range tried {
		if final(t.err) {
			return []admin.Finding{{Level: admin.LevelFail, What: t.err.Error(), Remedy: remedy(t.err)}}
		}
		errs = append(errs, t.err)
	}
	err := &failures{errs}
	switch {
	case errors.Is(err, syscall.ENODEV):
		return nil // netns.Check has said so
	case unreached(err) && !errors.Is(err, syscall.ECONNREFUSED) && netns.Bare(r):
		return []admin.Finding{{Level: admin.LevelWarn, What: err.Error(), Remedy: bare(i, l) + "; run goes on trying"}}
	case mute:
		return []admin.Finding{{Level: admin.LevelWarn, What: fmt.Sprintf("link %s: its gateway %s does not answer on %s", r.Name, r.Gateway, r.Interface),
			Remedy: fmt.Sprintf("correct links[%d].gateway; run goes on trying", i)}}
	case r.Gateway.IsValid() && !errors.Is(err, syscall.ECONNREFUSED) && !slices.ContainsFunc(tried, trialRun.answered) && !netns.Leads(r):
		return []admin.Finding{{Level: admin.LevelOK, What: fmt.Sprintf("link %s: cannot be tried yet, run sets the route by its gateway %s", r.Name, r.Gateway)}}
	}
	how := "run goes on trying"
	if r := remedy(err); r != "" {
		how = r + "; " + how
	} else if slices.ContainsFunc(tried, trialRun.answered) {
		how = "the cloud's log may say more; " + how
	}
	return []admin.Finding{{Level: admin.LevelWarn, What: err.Error(), Remedy: how}}
}

func (t trialRun) works() bool { return t.err == nil }

// answered tells of an attempt that has failed whether somebody was there.
func (t trialRun) answered() bool {
	var step *link.StepError
	if !errors.As(t.err, &step) {
		return false
	}
	return step.Step == link.StepHello || step.Step == link.StepWelcome || step.Step == link.StepTLS && t.transport == link.TCP
}

// String says how an attempt went that has succeeded.
func (t trialRun) String() string {
	how := fmt.Sprintf("%s, %v", t.transport, t.took)
	if t.by.IsValid() {
		how += fmt.Sprintf(", by NAT64 with prefix %s", t.by)
	}
	return how
}

// failures are those of several transports in one line.
type failures struct{ errs []error }

func (f *failures) Error() string {
	var parts []string
	for _, err := range f.errs {
		if text := err.Error(); !slices.Contains(parts, text) {
			parts = append(parts, text)
		}
	}
	return strings.Join(parts, "; ")
}

func (f *failures) Unwrap() []error { return f.errs }
