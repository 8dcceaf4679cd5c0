package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"hawser/e2e/lab"
)

// pathReading is one run of one rival.
type pathReading struct {
	Seed      uint64    `json:"seed"`
	Mbps      float64   `json:"mbps"`      // payload, of all flows, that the uplinks carried in the time
	Delivered float64   `json:"delivered"` // the same as it was delivered, Mbit/s
	Singles   []float64 `json:"singles"`   // by uplink, of single connections
	StallMs   float64   `json:"stall_ms"`
	Extra     float64   `json:"extra"`    // share of bytes sent twice, hawser only
	QueueMs   []float64 `json:"queue_ms"` // p50 of each uplink's queue in the bulk's direction
	Carried   []float64 `json:"carried"`  // by uplink, IP Mbit/s in the bulk's direction
	MessageMs []float64 `json:"message_ms"`
	Objects   []object  `json:"objects,omitempty"`
	EndMs     float64   `json:"end_ms,omitempty"` // until neither agent knew of the reset flows any more, hawser only
	Dropped   uint64    `json:"dropped"`          // packets that found a full queue, either direction
	Suspected uint64    `json:"suspected"`        // times that either agent took an uplink for ill
	LateUs    float64   `json:"emulator_late_us"`
	Faults    uint64    `json:"emulator_faults"` // not 0: the reading is invalid
	Went      []string  `json:"went,omitempty"`  // where each uplink's capacity went, with -timeline
}

// object is how long objects of one size took, ms.
type object struct {
	Bytes int       `json:"bytes"`
	Ms    []float64 `json:"ms"`
}

// Times of a reading.
const (
	warmUp        = 2 * time.Second // before the steady rate is taken, for constant lines
	messageEvery  = 100 * ms
	messageSize   = 1200
	progressEvery = 2 * ms
	queueEvery    = 10 * ms
	endLimit      = time.Minute // for flows that end; a recording may leave a tenth of a Mbit/s for it
	endLate       = 1000        // ms
)

// readRival takes one reading.
func (b *bench) readRival(s scenario, r rival, seed uint64) (p pathReading, err error) {
	w, err := openRival(s, r, seed)
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	p.Seed = seed
	dial := w.dialerOf(r)
	if s.objects {
		if p.Objects, err = b.fetchObjects(dial, s.uplinks[0].Name, r.congestion); err != nil {
			return p, err
		}
	}
	if err = b.readBulk(w, s, r, &p); err != nil {
		return p, err
	}
	if r.hawser() {
		from := time.Now()
		if err = w.pair.WaitIdle(endLimit); err != nil {
			return p, err
		}
		p.EndMs = millis(time.Since(from))
		if p.Extra, p.Suspected, err = w.extra(); err != nil {
			return p, err
		}
	}
	for _, u := range s.uplinks {
		st, err := w.Counters(u.Name)
		if err != nil {
			return p, err
		}
		p.Dropped += st.Up.Counters.Dropped.Queue.Packets + st.Down.Counters.Dropped.Queue.Packets
	}
	late, faults, err := w.lateness(s.uplinks)
	p.LateUs, p.Faults = float64(late)/1e3, faults
	return p, err
}

// readBulk runs the bulk flows, with messages beside them, through the script.
func (b *bench) readBulk(w *world, s scenario, r rival, p *pathReading) error {
	names := []string{s.uplinks[0].Name}
	if r.single() {
		names = nil
		for _, u := range s.uplinks {
			names = append(names, u.Name)
		}
	}
	began := time.Now()
	var side sync.WaitGroup
	defer side.Wait()
	failed := make(chan error, 3)
	stop := make(chan struct{})
	defer close(stop)
	side.Go(func() { failed <- b.perform(w.Lab, s.script, began) })
	flows := make([]*bulkFlow, len(names))
	for i, name := range names {
		f, err := w.startFlow(w.dialerOf(r), name, s.up, r.congestion)
		if err != nil {
			return fmt.Errorf("uplink %s: %w", name, err)
		}
		flows[i] = f
		defer f.close()
	}
	side.Go(func() { p.MessageMs = messages(w.dialerOf(r), names[0], stop) })
	side.Go(func() { p.QueueMs = w.watchQueues(s, stop) })
	if b.timeline {
		side.Go(func() { p.Went = b.followTimeline(w, s, r, p.Seed, began, stop) })
	}
	if err := b.measureBulk(w, s, flows, began, p); err != nil {
		return err
	}
	p.Mbps = possible(p.Delivered, p.Carried, r.share())
	select {
	case err := <-failed:
		return err
	default:
		return nil // the script is longer than the reading
	}
}

