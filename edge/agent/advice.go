package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"hawser/netns"
	"hawser/pkg/config"
	"hawser/pkg/identity"
	"hawser/pkg/link"
)

// final tells whether the cloud has answered and cannot be joined until somebody changes
// a configuration or a program.
func final(err error) bool {
	var refusal *link.Refusal
	return errors.As(err, &refusal) || errors.Is(err, link.ErrPeerKey) && !foreign(err) || errors.Is(err, link.ErrVersion)
}

// errForeign is that who has answered has a key of a kind that no box of hawser's has.
var errForeign = errors.New("not hawser's")

// peerKey is identity.PeerKey, whose errors are errForeign.
func peerKey(raw [][]byte) ([32]byte, error) {
	key, err := identity.PeerKey(raw)
	if err != nil {
		err = fmt.Errorf("%w: %w", errForeign, err)
	}
	return key, err
}

// foreign tells whether who has answered is no hawser-cloud: most often that passes, as a
// traveller who has not yet paid has everything answered by the portal.
func foreign(err error) bool {
	return errors.Is(err, errForeign) || link.Other(err)
}

// neighbourhood is what the kernel knows of a link's interface.
type neighbourhood interface {
	mute(netip.Addr) bool // nobody answers for an address there
	bare() bool           // it has no address
}

// around is the neighbourhood of a link, in the thread's network namespace.
type around netns.LinkRoute

func (a around) mute(neighbour netip.Addr) bool { return netns.Mute(netns.LinkRoute(a), neighbour) }
func (a around) bare() bool                     { return netns.Bare(netns.LinkRoute(a)) }

// unreached tells whether nothing has come back, from whomever.
func unreached(err error) bool {
	return errors.Is(err, link.ErrSilent) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, errNowhere)
}

// advice says what to do about links[i] that cannot connect, or "" where that shows by
// itself or passes.
func advice(err error, i int, l config.Link, near neighbourhood) string {
	var step *link.StepError
	errors.As(err, &step)
	switch {
	case foreign(err):
		return fmt.Sprintf("what listens there is no hawser-cloud: log in where %s is behind a portal, or correct links[%d].cloud", l.Interface, i)
	case errors.Is(err, link.ErrPeerKey):
		return "compare cloud.key with what hawser-cloud pubkey prints of the cloud's key file"
	case errors.Is(err, link.ErrUnknownEdge):
		return "add it to edges in the cloud's configuration, or correct identity here"
	case errors.Is(err, link.ErrVersion):
		return "update the older of the two programs"
	case final(err):
		return ""
	case unreached(err) && !errors.Is(err, syscall.ECONNREFUSED) && near.bare():
		return bare(i, l)
	case errors.Is(err, errNoNAT64):
		return fmt.Sprintf("name the DNS64 server of %s's network in /etc/resolv.conf, or give links[%d].cloud an IPv6 address, or %s an IPv4 one, with links[%d].gateway if it borrows that", l.Interface, i, l.Interface, i)
	case errors.Is(err, errNowhere):
		return fmt.Sprintf("see that links[%d].cloud is right and that a resolver answers; where only run makes the uplink's route it may well succeed then", i)
	case l.Gateway.IsValid() && near.mute(l.Gateway):
		return fmt.Sprintf("its gateway %s does not answer on %s: correct links[%d].gateway", l.Gateway, l.Interface, i)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Sprintf("the host answers, but no hawser-cloud on it: start that, or correct links[%d].cloud", i)
	case errors.Is(err, syscall.ENETUNREACH) && !l.Gateway.IsValid():
		return fmt.Sprintf("the host has no route to the cloud by %s: set links[%d].gateway", l.Interface, i)
	case step != nil && !l.Gateway.IsValid() && near.mute(step.Remote.Addr()):
		return fmt.Sprintf("nobody on %s has that address: set links[%d].gateway, the router that leads there", l.Interface, i)
	case errors.Is(err, link.ErrSilent), errors.Is(err, syscall.EHOSTUNREACH):
		return unanswered(i, l)
	}
	return ""
}

// bare is advice where the link's interface has no address.
func bare(i int, l config.Link) string {
	return fmt.Sprintf("%s has no address: see that DHCP or its settings give it one, or, if it borrows another's, that links[%d].gateway leads to the cloud", l.Interface, i)
}

// unanswered is advice where no packet comes back.
func unanswered(i int, l config.Link) string {
	by, other := "TCP and UDP", ""
	switch l.Transport {
	case config.TransportTCP:
		by, other = "TCP", fmt.Sprintf(", or set links[%d].transport to auto", i)
	case config.TransportQUIC:
		by, other = "UDP", fmt.Sprintf(", or set links[%d].transport to auto", i)
	}
	return fmt.Sprintf("see that links[%d].cloud is right and let its port in by %s at the cloud's firewall%s", i, by, other)
}
