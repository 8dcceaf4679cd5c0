package relay

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net/netip"
	"sync"

	"hawser/pkg/party"
)

// duct is a fake plain party: one end is a party.Conn with edges as the
// contract wants them, the other a blocking connection for the test.
type duct struct {
	remote netip.AddrPort
	inMax  int // bytes that lie ready for the relay at most
	outMax int // bytes that wait for the test at most

	mu      sync.Mutex
	cond    *sync.Cond
	fn      func(party.Ready)
	in, out []byte
	inFin   bool // the test has closed its direction
	outFin  bool // the relay has closed its direction
	pending bool // dialled and not connected
	failed  error
	broken  bool // the test has reset the connection
	kept    bool // what the test wrote before can be read all the same
	aborted bool // the relay has
	closed  bool // the relay has closed it
	armed   party.Ready
	short   *rand.Rand // reads and writes take only a part, at random
	reads   int
}

func newDuct(inMax, outMax int, short *rand.Rand) *duct {
	d := &duct{inMax: inMax, outMax: outMax, short: short, armed: party.Readable | party.Writable}
	d.cond = sync.NewCond(&d.mu)
	return d
}

// raise reports bits that are armed. The caller holds mu.
func (d *duct) raise(bits party.Ready) {
	d.cond.Broadcast()
	if bits &= d.armed | party.Hangup; bits != 0 && d.fn != nil {
		d.armed &^= bits
		d.fn(bits)
	}
}

func (d *duct) Watch(fn func(party.Ready)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fn = fn
	if d.broken {
		d.raise(party.Hangup | party.Readable | party.Writable)
	}
}

func (d *duct) Connected() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.pending {
		d.armed |= party.Writable
		return party.ErrAgain
	}
	return d.failed
}

// connect ends the dial.
func (d *duct) connect(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pending, d.failed = false, err
	d.raise(party.Writable)
}

func (d *duct) Read(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reads++
	switch {
	case d.broken && (!d.kept || len(d.in) == 0):
		return 0, party.ErrReset
	case len(d.in) > 0:
		if d.short != nil {
			p = p[:1+d.short.IntN(len(p))]
		}
		n := copy(p, d.in)
		d.in = d.in[n:]
		if len(d.in) == 0 {
			d.in = nil
		}
		d.cond.Broadcast()
		return n, nil
	case d.inFin:
		return 0, io.EOF
	}
	d.armed |= party.Readable
	return 0, party.ErrAgain
}

func (d *duct) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken {
		return 0, party.ErrReset
	}
	n := min(len(p), d.outMax-len(d.out))
	d.out = append(d.out, p[:n]...)
	d.cond.Broadcast()
	if n < len(p) {
		d.armed |= party.Writable
		return n, party.ErrAgain
	}
	return n, nil
}

func (d *duct) Writev(bufs [][]byte) (done int, err error) {
	for i := 0; err == nil && i < len(bufs); i++ {
		var n int
		n, err = d.Write(bufs[i])
		done += n
	}
	return done, err
}

func (d *duct) CloseWrite() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.outFin = true
	d.cond.Broadcast()
	if d.broken {
		return party.ErrReset
	}
	return nil
}

func (d *duct) Abort() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.aborted = d.aborted || !d.closed
	d.cond.Broadcast()
}

func (d *duct) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	d.cond.Broadcast()
}

func (d *duct) Remote() netip.AddrPort { return d.remote }

// The test's end.

var errGone = errors.New("reset by the relay")

func (d *duct) write(p []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(p) > 0 {
		for len(d.in) >= d.inMax && !d.aborted {
			d.cond.Wait()
		}
		if d.aborted {
			return errGone
		}
		n := min(len(p), d.inMax-len(d.in))
		d.in = append(d.in, p[:n]...)
		p = p[n:]
		d.raise(party.Readable)
	}
	return nil
}

func (d *duct) finish() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.inFin = true
	d.raise(party.Readable)
}

func (d *duct) reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.broken = true
	d.raise(party.Hangup | party.Readable | party.Writable)
}

// read returns up to n bytes, io.EOF, or errGone.
func (d *duct) read(n int) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.out) == 0 && !d.outFin && !d.aborted {
		d.cond.Wait()
	}
	if d.aborted {
		return nil, errGone
	}
	if len(d.out) == 0 {
		return nil, io.EOF
	}
	n = min(n, len(d.out))
	p := bytes.Clone(d.out[:n])
	d.out = d.out[n:]
	if len(d.out) == 0 {
		d.out = nil
	}
	d.raise(party.Writable)
	return p, nil
}

// wait blocks until done says so, under the lock.
func (d *duct) wait(done func() bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for !done() {
		d.cond.Wait()
	}
}

func (d *duct) isAborted() bool { return d.aborted }
func (d *duct) isClosed() bool  { return d.closed }
