package config

import (
	"fmt"

	"hawser/pkg/unit"
)

// Limits bound what clients can make the edge hold while servers are asked. A
// client is an IPv4 address or an IPv6 /64 network.
type Limits struct {
	Pending       int        // connections whose server is not there yet
	PendingClient int        // of them, of one client
	OpenClient    int        // further connections of one client
	Unused        int        // of them, those of all clients that have not carried a byte; NoUnused: no bound
	FirstFlight   unit.Bytes // that one of them may have sent before its server is there
	FirstFlights  unit.Bytes // that all of them together may have
	SYNFlood      int        // SYNs per second without an ACK that are a flood; NoSYNFlood
}

// Bounds and defaults of Limits.
const (
	DefaultPending       = 4096
	DefaultPendingClient = 1024
	DefaultOpenClient    = 16384
	DefaultUnused        = 512
	DefaultFirstFlight   = 16 * unit.KiB
	DefaultFirstFlights  = 4 * unit.MiB
	DefaultSYNFlood      = 500
	NoSYNFlood           = -1 // no number of SYNs is a flood
	NoUnused             = -1 // no number of unused connections is too many

	MaxPending     = 1 << 20
	MinFirstFlight = 2 * unit.KiB
	MaxFirstFlight = 32 * unit.KiB // what a new flow may have sent through the tunnel
)

func (l *Limits) schema() setter {
	return object(fields{
		"pending":            parsed(&l.Pending, ranged(1, MaxPending, "")),
		"pending_per_client": parsed(&l.PendingClient, ranged(1, MaxPending, "")),
		"open_per_client":    parsed(&l.OpenClient, ranged(1, MaxPending, "")),
		"unused":             parsed(&l.Unused, parseUnused),
		"first_flight":       parsed(&l.FirstFlight, sized(MinFirstFlight, MaxFirstFlight)),
		"first_flights":      parsed(&l.FirstFlights, sized(MinFirstFlight, unit.GiB)),
		"syn_flood":          parsed(&l.SYNFlood, parseSYNFlood),
	})
}

func (l *Limits) fill() {
	for _, d := range []struct {
		v *int
		d int
	}{
		{&l.Pending, DefaultPending}, {&l.PendingClient, DefaultPendingClient}, {&l.OpenClient, DefaultOpenClient},
		{&l.Unused, DefaultUnused}, {&l.SYNFlood, DefaultSYNFlood},
	} {
		if *d.v == 0 {
			*d.v = d.d
		}
	}
	if l.FirstFlight == 0 {
		l.FirstFlight = DefaultFirstFlight
	}
	if l.FirstFlights == 0 {
		l.FirstFlights = DefaultFirstFlights
	}
}

// parseSYNFlood reads limits.syn_flood.
func parseSYNFlood(s string) (int, error) {
	if s == "never" {
		return NoSYNFlood, nil
	}
	return ranged(10, MaxPending, ", or never")(s)
}

// parseUnused reads limits.unused.
func parseUnused(s string) (int, error) {
	if s == "never" {
		return NoUnused, nil
	}
	return ranged(1, MaxPending, ", or never")(s)
}

// sized makes a parse function for amounts in a range.
func sized(least, most unit.Bytes) func(string) (unit.Bytes, error) {
	return func(s string) (unit.Bytes, error) {
		b, err := unit.ParseBytes(s)
		if err == nil && (b < least || b > most) {
			return 0, fmt.Errorf("%s is not from %s to %s", shown(s), least, most)
		}
		return b, err
	}
}
