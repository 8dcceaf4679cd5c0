package sealed

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"hawser/pkg/card"
	"hawser/pkg/identity"
	"hawser/pkg/places"
	"hawser/pkg/quiet"
	"hawser/pkg/wire"
)

// Client is one that the gateway serves.
type Client struct {
	Name     string
	Services []string  // names, at most wire.MaxServices
	Servers  []*Server // theirs, in the same order
}

// GateOptions make a Gate. All fields but Most are needed.
type GateOptions struct {
	Certificate tls.Certificate
	Clients     map[[32]byte]Client // by public key; see Serve
	Ports       []*Port             // of all workers, in their order
	Counters    *Counters
	Log         *slog.Logger
	Most        int // connections that each worker may have; of them no client of several has more than its fair part
}

// Bounds of handshakes under way.
const (
	handshakeTime = 5 * time.Second
	mostAtOnce    = 512
	mostPerSource = 32 // from one IPv4 address or IPv6 /64
)

// Gate is the gateway's end of associations. Its methods may be called from
// any goroutine, but for Greet.
type Gate struct {
	o      GateOptions
	places *places.Places // for handshakes
	quiet  *quiet.Log
	ctx    context.Context
	stop   context.CancelFunc
	active sync.WaitGroup

	mu      sync.RWMutex
	clients map[[32]byte]Client       // by public key; replaced, not changed
	table   map[[16]byte]*Association // those that stand
	visits  map[[32]byte]*visits      // by the client's key
}

// NewGate returns a Gate without associations.
func NewGate(o GateOptions) *Gate {
	g := &Gate{o: o, clients: o.Clients, table: map[[16]byte]*Association{}, visits: map[[32]byte]*visits{}, places: places.New(mostAtOnce, mostPerSource), quiet: quiet.New(o.Log)}
	g.ctx, g.stop = context.WithCancel(context.Background())
	return g
}

// Close ends all control connections and waits for their goroutines. No worker
// may greet any more.
func (g *Gate) Close() {
	g.stop()
	g.active.Wait()
}

// Serve replaces the clients that are let in. The associations and connections of those that
// are others now, or are no more, end; all else goes on.
func (g *Gate) Serve(clients map[[32]byte]Client) {
	var gone []*Association
	for _, v := range g.replace(clients) {
		v.ousted.Store(true)
		gone = append(gone, v.standing...)
	}
	for _, a := range gone {
		a.end() // first: who joins by now is found by his port, or refused
		a.hangUp()
	}
	for _, p := range g.o.Ports {
		p.ousting.Store(true)
		p.o.Poller.Wake()
	}
}

// replace is Serve for those who come from now on. It returns who has to go.
func (g *Gate) replace(clients map[[32]byte]Client) (gone []*visits) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for key, v := range g.visits {
		if now, there := clients[key]; !there || !now.same(g.clients[key]) {
			gone = append(gone, v)
			delete(g.visits, key)
		}
	}
	g.clients = clients
	return gone
}

// same tells whether a client is called and may do as another one.
func (c Client) same(other Client) bool {
	return c.Name == other.Name && slices.Equal(c.Services, other.Services)
}

// served are the clients that are let in.
func (g *Gate) served() map[[32]byte]Client {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.clients
}

func (g *Gate) find(id [16]byte) *Association {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.table[id]
}

// admit starts the handshake of a control connection, whose first bytes have
// been read. It takes over fd.
func (g *Gate) admit(fd int, remote netip.AddrPort, first []byte) {
	file := os.NewFile(uintptr(fd), "control connection")
	conn, err := net.FileConn(file)
	file.Close()
	if err != nil {
		g.o.Counters.Failed.Add(1)
		return
	}
	c := &control{TCPConn: conn.(*net.TCPConn), first: first}
	place := g.places.Enter(remote.Addr(), func() { c.lost.Store(true); c.interrupt() })
	if place == nil {
		g.o.Counters.Crowded.Add(1)
		conn.Close()
		return
	}
	g.active.Add(1)
	go g.handle(c, remote, place)
}

// control is a control connection whose first bytes were read by a worker.
type control struct {
	*net.TCPConn
	first []byte
	lost  atomic.Bool // its place has gone to another
}

// interrupt ends what it does at the moment.
func (c *control) interrupt() { _ = c.SetDeadline(time.Unix(1, 0)) }

// Read implements net.Conn.
func (c *control) Read(p []byte) (int, error) {
	if len(c.first) == 0 {
		return c.TCPConn.Read(p)
	}
	n := copy(p, c.first)
	c.first = c.first[n:]
	return n, nil
}

