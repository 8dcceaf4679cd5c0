package sealed

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"hawser/pkg/card"
	"hawser/pkg/identity"
	"hawser/pkg/names"
	"hawser/pkg/quiet"
	"hawser/pkg/sock"
	"hawser/pkg/wire"
)

// DialerOptions make a Dialer. All fields are needed, by Try all but Ports, Counters and Log,
// and Look by a Remote alone that is a name.
type DialerOptions struct {
	Remote      string    // the gateway's host:port; a name is looked up for each association
	Look        names.Ask // by this
	Certificate tls.Certificate
	Gateway     [32]byte // its public key
	Ports       []*Port
	Counters    *Counters
	Log         *slog.Logger
}

// Times of a Dialer.
const (
	leastPause = 100 * time.Millisecond
	mostPause  = 5 * time.Second
	renewal    = time.Hour // after which keys are made anew
	renewAgain = time.Minute
	// farewell is how long a former association still takes flows. The last of those
	// that have begun with it join when their connection to the gateway stands.
	farewell = 2 * sock.DialTimeout
)

// Dialer is the client's end of associations: it keeps one.
type Dialer struct {
	o     DialerOptions
	after func(time.Duration) <-chan time.Time // time.After; tests change it
	news  quiet.News                           // Run's: of failures since an association
	all   account

	mu      sync.Mutex
	current *Association
	since   time.Time
	trouble string // why there is none
}

// NewDialer returns a Dialer that Run sets going.
func NewDialer(o DialerOptions) *Dialer {
	return &Dialer{o: o, after: time.After, trouble: "not yet connected"}
}

// Current returns the association, or nil and why there is none, and since
// when. Any goroutine may call it.
func (d *Dialer) Current() (a *Association, since time.Time, trouble string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.current, d.since, d.trouble
}

// Flows returns how many connections have joined associations, and how many of them are
// open. Any goroutine may call it.
func (d *Dialer) Flows() (joined, open uint64) { return d.all.flows() }

func (d *Dialer) set(a *Association, trouble string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.current == nil || a == nil {
		d.since = time.Now()
	}
	d.current, d.trouble = a, trouble
}

// Run keeps an association until ctx ends.
func (d *Dialer) Run(ctx context.Context) error {
	pause := leastPause
	for ctx.Err() == nil {
		h, err := d.associate(ctx)
		if err == nil {
			d.news.Forget()
			stood := time.Now()
			d.hold(ctx, h)
			if time.Since(stood) > mostPause {
				pause = leastPause
				continue
			}
			// One that ends as soon as it stands is as good as none: something on the way
			// ends control connections, and would be asked a hundred times a second.
		} else if ctx.Err() == nil {
			d.complain(err)
		}
		sleep(ctx, pause)
		pause = min(2*pause, mostPause)
	}
	return nil
}

// complain logs a failure that is news.
func (d *Dialer) complain(err error) {
	d.o.Counters.Failed.Add(1)
	err = explain(err)
	if d.news.Fresh(plain(err), time.Now()) {
		d.o.Log.Warn("no association with the gateway, trying on", "gateway", d.o.Remote, "error", err)
	}
	d.set(nil, err.Error())
}

// explain says what an end of the stream means.
func explain(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("whoever listens there closed the connection and said nothing")
	}
	return err
}

// Try makes an association and ends it, and returns the names of the services that the
// gateway has granted. It needs no Ports, and is not for a Dialer that runs.
func (d *Dialer) Try(ctx context.Context) (services []string, err error) {
	h, err := d.associate(ctx)
	if err != nil {
		return nil, explain(err)
	}
	h.close()
	return h.a.Services, nil
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// held is an association and its control connection.
type held struct {
	a    *Association
	conn *tls.Conn
	gone chan struct{}
}

// watch ends with the control connection.
func (h *held) watch() {
	defer close(h.gone)
	var b [1]byte
	_, _ = h.conn.Read(b[:]) // nothing comes but the end
}

// close ends the control connection; flows that have joined live on. nil has none.
func (h *held) close() {
	if h == nil {
		return
	}
	h.conn.NetConn().Close()
	<-h.gone
}

// hold uses an association until its control connection ends, and makes
// another one in time. The old one's flows live on with their keys.
func (d *Dialer) hold(ctx context.Context, h *held) {
	d.adopt(h)
	renew := d.after(renewal)
	var former *held
	var leave <-chan time.Time // when former is left
	defer func() { former.close() }()
	for {
		select {
		case <-ctx.Done():
			d.set(nil, "stopping")
			h.close()
			return
		case <-h.gone:
			h.close()
			d.o.Log.Warn("the gateway has left", "gateway", d.o.Remote)
			d.set(nil, "the gateway has left")
			return
		case <-leave:
			former.close()
			former = nil
		case <-renew:
			next, err := d.associate(ctx)
			if err != nil {
				renew = d.after(renewAgain)
				continue
			}
			d.adopt(next)
			former.close()
			former, h = h, next
			leave, renew = d.after(farewell), d.after(renewal)
		}
	}
}

func (d *Dialer) adopt(h *held) {
	d.o.Counters.Handshakes.Add(1)
	d.o.Log.Info("associated with the gateway", "gateway", d.o.Remote, "services", strings.Join(h.a.Services, " "))
	d.set(h.a, "")
}

// associate makes a control connection. To connect has a time of its own: of a name's
// addresses that do not answer each takes up to two seconds of it, before the handshake begins.
func (d *Dialer) associate(ctx context.Context) (*held, error) {
	raw, err := d.reach(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	h, err := d.shake(raw)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		raw.Close()
		return nil, err
	}
	go h.watch()
	return h, nil
}

func (d *Dialer) shake(raw net.Conn) (*held, error) {
	var wrong error
	t := tls.Client(raw, tlsConfig(d.o.Certificate, func(key [32]byte) error {
		if key != d.o.Gateway {
			wrong = fmt.Errorf("the gateway shows key %s, the configuration expects %s", identity.EncodePublic(key), identity.EncodePublic(d.o.Gateway))
		}
		return wrong
	}))
	if err := t.Handshake(); err != nil {
		if wrong != nil {
			err = wrong
		}
		return nil, err
	}
	ask := wire.AppendAsk(nil, wire.Ask{VersionMin: wire.RelayVersionMin, VersionMax: wire.RelayVersionMax})
	if _, err := t.Write(ask); err != nil {
		return nil, err
	}
	message, err := readMessage(t, wire.KindGrant)
	if err != nil {
		return nil, err
	}
	grant, err := wire.DecodeGrant(message[wire.HelloHeaderSize:])
	if err != nil {
		return nil, err
	}
	if grant.Status != wire.StatusOK {
		return nil, errors.New("the gateway refuses: " + grant.Text)
	}
	a, err := associate(card.Edge, t.ConnectionState(), ask, message, d.o.Ports)
	if err != nil {
		return nil, err
	}
	a.large, a.again = grant.Version >= wire.RelayVersionLarge, grant.Version >= wire.RelayVersionAgain
	a.ID, a.Peer, a.Services, a.Key, a.account = grant.Association, d.o.Remote, grant.Services, d.o.Gateway, &d.all
	// The address that has just answered, of all that a name may have.
	a.gateway = raw.RemoteAddr().(*net.TCPAddr).AddrPort()
	return &held{a: a, conn: t, gone: make(chan struct{})}, nil
}
