package split

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hawser/pkg/party"
)

// pump is a small event loop as a relay worker is one: a single goroutine
// that owns flows, woken by readiness callbacks.
type pump struct {
	mu    sync.Mutex
	queue []*half
	tasks []func()
	park  parker
	stop  chan struct{}
	done  chan struct{}
	buf   []byte
}

// parker is where the loop sleeps.
type parker interface {
	Wait(timeout time.Duration) error
	Wake()
}

// chanParker parks on a channel.
type chanParker chan struct{}

func (c chanParker) Wait(time.Duration) error {
	<-c
	return nil
}

func (c chanParker) Wake() {
	select {
	case c <- struct{}{}:
	default:
	}
}

// half is one party of a flow. An echo has only one half, whose peer is
// itself.
type half struct {
	conn   party.Conn
	peer   *half
	pump   *pump
	bits   atomic.Uint32
	queued atomic.Bool

	ready   party.Ready
	left    []byte // read from conn, not yet written to peer
	eof     bool   // conn's FIN was read
	fin     bool   // peer's FIN was passed to conn
	pending bool   // conn is connecting
	over    bool
	ended   func(error) // called once with nil or the reason
}

func newPump(t testing.TB) *pump { return newPumpOn(t, make(chanParker, 1), 64<<10) }

// newPumpOn starts a pump that reads size bytes at a time.
func newPumpOn(t testing.TB, park parker, size int) *pump {
	p := &pump{park: park, stop: make(chan struct{}), done: make(chan struct{}), buf: make([]byte, size)}
	go p.loop()
	t.Cleanup(func() {
		close(p.stop)
		park.Wake()
		<-p.done
	})
	return p
}

// echo makes the pump send back what c sends.
func (p *pump) echo(c party.Conn, ended func(error)) {
	p.do(func() {
		h := &half{conn: c, pump: p, ended: ended}
		h.peer = h
		c.Watch(h.note)
	})
}

// join makes the pump copy between a, which stands, and b, which dials.
func (p *pump) join(a, b party.Conn) {
	p.do(func() {
		ha := &half{conn: a, pump: p}
		hb := &half{conn: b, pump: p, peer: ha, pending: true}
		ha.peer = hb
		a.Watch(ha.note)
		b.Watch(hb.note)
	})
}

// do runs fn on the pump's goroutine.
func (p *pump) do(fn func()) {
	p.mu.Lock()
	p.tasks = append(p.tasks, fn)
	p.mu.Unlock()
	p.park.Wake()
}

// note is the readiness callback.
func (h *half) note(r party.Ready) {
	h.bits.Or(uint32(r))
	if h.queued.CompareAndSwap(false, true) {
		h.pump.mu.Lock()
		h.pump.queue = append(h.pump.queue, h)
		first := len(h.pump.queue) == 1
		h.pump.mu.Unlock()
		if first {
			h.pump.park.Wake()
		}
	}
}

func (p *pump) loop() {
	defer close(p.done)
	for {
		p.mu.Lock()
		queue, tasks := p.queue, p.tasks
		p.queue, p.tasks = nil, nil
		p.mu.Unlock()
		for _, fn := range tasks {
			fn()
		}
		for _, h := range queue {
			h.queued.Store(false)
			h.ready |= party.Ready(h.bits.Swap(0))
			h.turn()
		}
		if len(queue)+len(tasks) > 0 {
			continue
		}
		select {
		case <-p.stop:
			return
		default:
			_ = p.park.Wait(-1)
		}
	}
}

// turn moves what can be moved in both directions.
func (h *half) turn() {
	if h.over {
		return
	}
	for _, x := range []*half{h, h.peer} {
		if x.pending {
			err := x.conn.Connected()
			if errors.Is(err, party.ErrAgain) {
				return
			}
			if err != nil {
				h.end(err)
				return
			}
			x.pending = false
		}
	}
	h.copy()
	if h.peer != h && !h.over {
		h.peer.copy()
	}
	if !h.over && h.fin && h.peer.fin {
		h.end(nil)
	}
}

