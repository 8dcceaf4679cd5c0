package box

import (
	"context"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"hawser/pkg/nonblock"
	"hawser/pkg/procs"
	"hawser/pkg/sock"
)

// processors keeps Go's scheduler to one processor while that is enough, see
// package procs. Workers say when they are at work, so that it costs nothing at
// rest.
type processors struct {
	all     int
	began   time.Time
	pollers []*sock.Poller

	next atomic.Int64 // look again from then on, in nanoseconds since it began: the clock may be set
	want atomic.Int32
	wake chan struct{} // one slot: want has changed

	late  atomic.Uint64 // how often probe was late
	due   atomic.Int64  // when it is due, likewise; 0: it is not set
	probe *time.Timer

	mu    sync.Mutex // guards gauge
	gauge *procs.Gauge
}

func newProcessors(all int) *processors {
	p := &processors{all: all, began: time.Now(), wake: make(chan struct{}, 1)}
	p.gauge = procs.NewGauge(all, p.began, procs.Load{CPU: nonblock.CPUTime()})
	p.want.Store(int32(all))
	p.probe = time.AfterFunc(time.Hour, p.fired)
	p.probe.Stop()
	return p
}

// fired notes whether the probe, a timer that is set while there is work, is late.
func (p *processors) fired() {
	due := p.due.Swap(0)
	if due != 0 && int64(time.Since(p.began))-due >= int64(procs.LateBy) {
		p.late.Add(1)
	}
}

// note is called whenever there is work; any goroutine may.
func (p *processors) note(now time.Time) {
	at := int64(now.Sub(p.began))
	if at < p.next.Load() || !p.mu.TryLock() {
		return
	}
	defer p.mu.Unlock()
	p.next.Store(at + int64(procs.Window))
	if p.due.CompareAndSwap(0, at+int64(procs.Window)) {
		p.probe.Reset(procs.Window)
	}
	l := procs.Load{CPU: nonblock.CPUTime(), Late: p.late.Load()}
	for _, poller := range p.pollers {
		contended, calm := poller.Contention()
		l.Contended += contended
		l.Calm += calm
	}
	n := int32(p.gauge.Look(now, l))
	if n == p.want.Swap(n) {
		return
	}
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// run makes the number what is wanted until ctx ends, and all then. It has a
// goroutine of its own because the runtime ends a garbage collection first.
func (p *processors) run(ctx context.Context, log *slog.Logger) {
	for {
		select {
		case <-ctx.Done():
			p.probe.Stop()
			runtime.GOMAXPROCS(p.all)
			return
		case <-p.wake:
			n := int(p.want.Load())
			log.Debug("processors", "now", n)
			runtime.GOMAXPROCS(n)
		}
	}
}
