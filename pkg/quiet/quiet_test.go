package quiet

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestQuiet: strangers cannot fill the log.
func TestQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		q := New(slog.New(slog.NewTextHandler(&out, nil)))
		for i := range 1000 {
			q.Warn(fmt.Sprintf("192.0.2.%d", i%250), "connection failed", "port", i)
		}
		if n := strings.Count(out.String(), "\n"); n != most {
			t.Errorf("%d lines for 1000 failures", n)
		}
		if len(q.said) > most {
			t.Errorf("%d parties are remembered", len(q.said))
		}
		time.Sleep(interval + time.Second)
		q.Warn("192.0.2.251", "connection failed")
		if !strings.Contains(out.String(), "count=980") {
			t.Errorf("what was left out is not counted:\n%s", out.String())
		}
	})
}

// TestNews: what goes on is told once, and once more when it was not so for a minute.
func TestNews(t *testing.T) {
	var n News
	now := time.Unix(1000, 0)
	told := 0
	for range 1000 {
		now = now.Add(5 * time.Second)
		for _, what := range []string{"reset", "closed"} {
			if n.Fresh(what, now) {
				told++
			}
		}
	}
	if told != 2 {
		t.Errorf("two ways to fail in turn are told %d times", told)
	}
	if now = now.Add(repeat); !n.Fresh("reset", now) || n.Fresh("reset", now) {
		t.Error("what was not so for a minute is no news, or twice")
	}
	if n.Forget(); !n.Fresh("reset", now) {
		t.Error("what was so before the last connection is no news")
	}
}
