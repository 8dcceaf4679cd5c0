package box

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hawser/pkg/buffer"
	"hawser/pkg/card"
	"hawser/pkg/party"
	"hawser/pkg/sock"
)

// hog is a party that can take its worker for as long as the test likes: that is in the
// middle of a round then, as with a flow that never runs dry.
type hog struct {
	*end
	hold atomic.Bool
	came chan struct{} // the worker is in Read
	free chan struct{} // closed: it may go on
	once sync.Once
}

func newHog(t *testing.T, e *end) *hog {
	h := &hog{end: e, came: make(chan struct{}, 1), free: make(chan struct{})}
	t.Cleanup(h.release)
	return h
}

func (h *hog) Read(p []byte) (int, error) {
	if h.hold.CompareAndSwap(true, false) {
		h.came <- struct{}{}
		<-h.free
	}
	return h.end.Read(p)
}

// take has the party's worker come and stay.
func (h *hog) take(t *testing.T) {
	t.Helper()
	h.hold.Store(true)
	h.notify(party.Readable)
	await(t, h.came, "the worker does not come")
}

func (h *hog) release() { h.once.Do(func() { close(h.free) }) }

func await(t *testing.T, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(20 * time.Second):
		t.Fatal(what)
	}
}

// TestHotFlowKeepsToItsWorker: a flow that takes all of its worker holds up nothing of
// another worker's. Worker 0 of both agents is held in the middle of a round, with sealed
// data for it under way, while flows of worker 1 - in the same session, by the same link
// and, with a pool, the same thread of the card - begin and carry pieces of all sizes: what
// workers share is kept by none that is at work. Then the first flow goes on.
func TestHotFlowKeepsToItsWorker(t *testing.T) {
	t.Run("inline", func(t *testing.T) { keepsToItsWorker(t, inline) })
	t.Run("pool of one thread", func(t *testing.T) {
		pool, err := card.NewPool(card.PoolOptions{Threads: 1, Queue: 16})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { _ = pool.Run(ctx) })
		t.Cleanup(func() { stop(); wg.Wait() })
		keepsToItsWorker(t, func(p *sock.Poller) (card.Channel, error) {
			c, err := pool.Open(nil)
			if err != nil {
				return nil, err
			}
			return c, p.Attach(c.FD())
		})
	})
}

func keepsToItsWorker(t *testing.T, open func(*sock.Poller) (card.Channel, error)) {
	sizes, servers := make(chan int, 1), make(chan *hog, 1)
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	edge := newStation(t, wg.Go, card.Edge, 2, open, nil)
	cloud := newStation(t, wg.Go, card.Cloud, 2, open, func(_, _ netip.AddrPort, _ string) (party.Conn, error) {
		server := newHog(t, &end{data: noise(<-sizes), echo: true})
		servers <- server
		return server, nil
	})
	join(t, wg.Go, edge, cloud, nil, nil)
	begin := func(worker, size int) (client, server *hog) {
		client = newHog(t, &end{data: noise(size), want: int64(size), round: make(chan struct{}, 1)})
		client.given.Store(int64(size))
		sizes <- size
		edge.begin(worker, client)
		await(t, client.round, "a flow does not begin")
		return client, <-servers
	}
	const first, more = 1 << 10, 16 << 10
	hot, server := begin(0, first)
	server.take(t)
	hot.want = first + more
	hot.give(more)
	for deadline := time.Now().Add(20 * time.Second); edge.workers[0].Status().Sealed.Plain < first+more; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the hot flow sends nothing")
		}
	}
	hot.take(t)
	flows := uint64(0)
	for _, size := range []int{100, 4 << 10, buffer.Plain, 100_000} {
		client, server := begin(1, size)
		for range 20 {
			client.give(int64(size))
			await(t, client.round, "a flow of the other worker waits for it")
		}
		if client.wrong || server.wrong {
			t.Errorf("%d bytes: not those that were sent", size)
		}
		flows++
	}
	for i, want := range []uint64{1, flows} {
		if a, b := edge.workers[i].Status().Started, cloud.workers[i].Status().Started; a != want || b != want {
			t.Errorf("worker %d has begun %d and %d flows, want %d", i, a, b, want)
		}
	}
	server.release()
	hot.release()
	await(t, hot.round, "the hot flow does not go on")
	if hot.wrong || server.wrong {
		t.Error("the hot flow: not the bytes that were sent")
	}
}

// noise is so many bytes that do not compress.
func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}
