package agent

import (
	"log/slog"
	"sync"
	"time"
)

// quiet logs at most a few warnings per interval and counts the rest: whoever
// can reach the port can cause them.
type quiet struct {
	log *slog.Logger

	mu      sync.Mutex
	from    time.Time
	logged  int
	swallow int
}

const (
	quietInterval = 10 * time.Second
	quietMost     = 20
)

func newQuiet(log *slog.Logger) *quiet { return &quiet{log: log} }

func (q *quiet) warn(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if now := time.Now(); now.Sub(q.from) > quietInterval {
		if q.swallow > 0 {
			q.log.Warn("more connections failed", "count", q.swallow)
		}
		q.from, q.logged, q.swallow = now, 0, 0
	}
	if q.logged >= quietMost {
		q.swallow++
		return
	}
	q.logged++
	q.log.Warn("connection failed", "reason", err)
}
