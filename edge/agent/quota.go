package agent

import (
	"context"
	"log/slog"
	"time"

	"hawser/netns"
	"hawser/pkg/admin"
	"hawser/pkg/config"
	"hawser/pkg/quota"
	"hawser/pkg/tunnel"
	"hawser/scheduler"
)

// How often the interfaces' counters are looked at, and how often what was
// counted is written down. A crash of the program loses nothing, since the
// kernel goes on counting; a loss of power loses what came since the writing.
const (
	quotaEvery = time.Second
	quotaSave  = time.Minute
)

// metered is a link with a quota. The watch owns all but what status reads,
// which uplink.mu guards.
type metered struct {
	link    *uplink
	tier    scheduler.Tier // as configured
	plan    quota.Plan
	meter   *quota.Meter
	device  string
	verdict quota.Verdict
}

// quotas counts what the links with a quota carry and makes those dearer that
// are ahead of their share of the month, or have spent it.
type quotas struct {
	log     *slog.Logger
	file    stateFile
	links   []*metered
	traffic func() ([]*netns.Traffic, error)
	saved   map[string]quota.State
	trouble string // why the last writing failed, "" if it did not: said once
}

// newQuotas takes up what was counted before. A file that cannot be read must
// not keep the box from working: it begins anew, and says so. But what is no file
// is a mistake of the configuration's.
func newQuotas(cfg *config.Edge, uplinks []*uplink, log *slog.Logger) (*quotas, error) {
	q := &quotas{log: log, file: stateFile{path: cfg.State}}
	for i, l := range cfg.Links {
		if l.Quota > 0 {
			q.links = append(q.links, &metered{
				link: uplinks[i], tier: scheduler.Tier(l.Tier), device: l.Interface,
				plan: quota.Plan{Bytes: uint64(l.Quota), Day: l.QuotaDay},
			})
		}
	}
	if len(q.links) == 0 {
		return q, nil
	}
	if err := q.file.check(); err != nil {
		return nil, err
	}
	known, err := q.file.load()
	if err != nil {
		log.Error("quota: counting begins anew", "reason", err)
	}
	q.saved = known
	for _, m := range q.links {
		m.meter = quota.New(m.plan, known[m.link.name])
		m.link.quota = m
	}
	return q, nil
}

// begin counts for the first time, before a link is used that has spent its
// quota, and writes down from where.
func (q *quotas) begin(traffic func() ([]*netns.Traffic, error)) {
	q.traffic = traffic
	q.count(time.Now())
	q.save()
}

// watch counts until ctx ends, and writes down what was counted.
func (q *quotas) watch(ctx context.Context) error {
	count, save := time.NewTicker(quotaEvery), time.NewTicker(quotaSave)
	defer count.Stop()
	defer save.Stop()
	for {
		select {
		case <-ctx.Done():
			q.count(time.Now())
			q.save()
			return nil
		case <-save.C:
			q.save()
		case <-count.C:
			q.count(time.Now())
		}
	}
}

// count looks at the counters and changes the tiers that must be.
func (q *quotas) count(now time.Time) {
	counted, err := q.traffic()
	for _, m := range q.links {
		var t *netns.Traffic
		if err == nil {
			t = counted[m.link.id]
		}
		m.count(now, t)
	}
}

func (m *metered) count(now time.Time, t *netns.Traffic) {
	u := m.link
	u.mu.Lock()
	was := m.verdict
	if t == nil {
		m.verdict = m.meter.Judge(now)
	} else {
		m.verdict = m.meter.Count(now, m.device, t.Index, t.SentBytes+t.ReceivedBytes)
	}
	verdict, used := m.verdict, m.meter.State().Used
	u.mu.Unlock()
	if verdict == was {
		return
	}
	u.log.Info("quota", "is", verdict, "used", used, "of", m.plan.Bytes)
	u.alter(func(t *tunnel.LinkTerms) { t.Tier = tierUnder(m.tier, verdict) })
}

// tierUnder is what a link costs when its quota says so.
func tierUnder(configured scheduler.Tier, v quota.Verdict) scheduler.Tier {
	switch v {
	case quota.Ahead:
		return max(configured, scheduler.Standby)
	case quota.Spent:
		return scheduler.LastResort
	}
	return configured
}

// save writes down what was counted, if anything was. Links that are no longer
// in the configuration keep what they had.
func (q *quotas) save() {
	all, news := map[string]quota.State{}, false
	for name, s := range q.saved {
		all[name] = s
	}
	for _, m := range q.links {
		m.link.mu.Lock()
		all[m.link.name] = m.meter.State()
		m.link.mu.Unlock()
		news = news || all[m.link.name] != q.saved[m.link.name]
	}
	if !news {
		return
	}
	err := q.file.store(all)
	q.tell(err)
	if err == nil {
		q.saved = all
	}
}

// tell says what is new about writing down: a disk may be full for months.
func (q *quotas) tell(err error) {
	was := q.trouble
	if q.trouble = ""; err != nil {
		q.trouble = err.Error()
	}
	switch {
	case q.trouble == was:
	case err == nil:
		q.log.Info("quota: what was counted is kept over a restart again")
	default:
		q.log.Error("quota: what was counted is not kept over a restart until it can be written", "reason", err)
	}
}

// quotaStatus is what status shows of the link's quota, or nil.
func (u *uplink) quotaStatus(now time.Time) *admin.Quota {
	u.mu.Lock()
	defer u.mu.Unlock()
	m := u.quota
	if m == nil {
		return nil
	}
	begun, ends := m.meter.Month()
	return &admin.Quota{
		Bytes: m.plan.Bytes, Used: m.meter.State().Used, Allowed: m.meter.Allowed(now),
		State: m.verdict.String(), Begun: begun, Ends: ends,
	}
}
