package netns

import (
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// TestListsWhileOthersWork: a list that something has come into or gone from while it was
// read is read again, and is no error: whoever starts containers makes interfaces.
func TestListsWhileOthersWork(t *testing.T) {
	for _, c := range []struct {
		interrupted int
		end         error
		tries       int
	}{{0, nil, 1}, {3, nil, 4}, {3, io.EOF, 4}, {listTries + 1, nil, listTries}} {
		n := 0
		got, err := whole(func() ([]int, error) {
			if n++; n <= c.interrupted {
				return []int{n}, errors.Join(netlink.ErrDumpInterrupted)
			}
			return []int{n}, c.end
		})
		if n != c.tries || !errors.Is(err, c.end) || !slices.Equal(got, []int{n}) {
			t.Errorf("%+v: %d tries, found %v, %v", c, n, got, err)
		}
	}
}

// TestListsOneTable: who looks for routes of ours reads no others, of which a router that
// speaks BGP has a million; a table that is not there has none.
func TestListsOneTable(t *testing.T) {
	w := newWorld(t)
	h := w.install(w.plan)
	others := 0
	for i := range 4_000 {
		to := &net.IPNet{IP: net.IPv4(10, 200, byte(i>>8), byte(i)), Mask: net.CIDRMask(32, 32)}
		must(t, netlink.RouteAdd(&netlink.Route{Dst: to, Gw: net.ParseIP("198.18.3.1")}))
		others++
	}
	timed := func(list func()) time.Duration {
		best := time.Hour
		for range 5 {
			began := time.Now()
			list()
			best = min(best, time.Since(began))
		}
		return best
	}
	all := timed(func() {
		if n, err := netlink.RouteList(nil, netlink.FAMILY_V4); err != nil || len(n) < others {
			t.Fatalf("%d routes: %v", len(n), err)
		}
	})
	ours := timed(func() {
		for _, s := range h.kept {
			if e := s.undo[0]; e.Do == undoRoutes && !hasRoute(e) {
				t.Fatalf("table %d, IPv%d: no route", e.Number, e.Family)
			}
		}
	})
	if ours > all/4 {
		t.Errorf("to look for our routes takes %v, to list %d others %v", ours, others, all)
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		if got, err := listRoutes(family, &netlink.Route{Table: 12345}, netlink.RT_FILTER_TABLE); len(got) > 0 || err != nil {
			t.Errorf("a table that is not there: %v, %v", got, err)
		}
	}
}

// TestLooksWhileInterfacesCome: an uplink keeps its addresses and a client's interface its
// settings while others' interfaces come and go.
func TestLooksWhileInterfacesCome(t *testing.T) {
	w := newWorld(t)
	h := w.install(w.plan)
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		_ = inside(h.home, func() error {
			for {
				select {
				case <-stop:
					return nil
				default:
				}
				bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "others"}}
				if netlink.LinkAdd(bridge) == nil {
					_ = netlink.LinkDel(bridge)
				}
			}
		})
	}()
	defer func() { close(stop); <-ended }()
	want := len(uplinkState(w.plan.Links[0]).Addrs)
	for range 600 {
		if _, err := h.settled(); err != nil {
			t.Fatalf("interfaces: %v", err)
		}
		if _, err := taggedRules(); err != nil {
			t.Fatalf("rules: %v", err)
		}
		if s := uplinkState(w.plan.Links[0]); len(s.Addrs) != want || want == 0 {
			t.Fatalf("the uplink's addresses: %v, want %d", s.Addrs, want)
		}
	}
}
