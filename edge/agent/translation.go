package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"hawser/pkg/link"
	"hawser/pkg/nat64"
)

// translation is how an uplink with IPv6 alone reaches IPv4 addresses: by a translator of its
// network, NAT64, whose prefix the network's name servers tell (RFC 7050). It is learnt beside
// each look-up of the cloud's name, and where nothing is to be looked up in its place, so
// again when no attempt succeeds, and when the uplink has moved. Its whereabouts' mutex guards
// it, but for look.
type translation struct {
	look lookUp // asks by the uplink alone: each network has its own answer

	prefixes []netip.Prefix // the last answer
	err      error          // why there was none
	stale    bool           // the uplink may be in another network since
	by       netip.Prefix   // of the last connection's address; invalid: it was none behind a prefix
}

// learn asks for the prefix where the uplink has IPv6 alone. The channel is closed at the end.
func (w *whereabouts) learn(ctx context.Context) <-chan struct{} {
	learned := make(chan struct{})
	if four, six := w.versions(); four || !six {
		close(learned)
		return learned
	}
	go func() {
		defer close(learned)
		found, err := w.nat64.look(ctx, nat64.Name, nat64.Tells)
		prefixes := nat64.Prefixes(found)
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.nat64.err = err; len(prefixes) > 0 {
			w.nat64.prefixes = prefixes
		}
	}()
	return learned
}

// standIns are what stands for IPv4 addresses behind the prefixes.
func (t *translation) standIns(addrs []netip.Addr) (out []netip.Addr) {
	for _, a := range addrs {
		for _, p := range t.prefixes {
			if by := nat64.Embed(p, a); by.IsValid() {
				out = append(out, by)
			}
		}
	}
	return out
}

// prefixOf is the prefix behind which an address stands for one of others, invalid if none.
func (t *translation) prefixOf(addr netip.Addr, others []netip.Addr) netip.Prefix {
	for _, p := range t.prefixes {
		if slices.ContainsFunc(others, func(a netip.Addr) bool { return addr.IsValid() && nat64.Embed(p, a) == addr }) {
			return p
		}
	}
	return netip.Prefix{}
}

// trouble says why there is no prefix.
func (t *translation) trouble() error {
	err := t.err
	if err == nil {
		err = errors.New("its name servers tell of no prefix")
	}
	return err
}

// translated is the prefix by which the last connection goes, invalid if by none.
func (w *whereabouts) translated() netip.Prefix {
	if w == nil {
		return netip.Prefix{}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.nat64.by
}

// through is the prefix by which an attempt went that has failed, invalid if by none.
func (w *whereabouts) through(err error) netip.Prefix {
	var step *link.StepError
	if w == nil || !errors.As(err, &step) {
		return netip.Prefix{}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.nat64.prefixOf(step.Remote.Addr(), w.addrs)
}

// explain says of a failed attempt that it went by NAT64.
func (w *whereabouts) explain(err error) error {
	if p := w.through(err); p.IsValid() {
		return fmt.Errorf("%w, by NAT64 with prefix %s", err, p)
	}
	return err
}
