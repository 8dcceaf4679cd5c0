package agent

import (
	"context"
	"math"
	"testing"
	"time"

	"hawser/pkg/identity"
	"hawser/pkg/link"
	"hawser/pkg/tunnel"
	"hawser/pkg/wire"
)

// TestBriefPauses: a connection that ended soon is made again at once, a row of them less
// and less often, and one that lasted, or carried much, makes all well.
func TestBriefPauses(t *testing.T) {
	var b brief
	for n, most := range []time.Duration{0, 0, raceFirst, 2 * raceFirst, 4 * raceFirst, 8 * raceFirst, raceMost, raceMost} {
		b.ended(briefLife-1, briefMuch-1)
		if d := b.pause(); d > most*3/2 || d < most/2 {
			t.Errorf("after %d of them: %v, want about %v", n+1, d, most)
		}
	}
	b.row = math.MaxInt32
	if d := b.pause(); d > raceMost*3/2 {
		t.Errorf("after very many: %v", d)
	}
	if b.ended(briefLife, 0); b.pause() != 0 {
		t.Error("a pause after a connection that has lasted")
	}
	b.row = math.MaxInt32
	if b.ended(0, briefMuch); b.pause() != 0 {
		t.Error("a pause after a connection that has carried much")
	}
}

// TestBriefConnections: a link whose connections are all cut as soon as they stand is not
// made as fast as handshakes go, here 50 times a second; as soon as they last it stands.
func TestBriefConnections(t *testing.T) {
	r := newRig(t, 1)
	r.ends = link.TCP
	r.ending = func() bool { return !r.paused() }
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { r.tunnels.run(ctx); close(done) }()
	defer func() { cancel(); <-done }()
	r.eventually("the link", func() bool {
		if n := len(r.admitted()); n > 50 {
			t.Fatalf("%d connections without a pause", n)
		}
		return r.standing() == 1
	})
}

// paused reports whether the last connection, none of the free ones, came later than what had
// come before it was cut lets one come. Who holds mu calls it.
func (r *rig) paused() bool {
	n := len(r.came)
	return n > briefFree+1 && r.came[n-1].Sub(r.came[n-2]) >= raceFirst/2
}

// TestBriefOther: an automatic link whose connections are cut as soon as they stand, twice in
// a row, dials by its other transport next. One that lasted, carried much, or is of a session
// that is over, says nothing.
func TestBriefOther(t *testing.T) {
	r := newRig(t, 1)
	u := r.tunnels.uplinks[0]
	d, err := link.NewDialer(link.DialerOptions{
		Link: u.name, Remote: r.listener.Addr(), Certificate: r.certificate(), PeerKey: identity.PeerKey, CloudKey: r.cloud.Public(),
	})
	if err != nil {
		t.Fatal(err)
	}
	u.chooser.dialer, r.tunnels.term.session = d, new(tunnel.Session)
	cut := func(s *tunnel.Session, after time.Duration, carried uint64) {
		stats := func() link.Stats { return link.Stats{BytesIn: carried / 2, BytesOut: carried / 2} }
		now := serving{session: s, transport: link.TCP, since: time.Now(), stats: stats}
		u.weigh(&now, now.since.Add(after))
		u.weigh(&now, now.since) // once more: it was weighed
	}
	dials := func() link.Transport {
		conn, _, err := d.Dial(t.Context(), wire.Hello{Session: [16]byte{1}})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(errLostRace)
		return conn.Info().Transport
	}
	cut(r.tunnels.term.session, 0, 0)
	cut(new(tunnel.Session), 0, 0)
	cut(r.tunnels.term.session, briefLife, 0)
	cut(r.tunnels.term.session, 0, 0)
	cut(r.tunnels.term.session, 0, briefMuch)
	cut(r.tunnels.term.session, 0, 0)
	if by := dials(); by != link.TCP {
		t.Errorf("dials by %s after one", by)
	}
	cut(r.tunnels.term.session, 0, 0)
	r.eventually("QUIC", func() bool { return dials() == link.QUIC })
}

// standing counts the connections that last.
func (r *rig) standing() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.conns)
}
