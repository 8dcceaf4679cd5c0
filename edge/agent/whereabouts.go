package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"hawser/netns"
	"hawser/pkg/config"
	"hawser/pkg/link"
	"hawser/pkg/names"
)

// Look-ups of a cloud's name. Nothing is lost by asking again while no link can be
// made; while there is an address that may work it is done now and then.
const (
	lookTime  = 5 * time.Second  // at most, for one
	lookSoon  = 2 * time.Second  // from one to the next without an address that can be used
	lookLater = 15 * time.Second // the same with one, once all were tried
	// stickTries is how many attempts go where the last connection was, before the
	// other addresses have their turn: most uplinks come back to the same.
	stickTries = 8
)

// lookUp finds a name's addresses. When one has come that serves it need not wait for others.
type lookUp func(ctx context.Context, host string, serves func(netip.Addr) bool) ([]netip.Addr, error)

// whereabouts are the addresses of a cloud that is given by name, for one lane of a
// link. The attempts of a race, which overlap, take them in turn (as RFC 8305 has
// it), those only that are of an IP version that the uplink has. The name is looked
// up by the first attempt, and again while none succeeds.
//
// Goroutines: each look-up is one, which begin's context ends and wait waits for.
type whereabouts struct {
	host, device string
	port         uint16
	versions     func() (four, six bool) // that the uplink has
	look         lookUp

	live    context.Context
	running sync.WaitGroup

	mu    sync.Mutex
	addrs []netip.Addr  // the last answer
	err   error         // why there was none
	asked time.Time     // when the last look-up began
	done  chan struct{} // closed when that ends; nil: none is under way
	good  netip.Addr    // of the last connection
	tries int           // addresses given since then
}

// newWhereabouts is for a link's cloud by name; nil where its address is given.
func newWhereabouts(l config.Link, versions func() (four, six bool)) *whereabouts {
	if _, given := l.Cloud.AddrPort(); given {
		return nil
	}
	return &whereabouts{
		host: l.Cloud.Host, port: l.Cloud.Port, device: l.Interface, versions: versions,
		// By the uplink, because the host may have no other way out, and as the host asks,
		// because its resolver may be on another network.
		look: names.Resolver{Ways: []names.Dial{link.NameServers(l.Interface, netns.BypassMark), new(net.Dialer).DialContext}}.Look,
	}
}

// begin lets look-ups live until ctx ends. A nil whereabouts has none.
func (w *whereabouts) begin(ctx context.Context) {
	if w != nil {
		w.live = ctx
	}
}

// wait returns when no look-up is under way. The context must have ended, and
// attempts, too.
func (w *whereabouts) wait() {
	if w != nil {
		w.running.Wait()
	}
}

// next is the address for the next attempt; it is a link.Where.
func (w *whereabouts) next(ctx context.Context) (netip.AddrPort, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	usable := w.usable()
	if w.due(len(usable)) {
		w.ask()
	}
	if done := w.done; done != nil && len(usable) == 0 {
		w.mu.Unlock()
		select {
		case <-done:
		case <-ctx.Done():
		}
		w.mu.Lock()
		usable = w.usable()
	}
	if ctx.Err() != nil {
		return netip.AddrPort{}, noAddress{fmt.Errorf("cloud: %s was not found in time by %s or by this host's routes: check /etc/resolv.conf, or give an address: %w", w.host, w.device, ctx.Err())}
	}
	if len(usable) == 0 {
		return netip.AddrPort{}, noAddress{w.trouble()}
	}
	a := usable[w.tries%len(usable)]
	if w.tries < stickTries && slices.Contains(usable, w.good) {
		a = w.good
	}
	w.tries++
	return netip.AddrPortFrom(a, w.port), nil
}

// works notes where a connection was made.
func (w *whereabouts) works(at netip.AddrPort) {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.good, w.tries = at.Addr().Unmap(), 0
}

// due reports whether it is time to look the name up.
func (w *whereabouts) due(usable int) bool {
	age := time.Since(w.asked)
	switch {
	case w.done != nil:
		return false
	case w.asked.IsZero():
		return true
	case usable == 0:
		return age >= lookSoon
	}
	return w.tries >= max(usable, stickTries) && age >= lookLater
}

// ask begins a look-up. An answer stays until there is another one.
func (w *whereabouts) ask() {
	w.asked, w.done = time.Now(), make(chan struct{})
	w.running.Go(func() {
		ctx, cancel := context.WithTimeout(w.live, lookTime)
		defer cancel()
		found, err := w.look(ctx, w.host, w.serves)
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.err = err; len(found) > 0 {
			w.addrs, w.err = inTurn(found), nil
		}
		close(w.done)
		w.done = nil
	})
}

// usable are the addresses of an IP version that the uplink has.
func (w *whereabouts) usable() []netip.Addr {
	return slices.DeleteFunc(slices.Clone(w.addrs), func(a netip.Addr) bool { return !w.serves(a) })
}

// serves tells whether an address is of an IP version that the uplink has.
func (w *whereabouts) serves(a netip.Addr) bool {
	four, six := w.versions()
	return a.Unmap().Is4() && four || !a.Unmap().Is4() && six
}

// count is how many addresses there are; 1 without a name.
func (w *whereabouts) count() int {
	if w == nil {
		return 1
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.usable())
}

// errNowhere is why an attempt was none.
var errNowhere = errors.New("no address")

// noAddress is an error that says what it wraps, and is errNowhere.
type noAddress struct{ error }

func (n noAddress) Is(target error) bool { return target == errNowhere }
func (n noAddress) Unwrap() error        { return n.error }

// trouble says why there is no address that can be used.
func (w *whereabouts) trouble() error {
	if len(w.addrs) == 0 {
		err := w.err
		if err == nil {
			err = errors.New("it has no address")
		}
		return fmt.Errorf("cloud: cannot look up %s, by %s or by this host's routes: check the name and /etc/resolv.conf, or give an address: %w", w.host, w.device, err)
	}
	is, has := "IPv4", "IPv6"
	if w.addrs[0].Is6() {
		is, has = has, is
	}
	return fmt.Errorf("cloud: %s has only %s addresses, and the uplink %s is for %s: give the name an %s address, or the uplink and links[].gateway an %s one", w.host, is, w.device, has, has, is)
}

// inTurn mixes both IP versions, IPv6 first (RFC 8305 section 4).
func inTurn(addrs []netip.Addr) []netip.Addr {
	var by [2][]netip.Addr
	for _, a := range addrs {
		if a = a.Unmap(); !slices.Contains(by[0], a) && !slices.Contains(by[1], a) {
			i := 0
			if a.Is4() {
				i = 1
			}
			by[i] = append(by[i], a)
		}
	}
	var mixed []netip.Addr
	for i := range max(len(by[0]), len(by[1])) {
		for _, of := range by {
			if i < len(of) {
				mixed = append(mixed, of[i])
			}
		}
	}
	return mixed
}
