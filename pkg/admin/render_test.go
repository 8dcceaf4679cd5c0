package admin

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

const rendered = `edge: train-7
  public key: AAEC=
  version: 0.1.0, protocol 1
  uptime: 1d 2h, since 2026-03-01 12:00:00
  memory: 12.0 MiB of 256 MiB, peak 40.0 MiB; 3.00 MiB kept for the peers
  workers: 2
  card: pool, 1 workers, queue 64, window 4 (configured)
  syn_dropped: 5

session: cloud
  public key: BBEC=
  state: up for 1d 2h
  flows: 3 open, 340 opened, 2 refused, 1 reset
  rate: 1.20 Mbit/s up, 50.0 Mbit/s down
  duplicates: 7
  links:
    NAME  STATE         TRANSPORT  INTERFACE  REMOTE
    wifi  up for 1h 3m  tcp        wlan0      203.0.113.10:7443
    lte   down          -          wwan0      203.0.113.10:7443
    NAME  RTT      MIN      UP           DOWN         TOTAL UP  TOTAL DOWN
    wifi  21.3 ms  9.88 ms  1.20 Mbit/s  45.1 Mbit/s  12.0 MiB  3.00 GiB
    lte   -        -        0 bit/s      4.90 Mbit/s  0 B       0 B
    wifi: 64.0 KiB in flight, losses 1, reconnects 2
    lte: last error: dial:?[31m refused
`

// TestRenderConflict: boxes that end each other's sessions show where the operator looks.
func TestRenderConflict(t *testing.T) {
	var b strings.Builder
	if err := Render(&b, Status{Role: "cloud", Sessions: []Session{{Peer: "bus", State: "up", Conflict: "boxes at a and b"}}}); err != nil {
		t.Fatal(err)
	}
	if want := "  state: up\n  conflict: boxes at a and b\n"; !strings.Contains(b.String(), want) {
		t.Errorf("%q is missing:\n%s", want, b.String())
	}
}

// TestRenderTaken: who has reloaded looks whether that was taken over.
func TestRenderTaken(t *testing.T) {
	var b strings.Builder
	begun := time.Now()
	if err := Render(&b, Status{Role: "edge", Started: begun, Uptime: 100, Taken: &Taken{At: begun.Add(37 * time.Second), What: "links (lte added), policies"}}); err != nil {
		t.Fatal(err)
	}
	if want := "  taken over by reload: links (lte added), policies, 1m 3s ago\n"; !strings.Contains(b.String(), want) {
		t.Errorf("%q is missing:\n%s", want, b.String())
	}
}

// TestRenderOlderPeer: in the middle of an upgrade one looks for who is behind.
func TestRenderOlderPeer(t *testing.T) {
	var b strings.Builder
	st := Status{Role: "cloud", Protocol: 5, Sessions: []Session{{Peer: "new", State: "up", Protocol: 5}, {Peer: "old", State: "up", Protocol: 4}, {Peer: "gone", State: "down"}}}
	if err := Render(&b, st); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	if want := "session: old\n  public key: -\n  state: up\n  protocol: 4, this end speaks 5: the other program is older\n"; !strings.Contains(text, want) {
		t.Errorf("%q is missing:\n%s", want, text)
	}
	if n := strings.Count(text, "is older"); n != 1 {
		t.Errorf("%d are said to be older:\n%s", n, text)
	}
}

// TestRenderWithoutFigures: zeros of what nobody measures would be read as what was carried.
func TestRenderWithoutFigures(t *testing.T) {
	var b strings.Builder
	relay := Session{Peer: "203.0.113.10:7444", State: "up", Flows: Flows{Opened: 7}, Links: []Link{{Name: "gateway", State: "up", Transport: "tcp", Remote: "203.0.113.10:7444"}}}
	if err := Render(&b, Status{Role: "edge", Sessions: []Session{relay}}); err != nil {
		t.Fatal(err)
	}
	const want = `  flows: 0 open, 7 opened, 0 refused, 0 reset
  links:
    NAME     STATE  TRANSPORT  INTERFACE  REMOTE
    gateway  up     tcp        -          203.0.113.10:7444
`
	if !strings.HasSuffix(b.String(), want) {
		t.Errorf("got:\n%s\nwant at the end:\n%s", b.String(), want)
	}
}

