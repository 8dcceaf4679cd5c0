package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"testing"
	"time"

	"hawser/pkg/config"
	"hawser/pkg/identity"
	"hawser/pkg/link"
	"hawser/pkg/wire"
)

// afterwards admits as sessions does; each link comes up when those have stopped.
type afterwards struct {
	*sessions
	attached chan error // why the connection ended
}

// Admit implements link.Admitter.
func (a *afterwards) Admit(r link.Request) (link.Admission, error) {
	admission, err := a.sessions.Admit(r)
	attach := admission.Attach
	admission.Attach = func(c *link.Conn) {
		a.stop()
		attach(c)
		_, err := c.Receive()
		a.attached <- err
	}
	return admission, err
}

// TestLinkAfterStop: a link that was admitted before the cloud stops and comes up
// after it ends at once, and nothing of it runs on.
func TestLinkAfterStop(t *testing.T) {
	edge, cloud := someKey(t), someKey(t)
	s := testSessions()
	s.edges = []config.Client{{Name: "train", Key: edge.Public()}}
	late := &afterwards{s, make(chan error, 1)}
	certificate, _ := cloud.Certificate(time.Now())
	l, err := link.Listen(t.Context(), link.ListenOptions{
		Address: "127.0.0.1:0", Name: "cloud", Certificate: certificate, PeerKey: identity.PeerKey, Admitter: late,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { _ = l.Run(ctx); close(done) }()
	defer func() { cancel(); <-done; l.Close() }()

	certificate, _ = edge.Certificate(time.Now())
	d, err := link.NewDialer(link.DialerOptions{
		Link: "lte", Remote: l.Addr(), Transport: link.TCP, Certificate: certificate, PeerKey: identity.PeerKey, CloudKey: cloud.Public(),
	})
	if err != nil {
		t.Fatal(err)
	}
	if c, _, err := d.Dial(ctx, wire.Hello{Session: [16]byte{7}, Name: "lte"}); err == nil {
		defer c.Close(nil)
	}
	select {
	case err := <-late.attached:
		if !errors.Is(err, errStopped) {
			t.Errorf("the connection ended with %v", err)
		}
	case <-time.After(time.Minute):
		t.Error("the connection lives on")
	}
}

func someKey(t *testing.T) identity.Key {
	t.Helper()
	k, err := identity.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}
