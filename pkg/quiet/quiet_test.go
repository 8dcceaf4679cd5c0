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
