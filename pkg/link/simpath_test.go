package link

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"time"

	"hawser/pkg/simlink"
)

// A network in virtual time for QUIC's packets: each uplink is a pair of lines
// with a rate, a drop-tail queue, a delay that may tremble, loss and blackholes.

// simLine is one direction.
type simLine struct {
	mu     *sync.Mutex
	random *rand.Rand
	rate   float64 // bytes per second
	limit  time.Duration
	delay  time.Duration
	jitter time.Duration
	loss   float64
	dead   bool
	drops  func(size, edgePort int) bool // what else does not pass; nil: all does
	replay *simlink.Replay               // nil: the line has a rate
	most   int                           // bytes that wait for a line that replays

	busy     time.Time // when the serialiser is free
	last     time.Time // newest arrival
	from, to time.Time // of the wandering delay
	a, b     float64
	dropped  int
	bytes    int
	waiting  int // bytes in the queue of a line that replays
	queued   []time.Duration
}

// wander is as the emulator's: linear between uniform points.
func (l *simLine) wander(t time.Time) time.Duration {
	if l.jitter == 0 {
		return 0
	}
	step := max(10*time.Millisecond, 2*l.jitter)
	if t.Sub(l.to) > step {
		l.to = t.Add(-step)
	}
	for !t.Before(l.to) {
		l.from, l.to = l.to, l.to.Add(step)
		l.a, l.b = l.b, 2*l.random.Float64()-1
	}
	share := float64(t.Sub(l.from)) / float64(l.to.Sub(l.from))
	return time.Duration((l.a + (l.b-l.a)*share) * float64(l.jitter))
}

func (l *simLine) send(p []byte, from net.Addr, to *simSocket) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if l.dead || l.random.Float64() < l.loss {
		return
	}
	if l.drops != nil && l.drops(len(p), edgePort(from, to.addr)) {
		return
	}
	if !l.serve(now, len(p)+28) {
		l.dropped++
		return
	}
	at := l.busy.Add(l.delay + l.wander(l.busy))
	if !at.After(l.last) {
		at = l.last.Add(1) // at the same time they would overtake each other
	}
	l.last = at
	b := append([]byte(nil), p...)
	time.AfterFunc(at.Sub(now), func() {
		l.mu.Lock()
		dead := l.dead
		l.mu.Unlock()
		if !dead {
			to.push(datagram{b, from})
		}
	})
}

// edgePort is the port of the edge's end, which is another for each connection.
func edgePort(a, b net.Addr) int {
	for _, addr := range []*net.UDPAddr{a.(*net.UDPAddr), b.(*net.UDPAddr)} {
		if addr.IP.To4()[0] == 10 {
			return addr.Port
		}
	}
	return 0
}

// serve puts a packet in the queue: busy is when it has left. It returns false where the
// queue is full.
func (l *simLine) serve(now time.Time, size int) bool {
	start := l.busy
	if start.Before(now) {
		start = now
	}
	if l.replay == nil {
		if start.Sub(now) > l.limit {
			return false
		}
		l.busy = start.Add(time.Duration(float64(size) / l.rate * float64(time.Second)))
	} else {
		if l.waiting+size > l.most {
			return false
		}
		l.waiting += size
		l.busy = l.replay.Serve(start, size)
		time.AfterFunc(l.busy.Sub(now), func() { l.change(func(l *simLine) { l.waiting -= size }) })
	}
	l.queued = append(l.queued, start.Sub(now))
	l.bytes += size
	return true
}

// follow has the line replay a recording from now on, from a time of it. Its queue holds
// as many bytes as go in wait at the mean rate.
func (l *simLine) follow(r simlink.Recording, from, wait time.Duration) {
	l.rate = r.Rate() / 8
	l.replay, l.most = simlink.NewReplay(r, time.Now().Add(-from)), int(l.rate*wait.Seconds())
}

// could is how many bytes the line could have carried from a time until now.
func (l *simLine) could(from time.Time) float64 {
	if l.replay != nil {
		return l.replay.Could(from, time.Now())
	}
	return l.rate * time.Since(from).Seconds()
}

func (l *simLine) change(f func(*simLine)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(l)
}

type datagram struct {
	b    []byte
	from net.Addr
}

// simNet finds sockets by address.
type simNet struct {
	mu      sync.Mutex
	sockets map[string]*simSocket
	next    int
	cpus    [2]*simCPU // of the edge, of the cloud
}

// simSocket is a net.PacketConn. line says by which line what it sends goes.
type simSocket struct {
	net      *simNet
	addr     *net.UDPAddr
	line     func(peer net.Addr) *simLine
	mu       sync.Mutex
	queue    []datagram
	wake     chan struct{}
	deadline time.Time
	closed   bool
	cpu      *simCPU
}

