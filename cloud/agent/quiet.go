package agent

import (
	"log/slog"
	"maps"
	"net/netip"
	"sync"
	"time"

	"hawser/pkg/link"
)

// quiet logs at most a few warnings per interval, and of one party the same only now
// and then, and counts the rest: whoever can reach the port can cause them, and an edge
// whose key is wrong goes on trying.
type quiet struct {
	log *slog.Logger

	mu      sync.Mutex
	from    time.Time
	logged  int
	swallow int
	said    map[string]time.Time // when what was logged last, a minute long
}

const (
	quietInterval = 10 * time.Second
	quietMost     = 20
	quietRepeat   = time.Minute
)

func newQuiet(log *slog.Logger) *quiet { return &quiet{log: log, said: map[string]time.Time{}} }

func (q *quiet) warn(e *link.StepError) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	if now.Sub(q.from) > quietInterval {
		if q.swallow > 0 {
			q.log.Warn("more connections failed", "count", q.swallow)
		}
		q.from, q.logged, q.swallow = now, 0, 0
		maps.DeleteFunc(q.said, func(_ string, at time.Time) bool { return now.Sub(at) >= quietRepeat })
	}
	again := sameParty(e)
	if at, ok := q.said[again]; q.logged >= quietMost || ok && now.Sub(at) < quietRepeat {
		q.swallow++
		return
	}
	q.logged++
	q.said[again] = now
	q.log.Warn("connection failed", "reason", e)
}

// sameParty is the error without the party's port, which differs each time.
func sameParty(e *link.StepError) string {
	same := *e
	same.Remote = netip.AddrPortFrom(e.Remote.Addr(), 0)
	return same.Error()
}
