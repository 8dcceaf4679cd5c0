package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hawser/pkg/admin"
	"hawser/pkg/config"
	"hawser/pkg/link"
	"hawser/pkg/nat64"
)

// behind are an uplink's whereabouts of a cloud at 192.0.2.33, whose prefix z tells, by name
// if named has one. four says that the uplink has IPv4, too.
func behind(t *testing.T, z, named *zone, four *atomic.Bool) *whereabouts {
	w := newWhereabouts(config.Link{Interface: "wwan0", Cloud: config.Endpoint{Addr: netip.MustParseAddr("192.0.2.33"), Port: 7443}},
		func() (bool, bool) { return four.Load(), !four.Load() })
	if named != nil {
		w.host, w.addrs, w.look = "cloud.example.org", nil, named.look
	}
	w.nat64.look = func(ctx context.Context, host string, serves func(netip.Addr) bool) ([]netip.Addr, error) {
		if host != nat64.Name || !serves(netip.MustParseAddr("64:ff9b::192.0.0.170")) || serves(netip.MustParseAddr("192.0.0.170")) {
			t.Errorf("asks for %s", host)
		}
		return z.look(ctx, host, serves)
	}
	ctx, cancel := context.WithCancel(t.Context())
	w.begin(ctx)
	t.Cleanup(func() { cancel(); w.wait() })
	return w
}

// tells makes a name server of a network's tell of its prefix.
func (z *zone) tells(prefix string) {
	var list []string
	for _, four := range addrs("192.0.0.170", "192.0.0.171") {
		list = append(list, nat64.Embed(netip.MustParsePrefix(prefix), four).String())
	}
	z.set(nil, append(list, "192.0.0.170", "192.0.0.171")...)
}

// TestTranslated: an uplink with IPv6 alone reaches an IPv4 address behind its network's
// prefix, also a name's that has no other.
func TestTranslated(t *testing.T) {
	for name, named := range map[string]*zone{"an address": nil, "a name": {}} {
		synctest.Test(t, func(t *testing.T) {
			z := &zone{takes: 50 * time.Millisecond}
			z.tells("2001:db8:122:344::/64")
			if named != nil {
				named.set(nil, "192.0.2.33")
			}
			w := behind(t, z, named, new(atomic.Bool))
			const want = "2001:db8:122:344:c0:2:2100:0"
			if got := given(t, w, 3); got != strings.Join([]string{want, want, want}, " ") || z.asked != 1 {
				t.Errorf("%s: %s after %d look-ups", name, got, z.asked)
			}
			failed := &link.StepError{Link: "lte", Transport: link.TCP, Remote: netip.MustParseAddrPort("[" + want + "]:7443"), Step: link.StepConnect, Err: link.ErrSilent}
			if err := w.explain(failed); !errors.Is(err, link.ErrSilent) || !strings.HasSuffix(err.Error(), ", by NAT64 with prefix 2001:db8:122:344::/64") {
				t.Errorf("%s: %v", name, err)
			}
			if w.translated().IsValid() {
				t.Errorf("%s: goes by %v before it goes", name, w.translated())
			}
			w.works(failed.Remote)
			if got := w.translated().String(); got != "2001:db8:122:344::/64" {
				t.Errorf("%s: goes by %s", name, got)
			}
			w.works(netip.MustParseAddrPort("192.0.2.33:7443"))
			if w.translated().IsValid() {
				t.Errorf("%s: still goes by %v", name, w.translated())
			}
		})
	}
}

// TestNotTranslated: nobody is asked, and nothing waited for, where the uplink has IPv4, or
// the address is one of IPv6; an address of a name's that the uplink has is used as it is, and
// waits for no prefix.
func TestNotTranslated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z, four := &zone{takes: time.Hour}, new(atomic.Bool)
		z.tells("64:ff9b::/96")
		four.Store(true)
		begin := time.Now()
		w := behind(t, z, nil, four)
		w.moved()
		if got := given(t, w, 20); got != strings.TrimSpace(strings.Repeat("192.0.2.33 ", 20)) {
			t.Error(got)
		}
		named := &zone{}
		named.set(nil, "192.0.2.33")
		if got := given(t, behind(t, z, named, four), 1); got != "192.0.2.33" {
			t.Error(got)
		}
		if time.Since(begin) > 0 || z.asked > 0 {
			t.Errorf("with IPv4: %d look-ups, %v", z.asked, time.Since(begin))
		}
		named.set(nil, "192.0.2.33", "2001:db8::1")
		if got := given(t, behind(t, z, named, new(atomic.Bool)), 1); got != "2001:db8::1" || time.Since(begin) > 0 {
			t.Errorf("%s after %v", got, time.Since(begin))
		}
	})
	six, four := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.33")
	for _, l := range []config.Link{{Cloud: config.Endpoint{Addr: six, Port: 1}}, {Cloud: config.Endpoint{Addr: four, Port: 1}, Gateway: four}} {
		if w := newWhereabouts(l, nil); w != nil || w.asks() || w.count() != 1 {
			t.Errorf("%v by %v: looks something up", l.Cloud, l.Gateway)
		}
	}
	if newWhereabouts(config.Link{Cloud: config.Endpoint{Addr: four, Port: 1}, Gateway: six}, nil) == nil {
		t.Error("an IPv4 address by an IPv6 router: looks nothing up")
	}
}

