package netns

import (
	"errors"
	"io"
	"slices"
	"testing"

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
