package box

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"sync/atomic"
	"time"

	"hawser/netns"
	"hawser/pkg/card"
	"hawser/pkg/config"
	"hawser/pkg/party"
	"hawser/pkg/policy"
	"hawser/pkg/quiet"
	"hawser/pkg/relay"
	"hawser/pkg/shunt"
	"hawser/pkg/sock"
	"hawser/pkg/split"
	"hawser/pkg/stream"
	"hawser/pkg/tunnel"
	"hawser/pkg/wire"
)

// Options make Workers.
type Options struct {
	Role  card.Role
	Count int // workers; 0 = one per CPU
	// Adapt lets the workers change how many processors Go's scheduler uses, while
	// they run: one process has one such set of workers.
	Adapt bool
	Host  *netns.Host // nil: no hub, the parties are kernel sockets
	Log   *slog.Logger
	// Memory is what the process may have in bytes; Payload of it is for payload. The
	// receive buffers of a hub's user-space TCP may grow by a sixteenth of that, all
	// together. 0: Go's collector gets no bound, the buffers the stacks' default.
	Memory int64
	// Budget is kept at what of Memory flows leave for payload; nil: there is none.
	Budget *tunnel.Budget

	// Sockets are where an edge without a hub takes clients' connections by
	// transparent sockets, one address per family; see Workers.Sockets.
	Sockets []netip.Addr

	// Session returns the tunnel that new client connections use, or nil while
	// there is none; they are refused then. Edge only.
	Session func() stream.Tunnel
	// Rules are for clients' connections. Edge only.
	Rules Rules
	// Egress bounds connects to servers, which several edges share or not. Cloud only.
	Egress config.EgressLimits
	Shared bool
	// Direct says that a new client's connection goes around the tunnel. Edge
	// with a hub only; nil: none does.
	Direct func(client, server netip.AddrPort) bool
	// Allow is the egress check. Cloud only; nil allows all.
	Allow func(netip.Addr) bool

	NoCompress bool
	Card       config.Card

	// The stand-alone relay has sealed parties of its own in place of sessions.
	// Attach gives a worker, before Run, the poller that its sockets are to be
	// watched by; Detach comes when that worker has ended. Ring finds keyrings
	// in place of the sessions' secrets. Its sockets carry no mark, so that no
	// privilege is needed. All or none are given.
	Attach func(worker int, poller *sock.Poller, r *relay.Worker) error
	Detach func(worker int)
	Ring   func(stream.Tunnel) (*card.Keyring, error)
}

// Rules say how an edge treats clients' connections. They are shared: do not change them.
type Rules struct {
	// Policies say their terms, which way they take (Policy.Direct), when they are
	// accepted (Policy.Handshake); nil means the default for all.
	Policies *policy.Table
	// Handshake is how clients are accepted where their policy says nothing,
	// Limits what they can make the edge hold. With a hub only.
	Handshake config.Handshake
	Limits    config.Limits
	// Strict are destinations of policies whose handshake is strict. With a hub only.
	Strict []netip.Prefix
}

// Workers are an agent's relay workers, each with its own poller, card
// channel and, where there is a hub, user-space stack and raw socket.
type Workers struct {
	opts    Options
	rules   atomic.Pointer[Rules] // of connections that begin now
	rings   *card.Rings
	cards   *cards
	workers []*relay.Worker
	pollers []*sock.Poller
	stacks  []*split.Stack
	doors   []*door      // one per worker of an edge without a hub
	gate    *split.Gate  // of an edge with one
	sentry  *sentry      // likewise; nil: SYNs are not answered in the kernel
	shunt   *shunt.Shunt // likewise; nil: the kernel carries no connections
	egress  *limiter     // of a cloud
	flows   int          // most flows of a worker; 0: the relay's default
	procs   *processors  // nil without Options.Adapt

	flowsCtx  context.Context // ends with StopFlows
	stopFlows context.CancelFunc
	flowsDone chan struct{}
	shortage  *quiet.Log // of descriptors or memory
}

