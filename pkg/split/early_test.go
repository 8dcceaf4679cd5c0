package split

import (
	"sync/atomic"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	"hawser/pkg/guard"
)

// TestFirstSegmentsLost: a client whose ACK and first data are lost, but not what it
// has sent behind them, is not reset, and gets its connection when it sends them again.
func TestFirstSegmentsLost(t *testing.T) {
	l := newLab(t, true)
	var bytes atomic.Int64
	s, _ := l.start(l.guarded(guard.Fast, guard.Limits{}), func(c *Conn) {
		drain(t, c, func(n int) { bytes.Add(int64(n)) })
		c.Open(-1)
	})
	c := newCrook(l)
	c.send(guard.Segment{Flags: guard.FlagSYN, Seq: 1000, Window: 64000, MSS: 1460, Scale: guard.NoScale}, 0, nil)
	answer := c.last(1)
	if answer.flags != header.TCPFlagSyn|header.TCPFlagAck || answer.window == 0 {
		t.Fatalf("SYN-ACK %+v", answer)
	}
	data := guard.Segment{Flags: guard.FlagACK, Seq: 1001, Ack: answer.seq + 1, Window: 1000, Scale: guard.NoScale}
	second, third, forged := data, data, data
	second.Seq += 600
	third.Seq, third.Flags = second.Seq+600, guard.FlagACK|guard.FlagFIN
	forged.Seq, forged.Ack = second.Seq, data.Ack+1
	c.send(second, 600, nil)
	c.send(third, 0, nil)
	waitFor(t, "both to be dropped", func() bool { return s.Stats().Guard.Strays == 2 })
	c.send(forged, 600, nil)
	if f := c.last(2); !f.flags.Contains(header.TCPFlagRst) || f.seq != forged.Ack {
		t.Errorf("the answer to another ACK is %+v", f)
	}
	for _, again := range []guard.Segment{data, second} {
		c.send(again, 600, nil)
	}
	waitFor(t, "the data to be read", func() bool { return bytes.Load() == 1200 })
	if g := s.Stats().Guard; g.Admitted != 1 || g.Denied != 1 {
		t.Errorf("%+v", g)
	}
}
