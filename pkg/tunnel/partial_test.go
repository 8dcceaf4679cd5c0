package tunnel

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"hawser/pkg/buffer"
	"hawser/pkg/wire"
	"hawser/scheduler"
)

// partial is a carrier that has a record, and the beginning of the next one. It gives that
// back as link.Strand does, at the call of Receive that returns its end.
type partial struct {
	simCarrier
	whole, begun buffer.Seg
	ended        error
}

func (c *partial) Receive() (wire.Record, error) {
	if c.ended != nil {
		c.begun.Release()
		c.begun = noSeg
		return wire.Record{}, c.ended
	}
	body := c.whole
	c.whole, c.begun = noSeg, buffer.Copy(make([]byte, 5000))
	return wire.Record{Block: wire.AppendData(nil, 1, 0, body.Len(), false), Body: body}, nil
}

func (c *partial) Buffered() bool  { return false }
func (c *partial) Close(err error) { c.ended = err }

// TestReaderFindsSessionEnded: a reader that finds that the session has ended leaves nothing
// in its carrier. Half of a record stayed there for as long as the agent lived, among the slabs by
// which budgets count.
func TestReaderFindsSessionEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := buffer.Live()
		s := newBareSim(1, scheduler.Kinds{}).cloud.s
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errAny)
		if err := s.Run(ctx); !errors.Is(err, errAny) {
			t.Fatalf("the session ended with %v", err)
		}
		carrier := &partial{whole: buffer.Copy(make([]byte, 3000))}
		st := newConn(&link{}, carrier).bulk
		if err := st.read(s); !errors.Is(err, ErrEnded) || !errors.Is(carrier.ended, ErrEnded) {
			t.Errorf("the reader ended with %v, its carrier with %v", err, carrier.ended)
		}
		if left := buffer.Live() - before; left != 0 {
			t.Errorf("%d bytes of slabs are left", left)
		}
	})
}