// measureBulk reads what the flows get and the uplinks carry until the scenario's time is
// over, its first moments left out where it is steady.
func (b *bench) measureBulk(w *world, s scenario, flows []*bulkFlow, began time.Time, p *pathReading) error {
	until := began.Add(b.lengthOf(s))
	base := make([]int64, len(flows))
	wire, err := w.carried(s)
	if err != nil {
		return err
	}
	from := began
	g := &progress{count: flows[0].count, last: flows[0].count.Load(), since: time.Now()}
	for time.Now().Before(until) {
		if err := b.sleep(progressEvery); err != nil {
			return err
		}
		g.look()
		if s.kind != traced && s.kind != train && from == began && time.Since(began) >= warmUp {
			from = time.Now()
			if wire, err = w.carried(s); err != nil {
				return err
			}
			for i, f := range flows {
				base[i] = f.count.Load()
			}
		}
	}
	span := time.Since(from).Seconds()
	for i, f := range flows {
		rate := float64(f.count.Load()-base[i]) * 8 / 1e6 / span
		p.Singles = append(p.Singles, rate)
		p.Delivered += rate
	}
	p.StallMs = millis(g.longest)
	after, err := w.carried(s)
	if err != nil {
		return err
	}
	for i := range after {
		p.Carried = append(p.Carried, (after[i]-wire[i])*8/1e6/span)
	}
	return nil
}

// payloadShare is the payload in the largest TCP segment by its IP packet of 1500
// bytes, with the timestamps that Linux sends: no packets of a TCP connection hold more.
const payloadShare = 1448.0 / 1500

// multipathShare is the same of the kernel's MPTCP, each of whose segments has a mapping
// of 64 bits and an acknowledgement of 32 among its options (RFC 8684 section 3.3).
const multipathShare = 1424.0 / 1500

// quicShare is the same of hawser's QUIC links: 1414 of a packet's 1469 bytes, as the
// library's least headers and its seal leave (docs/findings-paths.md, what headers leave).
const quicShare = 1414.0 / 1469

// share is the most payload that a rival's packets hold, by their IP bytes.
func (r rival) share() float64 {
	switch {
	case r.multipath:
		return multipathShare
	case r.transport == "quic":
		return quicShare
	}
	return payloadShare
}

// possible is how much of a delivered rate the uplinks can have carried meanwhile,
// both Mbit/s, by packets of which a share is payload. What waited for order when the
// time began was carried before it: over unlike uplinks a receiver may have a second's
// worth of it after a start.
func possible(delivered float64, carried []float64, share float64) float64 {
	total := 0.0
	for _, c := range carried {
		total += c
	}
	return min(delivered, total*share)
}

// carried is what the uplinks have carried so far in the bulk flow's direction,
// IP bytes.
func (w *world) carried(s scenario) (bytes []float64, err error) {
	for _, u := range s.uplinks {
		st, err := w.Counters(u.Name)
		if err != nil {
			return nil, err
		}
		d := st.Down
		if s.up {
			d = st.Up
		}
		bytes = append(bytes, float64(d.Counters.Forwarded.Bytes))
	}
	return bytes, nil
}

// lengthOf is how long a scenario's reading takes.
func (b *bench) lengthOf(s scenario) time.Duration {
	if s.seconds > 0 {
		return time.Duration(s.seconds * float64(time.Second))
	}
	return time.Duration(b.seconds * float64(time.Second))
}

// bulkFlow is one endless flow.
type bulkFlow struct {
	conn  *net.TCPConn
	count *atomic.Int64
	done  chan struct{}
}

func (w *world) startFlow(dial dialer, uplink string, up bool, congestion string) (*bulkFlow, error) {
	c, err := dial(uplink)
	if err != nil {
		return nil, err
	}
	w.loads++
	q := request{kind: download, load: w.loads, congestion: congestion}
	if up {
		q.kind = upload
		if err := setCongestion(c, congestion); err != nil {
			return nil, err
		}
	}
	f := &bulkFlow{conn: c, count: w.service.counter(q.load), done: make(chan struct{})}
	if _, err := c.Write(q.encode()); err != nil {
		return nil, err
	}
	go f.run(up, w.service.payload(false))
	return f, nil
}

func (f *bulkFlow) run(up bool, p payload) {
	defer close(f.done)
	if up {
		_ = send(f.conn, p, 0)
	} else {
		drain(f.conn, f.count)
	}
}

