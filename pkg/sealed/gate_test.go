package sealed

import (
	"bytes"
	"log/slog"
	"net"
	"strings"
	"testing"
)

// TestStrangersAtTheGate: who connects again and again and says nothing of use
// cannot fill the log.
func TestStrangersAtTheGate(t *testing.T) {
	const knocks = 300
	var out bytes.Buffer
	g, _, at := gateOf(t, slog.New(slog.NewTextHandler(&out, nil)))
	for i := range uint64(knocks) {
		c, err := net.Dial("tcp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte{tlsHandshake, 3, 1, 0, 4, 'n', 'o', 'n', 'e'}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the end of the handshake", func() bool { return g.o.Counters.Failed.Load() > i })
		c.Close()
	}
	g.Close() // what is logged comes after the counting
	if n := strings.Count(out.String(), "\n"); n < 1 || n > 25 {
		t.Errorf("%d failures have written %d lines:\n%.500s", knocks, n, out.String())
	}
}
