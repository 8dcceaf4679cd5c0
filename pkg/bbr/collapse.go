package bbr

// A path whose rate falls to a fraction loses nearly all that is sent at the old one. By
// beta a round, and rounds that grow with the queue, that goes on for a second, in which
// what is sent again is lost again; a stream then stands until all of it has come. So
// while a round has lost more than it delivered only as much is sent as arrives (packet
// conservation: RFC 6675, and version 1 of BBR in the first round of a recovery), and
// after two such rounds the short-term bounds are what the last has delivered.
//
// An outage loses everything as well, but it shows at once, by the first acknowledgement of
// what was sent after it: that ends the round, and the path is as good as before.
const (
	collapseRounds = 2 // in a row
	collapseLeast  = 8 // packets that a round must have lost: fewer may be chance
)

// collapse counts rounds in a row that lose more than they deliver.
type collapse int

// close ends a round, and returns how much of the short-term bounds is kept at least.
func (l *collapse) close(lost, volume int) float64 {
	*l++
	if 2*lost <= volume {
		*l = 0
	}
	if *l >= collapseRounds {
		return 0
	}
	return beta
}

// conserve holds the window to what is in flight, plus what has arrived, while the round
// has lost more than it delivered.
func (c *Controller) conserve() {
	l := &c.loss
	if !c.full.reached || l.lost < collapseLeast*c.packet || 2*l.lost <= l.volume(c.sampler.delivered) {
		return
	}
	c.window = max(min(c.window, c.inFlight+c.rs.acked), c.leastWindow())
}
