package admin

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"hawser/pkg/unit"
)

// Render writes the status for people: a block for the box, one per session,
// and in it lines for each link.
func Render(w io.Writer, s Status) error {
	p := &printer{now: s.Started.Add(seconds(s.Uptime)), protocol: s.Protocol}
	p.box(s)
	for _, session := range s.Sessions {
		p.session(session)
	}
	_, err := io.WriteString(w, p.text.String())
	return err
}

// printer collects the text. now is the agent's own clock, so that ages come
// out right although the client's clock may be another's.
type printer struct {
	text     strings.Builder
	now      time.Time
	protocol int // the agent's own
}

func (p *printer) line(format string, args ...any) {
	fmt.Fprintf(&p.text, format+"\n", args...)
}

func (p *printer) box(s Status) {
	p.line("%s: %s", clean(s.Role), orDash(s.Name))
	p.line("  public key: %s", orDash(s.Key))
	p.line("  version: %s, protocol %d", clean(s.Version), s.Protocol)
	p.line("  uptime: %s, since %s", age(seconds(s.Uptime)), s.Started.Format(time.DateTime))
	if s.Taken != nil {
		p.line("  taken over by reload: %s, %s ago", clean(s.Taken.What), age(p.now.Sub(s.Taken.At)))
	}
	p.line("  memory: %s of %s, peak %s; %s kept for the peers", unit.Bytes(s.Memory.Used), unit.Bytes(s.Memory.Budget), unit.Bytes(s.Memory.Peak), unit.Bytes(s.Memory.Kept))
	p.line("  workers: %d", s.Workers)
	p.card(s.Card)
	if s.Intercept != "" {
		p.line("  intercept: %s", clean(s.Intercept))
		p.line("  fail open: %s", failOpen(s))
	}
	if h := s.Handshakes; h != nil {
		p.line("  handshakes: %s", accepting(h))
	}
	p.counters(s.Counters)
	p.sessions(s.Sessions)
}

// namesMost is how many sessions that are down are named in one line.
const namesMost = 8

// sessions says how many of them are up, and which are not: of a hundred that is what one
// looks for.
func (p *printer) sessions(sessions []Session) {
	var down []string
	for _, s := range sessions {
		if s.State != "up" {
			down = append(down, orDash(s.Peer))
		}
	}
	up, more := len(sessions)-len(down), ""
	if n := len(down) - namesMost; n > 0 {
		down, more = down[:namesMost], fmt.Sprintf(" and %d more", n)
	}
	switch n := len(sessions); {
	case n == 0:
		p.line("  sessions: none")
	case n > 1 && up == n:
		p.line("  sessions: %d, all up", n)
	case n > 1:
		p.line("  sessions: %d of %d up; down: %s%s", up, n, strings.Join(down, ", "), more)
	}
}

// failOpen says what happens to new connections while there is no tunnel.
func failOpen(s Status) string {
	switch {
	case s.Detour:
		return "on, new connections go around the tunnel now"
	case s.FailOpen:
		return "on"
	}
	return "off"
}

// accepting says how clients' connections are accepted.
func accepting(h *Handshakes) string {
	now := clean(h.Now)
	if h.Now6 != "" && h.Now6 != h.Now {
		now += fmt.Sprintf(" (by IPv6 %s)", clean(h.Now6))
	}
	s := fmt.Sprintf("%s, now %s, %d pending, %d unused", clean(h.Mode), now, h.Pending, h.Unused)
	if h.Switches > 0 {
		s += fmt.Sprintf(", changed %d times", h.Switches)
	}
	if h.Flood {
		s += ", a flood of SYNs is answered in the kernel"
	}
	return s
}

func (p *printer) card(c Card) {
	switch {
	case c.Kind == "":
	case c.Workers == 0:
		p.line("  card: %s (%s)", clean(c.Kind), clean(c.Why))
	default:
		p.line("  card: %s, %d workers, queue %d, window %d (%s)", clean(c.Kind), c.Workers, c.Queue, c.Window, clean(c.Why))
	}
}

func (p *printer) session(s Session) {
	var up, down unit.BitRate
	for _, l := range s.Links {
		up += unit.BitRate(l.RateUp)
		down += unit.BitRate(l.RateDown)
	}
	p.line("")
	p.line("session: %s", orDash(s.Peer))
	p.line("  public key: %s", orDash(s.Key))
	p.line("  state: %s%s", clean(s.State), p.since(s.Since))
	if s.Protocol != 0 && s.Protocol != p.protocol {
		p.line("  protocol: %d, this end speaks %d: the other program is older", s.Protocol, p.protocol)
	}
	if s.Conflict != "" {
		p.line("  conflict: %s", clean(s.Conflict))
	}
	if len(s.Links) == 0 && s.Flows == (Flows{}) {
		p.line("  links: none")
		return
	}
	p.line("  flows: %d open, %d opened, %d refused, %d reset", s.Flows.Open, s.Flows.Opened, s.Flows.Refused, s.Flows.Reset)
	if slices.ContainsFunc(s.Links, measured) {
		p.line("  rate: %s up, %s down", up, down)
	}
	p.counters(s.Counters)
	if len(s.Links) == 0 {
		p.line("  links: none")
		return
	}
	p.line("  links:")
	p.links(s.Links)
}

