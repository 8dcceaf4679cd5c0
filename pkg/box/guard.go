package box

import (
	"net/netip"

	"hawser/pkg/admin"
	"hawser/pkg/config"
	"hawser/pkg/guard"
	"hawser/pkg/split"
)

// guardModes are the guard's modes of the configuration's words.
var guardModes = [...]guard.Mode{
	config.HandshakeAuto: guard.Auto, config.HandshakeZeroWindow: guard.ZeroWindow,
	config.HandshakeFast: guard.Fast, config.HandshakeStrict: guard.Strict,
}

func newGate(h config.Handshake, l config.Limits) *split.Gate {
	return split.NewGate(guardModes[h], guardLimits(l))
}

func guardLimits(l config.Limits) guard.Limits {
	return guard.Limits{
		Pending: l.Pending, PendingClient: l.PendingClient, OpenClient: l.OpenClient, Unused: l.Unused,
		FirstFlight: int(l.FirstFlight), FirstFlights: int(l.FirstFlights),
	}
}

// handshakes finds a connection's mode: its policy's, or else the agent's.
func (w *Workers) handshakes() func(dst, src netip.AddrPort) guard.Mode {
	return func(dst, src netip.AddrPort) guard.Mode {
		rules := w.rules.Load()
		if rules.Policies != nil && rules.Policies.Len() > 0 {
			if m := guardModes[rules.Policies.Match(src.Addr(), dst).Handshake]; m != guard.Auto {
				return m
			}
		}
		return guardModes[rules.Handshake]
	}
}

// guardStatus says how clients are accepted now; nil without a guard.
func (w *Workers) guardStatus() *admin.Handshakes {
	if w.gate == nil {
		return nil
	}
	s := w.gate.Status()
	kernel := sentryStatus{}
	if w.sentry != nil {
		kernel = w.sentry.read()
	}
	return &admin.Handshakes{
		Flood: kernel.flood, Floods: kernel.floods,
		Mode: w.rules.Load().Handshake.String(), Now: s.Mode.String(), Now6: s.Mode6.String(), Switches: s.Switches,
		Pending: uint64(s.Pending), Unused: uint64(w.gate.Unused()), FirstFlights: uint64(s.Bytes), FirstFlightsPeak: uint64(s.Peak), Clients: uint64(s.Clients),
	}
}

// addGuard adds what one stack's guard has counted.
func addGuard(c map[string]uint64, g split.GuardStats) {
	c["guard_syns"] += g.SYNs
	c["guard_bad_syns"] += g.BadSYNs
	c["guard_cookies"] += g.Answers
	c["guard_cookies_again"] += g.Again
	c["guard_admitted"] += g.Admitted
	c["guard_abandoned"] += g.Abandoned
	c["guard_replaced"] += g.Replaced
	c["guard_crowded"] += g.Crowded
	c["guard_greedy"] += g.Greedy
	c["guard_displaced"] += g.Displaced
	c["guard_waited"] += g.Waited
	c["guard_silent"] += g.Silent
	c["guard_unused_ended"] += g.Unused
	c["guard_forged"] += g.Forged
	c["guard_strays"] += g.Strays
	c["guard_denied"] += g.Denied
	c["guard_doubted"] += g.Doubted
	c["guard_probes"] += g.Probes
	c["guard_discarded_bytes"] += g.Discarded
	c["guard_excess"] += g.Excess
	c["guard_misjoined"] += g.Misjoined
}

// add adds what the kernel has counted.
func (s *sentry) add(c map[string]uint64) {
	st := s.read()
	c["kernel_syns_answered"] = st.counts.Answered
	c["kernel_syns_bad"] = st.counts.Bad
	c["kernel_syns_odd"] = st.counts.Odd
	c["kernel_syns_left"] = st.counts.Left
	c["kernel_cookies_back"] = st.counts.Recognised
}