func (f *bulkFlow) close() {
	_ = f.conn.SetLinger(0)
	f.conn.Close()
	<-f.done
}

// progress watches a counter for the longest time without a change.
type progress struct {
	count   *atomic.Int64
	last    int64
	since   time.Time
	longest time.Duration
}

func (g *progress) look() {
	n, now := g.count.Load(), time.Now()
	if n == g.last {
		g.longest = max(g.longest, now.Sub(g.since))
		return
	}
	g.longest = max(g.longest, now.Sub(g.since))
	g.last, g.since = n, now
}

// messages sends a small message every now and then and measures until its
// echo is there; one at a time, as an interactive program would.
func messages(dial dialer, uplink string, stop <-chan struct{}) (took []float64) {
	c, err := dial(uplink)
	if err != nil {
		return nil
	}
	defer c.Close()
	if _, err := c.Write(request{kind: echo}.encode()); err != nil {
		return nil
	}
	unblock := make(chan struct{})
	defer func() { <-unblock }()
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		defer close(unblock)
		select {
		case <-stop:
			c.Close()
		case <-ended:
		}
	}()
	b := make([]byte, messageSize)
	for {
		began := time.Now()
		if _, err := c.Write(b); err != nil {
			return took
		}
		if _, err := io.ReadFull(c, b); err != nil {
			return append(took, millis(time.Since(began))) // it waits still
		}
		took = append(took, millis(time.Since(began)))
		select {
		case <-stop:
			return took
		case <-time.After(messageEvery - min(messageEvery, time.Since(began))):
		}
	}
}

// watchQueues returns the median of each uplink's queue in the bulk flow's
// direction, ms.
func (w *world) watchQueues(s scenario, stop <-chan struct{}) (p50 []float64) {
	seen := make([][]float64, len(s.uplinks))
	for {
		for i, u := range s.uplinks {
			st, err := w.Counters(u.Name)
			if err != nil {
				return nil
			}
			d := st.Down
			if s.up {
				d = st.Up
			}
			rate := float64(d.Params.Rate)
			if rate == 0 {
				rate = float64(u.Rate)
			}
			seen[i] = append(seen[i], float64(d.Counters.Queue.Bytes)*8000/rate)
		}
		select {
		case <-stop:
			for _, q := range seen {
				p50 = append(p50, quantile(q, 0.5))
			}
			return p50
		case <-time.After(queueEvery):
		}
	}
}

// Objects of a reading.
const objectsEach = 12

var objectSizes = []int{10_000, 100_000, 1_000_000}

// fetchObjects gets objects over a new connection each.
func (b *bench) fetchObjects(dial dialer, uplink, congestion string) (all []object, err error) {
	for _, size := range objectSizes {
		o := object{Bytes: size}
		for range objectsEach {
			if err := b.sleep(50 * ms); err != nil {
				return nil, err
			}
			took, err := fetchOne(dial, uplink, congestion, size)
			if err != nil {
				return nil, fmt.Errorf("object of %d bytes: %w", size, err)
			}
			o.Ms = append(o.Ms, millis(took))
		}
		all = append(all, o)
	}
	return all, nil
}

func fetchOne(dial dialer, uplink, congestion string, size int) (time.Duration, error) {
	began := time.Now()
	c, err := dial(uplink)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if err := c.SetDeadline(began.Add(fetchLimit)); err != nil {
		return 0, err
	}
	if _, err := c.Write(request{kind: download, bytes: uint64(size), congestion: congestion}.encode()); err != nil {
		return 0, err
	}
	_, err = io.CopyN(io.Discard, c, int64(size))
	return time.Since(began), err
}

// optimum is the least time in which an object of n bytes can come after a
// request over the quickest line: lines sorted by delay, each used from its
// delay on (scheduler design, the bound for fixed rates).
func optimum(uplinks []lab.Uplink, n int) time.Duration {
	least := uplinks[0].Delay
	for _, u := range uplinks {
		least = min(least, u.Delay)
	}
	best := time.Duration(1 << 62)
	for _, limit := range uplinks {
		bytes, rate := float64(n), 0.0
		for _, u := range uplinks {
			if u.Delay <= limit.Delay {
				r := float64(u.Rate) / 8
				bytes += r * u.Delay.Seconds()
				rate += r
			}
		}
		best = min(best, time.Duration(bytes/rate*float64(time.Second)))
	}
	return least + best
}