// handle does the handshake, then keeps the association until the connection
// ends.
func (g *Gate) handle(c *control, remote netip.AddrPort, place *places.Place) {
	defer g.active.Done()
	defer c.Close()
	unstop := context.AfterFunc(g.ctx, c.interrupt)
	defer unstop()
	_ = c.SetLinger(-1)
	_ = c.SetKeepAliveConfig(keepAlive)
	a, t, err := g.shake(c)
	place.Leave()
	if err != nil {
		switch {
		case c.lost.Load():
			g.o.Counters.Crowded.Add(1)
		case g.ctx.Err() == nil:
			g.o.Counters.Failed.Add(1)
			g.quiet.Warn(remote.Addr().String()+" "+plain(err), "control connection refused", "client", remote, "error", err)
		}
		return
	}
	g.o.Counters.Handshakes.Add(1)
	g.o.Log.Info("client is there", "client", a.Peer, "from", remote)
	var b [1]byte
	_, _ = t.Read(b[:]) // nothing comes but the end
	g.leave(a)
	g.o.Log.Info("client has left", "client", a.Peer, "from", remote)
}

// keepAlive finds out when the other end of a control connection has vanished.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3}

// shake does the handshake and registers the association before its client
// can know of it.
func (g *Gate) shake(c *control) (*Association, *tls.Conn, error) {
	if err := c.SetDeadline(time.Now().Add(handshakeTime)); err != nil {
		return nil, nil, err
	}
	if g.ctx.Err() != nil || c.lost.Load() {
		return nil, nil, context.Canceled
	}
	t := tls.Server(c, tlsConfig(g.o.Certificate, func([32]byte) error { return nil }))
	if err := t.Handshake(); err != nil {
		return nil, nil, fmt.Errorf("TLS: %w", err)
	}
	ask, err := readMessage(t, wire.KindAsk)
	if err != nil {
		return nil, nil, err
	}
	grant, client, refusal := g.decide(t.ConnectionState(), ask)
	message, err := wire.AppendGrant(nil, grant)
	if err != nil {
		return nil, nil, err
	}
	if refusal != nil {
		_, err := t.Write(message)
		return nil, nil, errors.Join(refusal, err)
	}
	a, err := associate(card.Cloud, t.ConnectionState(), ask, message, g.o.Ports)
	if err != nil {
		return nil, nil, err
	}
	a.ID, a.Peer, a.Services, a.servers = grant.Association, client.Name, client.Services, client.Servers
	a.Key, _ = peerKey(t.ConnectionState())
	a.gate = g
	a.large, a.again = grant.Version >= wire.RelayVersionLarge, grant.Version >= wire.RelayVersionAgain
	a.hangUp = func() { c.TCPConn.Close() }
	oldest, err := g.enter(a, client)
	if err != nil {
		return nil, nil, err
	}
	if oldest != nil {
		oldest.hangUp()
		g.quiet.Warn(a.Peer+" has too many", "a client has too many associations: its oldest one ends", "client", a.Peer, "most", mostAssociations)
	}
	_, err = t.Write(message)
	if err == nil {
		err = c.SetDeadline(time.Time{})
	}
	if err != nil || g.ctx.Err() != nil {
		g.leave(a)
		return nil, nil, errors.Join(err, g.ctx.Err())
	}
	return a, t, nil
}

// decide answers an ask; the error says why it refuses.
func (g *Gate) decide(state tls.ConnectionState, message []byte) (wire.Grant, Client, error) {
	grant := wire.Grant{VersionMin: wire.RelayVersionMin, VersionMax: wire.RelayVersionMax}
	refuse := func(s wire.Status, format string, args ...any) (wire.Grant, Client, error) {
		grant.Status, grant.Text = s, fmt.Sprintf(format, args...)
		return grant, Client{}, errors.New(grant.Text)
	}
	ask, err := wire.DecodeAsk(message[wire.HelloHeaderSize:])
	if err != nil {
		return refuse(wire.StatusMalformed, "the gateway could not decode ASK")
	}
	version, ok := wire.ChooseVersion(wire.Hello{VersionMin: ask.VersionMin, VersionMax: ask.VersionMax}, wire.RelayVersionMin, wire.RelayVersionMax)
	if !ok {
		return refuse(wire.StatusVersion, "client speaks version %d to %d, gateway %d to %d: update the older one", ask.VersionMin, ask.VersionMax, wire.RelayVersionMin, wire.RelayVersionMax)
	}
	key, err := peerKey(state)
	if err != nil {
		return refuse(wire.StatusInternal, "no key")
	}
	client, known := g.served()[key]
	if !known {
		return refuse(wire.StatusUnknownEdge, "this client's key %s is not configured at the gateway", identity.EncodePublic(key))
	}
	grant.Version, grant.Services = version, client.Services
	if _, err := rand.Read(grant.Association[:]); err != nil {
		return refuse(wire.StatusInternal, "no randomness")
	}
	return grant, client, nil
}
