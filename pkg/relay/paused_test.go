package relay

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

// TestPausedForHours: a client that reads nothing for longer than keys are kept for
// others, while these go on, gets all that was sealed for it all the same.
func TestPausedForHours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, setup{})
		paused, server := r.pair()
		sent := content(1, 400<<10)
		go func() {
			_ = server.write(sent)
			server.finish()
		}()
		other, its := r.pair()
		for range 12 {
			time.Sleep(time.Hour + time.Second)
			if err := its.write(noise(100)); err != nil {
				t.Fatal(err)
			}
			if p, err := other.read(100); err != nil || !bytes.Equal(p, noise(100)) {
				t.Fatalf("beside it: %d bytes, %v", len(p), err)
			}
		}
		got, err := paused.receive(pace{r: rand.New(rand.NewPCG(1, 1)), chunk: 50 << 10})
		if err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%d of %d bytes, %v", len(got), len(sent), err)
		}
		r.loop.mu.Lock()
		if r.loop.rejects > 0 {
			t.Errorf("bytes were asked for anew %d times", r.loop.rejects)
		}
		r.loop.mu.Unlock()
		paused.finish()
		other.reset()
		its.wait(its.isAborted)
		r.stop()
	})
}
