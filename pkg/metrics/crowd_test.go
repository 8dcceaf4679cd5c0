package metrics

import (
	"context"
	"net"
	"runtime"
	"testing"
	"time"

	"hawser/pkg/admin"
)

// TestCrowd: who connects again and again and says nothing does not have the agent hold
// a connection, and goroutines, for each.
func TestCrowd(t *testing.T) {
	s := &Server{Address: "127.0.0.1:0", Source: func() admin.Status { return admin.Status{} }}
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	before := runtime.NumGoroutine()
	for range 8 * most {
		c, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	time.Sleep(200 * time.Millisecond) // it would have accepted more
	if n := runtime.NumGoroutine() - before; n > 3*most {
		t.Errorf("%d goroutines more for %d connections", n, 8*most)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
