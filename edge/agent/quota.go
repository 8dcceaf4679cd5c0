package agent

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
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

// readTries is how often a file that cannot be read is tried, once per quotaSave, before it
// is put aside: a disk may fail for a moment, and files be too many on the host.
const readTries = 10

// metered is a link with a quota. The watch owns all but what status reads,
// which uplink.mu guards.
type metered struct {
	link    *uplink
	tier    scheduler.Tier // as configured
	plan    quota.Plan
	meter   *quota.Meter
	device  string
	boot    string // netns.BootID
	verdict quota.Verdict
}

// quotas counts what the links with a quota carry and makes those dearer that
// are ahead of their share of the month, or have spent it.
type quotas struct {
	log     *slog.Logger
	file    stateFile
	traffic func() ([]*netns.Traffic, error)

	mu      sync.Mutex // guards the following
	links   []*metered
	known   map[string]quota.State // as the file had it, and of links that have left since then
	saved   map[string]quota.State // as the file has it
	loaded  bool                   // the file was read, or was put aside
	unread  int                    // how often it could not be read until then
	trouble string                 // why the last writing failed, "" if it did not: said once
}

// newQuotas takes up what was counted before. What is no file is a mistake of the
// configuration's.
func newQuotas(cfg *config.Edge, uplinks []*uplink, log *slog.Logger) (*quotas, error) {
	q := &quotas{log: log, file: stateFile{path: cfg.State}}
	if err := q.check(cfg.Links); err != nil {
		return nil, err
	}
	for i, l := range cfg.Links {
		uplinks[i].entry = l
	}
	q.take(uplinks)
	return q, nil
}

// check refuses a file that cannot be one, where it is needed.
func (q *quotas) check(links []config.Link) error {
	if slices.ContainsFunc(links, func(l config.Link) bool { return l.Quota > 0 }) {
		return q.file.check()
	}
	return nil
}

// take counts the uplinks that have a quota in place of those before, each as its entry says
// now, and has all have their tier. Who has been counted before goes on from there.
func (q *quotas) take(uplinks []*uplink) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if slices.ContainsFunc(uplinks, func(u *uplink) bool { entry, _ := u.says(); return entry.Quota > 0 }) {
		q.load()
	}
	was := q.links
	q.links = nil
	for _, u := range uplinks {
		entry, _ := u.says()
		m := &metered{link: u, tier: scheduler.Tier(entry.Tier), device: entry.Interface, boot: netns.BootID(), plan: quota.Plan{Bytes: uint64(entry.Quota), Day: entry.QuotaDay}}
		i := slices.IndexFunc(was, func(o *metered) bool { return o.link == u && o.plan == m.plan && o.device == m.device })
		switch {
		case m.plan.Bytes == 0:
			m = nil
		case i >= 0:
			was[i].tier = m.tier
			m = was[i]
		default:
			m.meter = quota.New(m.plan, q.last(was, u.name))
		}
		u.mu.Lock()
		u.quota = m
		u.mu.Unlock()
		tier := scheduler.Tier(entry.Tier)
		if m != nil {
			q.links = append(q.links, m)
			tier = tierUnder(tier, m.verdict)
		}
		u.cost(tier, entry.Weight)
	}
	for _, m := range was {
		q.known[m.link.name] = m.meter.State()
	}
}

// last is what was counted of a link before.
func (q *quotas) last(was []*metered, name string) quota.State {
	for _, m := range was {
		if m.link.name == name {
			return m.meter.State()
		}
	}
	return q.known[name]
}

// load takes up what was counted before, until that has succeeded once. A file that is damaged
// must not keep the box from working: it is put aside, counting begins anew, and the log says
// so. One that cannot be read now is left as it is until it can, and nothing is lost: the
// kernel goes on counting from where the file says. The caller holds mu.
func (q *quotas) load() {
	if q.loaded {
		return
	}
	if q.known == nil {
		q.known = map[string]quota.State{}
	}
	known, err := q.file.load()
	if unread := q.unread + 1; err != nil && !errors.Is(err, errDamaged) && unread < readTries {
		if q.unread = unread; unread == 1 {
			q.log.Error("quota: what was counted before cannot be read, it is tried again every minute", "reason", err)
		}
		return
	}
	if err != nil {
		q.log.Error("quota: counting begins anew", "reason", q.file.putAside(err))
	} else if q.unread > 0 {
		q.log.Info("quota: what was counted before is read now")
	}
	q.loaded, q.unread, q.saved = true, 0, known
	maps.Copy(q.known, known)
	for _, m := range q.links { // they began without it
		if was, ok := known[m.link.name]; ok {
			m.link.mu.Lock()
			m.meter = quota.New(m.plan, was)
			m.link.mu.Unlock()
		}
	}
}

// begin counts for the first time, before a link is used that has spent its
// quota, and writes down from where.
func (q *quotas) begin(traffic func() ([]*netns.Traffic, error)) {
	q.traffic = traffic
	q.again()
}

// again is begin for links that have come since then.
func (q *quotas) again() {
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
	q.mu.Lock()
	defer q.mu.Unlock()
	q.look(now)
}

// look is count for who holds mu.
func (q *quotas) look(now time.Time) {
	if len(q.links) == 0 {
		return
	}
	counted, _ := q.traffic() // none where that fails
	for _, m := range q.links {
		var t *netns.Traffic
		if m.link.id < len(counted) {
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
		m.verdict = m.meter.Count(now, quota.Reading{
			Interface: m.device, Index: t.Index, Boot: m.boot, Sent: t.SentBytes, Received: t.ReceivedBytes,
		})
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
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.unread > 0 {
		if q.load(); q.unread > 0 {
			return
		}
		q.look(time.Now())
	}
	all := maps.Clone(q.known)
	for _, m := range q.links {
		m.link.mu.Lock()
		all[m.link.name] = m.meter.State()
		m.link.mu.Unlock()
	}
	if maps.Equal(all, q.saved) {
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
