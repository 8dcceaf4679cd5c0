package tunnel

import (
	"flag"
	"slices"
	"strings"
	"testing"
	"time"

	"hawser/pkg/simlink"
)

var (
	bulkOnly  = flag.String("bulk", "", "lines of which TestBulk measures bulk flows, separated by commas, uploads with -up at the end; all: all")
	bulkSeeds = flag.Int("bulkseeds", 4, "seeds of TestBulk")
)

// fixedLines are lines of `bench paths` that do not change.
func fixedLines() []terrain {
	const ms = time.Millisecond
	deepWifi, deepLTE, lossy, bursty, slowWifi, slowLTE := wifi, lte, wifi, lte, wifi, lte
	deepWifi.queue, deepLTE.queue = time.Second, time.Second
	lossy.loss = 0.01
	bursty.loss, bursty.burst = 0.01, 4
	slowWifi.upMbit, slowLTE.upMbit = 10, 5
	return []terrain{
		{name: "twins", lines: []lineSpec{wifi, wifi}},
		{name: "unlike", lines: []lineSpec{wifi, lte}},
		{name: "loss", lines: []lineSpec{lossy, bursty}},
		{name: "deep", lines: []lineSpec{deepWifi, deepLTE}},
		{name: "100+10", lines: []lineSpec{{mbit: 100, rtt: 20 * ms}, {mbit: 10, rtt: 50 * ms}}},
		{name: "300+30+5", lines: []lineSpec{{mbit: 300, rtt: 20 * ms}, {mbit: 30, rtt: 40 * ms}, {mbit: 5, rtt: 60 * ms}}},
		{name: "satellite", lines: []lineSpec{wifi, {mbit: 20, rtt: 200 * ms}}},
		{name: "geo", lines: []lineSpec{{mbit: 50, rtt: 30 * ms}, {mbit: 20, rtt: 600 * ms}}},
		{name: "jitter", lines: []lineSpec{{mbit: 50, rtt: 60 * ms, tremble: 20 * ms}, {mbit: 20, rtt: 80 * ms, tremble: 20 * ms}}},
		{name: "lopsided", lines: []lineSpec{slowWifi, slowLTE}},
	}
}

// bulkOutcome is what came of bulk flows, by run but for message and dropped.
type bulkOutcome struct {
	begin, then []float64 // Mbit/s of payload in the first two seconds, and then
	used        []float64 // then, of what the lines could carry
	late        []float64 // the longest message but one, ms
	message     []time.Duration
	dropped     int // packets in the flow's direction that found a full queue
	later       int // of them those after the first two seconds
	wrong       int // pieces with wrong bytes
}

// Times of bulk runs: as `bench paths` has them.
const (
	bulkFor   = 8 * time.Second
	bulkWarm  = 2 * time.Second
	bulkEvery = 100 * time.Millisecond // a message, from the flow's first moment on
)

// bulk lets one bulk flow and messages over lines. Each seed begins a little later.
func (g terrain) bulk(up bool, seed uint64, out *bulkOutcome) {
	m, lines := g.enter(variant{beside: true}, seed)
	var flow *simFlow
	talk := &messenger{sim: m, every: bulkEvery, first: 5 * time.Millisecond}
	begin := simStart + time.Duration(seed)*37*time.Millisecond
	m.After(begin, func() { flow = m.bulkFlow(up) })
	m.After(begin+time.Duration(seed%4)*time.Millisecond, talk.begin)
	m.watchLate(talk, *whereLate)
	var got, dropped int
	m.After(begin+bulkWarm, func() { got, dropped = flow.got, dropsOf(lines, up) })
	m.Run(m.Now().Add(begin+bulkFor), nil)
	capacity, span := 0.0, (bulkFor - bulkWarm).Seconds()
	for _, l := range lines {
		capacity += l[direction(up)].Rate
	}
	out.begin = append(out.begin, float64(got)/mbit/bulkWarm.Seconds())
	out.then = append(out.then, float64(flow.got-got)/mbit/span)
	out.used = append(out.used, float64(flow.got-got)/capacity/span)
	took := talk.end()
	slices.Sort(took)
	out.late = append(out.late, took[len(took)-2].Seconds()*1000)
	out.message = append(out.message, took...)
	out.dropped += dropsOf(lines, up)
	out.later += dropsOf(lines, up) - dropped
	m.end()
	out.wrong += m.faults
}

// bulkFlow opens an endless flow.
func (m *sim) bulkFlow(up bool) *simFlow {
	if up {
		return m.upload(1, endless)
	}
	return m.request(1, endless)
}

// direction is the index of the lines that an upload, or a download, takes.
func direction(up bool) int {
	if up {
		return 0
	}
	return 1
}

func dropsOf(lines [][2]*simlink.Line, up bool) (n int) {
	for _, l := range lines {
		n += l[direction(up)].Dropped
	}
	return n
}

// TestBulk prints what `bench paths` reads on lines that do not change, by TCP links.
func TestBulk(t *testing.T) {
	if *bulkOnly == "" {
		t.Skip("prints a table: -args -bulk all")
	}
	for _, g := range fixedLines() {
		for _, up := range []bool{false, true} {
			name := g.name + map[bool]string{true: "-up"}[up]
			if *bulkOnly != "all" && !slices.Contains(strings.Split(*bulkOnly, ","), name) {
				continue
			}
			t.Run(name, func(t *testing.T) {
				var o bulkOutcome
				for seed := range *bulkSeeds {
					g.bulk(up, uint64(seed+1), &o)
				}
				t.Logf("%-12s first 2 s %.1f Mbit/s, then %.1f (%.1f to %.1f), %.4f of the capacity; message p50 %.0f p99 %.0f ms, the longest but one of a run %.0f in the mean, %.0f at most; %d found a full queue, %d of them after 2 s",
					name, mean(o.begin), mean(o.then), slices.Min(o.then), slices.Max(o.then), mean(o.used), quantile(o.message, 0.5), quantile(o.message, 0.99), mean(o.late), slices.Max(o.late), o.dropped, o.later)
			})
		}
	}
}

// TestSlowUplinks: an upload over 10 and 5 Mbit/s leaves room in the buffer of 20 ms
// for messages, and fills the lines all the same.
func TestSlowUplinks(t *testing.T) {
	if raceDetector {
		t.Skip("runs on one goroutine, and takes long with the race detector: make unit runs it without")
	}
	all := fixedLines()
	var o bulkOutcome
	for seed := range uint64(2) {
		all[len(all)-1].bulk(true, seed+1, &o)
	}
	t.Logf("%.4f of the capacity, message p50 %.0f p99 %.0f ms, the longest but one %.0f, %d packets found a full queue after 2 s", mean(o.used), quantile(o.message, 0.5), quantile(o.message, 0.99), slices.Max(o.late), o.later)
	if o.wrong > 0 {
		t.Errorf("%d pieces with wrong bytes", o.wrong)
	}
	if mean(o.used) < 0.935 {
		t.Errorf("%.4f of the capacity, 0.935 wanted", mean(o.used))
	}
	if slices.Max(o.late) > 60 || o.later > 10 {
		t.Errorf("the longest message but one took %.0f ms, 60 wanted; %d packets found a full queue, 10 at most", slices.Max(o.late), o.later)
	}
}
