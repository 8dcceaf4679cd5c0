package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"hawser/e2e/emu"
	"hawser/pkg/admin"
)

// timelineEvery is a timeline's resolution.
const timelineEvery = 100 * ms

// moment is what one uplink did in one step of a timeline, in the bulk flow's
// direction.
type moment struct {
	at        time.Duration // end of the step
	offered   float64       // bytes that the uplink could have carried
	forwarded float64       // bytes that it did carry
	queued    uint64        // bytes that wait for it
	dropped   uint64        // packets that found its queue full
	swallowed uint64        // packets that vanished while it was dead
	link      admin.Link    // as the sender sees it; peers have none
}

// timeline is all moments of a reading, by uplink.
type timeline [][]moment

// followTimeline keeps a reading's timeline, saves it and returns its notes.
func (b *bench) followTimeline(w *world, s scenario, r rival, seed uint64, began time.Time, stop <-chan struct{}) []string {
	t, err := w.watchTimeline(s, began, stop)
	if err == nil {
		err = t.save(b.out, fmt.Sprintf("timeline-%s-%s-%d", s.name, r.name, seed))
	}
	if err != nil {
		return []string{fmt.Sprintf("%s: no timeline: %v", r.name, err)}
	}
	return t.notes(s, r.name)
}

// watchTimeline looks at the uplinks until told to stop. Where hawser carries
// the flow the sender's own view is noted beside what the emulator counts.
func (w *world) watchTimeline(s scenario, began time.Time, stop <-chan struct{}) (t timeline, err error) {
	t = make(timeline, len(s.uplinks))
	offer, err := s.offers()
	if err != nil {
		return nil, err
	}
	before := make([]emu.Counters, len(s.uplinks))
	last := time.Since(began)
	tick := time.NewTicker(timelineEvery)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return t, nil
		case <-tick.C:
		}
		now := time.Since(began)
		offered, links := offer(last, now), w.senderLinks(s)
		for i, u := range s.uplinks {
			st, err := w.Counters(u.Name)
			if err != nil {
				return t, nil // the lab is closing
			}
			c := st.Down.Counters
			if s.up {
				c = st.Up.Counters
			}
			b := &before[i]
			t[i] = append(t[i], moment{
				at: now, offered: offered[i], forwarded: float64(c.Forwarded.Bytes - b.Forwarded.Bytes), queued: c.Queue.Bytes,
				dropped:   c.Dropped.Queue.Packets - b.Dropped.Queue.Packets,
				swallowed: c.Dropped.Blackhole.Packets - b.Dropped.Blackhole.Packets, link: links[u.Name],
			})
			*b = c
		}
		last = now
	}
}

// senderLinks is the sender's view of its links, by name; empty for peers.
func (w *world) senderLinks(s scenario) map[string]admin.Link {
	links := map[string]admin.Link{}
	if w.pair == nil {
		return links
	}
	role := "cloud"
	if s.up {
		role = "edge"
	}
	if st, err := w.pair.Status(role); err == nil && len(st.Sessions) > 0 {
		for _, l := range st.Sessions[0].Links {
			links[l.Name] = l
		}
	}
	return links
}

// offers returns a function that says what each uplink could carry between two
// times; it must be asked in order of time.
func (s scenario) offers() (func(from, to time.Duration) []float64, error) {
	lines, err := s.lines()
	if err != nil {
		return nil, err
	}
	next := 0
	return func(from, to time.Duration) []float64 {
		sum := make([]float64, len(s.uplinks))
		for now := from; now < to; now += grain {
			for ; next < len(s.script) && s.script[next].at <= now; next++ {
				lines[s.script[next].uplink].apply(s.script[next])
			}
			for i, u := range s.uplinks {
				sum[i] += lines[u.Name].carries(now, min(now+grain, to))
			}
		}
		return sum
	}, nil
}

// idleQueue is the queue up to which an uplink counts as idle, in bytes: two
// packets.
const idleQueue = 3000

// losses says where an uplink's capacity went, as shares of what it offered.
type losses struct {
	carried float64
	off     float64 // lost while the sender did not use the uplink
	empty   float64 // lost while it was used and nothing waited for it
	other   float64 // lost otherwise: in steps with both
}

func lossesOf(t []moment) (l losses) {
	sum := 0.0
	for _, m := range t {
		sum += m.offered
		l.carried += m.forwarded
		switch unused := max(m.offered-m.forwarded, 0); {
		case m.link.Name != "" && m.link.State != "up":
			l.off += unused
		case m.queued <= idleQueue:
			l.empty += unused
		default:
			l.other += unused
		}
	}
	for _, v := range []*float64{&l.carried, &l.off, &l.empty, &l.other} {
		*v /= max(sum, 1)
	}
	return l
}

// notes says for each uplink where its capacity went.
func (t timeline) notes(s scenario, way string) (notes []string) {
	for i, u := range s.uplinks {
		l := lossesOf(t[i])
		notes = append(notes, fmt.Sprintf("%s over %s: carried %.3f of what it offered; unused: %.3f while the sender left it alone, %.3f while it was used and its queue was empty, %.3f in other steps of %v",
			way, u.Name, l.carried, l.off, l.empty, l.other, timelineEvery))
	}
	return notes
}

// save writes the moments to a file of comma-separated values.
func (t timeline) save(dir, name string) (err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(dir, name+".csv"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	out := csv.NewWriter(f)
	_ = out.Write([]string{"uplink", "at_ms", "offered_bytes", "forwarded_bytes", "queued_bytes", "dropped", "swallowed", "state", "transport", "in_flight", "rtt_ms", "min_rtt_ms", "reconnects"})
	for i := range t {
		for _, m := range t[i] {
			_ = out.Write([]string{
				fmt.Sprint(i), fmt.Sprintf("%.0f", millis(m.at)), fmt.Sprintf("%.0f", m.offered), fmt.Sprintf("%.0f", m.forwarded), fmt.Sprint(m.queued),
				fmt.Sprint(m.dropped), fmt.Sprint(m.swallowed), m.link.State, m.link.Transport, fmt.Sprint(m.link.InFlight),
				fmt.Sprintf("%.0f", m.link.RTT), fmt.Sprintf("%.0f", m.link.MinRTT), fmt.Sprint(m.link.Reconnects),
			})
		}
	}
	out.Flush()
	return out.Error()
}