// NewWorkers opens the raw sockets and builds everything; Run starts it.
func NewWorkers(o Options) (*Workers, error) {
	if o.Count == 0 {
		o.Count = runtime.GOMAXPROCS(0)
	}
	w := &Workers{opts: o, rings: card.NewRings(o.Role), flowsDone: make(chan struct{}), shortage: quiet.New(o.Log)}
	w.rules.Store(&o.Rules)
	w.flowsCtx, w.stopFlows = context.WithCancel(context.Background())
	var err error
	if w.flows, err = w.flowLimit(); err != nil {
		return nil, err
	}
	if o.Adapt {
		w.procs = newProcessors(runtime.GOMAXPROCS(0))
	}
	if w.cards, err = newCards(o.Card, o.Count); err != nil {
		return nil, err
	}
	fds, err := w.capture()
	if err != nil {
		return nil, err
	}
	w.newShunt()
	for i := range o.Count {
		if err := w.add(i, fds); err != nil {
			return nil, errors.Join(err, w.abandon(fds))
		}
	}
	if w.sentry, err = w.newSentry(); err != nil {
		return nil, errors.Join(err, w.abandon(fds))
	}
	return w, nil
}

// capture opens a raw socket per worker, and at the edge one more for SYNs,
// which follow the others.
func (w *Workers) capture() ([]int, error) {
	if w.opts.Host == nil {
		return make([]int, w.opts.Count), nil
	}
	if w.opts.Role == card.Cloud {
		return w.opts.Host.Capture(w.opts.Count, netns.FanoutLocalPort)
	}
	w.gate = newGate(w.opts.Rules.Handshake, w.opts.Rules.Limits)
	rest, syns, err := w.opts.Host.CaptureClients(w.opts.Count)
	return append(rest, syns...), err
}

// add builds worker i. The stack takes over its raw socket.
func (w *Workers) add(i int, fds []int) error {
	poller, err := sock.NewPoller()
	if err != nil {
		return fmt.Errorf("worker %d: %w", i, err)
	}
	poller.Unaccepted = func(why error) {
		w.shortage.Warn("accept", "connections wait: none can be accepted (LimitNOFILE=, ulimit -n)", "reason", why)
	}
	if w.opts.Role == card.Cloud && w.patience() > 0 {
		poller.Patience = w.patience()
	}
	channel, err := w.cards.open(poller)
	if err != nil {
		return errors.Join(fmt.Errorf("worker %d: %w", i, err), poller.Close())
	}
	worker, err := relay.New(relay.Options{
		Index: i, Poller: poller, Card: channel, Ring: w.ring(),
		Dial: w.dialer(i, poller), Allow: w.allow(), Plain: w.opts.NoCompress, Log: w.opts.Log,
		Flows: w.flows, Terms: w.terms(), Egress: w.limiter(), Beat: w.beat(),
	})
	if err != nil {
		return errors.Join(err, poller.Close())
	}
	w.workers = append(w.workers, worker)
	w.pollers = append(w.pollers, poller)
	if w.procs != nil {
		w.procs.pollers = w.pollers
	}
	if w.opts.Attach != nil {
		return w.opts.Attach(i, poller, worker)
	}
	if len(w.opts.Sockets) > 0 {
		return w.openDoor(i, poller)
	}
	if w.opts.Host == nil {
		return nil
	}
	o := w.stackOptions(i, fds[i])
	if w.shunt != nil {
		o.Shunt = w.shunt.Worker(i)
	}
	if w.gate != nil {
		o.Guard = &split.GuardOptions{SYN: fds[w.opts.Count+i], Gate: w.gate, Mode: w.handshakes()}
	}
	stack, err := split.New(o, w.accepter(worker))
	if err != nil {
		return fmt.Errorf("worker %d: %w", i, err)
	}
	fds[i] = -1
	if w.gate != nil {
		fds[w.opts.Count+i] = -1
	}
	w.stacks = append(w.stacks, stack)
	return nil
}

// MostFlows is how many flows each worker may have.
func (w *Workers) MostFlows() int {
	if w.flows == 0 {
		return relay.DefaultFlows
	}
	return w.flows
}