// TestPrefixChanges: the prefix is asked for again at once when the uplink has moved, while
// attempts go on with the former one, and soon when none of them succeeds.
func TestPrefixChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := &zone{}
		z.tells("64:ff9b::/96")
		w := behind(t, z, nil, new(atomic.Bool))
		const old = "64:ff9b::c000:221"
		if got := given(t, w, 1); got != old {
			t.Fatal(got)
		}
		w.works(netip.MustParseAddrPort("[" + old + "]:7443"))
		time.Sleep(time.Hour)
		if given(t, w, 1); z.asked != 1 {
			t.Errorf("asks again where it works: %d look-ups", z.asked)
		}
		z.tells("2001:db8:122:344::/96")
		w.moved()
		z.takes = time.Second
		if got := given(t, w, 2); got != old+" "+old {
			t.Errorf("waits: %s", got)
		}
		time.Sleep(2 * time.Second)
		const fresh = "2001:db8:122:344::c000:221"
		if got := given(t, w, 1); got != fresh || z.asked != 2 {
			t.Errorf("after the move: %s, %d look-ups", got, z.asked)
		}
		w.works(netip.MustParseAddrPort("[" + fresh + "]:7443"))
		z.tells("2001:db8:1::/96")
		time.Sleep(lookLater)
		given(t, w, stickTries+1)
		time.Sleep(2 * time.Second)
		if got := given(t, w, 1); got != "2001:db8:1::c000:221" || z.asked != 3 {
			t.Errorf("when the prefix no longer works: %s, %d look-ups", got, z.asked)
		}
		z.set(errors.New("the server is out of reach"))
		w.moved()
		given(t, w, 1)
		time.Sleep(2 * time.Second)
		if got := given(t, w, 1); got != "2001:db8:1::c000:221" {
			t.Errorf("what was known: %s", got)
		}
	})
}

// TestVersionsChange: an uplink that loses IPv4 is translated for, and one that gets it is not
// any more.
func TestVersionsChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z, four := &zone{}, new(atomic.Bool)
		z.tells("64:ff9b::/96")
		four.Store(true)
		w := behind(t, z, nil, four)
		got := given(t, w, 1)
		four.Store(false)
		w.moved()
		got += " " + given(t, w, 1)
		four.Store(true)
		w.moved()
		if got += " " + given(t, w, 1); got != "192.0.2.33 64:ff9b::c000:221 192.0.2.33" || z.asked != 1 {
			t.Errorf("%s, %d look-ups", got, z.asked)
		}
	})
}

// TestNoTranslator: the error says that there is no NAT64, and why, and the prefix is asked
// for again soon.
func TestNoTranslator(t *testing.T) {
	for name, named := range map[string]*zone{"192.0.2.33 is an IPv4 address": nil, "cloud.example.org has only IPv4 addresses": {}} {
		synctest.Test(t, func(t *testing.T) {
			z := &zone{}
			if named != nil {
				named.set(nil, "192.0.2.33")
			}
			w := behind(t, z, named, new(atomic.Bool))
			says := func(words ...string) {
				t.Helper()
				_, err := w.next(t.Context())
				for _, word := range append(words, name, "wwan0", "no NAT64 was found") {
					if !errors.Is(err, errNoNAT64) || !errors.Is(err, errNowhere) || !strings.Contains(err.Error(), word) {
						t.Errorf("%q lacks %q", err, word)
					}
				}
			}
			z.set(errors.New("no such host"))
			says("no such host")
			z.set(nil, "192.0.0.170", "192.0.0.171")
			time.Sleep(lookSoon)
			says("tell of no prefix")
			time.Sleep(lookSoon)
			z.tells("64:ff9b::/96")
			if got := given(t, w, 1); got != "64:ff9b::c000:221" || z.asked != 3 {
				t.Errorf("%s: %s after %d look-ups", name, got, z.asked)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		w := behind(t, &zone{takes: time.Hour}, nil, new(atomic.Bool))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := w.next(ctx); !errors.Is(err, errNoNAT64) || !strings.Contains(err.Error(), "where no NAT64 was found in time") {
			t.Error(err)
		}
	})
}

// TestJudgeTranslated: check says that the cloud is reached by NAT64, and by which prefix.
func TestJudgeTranslated(t *testing.T) {
	a := &agent{cfg: &config.Edge{Links: []config.Link{{Name: "lte", Cloud: config.Endpoint{Addr: netip.MustParseAddr("192.0.2.33"), Port: 7443}}}}}
	tried := []trialRun{{transport: link.TCP, took: time.Second, by: netip.MustParsePrefix("64:ff9b::/96")}}
	found := a.judge(0, plan(t.Context(), a.cfg).Links[0], tried, false)
	const want = "link lte: the cloud at 192.0.2.33:7443 answers and accepts this edge (tcp, 1s, by NAT64 with prefix 64:ff9b::/96)"
	if len(found) != 1 || found[0].Level != admin.LevelOK || found[0].What != want {
		t.Error(fmt.Sprint(found))
	}
}
