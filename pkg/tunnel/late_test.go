package tunnel

import (
	"fmt"
	"time"

	"hawser/pkg/wire"
)

// lateLast is how many records of the messages' flow are told of a late one.
const lateLast = 12

// name is what a strand is to its connection.
func (st *strand) name() string {
	switch c := st.conn; st {
	case c.bulk:
		return "bulk"
	case c.twin:
		return "twin"
	}
	return "urgent"
}

// watchLate prints each message that took longer than most, with the last records of
// its flow that have arrived: by which link and strand, when they were sent, and how
// long they took.
func (m *sim) watchLate(t *messenger, most time.Duration) {
	if most == 0 {
		return
	}
	began, seen := m.Now(), 0
	since := func(at time.Time) int64 { return at.Sub(began).Milliseconds() }
	var last []string
	m.tap = func(f fate) {
		for b := f.block; len(b) > 0 && t.flow != nil; {
			frame, rest, err := wire.Next(b)
			if err != nil || frame.Kind == wire.KindPad {
				break
			}
			b = rest
			if frame.Kind == wire.KindData && frame.Flow == uint64(t.flow.id) {
				last = append(last[max(0, len(last)-lateLast+1):], fmt.Sprintf("from the edge %v, link %d, %s, offset %d: sent at %d, took %d ms",
					f.from == m.edge, f.by.conn.info.ID, f.by.name(), frame.Offset, since(f.sent), m.Now().Sub(f.sent).Milliseconds()))
			}
		}
	}
	var look func()
	look = func() {
		for ; seen < len(t.took); seen++ {
			if t.took[seen] > most {
				fmt.Printf("seed %d: %d ms: message %d took %d ms\n", m.seed, since(m.Now()), seen, t.took[seen].Milliseconds())
				for _, s := range last {
					fmt.Println("   ", s)
				}
			}
		}
		m.After(5*time.Millisecond, look)
	}
	look()
}
