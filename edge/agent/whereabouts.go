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
// up by the first attempt, and again while none succeeds. An IPv4 address, of the name
// or given in its place, is also reached where the uplink has IPv6 alone (translation).
//
// Goroutines: each look-up is one, or two, which begin's context ends and wait waits for.
type whereabouts struct {
	host, device string
	port         uint16
	versions     func() (four, six bool) // that the uplink has
	look         lookUp                  // nil: the cloud's address is given

	live    context.Context
	running sync.WaitGroup

	mu    sync.Mutex
	addrs []netip.Addr  // the last answer, or what is given
	err   error         // why there was none
	asked time.Time     // when the last look-up began
	done  chan struct{} // closed when that ends; nil: none is under way
	good  netip.Addr    // of the last connection
	tries int           // addresses given since then
	nat64 translation
}

// newWhereabouts is for a link's cloud by name, or by an IPv4 address to which the uplink may
// turn out to have no other way than NAT64; nil where there is nothing to look up.
func newWhereabouts(l config.Link, versions func() (four, six bool)) *whereabouts {
	at, given := l.Cloud.AddrPort()
	if given && (!at.Addr().Is4() || l.Gateway.Is4()) {
		return nil
	}
	byUplink := link.NameServers(l.Interface, netns.BypassMark)
	w := &whereabouts{host: l.Cloud.Host, port: l.Cloud.Port, device: l.Interface, versions: versions}
	w.nat64.look = names.Resolver{Ways: []names.Dial{byUplink}}.LookThere
	if given {
		w.host, w.addrs = at.Addr().String(), []netip.Addr{at.Addr()}
		return w
	}
	// By the uplink, because the host may have no other way out, and as the host asks,
	// because its resolver may be on another network.
	w.look = names.Resolver{Ways: []names.Dial{byUplink, new(net.Dialer).DialContext}}.Look
	return w
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
		return netip.AddrPort{}, w.late(ctx.Err())
	}
	if len(usable) == 0 {
		return netip.AddrPort{}, w.trouble()
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
	w.nat64.by = w.nat64.prefixOf(w.good, w.addrs)
}

// moved notes that the uplink may be in another network now.
func (w *whereabouts) moved() {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.nat64.stale = true
}

// due reports whether it is time to look the name up.
func (w *whereabouts) due(usable int) bool {
	age := time.Since(w.asked)
	four, _ := w.versions()
	switch {
	case w.done != nil || w.look == nil && four:
		return false
	case w.asked.IsZero(), w.nat64.stale && !four:
		return true
	case usable == 0:
		return age >= lookSoon
	}
	return w.tries >= max(usable, stickTries) && age >= lookLater
}

// ask begins a look-up. An answer stays until there is another one.
func (w *whereabouts) ask() {
	w.asked, w.done, w.nat64.stale = time.Now(), make(chan struct{}), false
	w.running.Go(func() {
		ctx, cancel := context.WithTimeout(w.live, lookTime)
		defer cancel()
		learned := w.learn(ctx)
		if w.look != nil {
			w.find(ctx)
		}
		if w.direct() {
			cancel()
		}
		<-learned
		w.mu.Lock()
		defer w.mu.Unlock()
		close(w.done)
		w.done = nil
	})
}

// find looks the name up.
func (w *whereabouts) find(ctx context.Context) {
	found, err := w.look(ctx, w.host, w.serves)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err = err; len(found) > 0 {
		w.addrs, w.err = names.InTurn(found, true), nil
	}
}

// usable are the addresses of an IP version that the uplink has, or what stands for the
// others there.
func (w *whereabouts) usable() []netip.Addr {
	four, six := w.versions()
	direct := slices.DeleteFunc(slices.Clone(w.addrs), func(a netip.Addr) bool { return !of(a, four, six) })
	if len(direct) > 0 || four {
		return direct
	}
	return w.nat64.standIns(w.addrs)
}

// of tells whether an address is of one of the IP versions.
func of(a netip.Addr, four, six bool) bool { return a.Unmap().Is4() && four || !a.Unmap().Is4() && six }

// serves tells whether an address can be used on the uplink.
func (w *whereabouts) serves(a netip.Addr) bool {
	if four, six := w.versions(); of(a, four, six) {
		return true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return a.Unmap().Is4() && len(w.nat64.prefixes) > 0
}

// direct tells whether there is an address of an IP version that the uplink has.
func (w *whereabouts) direct() bool {
	four, six := w.versions()
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(w.addrs, func(a netip.Addr) bool { return of(a, four, six) })
}

// asks tells whether an address must be looked up before there is one.
func (w *whereabouts) asks() bool {
	if w == nil {
		return false
	}
	four, _ := w.versions()
	return w.look != nil || !four
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

// Why an attempt was none. The second is a case of the first.
var (
	errNowhere = errors.New("no address")
	errNoNAT64 = errors.New("no NAT64")
)

// noAddress is an error that says what it wraps, and is errNowhere.
type noAddress struct {
	error
	nat64 bool // and errNoNAT64
}

func (n noAddress) Is(target error) bool {
	return target == errNowhere || n.nat64 && target == errNoNAT64
}
func (n noAddress) Unwrap() error { return n.error }

// late says that there is no address yet.
func (w *whereabouts) late(err error) error {
	if w.look == nil {
		return noAddress{fmt.Errorf("cloud: %s is an IPv4 address, and the uplink %s is for IPv6, where no NAT64 was found in time: %w", w.host, w.device, err), true}
	}
	return noAddress{fmt.Errorf("cloud: %s was not found in time by %s or by this host's routes: check /etc/resolv.conf, or give an address: %w", w.host, w.device, err), false}
}

// trouble says why there is no address that can be used.
func (w *whereabouts) trouble() error {
	switch {
	case w.look == nil:
		return noAddress{fmt.Errorf("cloud: %s is an IPv4 address, and the uplink %s is for IPv6, where no NAT64 was found: %w", w.host, w.device, w.nat64.trouble()), true}
	case len(w.addrs) == 0:
		err := w.err
		if err == nil {
			err = errors.New("it has no address")
		}
		return noAddress{fmt.Errorf("cloud: cannot look up %s, by %s or by this host's routes: check the name and /etc/resolv.conf, or give an address: %w", w.host, w.device, err), false}
	case w.addrs[0].Is6():
		return noAddress{fmt.Errorf("cloud: %s has only IPv6 addresses, and the uplink %s is for IPv4: give the name an IPv4 address, or the uplink and links[].gateway an IPv6 one", w.host, w.device), false}
	}
	return noAddress{fmt.Errorf("cloud: %s has only IPv4 addresses, and the uplink %s is for IPv6, where no NAT64 was found: %w", w.host, w.device, w.nat64.trouble()), true}
}
