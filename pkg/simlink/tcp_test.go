package simlink

import (
	"testing"
	"time"
)

// TestTCP: a connection uses its line, loses and doubles nothing, and keeps the
// order, whatever the line does.
func TestTCP(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name   string
		change func(*Line)
		least  float64 // share of the rate
	}{
		{"well", func(*Line) {}, 0.93},
		{"random loss of 1 %", func(l *Line) { l.Loss = 0.01 }, 0.90},
		{"bursts", func(l *Line) { l.Loss, l.Burst = 0.01, 4 }, 0.85},
		{"trembling", func(l *Line) { l.Tremble = 20 * ms }, 0.5},
		{"dead for a second", func(l *Line) {
			l.events.After(3*time.Second, func() { l.Dead = true })
			l.events.After(4*time.Second, func() { l.Dead = false })
		}, 0.70},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := NewEvents()
			const rate = 2.5e6
			out, back := e.NewLine(rate, 20*ms, 100_000, 1), e.NewLine(rate, 20*ms, 100_000, 2)
			c.change(out)
			tcp := e.NewTCP(out, back)
			sent, got := 0, 0
			var more func()
			more = func() {
				for range 4 {
					n := sent
					sent++
					tcp.Send(4000, func() {
						if n != got {
							t.Errorf("record %d came as number %d", n, got)
						}
						got++
					})
				}
				tcp.Room(more)
			}
			more()
			e.Run(e.Now().Add(8*time.Second), nil)
			share := float64(got*4020) / 8 / rate
			t.Logf("%.3f of the rate, %d packets found a full queue", share, out.Dropped)
			if share < c.least {
				t.Errorf("%.3f of the rate, wanted %.2f", share, c.least)
			}
			if s := tcp.Sense(); int(s.Arrived) > got*4020+4020 || s.InFlight < 0 || s.Delivered < s.Arrived {
				t.Errorf("%d records came, the transport says %+v", got, s)
			}
		})
	}
}

// TestLostOnceMore: what comes first in order is sent again first, also where it was lost
// after others.
func TestLostOnceMore(t *testing.T) {
	var tcp TCP
	for _, from := range []uint64{4500, 1500, 3000, 0} {
		tcp.lose(&packed{span: span{from, from + 1500}})
	}
	for i, s := range tcp.again {
		if s.from != uint64(i)*1500 {
			t.Fatalf("%d goes first, then %v", tcp.again[0].from, tcp.again[1:])
		}
	}
}