// TestRenderFits: the lines about links fit a terminal, with figures as wide as they get.
func TestRenderFits(t *testing.T) {
	var b strings.Builder
	s := sample()
	for i := range s.Sessions[0].Links {
		l := &s.Sessions[0].Links[i]
		l.Name, l.State, l.Since, l.Interface, l.Remote = "starlink", "suspect", s.Started.Add(13*time.Hour), "enx0123456789a", "203.113.213.123:65535"
		l.RTT, l.MinRTT, l.RateUp, l.RateDown, l.BytesUp, l.BytesDown, l.InFlight, l.Losses, l.Reconnects, l.LastError = 4321, 432.1, 123e6, 999e6, 999<<20, 999<<30, 999<<10, 1234, 1234, ""
		l.Transport, l.Forged, l.Shunned = "quic", 1234, 59
		l.NAT64 = "2001:db8:1234:5678:9abc:def0::/96"
	}
	if err := Render(&b, s); err != nil {
		t.Fatal(err)
	}
	if says := "starlink: 1234 records changed on its way, unused for 59s if another is up"; !strings.Contains(b.String(), says) {
		t.Errorf("%q is missing", says)
	}
	if says := "    starlink: reaches IPv4 by NAT64, prefix 2001:db8:1234:5678:9abc:def0::/96\n"; !strings.Contains(b.String(), says) {
		t.Errorf("%q is missing", says)
	}
	for line := range strings.Lines(b.String()) {
		if len(line) > 90 || len(line) > 81 && !strings.Contains(line, "suspect") {
			t.Errorf("%d columns: %s", len(line)-1, line)
		}
	}
}

func TestRender(t *testing.T) {
	var b strings.Builder
	if err := Render(&b, sample()); err != nil {
		t.Fatal(err)
	}
	if b.String() != rendered {
		t.Errorf("got:\n%s\nwant:\n%s", b.String(), rendered)
	}
	b.Reset()
	if err := Render(&b, Status{Role: "cloud", Sessions: []Session{{State: "down"}}}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"cloud: -\n", "session: -\n", "  state: down\n", "  links: none\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("an empty session renders as:\n%s\nwithout %q", b.String(), want)
		}
	}
	for name, said := range map[string]bool{"bbr": false, "cubic": true} {
		b.Reset()
		s := sample()
		s.Sessions[0].Links[0].Congestion = name
		if err := Render(&b, s); err != nil || strings.Contains(b.String(), "\n    wifi: sends by cubic, as the kernel has no BBR") != said {
			t.Errorf("a link governed by %s renders as:\n%s (%v)", name, b.String(), err)
		}
	}
	b.Reset()
	if err := Render(&b, Status{Card: Card{Kind: "inline", Why: "measured\n"}}); err != nil || !strings.Contains(b.String(), "\n  card: inline (measured?)\n") {
		t.Errorf("an inline card renders as:\n%s (%v)", b.String(), err)
	}
	for want, h := range map[string]Handshakes{
		"auto, now fast, 3 pending, 2 unused":                  {Mode: "auto", Now: "fast", Now6: "fast", Pending: 3, Unused: 2},
		"auto, now fast (by IPv6 strict), 0 pending, 0 unused": {Mode: "auto", Now: "fast", Now6: "strict"},
		"auto, now zero-window, 900 pending, 0 unused, changed 5 times, a flood of SYNs is answered in the kernel": {
			Mode: "auto", Now: "zero-window", Pending: 900, Switches: 5, Flood: true,
		},
	} {
		b.Reset()
		if err := Render(&b, Status{Handshakes: &h}); err != nil || !strings.Contains(b.String(), "\n  handshakes: "+want+"\n") {
			t.Errorf("handshakes render as:\n%s (%v), want %s", b.String(), err, want)
		}
	}
	b.Reset()
	if err := Render(&b, Status{Role: "cloud"}); err != nil || !strings.Contains(b.String(), "  sessions: none\n") {
		t.Errorf("no session renders as:\n%s (%v)", b.String(), err)
	}
	if err := Render(brokenWriter{}, Status{}); !errors.Is(err, errBroken) {
		t.Errorf("a broken writer gives %v", err)
	}
}

// TestRenderManySessions: who looks at a cloud of many edges sees in one line which are not there.
func TestRenderManySessions(t *testing.T) {
	sessions := make([]Session, 100)
	for i := range sessions {
		sessions[i] = Session{Peer: fmt.Sprint("bus-", i), State: "up", Links: []Link{{Name: "lte", State: "up"}}}
	}
	line := func() string {
		var b strings.Builder
		if err := Render(&b, Status{Role: "cloud", Sessions: sessions}); err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(b.String(), "  sessions: ")
		line, _, _ := strings.Cut(rest, "\n")
		return line
	}
	if got := line(); got != "100, all up" {
		t.Errorf("all are there: %q", got)
	}
	sessions[7].State, sessions[42].State = "down", "down"
	if got := line(); got != "98 of 100 up; down: bus-7, bus-42" {
		t.Errorf("two are not: %q", got)
	}
	for i := range 60 {
		sessions[i].State = "down"
	}
	if got := line(); got != "40 of 100 up; down: bus-0, bus-1, bus-2, bus-3, bus-4, bus-5, bus-6, bus-7 and 52 more" {
		t.Errorf("most are not: %q", got)
	}
}

var errBroken = errors.New("broken")

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errBroken }

func TestAge(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second:               "0s",
		999 * time.Millisecond:     "0s",
		59 * time.Second:           "59s",
		61 * time.Second:           "1m 1s",
		time.Hour:                  "1h 0m",
		26*time.Hour + time.Minute: "1d 2h",
	} {
		if got := age(d); got != want {
			t.Errorf("age(%v) = %q, want %q", d, got, want)
		}
	}
}
