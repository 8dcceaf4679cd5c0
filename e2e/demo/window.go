package main

import "time"

// span is the time over which the rates that are shown are taken.
const span = time.Second

// window turns counters that are looked at now and then into rates over the
// last second.
type window struct{ looks []look }

type look struct {
	at     time.Time
	counts []uint64
}

// add takes a reading of all counters, always in the same order. The window
// keeps the counts.
func (w *window) add(now time.Time, counts ...uint64) {
	w.looks = append(w.looks, look{now, counts})
	for len(w.looks) > 2 && now.Sub(w.looks[1].at) >= span {
		w.looks = w.looks[1:]
	}
}

// rate returns the rate of counter i in bit/s.
func (w *window) rate(i int) float64 {
	if len(w.looks) < 2 {
		return 0
	}
	first, last := w.looks[0], w.looks[len(w.looks)-1]
	if last.counts[i] < first.counts[i] {
		return 0 // an agent that was started again counts from zero
	}
	return float64(last.counts[i]-first.counts[i]) * 8 / last.at.Sub(first.at).Seconds()
}
