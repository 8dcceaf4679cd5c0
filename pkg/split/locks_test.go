package split

import (
	"io"
	"sync"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"hawser/pkg/guard"
	"hawser/pkg/party"
)

// lockSeeker stands for all that may want the stack's locks when the stack calls
// it: netstack, which takes an endpoint's lock, with which others send and so ask
// the guard; the owner of a connection; the hub.
type lockSeeker struct {
	stack.NetworkDispatcher
	t     *testing.T
	s     *Stack
	told  map[string]int
	conns []*Conn // handed out
}

// newLockSeeker returns one with a stack that does not run, behind a guard.
func newLockSeeker(t *testing.T) *lockSeeker {
	l := &lockSeeker{t: t, told: map[string]int{}}
	s := &Stack{clock: newClock(), opts: Options{Buffer: 128 << 10, MaxBuffer: 1 << 20, KeepAlive: 1}}
	s.Resize(128 << 10)
	s.orphans.waiting = func(tcpip.Endpoint) int { l.seek("waiting"); return 128 << 10 }
	s.out = newOutbox(nil, &s.count)
	s.link = &link{hub: tcpip.LinkAddress(lanClient), host: tcpip.LinkAddress(lanClient), out: s.out, dispatcher: l}
	s.keeper = newKeeper(s, GuardOptions{Gate: NewGate(guard.Fast, guard.Limits{})})
	s.syns = &synLoop{k: s.keeper, recent: guard.NewRecent()}
	s.in = newReceiver(nil, s.link, &s.opts, &s.count)
	s.accept = func(c *Conn) {
		l.seek("accept")
		l.conns = append(l.conns, c)
	}
	l.s = s
	return l
}

// seek complains of a lock that is held.
func (l *lockSeeker) seek(who string) {
	l.told[who]++
	for name, mu := range map[string]*sync.Mutex{
		"keeper": &l.s.keeper.mu, "gate": &l.s.keeper.opts.Gate.mu, "door": &l.s.door.mu, "outbox": &l.s.out.mu,
		"offers": &l.s.in.offers.mu, "answers": &l.s.syns.mu, "floods": &l.s.keeper.opts.Gate.floods.mu, "orphans": &l.s.orphans.mu,
	} {
		if !mu.TryLock() {
			l.t.Errorf("%s is called while the lock of %s is held", who, name)
			continue
		}
		mu.Unlock()
	}
}

// DeliverNetworkPacket implements stack.NetworkDispatcher.
func (l *lockSeeker) DeliverNetworkPacket(tcpip.NetworkProtocolNumber, *stack.PacketBuffer) {
	l.seek("deliver")
}

// seekerEndpoint is an endpoint of netstack's.
type seekerEndpoint struct {
	tcpip.Endpoint
	tcpip.DefaultSocketOptionsHandler
	*lockSeeker
	options tcpip.SocketOptions
	state   tcp.EndpointState
}

func newSeekerEndpoint(l *lockSeeker) *seekerEndpoint {
	ep := &seekerEndpoint{lockSeeker: l, state: tcp.StateEstablished}
	ep.options.InitHandler(ep, nil, nil, nil)
	ep.options.SetReceiveBufferSize(int64(l.s.growth.next(l.s.opts.Buffer)), false) // its forwarder's
	return ep
}

func (e *seekerEndpoint) State() uint32                       { return uint32(e.state) } // takes no lock
func (e *seekerEndpoint) SocketOptions() *tcpip.SocketOptions { return &e.options }
func (e *seekerEndpoint) Abort()                              { e.seek("abort"); e.state = tcp.StateError }
func (e *seekerEndpoint) Close()                              { e.seek("close"); e.state = tcp.StateClose }
func (e *seekerEndpoint) ModerateRecvBuf(int)                 { e.seek("moderate") }
func (e *seekerEndpoint) WakeupWriters()                      { e.seek("wake") }
func (e *seekerEndpoint) OnKeepAliveSet(bool)                 { e.seek("option") }
func (e *seekerEndpoint) LastError() tcpip.Error              { e.seek("error"); return nil }

func (e *seekerEndpoint) SetSockOpt(tcpip.SettableSocketOption) tcpip.Error {
	e.seek("option")
	return nil
}

func (e *seekerEndpoint) SetSockOptInt(tcpip.SockOptInt, int) tcpip.Error {
	e.seek("option")
	return nil
}

func (e *seekerEndpoint) Readiness(waiter.EventMask) waiter.EventMask {
	e.seek("readiness")
	return waiter.ReadableEvents
}

func (e *seekerEndpoint) Shutdown(tcpip.ShutdownFlags) tcpip.Error {
	e.seek("shutdown")
	return nil
}

func (e *seekerEndpoint) Read(io.Writer, tcpip.ReadOptions) (tcpip.ReadResult, tcpip.Error) {
	e.seek("read")
	return tcpip.ReadResult{Count: moderateAfter}, nil
}

func (e *seekerEndpoint) Write(p tcpip.Payloader, _ tcpip.WriteOptions) (int64, tcpip.Error) {
	e.seek("write")
	n, _ := io.ReadFull(p, make([]byte, p.Len()))
	return int64(n), nil
}

// flow returns the connection of a new flow, watched.
func (l *lockSeeker) flow() *Conn {
	enrollMany(l.s.keeper, len(l.conns)+1) // those that are there stay as they are
	c := l.conns[len(l.conns)-1]
	c.Watch(func(party.Ready) { l.seek("notify") })
	return c
}

// join gives a flow its endpoint, with a handshake behind it.
func (l *lockSeeker) join(c *Conn) *Conn {
	k := l.s.keeper
	k.mu.Lock()
	c.ward.flow.Join(1 << 10)
	k.mu.Unlock()
	k.establish(c.ward, newSeekerEndpoint(l), nil)
	return c
}

// TestNobodyIsCalledWithALock: whatever a connection, its owner or the guard does,
// netstack and the owners are called while none of the stack's locks is held. Once
// an edge came to rest for good because the keeper's was.
func TestNobodyIsCalledWithALock(t *testing.T) {
	l := newLockSeeker(t)
	k := l.s.keeper
	l.s.growth.conns.Store(63) // connections begin small
	c := l.join(l.flow())
	_, _ = c.Read(make([]byte, 1))
	_, _ = c.Write(make([]byte, 100<<10))
	_ = c.CloseWrite()
	c.Close()
	l.s.growth.conns.Store(0) // and large
	c = l.join(l.flow())
	_, _ = c.Read(make([]byte, 1))
	c.Abort()
	c = l.flow() // its owner does all before netstack has it
	c.Open(-1)
	_ = c.CloseWrite()
	l.join(c).ward.expel()
	c = l.flow()
	c.Abort()
	l.join(c)
	l.flow().ward.expel()
	c = l.flow() // others wait for this one's server
	enrollMany(k, 1500)
	c.Open(-1)
	asked := l.told["accept"]
	for i := 0; i < len(l.conns); i++ { // the owner is handed out more meanwhile
		l.conns[i].Refuse(true)
		l.conns[i].Abort()
	}
	k.idle()
	for _, who := range []string{
		"abort", "accept", "close", "deliver", "moderate", "notify", "option", "read", "readiness", "shutdown", "waiting", "wake", "write",
	} {
		if l.told[who] == 0 {
			t.Errorf("%s was not called", who)
		}
	}
	if g := k.opts.Gate.Status(); asked < 40 || g.Pending > 0 && k.count.dismissed.Load() == 0 {
		t.Errorf("%d flows were handed out: %+v", asked, g)
	}
}