// beat is what a worker calls when it is at work.
func (w *Workers) beat() func(time.Time) {
	if w.procs == nil {
		return nil
	}
	return w.procs.note
}

func (w *Workers) stackOptions(i, fd int) split.Options {
	hub := w.opts.Host.Hub()
	return split.Options{
		FD: fd, HubMAC: hub.HubMAC, HostMAC: hub.HostMAC, MTU: hub.MTU,
		Hub4: hub.Hub4, Hub6: hub.Hub6, Direct: w.opts.Direct,
		Attend: w.workers[i].Attend, Settle: w.workers[i].Settled,
		Worker: i, Workers: w.opts.Count, MaxGrowth: w.maxGrowth(0), DialTimeout: w.patience(),
	}
}

// maxGrowth is what the buffers of one worker's stack may grow by beside so many flows; 0:
// its default.
func (w *Workers) maxGrowth(flows int) int {
	if w.opts.Memory == 0 {
		return 0
	}
	return int(Payload(w.opts.Memory, flows)/16) / w.opts.Count
}

// resize gives payload what so many flows leave.
func (w *Workers) resize(flows int) {
	if w.opts.Budget != nil {
		w.opts.Budget.Resize(Payload(w.opts.Memory, flows))
	}
	for _, s := range w.stacks {
		if n := w.maxGrowth(flows); n > 0 {
			s.Resize(n)
		}
	}
}

// accepter takes clients' connections at the edge. The cloud's stacks accept
// nothing: who connects to them is refused.
func (w *Workers) accepter(worker *relay.Worker) func(*split.Conn) {
	if w.opts.Role == card.Cloud {
		return nil
	}
	return func(c *split.Conn) {
		t := w.opts.Session()
		if t == nil {
			c.Abort()
			return
		}
		worker.Accept(c, c.Local(), c.Remote(), t)
	}
}

// limiter is a cloud's egress limits.
func (w *Workers) limiter() relay.Egress {
	if w.opts.Role == card.Edge {
		return nil
	}
	if w.egress == nil {
		w.egress = newLimiter(w.opts.Egress, w.opts.Shared)
	}
	return w.egress
}

// dialer makes connections to servers at the cloud.
func (w *Workers) dialer(i int, poller *sock.Poller) func(dst, src netip.AddrPort, edge string) (party.Conn, error) {
	switch {
	case w.opts.Role == card.Edge:
		return nil
	case w.opts.Host == nil:
		return func(dst, _ netip.AddrPort, _ string) (party.Conn, error) {
			return orNil(sock.Dial(poller, dst, w.mark(), ""))
		}
	}
	return func(dst, _ netip.AddrPort, edge string) (party.Conn, error) {
		return orNil(w.stacks[i].Dial(dst, edge))
	}
}

// patience is how long a server may take to answer a cloud; 0: the dialler's default.
func (w *Workers) patience() time.Duration {
	return time.Duration(w.opts.Egress.AnswerSeconds) * time.Second
}

// mark is that of sockets to servers.
func (w *Workers) mark() uint32 {
	if w.opts.Attach != nil {
		return 0
	}
	return netns.BypassMark
}

// ring is what finds a flow's keys.
func (w *Workers) ring() func(stream.Tunnel) (*card.Keyring, error) {
	if w.opts.Ring != nil {
		return w.opts.Ring
	}
	return w.rings.Get
}

// orNil keeps a nil pointer from becoming a non-nil interface.
func orNil[C party.Conn](c C, err error) (party.Conn, error) {
	if err != nil {
		return nil, err
	}
	return c, nil
}

// terms finds the terms of a client's connection.
func (w *Workers) terms() func(netip.Addr, netip.AddrPort) wire.Terms {
	if w.opts.Rules.Policies == nil {
		return nil
	}
	return func(client netip.Addr, server netip.AddrPort) wire.Terms {
		return w.rules.Load().Policies.Match(client, server).For(client)
	}
}

func (w *Workers) allow() func(netip.AddrPort) bool {
	if w.opts.Allow == nil {
		return nil
	}
	return func(dst netip.AddrPort) bool { return w.opts.Allow(dst.Addr()) }
}
