package split

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"hawser/pkg/guard"
)

// TestDisplaced: when all places are taken, a client gets that of the one whose
// server has not answered for longest, which is reset; those that have not
// waited for long keep theirs.
func TestDisplaced(t *testing.T) {
	for _, mode := range []guard.Mode{guard.ZeroWindow, guard.Fast} {
		t.Run(mode.String(), func(t *testing.T) {
			l := newLab(t, true)
			p := newPump(t)
			s, _ := l.start(l.guarded(mode, guard.Limits{Pending: 2}), func(c *Conn) {
				p.echo(c, nil)
				if c.Local().Port() == 80 {
					c.Open(-1)
				}
			})
			began := time.Now()
			first, second := l.dial(anywhere(false, 99)), l.dial(anywhere(true, 99))
			waitFor(t, "two that wait", func() bool { return s.keeper.opts.Gate.Status().Pending == 2 })
			must(t, roundTrip(l.dial(anywhere(false, 80)), random(1000)))
			if took := time.Since(began); took < patienceFresh {
				t.Errorf("the first was displaced after %v", took)
			}
			if _, err := first.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the first: %v, want a reset", err)
			}
			must(t, second.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
			if _, err := second.Read(make([]byte, 1)); errors.Is(err, syscall.ECONNRESET) {
				t.Error("the second was reset, too")
			}
			if g := s.Stats().Guard; g.Displaced != 1 || g.Admitted != 3 {
				t.Errorf("%+v", g)
			}
			must(t, second.SetLinger(0))
			second.Close()
			waitFor(t, "all flows to be forgotten", func() bool {
				s.keeper.mu.Lock()
				defer s.keeper.mu.Unlock()
				return s.keeper.pending == wards{} && s.keeper.opts.Gate.Status().Pending == 0
			})
		})
	}
}

// TestWards: the order is that of coming, whoever leaves.
func TestWards(t *testing.T) {
	var p wards
	w := [4]*ward{{}, {}, {}, {}}
	for _, f := range w {
		p.add(f)
	}
	for _, leaving := range []int{2, 0, 0, 3, 1} {
		p.remove(w[leaving])
		var left []*ward
		for f := p.oldest; f != nil; f = f.near[byAge].newer {
			left = append(left, f)
		}
		for i := 1; i < len(left); i++ {
			if left[i].near[byAge].older != left[i-1] {
				t.Fatal("the list does not go back as it goes on")
			}
		}
		if len(left) > 0 && (p.newest != left[len(left)-1] || left[0].near[byAge].older != nil) {
			t.Fatal("the ends are wrong")
		}
	}
	if p != (wards{}) {
		t.Errorf("not empty: %+v", p)
	}
}
