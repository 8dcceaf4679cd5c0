package gateway

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestRestIsProbed: a connection to the gateway that rests is probed as soon as the file says,
// before what tracks connections on the way forgets it.
func TestRestIsProbed(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	far, near, clientKey, gatewayKey := named(t, "127.0.0.1")
	at := netip.AddrPortFrom(near.Forward[0].Listen.Addr, near.Forward[0].Listen.Port)
	during(t, func(ctx context.Context) error { return new(Far).Run(ctx, far, gatewayKey, log) })
	during(t, func(ctx context.Context) error { return RunNear(ctx, near, clientKey, log) })
	for end := time.Now().Add(ample); says(at, "hello") != nil && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
	}
	c, err := net.Dial("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "at rest from now on"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 19)); err != nil {
		t.Fatal(err)
	}
	var next []time.Duration
	for end := time.Now().Add(ample); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if next = probes(t, near.Gateway.Address.Port); len(next) > 0 && next[len(next)-1] > 30*time.Second {
			break // the last answer is acknowledged
		}
	}
	for _, d := range next {
		if d > 45*time.Second {
			t.Errorf("a connection to the gateway is probed in %v, wanted 45 s at most", d)
		}
	}
	if len(next) == 0 {
		t.Error("no connection to the gateway is probed")
	}
}

// probes are the times to the next keep-alive of connections that were made to a port of this
// host, the shortest first, as the kernel says (proc_net_tcp.txt).
func probes(t *testing.T, port uint16) (next []time.Duration) {
	t.Helper()
	text, err := os.ReadFile("/proc/thread-self/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		var ticks int64
		if len(f) < 6 || !strings.HasSuffix(f[2], fmt.Sprintf(":%04X", port)) {
			continue
		}
		if n, _ := fmt.Sscanf(f[5], "02:%x", &ticks); n == 1 {
			next = append(next, time.Duration(ticks)*10*time.Millisecond)
		}
	}
	slices.Sort(next)
	return next
}