func (n *simNet) open(addr *net.UDPAddr, line func(net.Addr) *simLine) *simSocket {
	n.mu.Lock()
	defer n.mu.Unlock()
	if addr.Port == 0 {
		n.next++
		addr.Port = 10000 + n.next
	}
	side := 0
	if addr.IP.To4()[0] == 192 {
		side = 1
	}
	s := &simSocket{net: n, addr: addr, line: line, wake: make(chan struct{}, 1), cpu: n.cpus[side]}
	n.sockets[addr.String()] = s
	return s
}

func (s *simSocket) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *simSocket) push(d datagram) {
	s.mu.Lock()
	s.queue = append(s.queue, d)
	s.mu.Unlock()
	s.poke()
}

func (s *simSocket) ReadFrom(p []byte) (int, net.Addr, error) {
	for {
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			return 0, nil, net.ErrClosed
		}
		if len(s.queue) > 0 {
			d := s.queue[0]
			s.queue = s.queue[1:]
			s.mu.Unlock()
			s.cpu.wait()
			return copy(p, d.b), d.from, nil
		}
		deadline := s.deadline
		s.mu.Unlock()
		if !deadline.IsZero() && !time.Now().Before(deadline) {
			return 0, nil, os.ErrDeadlineExceeded
		}
		var timer <-chan time.Time
		if !deadline.IsZero() {
			timer = time.After(time.Until(deadline))
		}
		select {
		case <-s.wake:
		case <-timer:
		}
	}
}

func (s *simSocket) WriteTo(p []byte, to net.Addr) (int, error) {
	s.net.mu.Lock()
	peer := s.net.sockets[to.String()]
	s.net.mu.Unlock()
	s.cpu.wait()
	if peer != nil {
		s.line(to).send(p, s.addr, peer)
	}
	return len(p), nil
}

func (s *simSocket) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.poke()
	s.net.mu.Lock()
	delete(s.net.sockets, s.addr.String())
	s.net.mu.Unlock()
	return nil
}
func (s *simSocket) LocalAddr() net.Addr { return s.addr }
func (s *simSocket) SetDeadline(t time.Time) error {
	return errors.Join(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}
func (s *simSocket) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	s.deadline = t
	s.mu.Unlock()
	s.poke()
	return nil
}
func (s *simSocket) SetWriteDeadline(time.Time) error { return nil }

// simCPU is the processor that an end's sockets and writers need, and that others
// take away now and then.
type simCPU struct {
	mu   sync.Mutex
	back time.Time // until when it is away
}

// wait returns when the processor is there.
func (c *simCPU) wait() {
	for {
		c.mu.Lock()
		left := time.Until(c.back)
		c.mu.Unlock()
		if left <= 0 {
			return
		}
		time.Sleep(left)
	}
}

// takenEvery is how often a processor is taken away, in the mean.
const takenEvery = 20 * time.Millisecond

// take takes the processor away, for so long in the mean, until the context ends.
func (c *simCPU) take(ctx context.Context, random *rand.Rand, mean time.Duration) {
	for ctx.Err() == nil {
		time.Sleep(time.Duration(random.ExpFloat64() * float64(takenEvery)))
		away := time.Duration(random.ExpFloat64() * float64(mean))
		c.mu.Lock()
		c.back = time.Now().Add(away)
		c.mu.Unlock()
		time.Sleep(away)
	}
}

// simUplink is one uplink: its edge address is 10.0.0.i.
type simUplink struct{ up, down *simLine }

type simUplinks struct {
	net   *simNet
	links []simUplink
	cloud *simSocket
}

func newSimUplinks(seed uint64, specs ...simLine) *simUplinks {
	u := &simUplinks{net: &simNet{sockets: map[string]*simSocket{}, cpus: [2]*simCPU{new(simCPU), new(simCPU)}}}
	for i := range specs {
		up, down := specs[i], specs[i]
		up.mu, down.mu = new(sync.Mutex), new(sync.Mutex)
		up.random = rand.New(rand.NewPCG(seed, uint64(2*i)))
		down.random = rand.New(rand.NewPCG(seed, uint64(2*i+1)))
		u.links = append(u.links, simUplink{&up, &down})
	}
	u.cloud = u.net.open(&net.UDPAddr{IP: net.IPv4(192, 0, 2, 1).To4(), Port: 443}, func(peer net.Addr) *simLine {
		return u.links[peer.(*net.UDPAddr).IP.To4()[3]].down
	})
	return u
}

func (u *simUplinks) packets(i int) func(context.Context) (net.PacketConn, error) {
	return func(context.Context) (net.PacketConn, error) {
		return u.net.open(&net.UDPAddr{IP: net.IPv4(10, 0, 0, byte(i)).To4()}, func(net.Addr) *simLine { return u.links[i].up }), nil
	}
}
