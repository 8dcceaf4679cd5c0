package e2e

import (
	"sync"
	"testing"
	"time"

	"hawser/e2e/lab"
	"hawser/e2e/pair"
	"hawser/pkg/shunt"
)

// TestDirect: connections that a policy keeps from the tunnel go around it,
// spliced: the server sees another address, every byte arrives both ways, the
// session knows nothing of them, and status counts them. Others use the tunnel.
func TestDirect(t *testing.T) {
	t.Parallel()
	r := start(t, fast(), pair.Options{Policies: `[{name: around, ports: [81], action: direct}]`})
	r.serveEcho(80)
	r.serveEcho(81)
	families(t, func(t *testing.T, f lab.Family) {
		through, err := r.echoAt(f, 80, 20*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer through.Close()
		before, opened := r.counters(t), r.opened(t)
		const flows, size = 8, 2 << 20
		var wg sync.WaitGroup
		for range flows {
			wg.Go(func() {
				e, err := r.echoAt(f, 81, 20*time.Second)
				if err != nil {
					t.Error(err)
					return
				}
				defer e.Close()
				if e.from == through.from {
					t.Errorf("the server sees %s with and without the tunnel", e.from)
				}
				if err := e.bulk(size); err != nil {
					t.Error(err)
				}
				if err := e.CloseWrite(); err != nil {
					t.Error(err)
				}
				if _, err := e.in.ReadByte(); err == nil {
					t.Error("there is more than was sent")
				}
			})
		}
		wg.Wait()
		after := r.counters(t)
		grown := func(name string) uint64 { return after[name] - before[name] }
		if grown("splice_opened") != flows || grown("splice_bytes_up") < flows*size || grown("splice_bytes_down") < flows*size || grown("splice_bad_segments") != 0 {
			t.Errorf("%d spliced, %d bytes up, %d down, %d bad segments", grown("splice_opened"), grown("splice_bytes_up"), grown("splice_bytes_down"), grown("splice_bad_segments"))
		}
		if n := grown("splice_kernel"); n != flows && shunts(t) {
			t.Errorf("the kernel has carried %d of %d connections", n, flows)
		}
		if n := r.opened(t) - opened; n != 0 {
			t.Errorf("%d of them went through the session", n)
		}
		if err := through.bulk(size); err != nil {
			t.Errorf("the connection through the tunnel: %v", err)
		}
	})
	s, err := r.pair.Status("edge")
	if err != nil || s.Detour {
		t.Errorf("status: detour %v, %v", s.Detour, err)
	}
}

// shunts says that the kernel can carry spliced connections.
func shunts(t *testing.T) bool {
	const lo = 1
	s, err := shunt.New(shunt.Options{Hub: lo, Workers: 1})
	if err == nil {
		err = s.Close()
	}
	if err != nil {
		t.Logf("this kernel carries no spliced connections: %v", err)
	}
	return err == nil
}

// opened is how many flows the edge's session has opened.
func (r *rig) opened(t *testing.T) uint64 {
	t.Helper()
	s, err := r.pair.Status("edge")
	if err != nil {
		t.Fatal(err)
	}
	return s.Sessions[0].Flows.Opened
}
