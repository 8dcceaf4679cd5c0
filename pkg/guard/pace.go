package guard

import "time"

// Of how many clients at a time a server is asked that does answer: for as many as it
// answers in twice the time that an answer takes (Little's law, with as much again to
// grow by). More would wait all the same, in the cloud or on the way, where each
// costs both agents a connection and a flow; here it costs a few hundred bytes.
const (
	// crowd is for how many it is asked at least. Over 80 ms that is 1,600 a second,
	// and twice that every 160 ms if there are more.
	crowd = 128
	// paceEvery is the least time over which answers are counted.
	paceEvery = 100 * time.Millisecond
	// paceFor is how long the time of an answer is believed. Then it is measured
	// anew, with no more than crowd, so that it is not the wait of a queue of ours.
	paceFor = 10 * time.Second
)

// pace is how fast a server answers.
type pace struct {
	begun, ended uint64        // asked for since nobody was, and those of them that are over
	timed        uint64        // whose answer is awaited, counted as begun; 0: nobody's
	timedAt      time.Time     // when it was asked for that one
	least        time.Duration // that an answer took of late
	leastAt      time.Time     // when that was measured

	answers int       // since since
	since   time.Time // zero: nothing is counted yet
	rate    float64   // answers per second before that
}

// most is for how many clients at a time the server may be asked.
func (p *pace) most(now time.Time) int {
	if now.Sub(p.leastAt) > paceFor {
		return crowd
	}
	return max(crowd, int(2*p.rate*p.least.Seconds()))
}

// ask notes that the server is asked for one more, besides so many.
func (p *pace) ask(besides int, now time.Time) {
	if besides == 0 {
		p.begun, p.ended, p.timed = 0, 0, 0
	}
	p.begun++
	if p.timed == 0 && besides < crowd {
		p.timed, p.timedAt = p.begun, now
	}
}

// end notes that it is asked for one less. They end in about the order of their
// beginning, so the one that is timed is taken for over when as many are.
func (p *pace) end(answered bool, now time.Time) {
	p.ended++
	if p.timed != 0 && p.ended >= p.timed {
		p.timed = 0
		if took := now.Sub(p.timedAt); answered && (took < p.least || now.Sub(p.leastAt) > paceFor) {
			p.least, p.leastAt = took, now
		}
	}
	if !answered {
		return
	}
	p.answers++
	switch took := now.Sub(p.since); {
	case p.since.IsZero():
		p.answers, p.since = 0, now
	case took >= paceEvery:
		p.rate = float64(p.answers) / took.Seconds()
		p.answers, p.since = 0, now
	}
}
