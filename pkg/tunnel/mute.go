package tunnel

import (
	"time"

	"hawser/scheduler"
)

// stepMute finds out whether the peer's program still answers on a link, and
// tells who wants to know. What the peer's kernel acknowledges says nothing of
// that: it goes on for a program that is stopped, and so the link stays healthy.
func (s *Session) stepMute(l *link) {
	mute := l.conn != nil && l.conn.unanswered(s.now) > scheduler.MuteAfter(&l.est)
	if mute == l.mute {
		return
	}
	l.mute = mute
	if s.cfg.Mute != nil {
		s.cfg.Mute(l.info.ID, mute)
	}
}

// unanswered is for how long the peer has owed an answer and sent nothing.
func (c *conn) unanswered(now time.Time) time.Duration {
	from := c.oldest()
	if c.closed || from.IsZero() {
		return 0
	}
	if c.spoke.After(from) {
		from = c.spoke
	}
	return now.Sub(from)
}
