package relay

import (
	"testing"
	"testing/synctest"
)

// TestLastWords: what a party said before it reset its connection reaches the other one,
// also where writing to it finds the reset, and where the blocks are still in the card.
func TestLastWords(t *testing.T) {
	const words = "413 too large"
	for _, k := range []struct {
		name   string
		slow   int
		before func(from, to *duct)
	}{
		{"at rest", 0, func(_, _ *duct) {}},
		{"slow card", 1, func(_, _ *duct) {}},
		{"while it is sent more than it takes", 0, func(_, to *duct) { go func() { _ = to.write(content(1, 1<<20)) }() }},
		{"the same with a slow card", 2, func(_, to *duct) { go func() { _ = to.write(content(1, 1<<20)) }() }},
	} {
		for who, name := range []string{"client", "server"} {
			t.Run(k.name+", "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newRig(t, setup{slow: k.slow, options: func(o *Options) { o.Window = 3 }})
					client, server := r.pair()
					from, to := client, server
					if who == 1 {
						from, to = server, client
					}
					k.before(from, to)
					synctest.Wait()
					from.mu.Lock()
					from.kept, from.broken = true, true
					from.in = []byte(words)
					from.outMax = 1 << 20
					from.raise(3) // writable and readable, and no word of the reset
					from.mu.Unlock()
					from.wait(from.isAborted)
					to.wait(to.isAborted)
					synctest.Wait()
					if string(to.out) != words {
						t.Errorf("the other one has got %q", to.out)
					}
					if got := r.loop.codesOf(who); got != "[abort]" {
						t.Errorf("codes %s", got)
					}
					r.stop()
				})
			})
		}
	}
}