// copy moves bytes from h to its peer. The budget keeps one flow from holding
// the loop.
func (h *half) copy() {
	for range 32 {
		if len(h.left) > 0 && !h.flush() {
			return
		}
		if h.eof {
			if !h.peer.fin {
				h.peer.fin = true
				if err := h.peer.conn.CloseWrite(); err != nil {
					h.end(err)
				}
			}
			return
		}
		if h.ready&party.Readable == 0 {
			return
		}
		n, err := h.conn.Read(h.pump.buf)
		switch {
		case errors.Is(err, party.ErrAgain):
			h.ready &^= party.Readable
			return
		case err == io.EOF:
			h.eof = true
		case err != nil:
			h.end(err)
			return
		}
		h.left = h.pump.buf[:n]
		if n > 0 && !h.flush() {
			h.left = append([]byte(nil), h.left...)
			return
		}
	}
	h.note(0)
}

// flush writes h.left; true means that it is all gone.
func (h *half) flush() bool {
	if h.peer.ready&party.Writable == 0 {
		return false
	}
	n, err := h.peer.conn.Writev([][]byte{h.left})
	h.left = h.left[n:]
	if errors.Is(err, party.ErrAgain) {
		h.peer.ready &^= party.Writable
	} else if err != nil {
		h.end(err)
	}
	return len(h.left) == 0 && !h.over
}

// end gives the flow back.
func (h *half) end(err error) {
	if h.over {
		return
	}
	for _, x := range []*half{h, h.peer} {
		if x.over {
			continue
		}
		x.over = true
		if err == nil {
			x.conn.Close()
		} else {
			x.conn.Abort()
		}
		if x.ended != nil {
			x.ended(err)
		}
	}
}

// watcher drives one Conn by hand in tests: the test's goroutine is its worker.
type watcher struct {
	t    testing.TB
	conn *Conn
	bits atomic.Uint32
	wake chan struct{}
}

func watch(t testing.TB, c *Conn) *watcher {
	w := &watcher{t: t, conn: c, wake: make(chan struct{}, 1)}
	c.Watch(func(r party.Ready) {
		w.bits.Or(uint32(r))
		select {
		case w.wake <- struct{}{}:
		default:
		}
	})
	return w
}

// wait waits until one of the bits was reported and takes it.
func (w *watcher) wait(bits party.Ready) party.Ready {
	w.t.Helper()
	limit := time.After(ample)
	for {
		if got := party.Ready(w.bits.And(^uint32(bits))) & bits; got != 0 {
			return got
		}
		select {
		case <-w.wake:
		case <-limit:
			w.t.Fatalf("readiness %b not reported within %v", bits, ample)
		}
	}
}

// read reads until n bytes are there, or the end.
func (w *watcher) read(n int) ([]byte, error) {
	w.t.Helper()
	p := make([]byte, n)
	got := 0
	for got < n {
		m, err := w.conn.Read(p[got:])
		got += m
		if errors.Is(err, party.ErrAgain) {
			w.wait(party.Readable)
		} else if err != nil {
			return p[:got], err
		}
	}
	return p, nil
}

// write writes all of p.
func (w *watcher) write(p []byte) error {
	w.t.Helper()
	for len(p) > 0 {
		n, err := w.conn.Write(p)
		p = p[n:]
		if errors.Is(err, party.ErrAgain) {
			w.wait(party.Writable)
		} else if err != nil {
			return err
		}
	}
	return nil
}

// connected waits for a dial's outcome.
func (w *watcher) connected() error {
	w.t.Helper()
	for {
		err := w.conn.Connected()
		if !errors.Is(err, party.ErrAgain) {
			return err
		}
		w.wait(party.Writable | party.Hangup)
	}
}
