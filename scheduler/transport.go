package scheduler

import (
	"fmt"
	"time"
)

// Transports carry a link in one of two ways. Which one is better depends on
// what the network does to TCP and to UDP, and can only be measured. TCP costs
// less than a fifth of the CPU, so it stays where QUIC is not clearly better,
// and comes back where it is no worse.
const (
	winRate   = 1.20 // QUIC must deliver so much more than TCP, under load
	pressed   = 1.50 // TCP, which has more delay than QUIC: UDP is policed
	tieRate   = 0.95 // TCP may deliver so much less than QUIC
	winRTT    = 0.70 // or, where both deliver the same, have so much less delay
	tieRTT    = 1.20
	rttNoise  = 5 * time.Millisecond
	LoadedMin = 1e6 / 8 // bytes per second: below, a rate tells only of what was asked for
)

// Measure is what a link did over some seconds by one transport.
type Measure struct {
	Transport string        // "tcp" or "quic"
	Rate      float64       // bytes per second delivered, both directions
	RTT       time.Duration // mean of the round trips
}

// String returns transport, rate and round trip for status and logs.
func (m Measure) String() string {
	return fmt.Sprintf("%s %.1f Mbit/s, %d ms", m.Transport, m.Rate*8/1e6, m.RTT.Milliseconds())
}

// Loaded tells whether the rate says something about the path.
func (m Measure) Loaded() bool { return m.Rate >= LoadedMin }

// Better tells whether the link should change to the challenger, which was
// measured right after the incumbent, and says why or why not.
func Better(incumbent, challenger Measure) (bool, string) {
	figures := fmt.Sprintf("%v against %v", challenger, incumbent)
	win, quick := winRate, challenger.RTT+rttNoise < time.Duration(float64(incumbent.RTT)*winRTT)
	if challenger.Transport == "tcp" {
		win, quick = pressed, challenger.RTT < time.Duration(float64(incumbent.RTT)*tieRTT)+rttNoise
	}
	switch {
	case !incumbent.Loaded() && quick:
		return true, "idle: " + figures
	case !incumbent.Loaded():
		return false, "idle: " + figures
	case challenger.Rate >= incumbent.Rate*win, challenger.Rate >= incumbent.Rate*tieRate && quick:
		return true, "under load: " + figures
	}
	return false, "under load: " + figures
}

// Hopeless tells early that a challenger need not be measured to the end.
func Hopeless(incumbent, challenger Measure) bool {
	return incumbent.Loaded() && challenger.Rate < incumbent.Rate/3
}
