package tunnel

import (
	"testing"

	"hawser/pkg/buffer"
	"hawser/pkg/wire"
	"hawser/scheduler"
)

// TestLostAtTheEnd: what a connection's writer never got is given back also where the
// session ends before it has heard that the connection has. Slabs that stay count for what
// all sessions of an agent hold, as long as it runs.
func TestLostAtTheEnd(t *testing.T) {
	before := buffer.Live()
	s := newBareSim(1, scheduler.Kinds{}).cloud.s
	c := newConn(&link{}, twoStrands{})
	for _, st := range c.strands {
		b := st.batch()
		st.seal(b, wire.AppendData(st.block(b, s.now), 1, 0, 100, false), buffer.Copy(make([]byte, 100)))
		st.flush()
		b = st.batch()
		st.seal(b, wire.AppendData(st.block(b, s.now), 1, 100, 100, false), buffer.Copy(make([]byte, 100)))
	}
	s.box.post(func(in *mail) { in.lost = append(in.lost, lostConn{c, errAny}) })
	s.stopped = ErrLinger
	s.shutdown()
	if live := buffer.Live() - before; live != 0 {
		t.Errorf("%d bytes of slabs are left", live)
	}
}
