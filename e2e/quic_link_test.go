package e2e

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"hawser/e2e/lab"
	"hawser/e2e/pair"
	"hawser/pkg/buffer"
	"hawser/pkg/identity"
	"hawser/pkg/link"
	"hawser/pkg/wire"
)

// barePair is one link's connection over an uplink of a lab, without agents:
// what the transport itself makes of the path.
type barePair struct {
	edge, cloud *link.Conn
	close       func()
}

// admitAll lets every edge in and hands its connection over.
type admitAll chan *link.Conn

func (a admitAll) Admit(link.Request) (link.Admission, error) {
	return link.Admission{Edge: "edge", Attach: func(c *link.Conn) { a <- c }}, nil
}

// connectBare connects edge and cloud of a lab.
func connectBare(t *testing.T, l *lab.Lab, transport link.Transport) barePair {
	t.Helper()
	edgeKey, cloudKey := newKey(t), newKey(t)
	edgeCert, err := edgeKey.Certificate(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cloudCert, err := cloudKey.Certificate(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	admitted := make(admitAll, 1)
	var listener *link.Listener
	err = l.Do("cloud", func() (err error) {
		listener, err = link.Listen(t.Context(), link.ListenOptions{
			Address: fmt.Sprintf(":%d", pair.Port), Name: "cloud", Certificate: cloudCert, PeerKey: identity.PeerKey, Admitter: admitted,
		})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = listener.Run(ctx) })
	dialer, err := link.NewDialer(link.DialerOptions{
		Link: "line", Remote: netip.AddrPortFrom(l.Address("cloud", lab.IPv4), pair.Port), Transport: transport,
		Certificate: edgeCert, PeerKey: identity.PeerKey, CloudKey: cloudKey.Public(),
	})
	if err != nil {
		t.Fatal(err)
	}
	var p barePair
	err = l.Do("edge", func() (err error) {
		p.edge, _, err = dialer.Dial(t.Context(), wire.Hello{Session: [16]byte{1}})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	p.cloud = <-admitted
	p.close = func() {
		p.edge.Close(nil)
		p.cloud.Close(nil)
		cancel()
		running.Wait()
		listener.Close()
	}
	return p
}

func newKey(t *testing.T) identity.Key {
	t.Helper()
	k, err := identity.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// download sends records from the cloud for d and returns the goodput in bit/s
// after the first second.
func (p barePair) download(d time.Duration) (float64, error) {
	const body = 16 << 10
	end := time.Now().Add(d)
	sent := make(chan struct{})
	go p.feed(end, body, sent)
	begin := time.Now().Add(time.Second)
	bytes := 0
	for {
		rec, err := p.edge.Receive()
		if err != nil {
			p.cloud.Close(nil)
			<-sent
			return 0, err
		}
		rec.Body.Release()
		if now := time.Now(); now.After(end) {
			p.edge.Close(nil)
			<-sent
			return float64(bytes) * 8 / end.Sub(begin).Seconds(), nil
		} else if now.After(begin) {
			bytes += body
		}
	}
}

// feed sends until the peer closes.
func (p barePair) feed(end time.Time, body int, done chan<- struct{}) {
	defer close(done)
	block := make([]byte, 40)
	for time.Now().Before(end.Add(100 * ms)) {
		if err := p.cloud.Send([]wire.Record{{Block: block, Body: buffer.Get(body).Seg(0, body)}}); err != nil {
			return // the edge has seen enough
		}
	}
}

// TestQUICLink measures one bare QUIC link on lossy lines, at 1 % beside the
// kernel's BBR on the same line for comparison. About 0.94 of a line is left
// after headers. The best of several tries counts, because test machines are
// noisy.
func TestQUICLink(t *testing.T) {
	for _, line := range []lab.Uplink{
		{Name: "line", Rate: 50e6, Delay: 10 * ms},
		{Name: "line", Rate: 20e6, Delay: 40 * ms},
	} {
		for _, c := range []struct{ loss, want float64 }{{0, 0.85}, {0.01, 0.8}, {0.03, 0.75}} {
			t.Run(fmt.Sprintf("%d Mbit, %v, %g %% loss", line.Rate/1e6, 2*line.Delay, c.loss*100), func(t *testing.T) {
				lab.NeedRoot(t)
				line.Loss = c.loss
				l := lab.Build(t, lab.Spec{Name: "bare", Uplinks: []lab.Uplink{line}, Seed: 1})
				if c.loss == 0.01 {
					measure(t, l, line.Rate, link.TCP)
				}
				r := &rig{Lab: l, t: t, uplinks: []lab.Uplink{line}}
				r.atLeast(t, c.want, "the line", func() float64 { return measure(t, l, line.Rate, link.QUIC) })
			})
		}
	}
}

// measure returns the goodput as a share of the line.
func measure(t *testing.T, l *lab.Lab, line int64, transport link.Transport) float64 {
	t.Helper()
	p := connectBare(t, l, transport)
	defer p.close()
	rate, err := p.download(4 * time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s (%s): %.3f of the line", transport, p.cloud.Info().Congestion, rate/float64(line))
	return rate / float64(line)
}
