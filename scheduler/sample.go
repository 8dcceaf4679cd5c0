package scheduler

import "time"

// Sample is what one acknowledgement says. It follows the delivery-rate
// estimation of draft-cheng-iccrg-delivery-rate-estimation.
type Sample struct {
	RTT        time.Duration // 0: no round trip measured
	Path       time.Duration // the transport's own measure, asked for by WantsPath; 0: unknown
	Delivered  int           // bytes newly delivered between the sample's packet's sending and now
	Interval   time.Duration // the time they took; the larger of the send and the ack interval
	FromRest   bool          // nothing was in flight when Interval began: it holds a whole round trip of the path
	First      int           // bytes of Delivered that the first acknowledgement since then brought
	Since      time.Duration // the time since that; 0: this is the first
	AppLimited bool          // the sender had nothing more to send
	InFlight   int           // bytes in flight after this ack
	Round      bool          // the first ack of a round trip
}

// burst is the rate in bytes per second of a flight that began at rest and met a queue,
// 0 for any other; minRTT is the least round trip and known the rate known so far.
//
// Its interval holds the round trip of the path: 50 KB over 50 Mbit/s and 20 ms look like
// 15 Mbit/s. Without that round trip it shows what the link carries, and too much where
// the least one was measured with a large chunk, which itself takes time to send. The
// time since the first acknowledgement shows too much where some were held up and came at
// once. So the less of both counts, and the first acknowledgement alone shows no growth.
func (s Sample) burst(minRTT time.Duration, known float64) float64 {
	if !s.FromRest || s.Interval <= minRTT {
		return 0
	}
	most := float64(s.Delivered) / (s.Interval - minRTT).Seconds()
	if s.Since == 0 {
		return min(most, known)
	}
	return min(most, float64(s.Delivered-s.First)/s.Since.Seconds())
}
