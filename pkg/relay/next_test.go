package relay

import (
	"testing"

	"hawser/pkg/buffer"
	"hawser/pkg/card"
	"hawser/pkg/party"
)

// holder is a party of which only Waiting is asked.
type holder struct {
	party.Conn
	waiting int
}

func (h holder) Waiting() int { return h.waiting }

// TestNextFits: a record that waits for its peer is in a slab that is at most twice
// as long, without being copied there, and a flow that moves asks nobody.
func TestNextFits(t *testing.T) {
	slab := func(waiting int, full bool, credit uint64, record int) int {
		u := sealing{full: full, limit: credit}
		return buffer.Size(u.next(holder{waiting: waiting}, record) + card.Overhead)
	}
	for n := 700; n < buffer.Most; n += 100 {
		if size := slab(n, false, 1<<20, buffer.Most); size > 2*n || size < n {
			t.Errorf("%d bytes are read into a slab of %d", n, size)
		}
	}
	for _, c := range []struct {
		waiting int
		full    bool
		credit  uint64
		record  int
		want    int
	}{
		{5000, true, 1 << 20, buffer.Plain, buffer.Plain + buffer.Slack}, // more has come by the time it is read
		{100 << 10, false, 1 << 20, buffer.Plain, buffer.Plain + buffer.Slack},
		{5000, true, 1 << 20, buffer.Most, buffer.Large},
		{100 << 10, false, 1 << 20, 20 << 10, 24 << 10},
		{0, false, 1 << 20, buffer.Most, buffer.Small}, // or the end
		{5000, false, 2000, buffer.Most, 2 << 10},
		{100 << 10, true, 20_000, buffer.Most, 24 << 10},
	} {
		if size := slab(c.waiting, c.full, c.credit, c.record); size != c.want {
			t.Errorf("%+v: a slab of %d bytes", c, size)
		}
	}
	u := sealing{limit: 1 << 20}
	if n := u.next(struct{ party.Conn }{}, buffer.Plain); n != buffer.Plain {
		t.Errorf("a party that does not know is read %d bytes", n)
	}
}
