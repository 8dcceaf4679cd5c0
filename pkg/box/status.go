package box

import (
	"fmt"
	"os"
	"runtime"
	"time"

	"hawser/pkg/admin"
	"hawser/pkg/card"
	"hawser/pkg/link"
	"hawser/pkg/splice"
	"hawser/pkg/split"
	"hawser/pkg/tunnel"
	"hawser/pkg/wire"
	"hawser/scheduler"
)

// Describe fills in what both roles' status documents begin with.
func (w *Workers) Describe(started time.Time, budget *tunnel.Budget, links *link.Counters) admin.Status {
	s := admin.Status{
		Role: "edge", Version: admin.Release, Protocol: wire.VersionMax, Started: started,
		Uptime: time.Since(started).Seconds(), Workers: len(w.workers), Intercept: w.intercept(), Handshakes: w.guardStatus(), Card: w.cards.status(),
		Memory:   admin.Memory{Used: uint64(budget.Held()), Kept: uint64(budget.Kept()), Peak: uint64(budget.Peak()), Budget: uint64(budget.Limit())},
		Counters: w.counters(links),
	}
	if w.opts.Role == card.Cloud {
		s.Role = "cloud"
	}
	s.Name, _ = os.Hostname()
	return s
}

// counters adds up what workers, stacks and links have counted.
func (w *Workers) counters(links *link.Counters) map[string]uint64 {
	c := map[string]uint64{"goroutines": uint64(runtime.NumGoroutine())}
	for i, r := range w.RelayStatus() {
		c[fmt.Sprintf("worker_%d_flows", i)] = r.Started
		c["flows_started"] += r.Started
		c["flows_done"] += r.Done
		c["records_sealed"] += r.Sealed.Records
		c["records_opened"] += r.Opened.Records
		c["records_forged"] += r.Forged
		c["plain_bytes_read"] += r.Sealed.Plain
		c["plain_bytes_written"] += r.Opened.Plain
		for code, n := range r.Resets {
			c["resets_here_"+code] += n
		}
		for code, n := range r.PeerResets {
			c["resets_there_"+code] += n
		}
	}
	failed := w.cards.counts()
	c["card_failures"] = failed.Failures
	c["card_jobs_again"] = failed.Again
	c["card_jobs_late"] = failed.Late
	c["card_jobs_wrong"] = failed.Wrong
	c["links_tampered"] = links.Tampered.Load()
	c["links_oversize"] = links.Oversize.Load()
	c["links_truncated"] = links.Truncated.Load()
	c["links_refused"] = links.Refused.Load() + links.Failed.Load()
	c["links_crowded"] = links.Crowded.Load()
	for _, s := range w.StackStats() {
		addStack(c, s, w.gate != nil)
	}
	if w.egress != nil {
		w.egress.add(c)
	}
	if w.sentry != nil {
		w.sentry.add(c)
	}
	for _, d := range w.doors {
		c["sockets_accepted"] += d.accepted.Load()
		c["sockets_refused"] += d.refused.Load()
	}
	return c
}

// addStack adds what one user-space stack has counted.
func addStack(c map[string]uint64, s split.Stats, guarded bool) {
	c["hub_frames_in"] += s.FramesIn
	c["hub_frames_joined"] += s.Joined
	c["hub_frames_out"] += s.FramesOut
	c["hub_overruns"] += s.Overruns
	c["hub_bad_frames"] += s.BadChecksums + s.Malformed + s.Fragments + s.Foreign + s.Truncated
	c["hub_send_drops"] += s.SendDrops + s.SendErrors
	c["hub_accepted"] += s.Accepted
	c["hub_handshake_drops"] += s.HandshakeDrops
	c["hub_handshake_fails"] += s.HandshakeFails
	c["hub_dialed"] += s.Dialed
	c["hub_dial_fails"] += s.DialFails
	c["hub_retransmits"] += s.Retransmits
	c["hub_mended"] += s.Mended
	c["hub_orphans_reset"] += s.OrphanResets
	c["hub_windows_held"] += s.Lulled
	c["hub_probes_held"] += s.Unasked
	c["hub_probes_ignored"] += s.Unanswered
	addSplice(c, s.Spliced, s.SplicedNow)
	c["splice_kernel_open"] += uint64(s.ShuntedNow)
	if guarded {
		addGuard(c, s.Guard)
	}
}

// addSplice adds what went around one stack.
func addSplice(c map[string]uint64, sp splice.Counters, now int) {
	c["splice_begun"] += sp.Begun
	c["splice_opened"] += sp.Opened
	c["splice_open"] += uint64(now)
	c["splice_closed"] += sp.Closed + sp.Idle
	c["splice_refused"] += sp.Refused
	c["splice_unreachable"] += sp.Unreachable + sp.TimedOut
	c["splice_abandoned"] += sp.Abandoned
	c["splice_full"] += sp.Full
	c["splice_bad_segments"] += sp.Malformed + sp.Oversize + sp.Discarded
	c["splice_kernel"] += sp.Shunted
	c["splice_bytes_up"] += sp.BytesUp
	c["splice_bytes_down"] += sp.BytesDown
}

// Session converts a session's figures. up says that "sent" is "up".
func Session(st tunnel.Status, up bool) admin.Session {
	out := admin.Session{
		Peer: st.Peer, State: "down",
		Flows: admin.Flows{Open: uint64(st.Flows), Opened: st.Counts.FlowsOpened, Refused: st.Counts.FlowsRefused, Reset: st.Counts.FlowsReset},
		Counters: map[string]uint64{
			"bytes_sent": st.Counts.BytesSent, "bytes_received": st.Counts.BytesReceived,
			"bytes_sent_again": st.Counts.BytesAgain, "bytes_received_again": st.Counts.Duplicates,
			"forged": st.Counts.Forged, "violations": st.Counts.Violations,
			"flows_crowded": st.Counts.FlowsCrowded,
		},
	}
	for _, l := range st.Links {
		if l.State == scheduler.Up {
			out.State = "up"
		}
	}
	out.Links = linksOf(st.Links, up)
	return out
}

// Since is when a session's state began: begun if it is up, and when the last of its links
// went down if it is not.
func Since(s admin.Session, begun time.Time) time.Time {
	since := begun
	for _, l := range s.Links {
		if s.State != "up" && l.Since.After(since) {
			since = l.Since
		}
	}
	return since
}

func linkOf(l tunnel.LinkStatus, up bool) admin.Link {
	out := admin.Link{
		Name: l.Name, State: l.State.String(), Since: l.Since, Transport: l.Transport, Congestion: l.Congestion, Remote: l.Remote,
		RTT: millis(l.SRTT), MinRTT: millis(l.MinRTT), InFlight: uint64(l.InFlight),
		Losses: l.Moves[scheduler.Suspect], PacketsLost: l.PacketsLost, Tier: l.Terms.Tier.String(), LastError: l.LastError,
	}
	out.Forged, out.Shunned = l.Forged, l.Shunned.Seconds()
	if l.Connections > 0 {
		out.Reconnects = l.Connections - 1
	}
	sent, got := uint64(8*l.RateSent), uint64(8*l.RateGot)
	if up {
		out.RateUp, out.RateDown, out.BytesUp, out.BytesDown = sent, got, l.BytesSent, l.BytesGot
	} else {
		out.RateUp, out.RateDown, out.BytesUp, out.BytesDown = got, sent, l.BytesGot, l.BytesSent
	}
	return out
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