// links writes two tables, what each link is and what it carries, since one of both is
// wider than terminals are, and then what is special about any.
func (p *printer) links(links []Link) {
	t := tabwriter.NewWriter(&p.text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "    NAME\tSTATE\tTRANSPORT\tINTERFACE\tREMOTE")
	for _, l := range links {
		fmt.Fprintf(t, "    %s\t%s%s\t%s\t%s\t%s\n", orDash(l.Name), clean(l.State), p.since(l.Since), orDash(l.Transport), orDash(l.Interface), orDash(l.Remote))
	}
	_ = t.Flush() // writes to memory only
	if slices.ContainsFunc(links, measured) {
		fmt.Fprintln(t, "    NAME\tRTT\tMIN\tUP\tDOWN\tTOTAL UP\tTOTAL DOWN")
		for _, l := range links {
			fmt.Fprintf(t, "    %s\t%s\t%s\t%s\t%s\t%s\t%s\n", orDash(l.Name), millis(l.RTT), millis(l.MinRTT),
				unit.BitRate(l.RateUp), unit.BitRate(l.RateDown), unit.Bytes(l.BytesUp), unit.Bytes(l.BytesDown))
		}
		_ = t.Flush()
	}
	for _, l := range links {
		p.way(l)
		p.cost(l)
	}
}

// measured tells that there are figures of a link: none of one that never stood, nor of the
// stand-alone relay's, whose bytes go by connections of their own.
func measured(l Link) bool { return l.RTT > 0 || l.BytesUp+l.BytesDown > 0 }

// note writes a line about a link.
func (p *printer) note(l Link, format string, args ...any) {
	p.line("    %s: %s", orDash(l.Name), fmt.Sprintf(format, args...))
}

// way writes what is special about how a link's bytes go.
func (p *printer) way(l Link) {
	if l.NAT64 != "" {
		p.note(l, "reaches IPv4 by NAT64, prefix %s", clean(l.NAT64))
	}
	if l.InFlight+l.Losses+l.Reconnects > 0 {
		p.note(l, "%s in flight, losses %d, reconnects %d", unit.Bytes(l.InFlight), l.Losses, l.Reconnects)
	}
	if l.Shunned > 0 {
		p.note(l, "%d records changed on its way, unused for %s if another is up", l.Forged, age(seconds(l.Shunned)))
	}
	for _, n := range l.Lanes {
		p.note(l, "lane %d %s%s, round trip %s, %s up, %s down, losses %d, reconnects %d", n.Number, clean(n.State), p.since(n.Since),
			millis(n.RTT), unit.Bytes(n.BytesUp), unit.Bytes(n.BytesDown), n.Losses, n.Reconnects)
	}
	if d := l.Device; d != nil {
		p.note(l, "interface %s carried %s up, %s down; errors %d, %d; drops %d, %d", orDash(l.Interface),
			unit.Bytes(d.BytesUp), unit.Bytes(d.BytesDown), d.ErrorsUp, d.ErrorsDown, d.DropsUp, d.DropsDown)
	}
}

// cost writes what decides how a link is used, and why it is not.
func (p *printer) cost(l Link) {
	if q := l.Quota; q != nil {
		p.note(l, "quota %s: %s of %s used, %s allowed by now, until %s", clean(q.State),
			unit.Bytes(q.Used), unit.Bytes(q.Bytes), unit.Bytes(q.Allowed), q.Ends.Format(time.DateOnly))
	}
	if l.Transport == "tcp" && l.Congestion != "" && l.Congestion != "bbr" {
		p.note(l, "sends by %s, as the kernel has no BBR: slow where packets are lost", clean(l.Congestion))
	}
	if l.Choice != "" {
		p.note(l, "transport %s", clean(l.Choice))
	}
	if l.Hint != "" || l.Tier != "" && l.Tier != "primary" {
		p.note(l, "tier %s, hint %s", orDash(l.Tier), orDash(l.Hint))
	}
	if l.LastError != "" {
		p.note(l, "last error: %s", clean(l.LastError))
	}
}

func (p *printer) counters(counters map[string]uint64) {
	for _, name := range slices.Sorted(maps.Keys(counters)) {
		if n := counters[name]; n != 0 {
			p.line("  %s: %d", clean(name), n)
		}
	}
}

func (p *printer) since(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return " for " + age(p.now.Sub(t))
}

func seconds(s float64) time.Duration {
	return time.Duration(s * float64(time.Second))
}

// age writes a duration with its two largest units.
func age(d time.Duration) string {
	d = max(d, 0)
	s := int64(d / time.Second)
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm %ds", s/60, s%60)
	case s < 86400:
		return fmt.Sprintf("%dh %dm", s/3600, s/60%60)
	}
	return fmt.Sprintf("%dd %dh", s/86400, s/3600%24)
}

func millis(ms float64) string {
	switch {
	case ms <= 0:
		return "-"
	case ms < 10:
		return fmt.Sprintf("%.2f ms", ms)
	}
	return fmt.Sprintf("%.1f ms", ms)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return clean(s)
}

// clean keeps what peers and the network said from steering the terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
