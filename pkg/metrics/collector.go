package metrics

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"hawser/pkg/admin"
)

// Names that every metric of the same kind shares.
var (
	uptime    = desc("uptime_seconds", "Time since the agent started.")
	build     = desc("build_info", "Always 1; the labels say what runs.", "role", "name", "version", "card", "intercept")
	memUsed   = desc("memory_used_bytes", "Payload of flows held now.")
	memKept   = desc("memory_kept_bytes", "Payload of flows kept until the peers have delivered it.")
	memPeak   = desc("memory_peak_bytes", "The most payload of flows held so far.")
	memBudget = desc("memory_budget_bytes", "What payload of flows may take now.")
	detour    = desc("detour", "1 while new connections go around the tunnel, as it is down.")
	counted   = desc("events_total", "What the agent has counted, by the names of status.", "what")
	present   = desc("present", "What there is now, of status' counters that also fall, by their names.", "what")

	shakeMode     = desc("handshake_mode", "Always 1; the labels say how clients are accepted, as configured and now.", "mode", "now")
	shakeSwitches = desc("handshake_switches_total", "Times that auto has changed its choice.")
	shakePending  = desc("handshakes_pending", "Connections whose server has not accepted yet.")
	shakeUnused   = desc("handshakes_unused", "Connections that stand and have not carried a byte yet.")
	shakeClients  = desc("handshake_clients", "Clients with connections.")
	shakeFlights  = desc("handshake_first_flights_bytes", "What pending connections have sent.")
	shakeMost     = desc("handshake_first_flights_peak_bytes", "The most that pending connections had sent so far.")
	shakeFlood    = desc("handshake_flood", "1 while a flood of SYNs is answered in the kernel.")
	shakeFloods   = desc("handshake_floods_total", "Times that this has begun.")

	sessionUp      = desc("session_up", "1 while a link of the session lives.", "peer")
	sessionCounted = desc("session_events_total", "What a session has counted, by the names of status.", "peer", "what")
	flowsOpen      = desc("flows_open", "Connections that are open now.", "peer")
	flowsEnded     = desc("flows_total", "Connections since the start, by what became of them.", "peer", "what")

	linkState  = desc("link_state", "1 for the state that the link is in.", "peer", "link", "state", "transport")
	linkRTT    = desc("link_rtt_seconds", "Smoothed round trip of the link.", "peer", "link")
	linkMinRTT = desc("link_min_rtt_seconds", "Least recent round trip of the link.", "peer", "link")
	linkRate   = desc("link_rate_bits_per_second", "What the link carries now; up is from edge to cloud.", "peer", "link", "direction")
	linkBytes  = desc("link_bytes_total", "What the link has carried; up is from edge to cloud.", "peer", "link", "direction")
	linkFlight = desc("link_in_flight_bytes", "Sent over the link and not acknowledged.", "peer", "link")
	linkLosses = desc("link_losses_total", "Times that the link fell silent under way.", "peer", "link")
	linkForged = desc("link_forged_total", "Records of the link that were changed on their way.", "peer", "link")
	linkLost   = desc("link_packets_lost_total", "Packets sent from this end that the transport took for lost.", "peer", "link")
	linkTier   = desc("link_tier", "Always 1; the label says what the link costs to use.", "peer", "link", "tier")
	devBytes   = desc("interface_bytes_total", "What the kernel has counted on the link's interface, of all programs.", "peer", "link", "interface", "direction")
	devPackets = desc("interface_packets_total", "The same in packets.", "peer", "link", "interface", "direction")
	devErrors  = desc("interface_errors_total", "Packets of the link's interface with errors.", "peer", "link", "interface", "direction")
	devDrops   = desc("interface_drops_total", "Packets that the link's interface has dropped.", "peer", "link", "interface", "direction")
	quotaBytes = desc("link_quota_bytes", "The link's quota: per month, used of it, allowed by now.", "peer", "link", "what")
	lanesUp    = desc("link_lanes", "Connections of a link with several, by their state.", "peer", "link", "state")
	linkAgain  = desc("link_reconnects_total", "Connections of the link made after the first.", "peer", "link")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("hawser_"+name, help, labels, nil)
}

// collector turns the status document into metrics at each scrape. It is
// unchecked (it describes nothing beforehand), since links come and go.
type collector struct{ source func() admin.Status }

// Describe implements prometheus.Collector.
func (c collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	s := c.source()
	e := emitter{out}
	e.gauge(uptime, s.Uptime)
	e.gauge(build, 1, s.Role, s.Name, s.Version, s.Card.Kind, s.Intercept)
	e.gauge(memUsed, float64(s.Memory.Used))
	e.gauge(memKept, float64(s.Memory.Kept))
	e.gauge(memPeak, float64(s.Memory.Peak))
	e.gauge(memBudget, float64(s.Memory.Budget))
	if s.Intercept != "" { // an edge with uplinks
		e.gauge(detour, truth(s.Detour))
	}
	for what, n := range s.Counters {
		if falls(what) {
			e.gauge(present, float64(n), what)
		} else {
			e.counter(counted, n, what)
		}
	}
	if s.Handshakes != nil {
		e.handshakes(s.Handshakes)
	}
	for i := range s.Sessions {
		e.session(&s.Sessions[i])
	}
}

