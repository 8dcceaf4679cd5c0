package bbr

import "time"

// Constants of volleys.
const (
	volleyTime    = 2 * time.Millisecond   // in which packets of one volley are sent
	volleyGap     = 500 * time.Microsecond // between two of them, at most
	volleyPackets = 4                      // after the first acknowledgement, at least
	volleyAcks    = 3                      // at least
	volleySpan    = 500 * time.Microsecond // over which they come, at least
	volleySpread  = 2                      // times as long as the packets were sent over
	volleysAgree  = 3                      // in a row of which the least counts
	volleysFor    = 300 * time.Millisecond // between two of these, at most
	volleysKept   = 32
	jumpFrom      = 1.3 // times the rate that is believed: less is found otherwise
	jumpMost      = 2   // times that at once: volleys may agree by chance
)

// volley is packets that were sent at once.
type volley struct {
	from, to    time.Duration // sent
	packets     int
	acked       int // of them
	bytes       int // acknowledged
	acks        int
	at          time.Duration // of the first of these
	first, base int           // packets and bytes acknowledged with it
	done        bool
}

// volleys measures what the path carries, whatever is sent in the mean: packets that are
// sent at once arrive as far apart as the bottleneck takes for each (packet trains: Jain
// and Routhier 1986; Dovrolis et al., INFOCOM 2001). A path that delivers unevenly, or
// acknowledgements that bunch on their way back, would show too much at times: the least
// of a few volleys counts.
type volleys struct {
	on   bool
	ring [volleysKept]volley
	n    int32 // volleys so far, of which the last is the present one

	// The present event.
	newest int32 // volley of the newest packet acknowledged; 0: none
	number int64 // of this packet
	sizes  int   // packets of this volley

	last  [volleysAgree]float64
	inRow int
	at    time.Duration // of the last
	rate  float64
	count uint64 // times that rate was measured
	taken uint64 // count when the model has taken it in
}

// volley finds one by its number, which wraps after months.
func (v *volleys) volley(id int32) *volley { return &v.ring[uint32(id)%volleysKept] }

// sent is the volley that a packet belongs to; 0: none.
func (v *volleys) sent(now time.Duration) int32 {
	if !v.on {
		return 0
	}
	if u := v.volley(v.n); v.n == 0 || now-u.to > volleyGap || now-u.from > volleyTime {
		v.n++
		*v.volley(v.n) = volley{from: now}
	}
	u := v.volley(v.n)
	u.to = now
	u.packets++
	return v.n
}

// acked takes in a packet of a volley. Settle follows.
func (v *volleys) acked(id int32, number int64, size int) {
	if id == 0 || id <= v.n-volleysKept {
		return
	}
	u := v.volley(id)
	u.acked++
	u.bytes += size
	switch {
	case v.newest == id:
		v.sizes++
		v.number = max(v.number, number)
	case v.newest == 0 || number > v.number:
		v.newest, v.number, v.sizes = id, number, 1
	}
}

// settle closes an event: the newest packet of it arrived when the acknowledgement left.
// Unless it was alone: then the acknowledgement may have waited for company.
func (v *volleys) settle(now time.Duration) {
	id, sizes := v.newest, v.sizes
	v.newest, v.sizes = 0, 0
	if id == 0 {
		return
	}
	u := v.volley(id)
	switch {
	case u.acks == 0:
		u.at, u.first, u.base, u.acks = now, u.acked, u.bytes, 1
		return
	case sizes == 1 || u.done:
		return
	}
	u.acks++
	if left := u.packets - u.acked; left > 1 || left == 1 && id == v.n {
		return
	}
	u.done = true
	if u.acked-u.first >= volleyPackets && u.acks >= volleyAcks {
		v.measured(now, float64(u.bytes-u.base), now-u.at, u.to-u.from)
	}
}

// measured takes in a volley that has arrived.
func (v *volleys) measured(now time.Duration, bytes float64, span, sent time.Duration) {
	if span < max(volleySpan, volleySpread*sent) {
		return
	}
	if now-v.at > volleysFor {
		v.inRow = 0
	}
	v.at = now
	copy(v.last[1:], v.last[:])
	v.last[0] = bytes / span.Seconds()
	if v.inRow++; v.inRow < volleysAgree {
		return
	}
	v.rate = v.last[0]
	for _, r := range v.last {
		v.rate = min(v.rate, r)
	}
	v.count++
}

// Volleys tells whether packets are sent in volleys, by which the path is measured: from
// then on the model believes at once in a rate that they show and that is much higher.
func (c *Controller) Volleys(yes bool) { c.sampler.volleys.on = yes }

// Carries is what the path carries by its last volleys, bytes per second, and how many
// times that was measured.
func (c *Controller) Carries() (rate float64, times uint64) {
	return c.sampler.volleys.rate, c.sampler.volleys.count
}

// takeVolleys has the model take the path at once for one that carries much more than it
// believed in, where volleys say so. In the start it grows fast enough by itself.
func (c *Controller) takeVolleys() {
	v := &c.sampler.volleys
	if v.count == v.taken {
		return
	}
	v.taken = v.count
	if !v.on || !c.full.reached || v.rate <= jumpFrom*c.bw {
		return
	}
	c.maxBW.add(min(v.rate, jumpMost*c.bw))
	c.forgetShortTerm()
	c.inFlightLong, c.tooHigh = unbounded, false
	c.bw = c.maxBW.max()
	c.window = max(c.window, c.quantized(c.bdp(c.state.gains().window)))
}
