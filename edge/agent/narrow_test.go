package agent

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"hawser/netns"
	"hawser/pkg/identity"
	"hawser/pkg/link"
)

// TestNarrowedInterface: a QUIC connection ends when its interface takes smaller packets than
// when it was made: it goes on sending those that it has found to pass. TCP's goes on.
func TestNarrowedInterface(t *testing.T) {
	for _, by := range []link.Transport{link.TCP, link.QUIC} {
		r := newRig(t, 1)
		u := newUplink(0, "lte", &tunnels{log: slog.New(slog.DiscardHandler)})
		state := func(mtu int) netns.UplinkEvent {
			return netns.UplinkEvent{State: netns.UplinkState{MTU: mtu, Addrs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}}}
		}
		u.event(state(1500))
		conn := r.dialBy(by)
		u.carry(conn)
		for _, mtu := range []int{1500, 9000} {
			if end, why, _ := u.judge(state(mtu)); end != nil {
				t.Errorf("%s: ends with %d bytes: %s", by, mtu, why)
			}
		}
		end, why, _ := u.judge(state(1280))
		if narrow := by == link.QUIC; (end != nil) != narrow || strings.Contains(why, "1280 bytes now, not of 1500") != narrow {
			t.Errorf("%s: at 1280 bytes ends %v, %q", by, end != nil, why)
		}
		conn.Close(nil)
	}
}

// dialBy makes a connection that belongs to no link.
func (r *rig) dialBy(by link.Transport) *link.Conn {
	r.t.Helper()
	d, err := link.NewDialer(link.DialerOptions{
		Link: "lte", Remote: r.listener.Addr(), Transport: by,
		Certificate: r.certificate(), PeerKey: identity.PeerKey, CloudKey: r.cloud.Public(),
	})
	if err != nil {
		r.t.Fatal(err)
	}
	_, hello := r.tunnels.hello()
	conn, _, err := d.Dial(r.t.Context(), hello)
	if err != nil {
		r.t.Fatal(err)
	}
	return conn
}
