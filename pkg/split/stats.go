package split

import (
	"sync/atomic"

	"golang.org/x/sys/unix"

	"hawser/pkg/splice"
)

// Stats are a stack's counters since it was made, except where a field says
// that it is a present amount. Frames may stand for many segments: bytes
// divided by frames is the mean size that offloading reached.
type Stats struct {
	FramesIn, BytesIn, GSOIn    uint64 // received; GSOIn: frames longer than the MTU
	Joined                      uint64 // of the received ones: went to netstack as part of another
	FramesOut, BytesOut, GSOOut uint64 // sent; bytes from the Ethernet header on

	Overruns     uint64 // frames the kernel dropped because the socket buffer was full
	BadChecksums uint64 // frames with a wrong IP, TCP or ICMP checksum
	Malformed    uint64 // frames whose headers contradict each other
	Fragments    uint64 // IP fragments, dropped: TCP avoids them by path MTU discovery
	Foreign      uint64 // frames that are neither TCP nor ICMP errors
	Truncated    uint64 // frames longer than a receive slot (BIG TCP is on?)
	Filtered     uint64 // frames that a filter took
	Forwarded    uint64 // frames that a filter sent back out of the hub
	Mended       uint64 // packets sent again below netstack
	Lulled       uint64 // window updates of a crowd that netstack was not told at once
	Unasked      uint64 // questions whether a window is still shut that did not leave
	Unanswered   uint64 // such questions of parties that netstack did not hear of
	ShutAcks     uint64 // acknowledgements delivered apart because the window was shut
	OrphanResets uint64 // connections reset after Close, as too much waited for parties that took nothing
	SendDrops    uint64 // packets dropped because the outbox was full
	SendErrors   uint64 // frames the kernel refused

	Accepted       uint64 // connections handed to accept
	Handshakes     int    // present: passive handshakes under way
	HandshakeDrops uint64 // SYNs ignored because too many were under way
	HandshakeFails uint64 // passive handshakes that did not complete
	Dialed         uint64 // connections dialled
	DialFails      uint64 // dials that failed at once, or timed out
	Open           uint64 // present: connections that stand, TIME_WAIT included

	Spliced    splice.Counters // connections around netstack
	SplicedNow int             // present: of them, those that stand or are just ending
	ShuntedNow int             // present: of those, the ones that the kernel carries

	Segments        uint64 // TCP segments sent; one may be up to 64 KB
	Retransmits     uint64 // of them sent again
	FastRetransmits uint64
	Timeouts        uint64 // retransmission timeouts
	ResetsIn        uint64
	ResetsOut       uint64

	Guard GuardStats // zero without a guard
}

// counters are the link's own figures.
type counters struct {
	framesIn, bytesIn, gsoIn    atomic.Uint64
	joined                      atomic.Uint64
	framesOut, bytesOut, gsoOut atomic.Uint64
	dropped                     [verdicts]atomic.Uint64
	overruns, shutAcks          atomic.Uint64
	forwarded, mended           atomic.Uint64
	lulled, unasked, unanswered atomic.Uint64
	sendDrops, sendErrors       atomic.Uint64
	orphans                     atomic.Uint64
	accepted                    atomic.Uint64
	handshakeDrops              atomic.Uint64
	handshakeFails              atomic.Uint64
	dialed, dialFails           atomic.Uint64
}

// Stats returns the present figures. It may be called from any goroutine and
// at any time.
func (s *Stack) Stats() Stats {
	c := &s.count
	st := Stats{
		FramesIn: c.framesIn.Load(), BytesIn: c.bytesIn.Load(), GSOIn: c.gsoIn.Load(), Joined: c.joined.Load(),
		FramesOut: c.framesOut.Load(), BytesOut: c.bytesOut.Load(), GSOOut: c.gsoOut.Load(),
		BadChecksums: c.dropped[verdictChecksum].Load(),
		Malformed:    c.dropped[verdictMalformed].Load(),
		Fragments:    c.dropped[verdictFragment].Load(),
		Foreign:      c.dropped[verdictForeign].Load(),
		Truncated:    c.dropped[verdictTruncated].Load(),
		Filtered:     c.dropped[verdictFilter].Load(),
		Forwarded:    c.forwarded.Load(),
		Mended:       c.mended.Load(),
		Lulled:       c.lulled.Load(),
		Unasked:      c.unasked.Load(),
		Unanswered:   c.unanswered.Load(),
		ShutAcks:     c.shutAcks.Load(),
		OrphanResets: c.orphans.Load(),
		SendDrops:    c.sendDrops.Load(), SendErrors: c.sendErrors.Load(),
		Accepted:       c.accepted.Load(),
		HandshakeDrops: c.handshakeDrops.Load(), HandshakeFails: c.handshakeFails.Load(),
		Dialed: c.dialed.Load(), DialFails: c.dialFails.Load(),
	}
	st.Handshakes = s.door.waiting()
	s.splice.stats(&st)
	if ns := s.net.Load(); ns != nil {
		tcp := ns.Stats().TCP
		st.Open = tcp.CurrentConnected.Value()
		st.Segments = tcp.SegmentsSent.Value()
		st.Retransmits = tcp.Retransmits.Value()
		st.FastRetransmits = tcp.FastRetransmit.Value()
		st.Timeouts = tcp.Timeouts.Value()
		st.ResetsIn = tcp.ResetsReceived.Value()
		st.ResetsOut = tcp.ResetsSent.Value()
		_ = s.raw.Control(s.countOverruns) // fails only after Run has ended
	}
	if s.keeper != nil {
		st.Guard = s.keeper.stats()
	}
	st.Overruns = c.overruns.Load()
	return st
}

// countOverruns adds what the kernel dropped since the last call: reading
// PACKET_STATISTICS sets it to zero.
func (s *Stack) countOverruns(fd uintptr) {
	if t, err := unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
		s.count.overruns.Add(uint64(t.Drops))
	}
}
