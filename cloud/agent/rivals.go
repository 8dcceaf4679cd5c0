package agent

import (
	"fmt"
	"net/netip"
	"time"

	"hawser/pkg/link"
	"hawser/pkg/wire"
)

// rivals bounds how often the sessions of one edge replace each other. An edge
// that was started anew replaces its last session at once. But where two boxes
// have the same key (one was made as a copy of the other), each one's session
// ends the other's, as fast as they can connect: then the one that stands is
// left alone for a while, and the other box is told why.
type rivals struct {
	young int // sessions in a row that were replaced before they were rivalSettled old
	told  string
	at    time.Time // when told was said
}

const (
	rivalSettled = 30 * time.Second
	rivalMost    = 4
	rivalHold    = 10 * time.Second // how long a session stands after rivalMost
)

// refuse takes in that another session, asked for from an address, is to
// replace one that is so old. It returns the refusal if it may not yet.
func (r *rivals) refuse(age time.Duration, standing, other netip.AddrPort) *link.Refusal {
	switch {
	case age >= rivalSettled:
		r.young = 0
		return nil
	case r.young < rivalMost, age >= rivalHold:
		r.young++
		return nil
	}
	r.told, r.at = fmt.Sprintf(
		"boxes at %v and %v keep ending each other's sessions: if they are two, they have the same key, and each needs its own (genkey)",
		standing.Addr().Unmap(), other.Addr().Unmap()), time.Now()
	return &link.Refusal{Status: wire.StatusBusy, Text: r.told}
}

// conflict is what a box was told of late, for status: each of the two has a session half
// of the time, and looks well then.
func (r *rivals) conflict() string {
	if r == nil || time.Since(r.at) >= rivalSettled {
		return ""
	}
	return r.told
}
