package sealed

import (
	"bytes"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"
)

// TestStrangersAtTheGate: who connects again and again and says nothing of use
// cannot fill the log.
func TestStrangersAtTheGate(t *testing.T) {
	const knocks = 300
	var out bytes.Buffer
	g, _, at := gateOf(t, slog.New(slog.NewTextHandler(&out, nil)))
	for i := range uint64(knocks) {
		c, err := net.Dial("tcp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte{tlsHandshake, 3, 1, 0, 4, 'n', 'o', 'n', 'e'}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the end of the handshake", func() bool { return g.o.Counters.Failed.Load() > i })
		c.Close()
	}
	g.Close() // what is logged comes after the counting
	if n := strings.Count(out.String(), "\n"); n < 1 || n > 25 {
		t.Errorf("%d failures have written %d lines:\n%.500s", knocks, n, out.String())
	}
}

// TestGateCrowdedByFew: sources that say nothing cannot have all places.
func TestGateCrowdedByFew(t *testing.T) {
	own := testKey(t, 1)
	g, gateway, at := gateOf(t, slog.New(slog.DiscardHandler), own)
	const few = mostAtOnce / mostPerSource
	for i := range mostAtOnce {
		from := net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+i%few))}
		c, err := (&net.Dialer{LocalAddr: &from}).Dial("tcp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	eventually(t, "all to be let in", func() bool { return g.places.Taken() == mostAtOnce })
	certificate, err := own.Certificate(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	d := NewDialer(DialerOptions{
		Remote: at.String(), Certificate: certificate, Gateway: gateway.Public(), Counters: &Counters{}, Log: slog.New(slog.DiscardHandler),
	})
	h, err := d.associate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h.close()
	eventually(t, "who has lost his place to be counted", func() bool { return g.o.Counters.Crowded.Load() == 1 })
}

// TestManyAssociationsOfOneClient: one client's control connections do not use up the
// gateway's descriptors and memory: the oldest go.
func TestManyAssociationsOfOneClient(t *testing.T) {
	own := testKey(t, 1)
	g, gateway, at := gateOf(t, slog.New(slog.DiscardHandler), own)
	certificate, err := own.Certificate(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	d := NewDialer(DialerOptions{
		Remote: at.String(), Certificate: certificate, Gateway: gateway.Public(), Counters: &Counters{}, Log: slog.New(slog.DiscardHandler),
	})
	associate := func() *held {
		h, err := d.associate(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(h.close)
		return h
	}
	first := associate()
	var others []*Association // which stand for connections
	for i := range mostAssociations - 1 {
		others = append(others, &Association{ID: [16]byte{1, byte(i >> 8), byte(i)}, Key: own.Public(), hangUp: func() { t.Error("another one than the oldest goes") }})
		if oldest, err := g.enter(others[i], g.served()[own.Public()]); oldest != nil || err != nil {
			t.Fatalf("%d are too many", i+2)
		}
	}
	second := associate()
	eventually(t, "the oldest to end", func() bool { return isClosed(first.gone) })
	eventually(t, "the oldest to be forgotten", func() bool { return g.find(first.a.ID) == nil })
	if g.find(second.a.ID) == nil || !g.Client(own.Public()).Up {
		t.Error("the newest cannot be joined")
	}
	for _, a := range others {
		g.leave(a)
	}
	if !g.Client(own.Public()).Up {
		t.Error("the client is not there with one that is left")
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
