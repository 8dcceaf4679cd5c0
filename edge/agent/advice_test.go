package agent

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"hawser/netns"
	"hawser/pkg/admin"
	"hawser/pkg/config"
	"hawser/pkg/link"
	"hawser/pkg/wire"
)

var cloudAddr = netip.MustParseAddrPort("203.0.113.10:7443")

// fault is an attempt by one transport that failed.
func fault(t link.Transport, err error) error {
	return &link.StepError{Link: "lte", Transport: t, Remote: cloudAddr, Step: link.StepConnect, Err: err}
}

// known is what the kernel knows in a test: of one address that nobody answers for it, and
// whether the interface has none.
type known struct {
	silent    netip.Addr
	noAddress bool
}

func (k known) mute(a netip.Addr) bool { return a == k.silent }
func (k known) bare() bool             { return k.noAddress }

// TestAdvice: each cause has its own remedy, which names the field or the party.
func TestAdvice(t *testing.T) {
	gateway := netip.MustParseAddr("192.0.2.1")
	silent := &failures{[]error{fault(link.TCP, link.ErrSilent), fault(link.QUIC, link.ErrSilent)}}
	for _, c := range []struct {
		name string
		err  error
		link config.Link
		mute netip.Addr // nobody answers for it
		want string     // "" for no advice
	}{
		{"wrong cloud key", fault(link.TCP, link.ErrPeerKey), config.Link{}, netip.Addr{}, "cloud.key"},
		{"unknown edge", fault(link.TCP, &link.Refusal{Status: wire.StatusUnknownEdge}), config.Link{}, netip.Addr{}, "edges in the cloud's configuration"},
		{"old program", fault(link.TCP, &link.Refusal{Status: wire.StatusVersion}), config.Link{}, netip.Addr{}, "update the older"},
		{"a refusal that passes", fault(link.TCP, &link.Refusal{Status: wire.StatusStopping}), config.Link{}, netip.Addr{}, ""},
		{"no NAT64", noAddress{errors.New("none"), true}, config.Link{Interface: "wwan0"}, netip.Addr{}, "DNS64 server of wwan0's network in /etc/resolv.conf, or give links[1].cloud an IPv6 address"},
		{"name", errNowhere, config.Link{}, netip.Addr{}, "links[1].cloud"},
		{"no cloud on the host", &failures{[]error{fault(link.TCP, syscall.ECONNREFUSED), fault(link.QUIC, link.ErrSilent)}}, config.Link{}, netip.Addr{}, "no hawser-cloud on it"},
		{"mute gateway", silent, config.Link{Gateway: gateway, Interface: "wwan0"}, gateway, "gateway 192.0.2.1 does not answer on wwan0: correct links[1].gateway"},
		{"gateway answers", silent, config.Link{Gateway: gateway}, netip.Addr{}, "its port in by TCP and UDP"},
		{"no route, IPv6", fault(link.TCP, syscall.ENETUNREACH), config.Link{Interface: "wwan0"}, netip.Addr{}, "no route to the cloud by wwan0: set links[1].gateway"},
		{"no route, IPv4", fault(link.TCP, syscall.EHOSTUNREACH), config.Link{Interface: "wwan0"}, cloudAddr.Addr(), "nobody on wwan0 has that address: set links[1].gateway"},
		{"no address", fault(link.TCP, syscall.EHOSTUNREACH), config.Link{Interface: "wlan0"}, cloudAddr.Addr(), "wlan0 has no address: see that DHCP or its settings give it one, or, if it borrows another's, that links[1].gateway"},
		{"no address, with a gateway", silent, config.Link{Interface: "wlan0", Gateway: gateway}, gateway, "wlan0 has no address"},
		{"no address, with a name", errNowhere, config.Link{Interface: "wlan0"}, netip.Addr{}, "wlan0 has no address"},
		{"no address of its own", fault(link.TCP, syscall.ECONNREFUSED), config.Link{Interface: "wlan0"}, netip.Addr{}, "no hawser-cloud on it"},
		{"UDP is blocked", fault(link.QUIC, link.ErrSilent), config.Link{Transport: config.TransportQUIC}, netip.Addr{}, "by UDP at the cloud's firewall, or set links[1].transport to auto"},
		{"TCP is blocked", fault(link.TCP, link.ErrSilent), config.Link{Transport: config.TransportTCP}, netip.Addr{}, "by TCP at the cloud's firewall, or set links[1].transport to auto"},
		{"another program", fault(link.TCP, tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"}), config.Link{}, netip.Addr{}, "is no hawser-cloud: log in"},
		{"a web server", fault(link.TCP, &net.OpError{Op: "remote error", Err: errors.New("tls: no application protocol")}), config.Link{}, netip.Addr{}, "is no hawser-cloud: log in"},
		{"a portal's certificate", fault(link.TCP, fmt.Errorf("%w: %w", link.ErrPeerKey, errForeign)), config.Link{Interface: "wlan0"}, netip.Addr{}, "log in where wlan0 is behind a portal, or correct links[1].cloud"},
		{"something else", fault(link.TCP, errors.New("odd")), config.Link{}, netip.Addr{}, ""},
	} {
		got := advice(c.err, 1, c.link, known{c.mute, strings.HasPrefix(c.name, "no address")})
		if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// TestPeerKey: a certificate that is not like hawser's is a stranger's, with the reason.
func TestPeerKey(t *testing.T) {
	if _, err := peerKey([][]byte{{1, 2}}); !errors.Is(err, errForeign) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("no certificate: %v", err)
	}
	r := newRig(t, 0)
	own, err := r.cloud.Certificate(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if key, err := peerKey(own.Certificate); err != nil || key != r.cloud.Public() {
		t.Errorf("a box of hawser's: %v, %v", key, err)
	}
}

// TestJudge: what check says of a link.
func TestJudge(t *testing.T) {
	works := trialRun{transport: link.TCP, took: time.Millisecond}
	failed := func(t link.Transport, err error) trialRun { return trialRun{transport: t, err: fault(t, err)} }
	routed := netns.LinkRoute{Name: "lte", Interface: "none", Gateway: netip.MustParseAddr("192.0.2.1")}
	plain := netns.LinkRoute{Name: "lte", Interface: "none"}
	for _, c := range []struct {
		name   string
		route  netns.LinkRoute
		tried  []trialRun
		mute   bool
		levels []admin.Level
		want   string // in the last finding
	}{
		{"both work", plain, []trialRun{works, {transport: link.QUIC}}, false, []admin.Level{admin.LevelOK}, "accepts this edge"},
		{"UDP is blocked", plain, []trialRun{works, failed(link.QUIC, link.ErrSilent)}, false, []admin.Level{admin.LevelOK, admin.LevelWarn}, "does without quic"},
		{"wrong key", plain, []trialRun{failed(link.TCP, link.ErrPeerKey), failed(link.QUIC, link.ErrPeerKey)}, false, []admin.Level{admin.LevelFail}, "cloud.key"},
		{"a portal", plain, []trialRun{failed(link.TCP, fmt.Errorf("%w: %w", link.ErrPeerKey, errForeign)), failed(link.QUIC, link.ErrSilent)}, false, []admin.Level{admin.LevelWarn}, "run goes on trying"},
		{"nothing answers", plain, []trialRun{failed(link.TCP, link.ErrSilent), failed(link.QUIC, link.ErrSilent)}, false, []admin.Level{admin.LevelWarn}, "run goes on trying"},
		{"run makes the route", routed, []trialRun{failed(link.TCP, link.ErrSilent)}, false, []admin.Level{admin.LevelOK}, "cannot be tried yet"},
		{"the cloud hangs up", routed, []trialRun{{transport: link.TCP, err: &link.StepError{Link: "lte", Transport: link.TCP, Step: link.StepHello, Err: io.EOF}}}, false, []admin.Level{admin.LevelWarn}, " the cloud's log may say more; run goes on trying"},
		{"mute gateway", routed, []trialRun{failed(link.TCP, link.ErrSilent)}, true, []admin.Level{admin.LevelWarn}, "correct links[0].gateway"},
		{"mute gateway where the host has another", routed, []trialRun{works}, true, []admin.Level{admin.LevelWarn}, "correct links[0].gateway: run goes by it alone"},
		{"no interface", plain, []trialRun{failed(link.TCP, syscall.ENODEV)}, false, nil, ""},
	} {
		a := &agent{cfg: &config.Edge{Links: []config.Link{{Name: "lte", Interface: "none", Gateway: c.route.Gateway}}}}
		found := a.judge(0, c.route, c.tried, c.mute)
		var last string
		ok := len(found) == len(c.levels)
		for i, f := range found {
			ok = ok && f.Level == c.levels[i]
			last = f.What + " " + f.Remedy
		}
		if !ok || !strings.Contains(last, c.want) {
			t.Errorf("%s: %+v", c.name, found)
		}
	}
}

// TestFirstWord: what the kernel tells first of an interface does not end the attempts
// that have begun, which the cloud would log as failures.
func TestFirstWord(t *testing.T) {
	u := newUplink(0, "lte", &tunnels{log: slog.New(slog.DiscardHandler)})
	addr := []netip.Addr{netip.MustParseAddr("192.0.2.2")}
	begun := func() bool { return len(u.moved) > 0 }
	u.event(netns.UplinkEvent{State: netns.UplinkState{Addrs: addr}})
	if begun() {
		t.Error("attempts begin again for what was so all the time")
	}
	u.event(netns.UplinkEvent{State: netns.UplinkState{Addrs: append(addr, netip.MustParseAddr("192.0.2.3"))}})
	if !begun() {
		t.Error("attempts do not begin again for another address")
	}
}

// TestAdviceInStatus: the last error of a link says what to do, and the log says it once
// as long as that stays the same.
func TestAdviceInStatus(t *testing.T) {
	var out bytes.Buffer
	u := newUplink(0, "lte", &tunnels{log: slog.New(slog.NewTextHandler(&out, nil))})
	u.advise = func(error) string { return "do this" }
	for range 3 {
		u.failed(t.Context(), attempt{err: syscall.EHOSTUNREACH})
		u.failed(t.Context(), attempt{err: link.ErrSilent})
	}
	if got := u.lastError(); got != "no answer in time (do this)" {
		t.Errorf("last error %q", got)
	}
	if n := strings.Count(out.String(), "cannot connect"); n != 1 {
		t.Errorf("%d lines:\n%s", n, out.String())
	}
	u.note(nil)
	u.failed(t.Context(), attempt{err: link.ErrSilent})
	if n := strings.Count(out.String(), "cannot connect"); n != 2 {
		t.Error("not said again after it has worked")
	}
}

// TestFailuresInTurn: a cloud whose name has addresses that fail in different ways makes a
// line of each, and not one per attempt; what comes back after a while is said again.
func TestFailuresInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		u := newUplink(0, "lte", &tunnels{log: slog.New(slog.NewTextHandler(&out, nil))})
		u.advise = func(err error) string {
			return advice(err, 0, config.Link{Interface: "wwan0"}, known{})
		}
		at := func(addr string, err error) {
			u.failed(t.Context(), attempt{err: &link.StepError{Link: "lte", Remote: netip.MustParseAddrPort(addr), Step: link.StepConnect, Err: err}})
			time.Sleep(raceFirst)
		}
		lines := func() int { return strings.Count(out.String(), "cannot connect") }
		for range 1000 {
			at("[2001:db8::1]:7443", syscall.ENETUNREACH)
			at("192.0.2.1:7443", link.ErrSilent)
		}
		if n := lines(); n != 2 {
			t.Errorf("%d lines of two causes in a quarter of an hour", n)
		}
		for range 1000 {
			at("192.0.2.1:7443", link.ErrSilent)
		}
		at("[2001:db8::1]:7443", syscall.ENETUNREACH)
		if n := lines(); n != 3 {
			t.Errorf("%d lines, want 3: the first cause has come back", n)
		}
	})
}
