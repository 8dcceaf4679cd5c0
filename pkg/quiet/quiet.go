// Package quiet keeps the log readable where whoever can reach a port can cause
// warnings, and where the same goes wrong for days.
//
// The package starts no goroutines.
package quiet

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"
)

// Log logs at most a few warnings per interval, and of one party the same only now
// and then, and counts the rest: strangers can cause them as often as they like, and
// an edge whose key is wrong goes on trying. Any goroutine may call its methods.
type Log struct {
	log *slog.Logger

	mu      sync.Mutex
	from    time.Time
	logged  int
	swallow int
	said    map[string]time.Time // when what was logged last, a minute long
}

// News tells what is worth a line: what was not so for a minute. What goes on, and
// shows in a few ways in turn, is told once. The zero News was told nothing.
type News struct{ last map[string]time.Time }

// Fresh reports whether what is so at now is news.
func (n *News) Fresh(what string, now time.Time) bool {
	maps.DeleteFunc(n.last, func(_ string, at time.Time) bool { return now.Sub(at) >= repeat })
	_, known := n.last[what]
	if n.last == nil {
		n.last = map[string]time.Time{}
	}
	n.last[what] = now
	return !known
}

// Forget makes everything news again.
func (n *News) Forget() { n.last = nil }

const (
	interval = 10 * time.Second
	most     = 20
	repeat   = time.Minute
)

// New returns a Log that writes to log.
func New(log *slog.Logger) *Log { return &Log{log: log, said: map[string]time.Time{}} }

// Warn logs that a connection failed, in the words of message. Failures with the same
// who are the same again: it says which party failed, and how, without its port, which
// differs each time.
func (q *Log) Warn(who, message string, args ...any) { q.say(slog.LevelWarn, who, message, args) }

// Info is Warn of what is no fault.
func (q *Log) Info(who, message string, args ...any) { q.say(slog.LevelInfo, who, message, args) }

func (q *Log) say(level slog.Level, who, message string, args []any) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	if now.Sub(q.from) > interval {
		if q.swallow > 0 {
			q.log.Warn("more connections failed", "count", q.swallow)
		}
		q.from, q.logged, q.swallow = now, 0, 0
		maps.DeleteFunc(q.said, func(_ string, at time.Time) bool { return now.Sub(at) >= repeat })
	}
	if at, ok := q.said[who]; q.logged >= most || ok && now.Sub(at) < repeat {
		q.swallow++
		return
	}
	q.logged++
	q.said[who] = now
	q.log.Log(context.Background(), level, message, args...)
}
