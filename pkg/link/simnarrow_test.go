package link

import (
	"testing"
	"testing/synctest"
	"time"

	"hawser/pkg/wire"
)

// TestNarrowerPath: a connection whose path has become narrower without a word, so that
// only its small packets pass, ends although its edge hears of the cloud all the time. The
// next one carries on. The connection's packets are of 1280 bytes here, and those of 1000
// and less pass; the next one's pass, as it would find out how large they may be.
func TestNarrowerPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newSimWorld(t, 1, wire.VersionMax, simMbit(5, 40*ms))
		defer w.close()
		_, bulk := w.open(false)
		time.Sleep(time.Second)
		old := w.active(0)
		narrow := func(l *simLine) {
			l.drops = func(size, port int) bool { return port == int(old.Info().Remote.Port()) && size > 1000 }
		}
		w.ups.links[0].up.change(narrow)
		w.ups.links[0].down.change(narrow)
		w.mu.Lock()
		edge := w.conns[0][0]
		w.mu.Unlock()
		begin := time.Now()
		for edge.cause() == nil && time.Since(begin) < time.Minute {
			time.Sleep(100 * ms)
		}
		took := time.Since(begin)
		t.Logf("it ended after %v: %v", took, edge.cause())
		if took < 15*time.Second || took > 25*time.Second {
			t.Error("wanted 15 to 25 s")
		}
		before := w.got(bulk)
		w.dial(0)
		time.Sleep(2 * time.Second)
		if got := w.got(bulk) - before; got < 500_000 {
			t.Errorf("%d bytes in 2 s by the next connection", got)
		}
		w.mu.Lock()
		w.over = true
		w.mu.Unlock()
	})
}
