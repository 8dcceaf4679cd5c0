package repair

import (
	"testing"
	"time"
)

// TestLiar: a peer that has more sent again by what it says than was sent gets no more than
// a few times that, however it lies.
func TestLiar(t *testing.T) {
	const window = 2000 * mss
	for name, lie := range map[string]func(una uint32, i int, fresh Range) (ack uint32, blocks []Range){
		// All is missing but for what has come since.
		"has only the newest": func(una uint32, _ int, fresh Range) (uint32, []Range) {
			return una, []Range{{una + window, fresh.To}}
		},
		// All but the first segment has come, and is thrown away.
		"throws all away": func(una uint32, i int, fresh Range) (uint32, []Range) {
			switch i % 4 {
			case 0:
				return una, []Range{{una + 1, fresh.To}}
			case 1:
				una += 2
			}
			return una, []Range{{fresh.To - uint32(i%4)*mss, fresh.To}}
		},
	} {
		f, now, next := &Flow{}, 10*ms, uint32(1)
		send := func(n int) (r Range) {
			r = Range{next, next + uint32(n)}
			f.Sent(now, r, mss, 0)
			next = r.To
			return r
		}
		again := 0
		count := func(r Range) { again += r.Len() }
		send(mss)
		now += ms / 5
		f.Ack(now, next, next+1<<29, nil, 8<<20, count)
		start, una := next, next
		for range window / mss {
			send(mss)
		}
		for i := range 1000 {
			now += 2 * ms
			fresh := send(mss)
			ack, blocks := lie(una, i, fresh)
			una = ack
			now += ms / 5
			f.Ack(now, ack, ack+1<<29, blocks, 8<<20, count)
			f.Tick(now, count)
			if at, ok := f.Due(); ok && f.purse == 0 && at < now {
				t.Fatalf("%s: due %v ago though nothing can be paid for", name, now-at)
			}
		}
		if sent := int(next - start); again > 2*purseTimes*sent {
			t.Errorf("%s: %d bytes were sent, %d again", name, sent, again)
		}
		now += time.Minute
		if f.Ack(now, next, next+1<<29, nil, 8<<20, count); !f.Idle() || f.Debt() != 0 {
			t.Errorf("%s: %d bytes are owed to who has all", name, f.Debt())
		}
	}
}

// TestPoor: also where nothing can be paid for all arrives, and soon.
func TestPoor(t *testing.T) {
	took := func(seed uint64, poor bool) time.Duration {
		l := newLine(t, seed, 1000*mss, 0.1)
		for steps := 0; l.step(); steps++ {
			if poor && steps%500 == 0 {
				l.f.purse = 0
			}
			if steps > 1000000 {
				t.Fatalf("seed %d: no end; %d bytes arrived, %d owed", seed, l.rcv-l.start, l.f.Debt())
			}
		}
		if l.rcv != l.end || l.told != l.end || l.f.Debt() != 0 {
			t.Errorf("seed %d: %d bytes arrived, %d owed", seed, l.rcv-l.start, l.f.Debt())
		}
		return l.now
	}
	var rich, poor time.Duration
	for seed := range uint64(20) {
		rich += took(seed, false)
		poor += took(seed, true)
	}
	if t.Logf("%v, and %v", rich/20, poor/20); poor > 3*rich/2 {
		t.Errorf("%v where nothing can be paid for, %v otherwise", poor/20, rich/20)
	}
}
