package tunnel

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hawser/pkg/stream"
	"hawser/pkg/wire"
	"hawser/scheduler"
)

// still is a carrier on which nothing comes.
type still struct {
	closed        chan struct{}
	once          sync.Once
	readers, most atomic.Int32
}

func newStill() *still { return &still{closed: make(chan struct{})} }

func (c *still) Send(batch []wire.Record) error {
	for _, r := range batch {
		r.Body.Release()
	}
	return nil
}

func (c *still) Receive() (wire.Record, error) {
	c.most.Store(max(c.most.Load(), c.readers.Add(1)))
	<-c.closed
	return wire.Record{}, errors.New("closed")
}

func (c *still) Buffered() bool         { return false }
func (c *still) Sense() scheduler.Sense { return scheduler.Sense{} }
func (c *still) Pace(float64)           {}
func (c *still) Close(error)            { c.once.Do(func() { close(c.closed) }) }

// quickJoiner is a carrier whose urgent connection is there before its own readers are.
type quickJoiner struct {
	*still
	urgent *still
	given  atomic.Bool
}

func (j *quickJoiner) NextUrgent(ctx context.Context, _ bool) (Apart, error) {
	if !j.given.Swap(true) {
		return j.urgent, nil
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

// TakesTwin is asked between the two.
func (j *quickJoiner) TakesTwin() bool {
	for j.urgent.readers.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	return false
}

// nobody is a sink without flows.
type nobody struct{}

func (nobody) Deliver(int, []stream.Event) {}
func (nobody) Place(stream.ID) int         { return 0 }
func (nobody) Settle(int)                  {}

// TestQuickUrgentConnection: an urgent connection that stands while its link's goroutines
// are started has one reader and one writer, its own.
func TestQuickUrgentConnection(t *testing.T) {
	s := New(Config{Peer: "cloud", Edge: true, Secret: make([]byte, 32), Sink: nobody{}, Budget: NewBudget(1 << 20), Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = s.Run(ctx) })
	j := &quickJoiner{still: newStill(), urgent: newStill()}
	running.Go(func() { _ = s.Serve(context.Background(), LinkInfo{Name: "wifi"}, j) })
	for j.readers.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(10 * time.Millisecond)
	if n := j.urgent.most.Load(); n != 1 {
		t.Errorf("%d readers", n)
	}
	j.urgent.Close(nil)
	j.Close(nil)
	cancel()
	running.Wait()
}