// falls tells which of status' counters say how many there are, and not how many there
// have been: for Prometheus a counter that falls has begun anew.
func falls(what string) bool {
	return what == "goroutines" || what == "splice_open" || what == "splice_kernel_open"
}

type emitter struct{ out chan<- prometheus.Metric }

func (e emitter) handshakes(h *admin.Handshakes) {
	e.gauge(shakeMode, 1, h.Mode, h.Now)
	e.counter(shakeSwitches, h.Switches)
	e.gauge(shakePending, float64(h.Pending))
	e.gauge(shakeUnused, float64(h.Unused))
	e.gauge(shakeClients, float64(h.Clients))
	e.gauge(shakeFlights, float64(h.FirstFlights))
	e.gauge(shakeMost, float64(h.FirstFlightsPeak))
	e.gauge(shakeFlood, truth(h.Flood))
	e.counter(shakeFloods, h.Floods)
}

func (e emitter) session(s *admin.Session) {
	peer := s.Peer
	if peer == "" {
		peer = s.Key // a peer without a name is told apart by its key
	}
	e.gauge(sessionUp, truth(s.State == "up"), peer)
	e.gauge(flowsOpen, float64(s.Flows.Open), peer)
	e.counter(flowsEnded, s.Flows.Opened, peer, "opened")
	e.counter(flowsEnded, s.Flows.Refused, peer, "refused")
	e.counter(flowsEnded, s.Flows.Reset, peer, "reset")
	for what, n := range s.Counters {
		e.counter(sessionCounted, n, peer, what)
	}
	for i := range s.Links {
		e.link(peer, &s.Links[i])
	}
}

func (e emitter) link(peer string, l *admin.Link) {
	e.gauge(linkState, 1, peer, l.Name, l.State, l.Transport)
	e.gauge(linkRTT, l.RTT/1000, peer, l.Name)
	e.gauge(linkMinRTT, l.MinRTT/1000, peer, l.Name)
	e.gauge(linkRate, float64(l.RateUp), peer, l.Name, "up")
	e.gauge(linkRate, float64(l.RateDown), peer, l.Name, "down")
	e.counter(linkBytes, l.BytesUp, peer, l.Name, "up")
	e.counter(linkBytes, l.BytesDown, peer, l.Name, "down")
	e.gauge(linkFlight, float64(l.InFlight), peer, l.Name)
	e.counter(linkLosses, l.Losses, peer, l.Name)
	e.counter(linkForged, l.Forged, peer, l.Name)
	e.counter(linkLost, l.PacketsLost, peer, l.Name)
	e.counter(linkAgain, l.Reconnects, peer, l.Name)
	lanes := map[string]float64{}
	for _, n := range l.Lanes {
		lanes[n.State]++
	}
	for state, n := range lanes {
		e.gauge(lanesUp, n, peer, l.Name, state)
	}
	if d := l.Device; d != nil {
		e.device(d, peer, l.Name, l.Interface)
	}
	if q := l.Quota; q != nil {
		e.gauge(quotaBytes, float64(q.Bytes), peer, l.Name, "month")
		e.gauge(quotaBytes, float64(q.Used), peer, l.Name, "used")
		e.gauge(quotaBytes, float64(q.Allowed), peer, l.Name, "allowed")
	}
	if l.Tier != "" {
		e.gauge(linkTier, 1, peer, l.Name, l.Tier)
	}
}

func (e emitter) device(d *admin.Device, labels ...string) {
	for _, c := range []struct {
		desc     *prometheus.Desc
		up, down uint64
	}{
		{devBytes, d.BytesUp, d.BytesDown}, {devPackets, d.PacketsUp, d.PacketsDown},
		{devErrors, d.ErrorsUp, d.ErrorsDown}, {devDrops, d.DropsUp, d.DropsDown},
	} {
		e.counter(c.desc, c.up, append(labels[:3:3], "up")...)
		e.counter(c.desc, c.down, append(labels[:3:3], "down")...)
	}
}

func (e emitter) gauge(d *prometheus.Desc, v float64, labels ...string) {
	e.emit(d, prometheus.GaugeValue, v, labels)
}

func (e emitter) counter(d *prometheus.Desc, n uint64, labels ...string) {
	e.emit(d, prometheus.CounterValue, float64(n), labels)
}

// emit sends one reading. Labels come from configuration and peers: what is no
// valid UTF-8 would fail the whole scrape.
func (e emitter) emit(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels []string) {
	for i := range labels {
		labels[i] = strings.ToValidUTF8(labels[i], "?")
	}
	e.out <- prometheus.MustNewConstMetric(d, kind, v, labels...)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
