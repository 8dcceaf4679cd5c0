package agent

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"hawser/pkg/identity"
	"hawser/pkg/link"
	"hawser/pkg/tunnel"
)

// try begins the rig's work. Its only link compares its transports as often as t says, with
// a cloud that it looks for at an address.
func (r *rig) try(cloud netip.AddrPort, t trials) *uplink {
	u := r.tunnels.uplinks[0]
	d, err := link.NewDialer(link.DialerOptions{
		Link: u.name, Remote: cloud, Certificate: r.certificate(), PeerKey: identity.PeerKey, CloudKey: r.cloud.Public(),
	})
	if err != nil {
		r.t.Fatal(err)
	}
	u.chooser.dialer, u.chooser.trials = d, t
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { r.tunnels.run(ctx); close(done) }()
	r.t.Cleanup(func() { cancel(); <-done })
	return u
}

// TestTransportTrial: an automatic link tries its other transport, keeps a
// connection all the time and says what came of it.
func TestTransportTrial(t *testing.T) {
	const ms = time.Millisecond
	r := newRig(t, 1)
	u := r.try(r.listener.Addr(), trials{first: 100 * ms, every: 100 * ms, most: 100 * ms, span: 200 * ms, settle: 20 * ms, step: 20 * ms})
	r.eventually("a comparison", func() bool { return strings.Contains(u.choice(), " against ") })
	if c := u.choice(); !strings.Contains(c, "idle") || !strings.Contains(c, "quic ") || !strings.Contains(c, "tcp ") {
		t.Errorf("choice %q", c)
	}
	// Back, and again: the session is the same, and its link stands.
	first := r.admitted()[0].Session
	r.eventually("more comparisons", func() bool { return len(r.admitted()) >= 6 })
	for _, h := range r.admitted() {
		if h.Session != first {
			t.Error("a trial began another session")
		}
	}
}

// TestSilentInTrial: a link that falls silent while its transport is measured gets another
// connection now, and not after that.
func TestSilentInTrial(t *testing.T) {
	r := newRig(t, 1)
	u := r.try(r.listener.Addr(), trials{first: time.Millisecond, every: time.Hour, most: time.Hour, span: time.Hour, step: time.Millisecond})
	r.eventually("the link", func() bool { return u.serves.Load() == 1 })
	time.Sleep(10 * time.Millisecond) // the trial begins
	before := len(r.admitted())
	r.eventually("another connection", func() bool {
		r.tunnels.silent(0, true) // once more: the session may just have found the link up
		return len(r.admitted()) > before
	})
}

// TestLostInTrial: a link that is lost, or falls silent, while its other transport gets no
// answer has another connection at once, and not when that is given up.
func TestLostInTrial(t *testing.T) {
	for name, lose := range map[string]func(*rig){
		"lost":   func(r *rig) { r.dropAll(1) },
		"silent": func(r *rig) { r.tunnels.silent(0, true) },
	} {
		t.Run(name, func(t *testing.T) {
			mute, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				t.Fatal(err)
			}
			defer mute.Close()
			const ms = time.Millisecond
			r := newRig(t, 1)
			u := r.try(mute.LocalAddr().(*net.UDPAddr).AddrPort(), trials{first: ms, every: 10 * ms, most: 10 * ms, span: 20 * ms, step: 20 * ms})
			if _, _, err := mute.ReadFrom(make([]byte, 2000)); err != nil { // QUIC is tried
				t.Fatal(err)
			}
			before, begin := len(r.admitted()), time.Now()
			lose(r)
			r.eventually("another connection", func() bool { return len(r.admitted()) > before })
			if took := time.Since(begin); took > 5*time.Second {
				t.Errorf("the link stands again after %v", took)
			}
			if c := u.choice(); c != "" {
				t.Errorf("choice %q of a transport that was not tried to the end", c)
			}
		})
	}
}

// TestTrialOfWhatDoesNotLast: a transport whose connections end before they can be measured
// is not taken for a quick one.
func TestTrialOfWhatDoesNotLast(t *testing.T) {
	const ms = time.Millisecond
	r := newRig(t, 1)
	r.ends = link.QUIC
	d, err := link.NewDialer(link.DialerOptions{
		Link: "a", Remote: r.far(250 * ms), Transport: link.TCP, Certificate: r.certificate(), PeerKey: identity.PeerKey, CloudKey: r.cloud.Public(),
	})
	if err != nil {
		t.Fatal(err)
	}
	r.tunnels.uplinks[0].dial = d.Dial
	// The first answer to a probe comes after 1.25 s.
	u := r.try(r.listener.Addr(), trials{first: ms, every: 100 * ms, most: 100 * ms, span: 2 * time.Second, settle: time.Minute, step: 200 * ms})
	r.eventually("a trial", func() bool { return u.choice() != "" })
	if c := u.choice(); !strings.HasPrefix(c, "tcp: quic did not last") {
		t.Errorf("choice %q", c)
	}
}

// far is an address by which the cloud's answers come after a delay.
func (r *rig) far(delay time.Duration) netip.AddrPort {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	var running sync.WaitGroup
	pass := func(to, from net.Conn, delay time.Duration) {
		defer to.Close()
		defer from.Close()
		b := make([]byte, 16<<10)
		for n, err := from.Read(b); err == nil; n, err = from.Read(b) {
			time.Sleep(delay)
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
	}
	running.Go(func() {
		for {
			edge, err := l.Accept()
			if err != nil {
				return
			}
			cloud, err := net.Dial("tcp", r.listener.Addr().String())
			if err != nil {
				_ = edge.Close()
				continue
			}
			running.Go(func() { pass(cloud, edge, 0) })
			running.Go(func() { pass(edge, cloud, delay) })
		}
	})
	r.t.Cleanup(func() { _ = l.Close(); running.Wait() })
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// TestTrip: a transport is judged by its own round trips, not by those of the one before.
func TestTrip(t *testing.T) {
	const ms = time.Millisecond
	from := tunnel.LinkStatus{SRTT: 100 * ms, Trips: 20, TripTime: 2 * time.Second}
	to := tunnel.LinkStatus{SRTT: 67 * ms, Trips: 24, TripTime: 2*time.Second + 160*ms}
	if m := trip(from, to); m != 40*ms {
		t.Errorf("%v, wanted 40ms", m)
	}
	if m := trip(to, to); m != to.SRTT {
		t.Errorf("%v without any, wanted the smoothed one", m)
	}
}
