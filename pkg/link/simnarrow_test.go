package link

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"hawser/pkg/tunnel"
	"hawser/pkg/wire"
)

// TestNarrowerPath: a connection whose path has become narrower without a word, so that
// only its small packets pass, ends although its edge hears of the cloud all the time. The
// next one carries on. The connection's packets are of 1280 bytes here, and those of 1000
// and less pass; the next one's pass, as it would find out how large they may be.
//
// Where it happens while small packets are few the edge suspects the link by itself and
// makes another connection, in one journey of ten: that shows nothing. In one of forty the
// edge pauses for 3 s, and the 15 s begin anew.
func TestNarrowerPath(t *testing.T) {
	for seed := uint64(1); seed <= 6; seed++ {
		if narrowerPath(t, seed) {
			return
		}
	}
	t.Error("the edge has always made another connection by itself")
}

// narrowerPath is one journey; false: the edge has noticed by itself.
func narrowerPath(t *testing.T, seed uint64) (stuck bool) {
	synctest.Test(t, func(t *testing.T) {
		w := newSimWorld(t, seed, wire.VersionMax, simMbit(5, 40*ms))
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
		stuck = !errors.Is(edge.cause(), tunnel.ErrReplaced)
		if took > 45*time.Second || stuck && took < 14*time.Second {
			t.Error("wanted 14 to 45 s")
		}
		before := w.got(bulk)
		if stuck {
			w.dial(0)
		}
		time.Sleep(2 * time.Second)
		if got := w.got(bulk) - before; stuck && got < 500_000 {
			t.Errorf("%d bytes in 2 s by the next connection", got)
		}
		w.mu.Lock()
		w.over = true
		w.mu.Unlock()
	})
	return stuck
}
