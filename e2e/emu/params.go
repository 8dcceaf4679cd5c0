package emu

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"
)

// Params describes one direction of a path. The zero value is a perfect wire.
type Params struct {
	// Delay is added to every packet after the queue (one way). Range 0 to 60 s.
	Delay time.Duration
	// Jitter moves the delay within Delay±Jitter (never below 0). Without Reorder
	// the delay wanders smoothly between uniform random points, never fast enough
	// to overtake; with Reorder every packet draws its own.
	Jitter  time.Duration
	Reorder bool
	// Rate of the serialiser in bit/s, counted on IP bytes. 0 means unlimited.
	Rate int64
	// QueueBytes and QueueTime bound the queue in front of the serialiser; a packet
	// that would exceed the bound is dropped (tail drop), but an empty queue always
	// takes one. QueueTime is turned into bytes at the rate, or at the mean rate of
	// the trace. Set at most one; with neither the bound is 100 ms.
	QueueBytes int
	QueueTime  time.Duration
	// Loss is the probability of dropping a packet at random, before the queue. 0 to 1.
	Loss float64
	// Burst adds correlated loss, before the queue.
	Burst Burst
	// Trace is the file name of a Mahimahi trace that replaces Rate; it starts when
	// it is set and loops. TraceScale multiplies the bytes of each delivery
	// opportunity (0 means 1), which speeds the link up and keeps its gaps.
	Trace      string
	TraceScale float64
	// Blackhole silently drops what arrives and what would leave.
	Blackhole bool
}

// Burst is a Gilbert-Elliott loss process: a two-state Markov chain that takes one
// step for each packet and loses packets with a probability that depends on the state
// (E. O. Elliott, "Estimates of Error Rates for Codes on Burst-Noise Channels", 1963).
// The zero value loses nothing.
type Burst struct {
	// Enter and Leave are the chances per packet of entering and leaving the bad state.
	Enter float64 `json:"enter"`
	Leave float64 `json:"leave"`
	// BadLoss and GoodLoss are the loss probabilities in the two states.
	BadLoss  float64 `json:"bad_loss"`
	GoodLoss float64 `json:"good_loss"`
}

// BurstOf returns the process that loses a share of all packets (0 to 1, below 1) in
// bursts of the given mean length in packets (at least 1).
func BurstOf(share, meanLength float64) Burst {
	leave := 1 / meanLength
	return Burst{Enter: leave * share / (1 - share), Leave: leave, BadLoss: 1}
}

// Share returns the long-run share of packets that the process loses.
func (b Burst) Share() float64 {
	if b.Enter == 0 {
		return b.GoodLoss
	}
	bad := b.Enter / (b.Enter + b.Leave)
	return bad*b.BadLoss + (1-bad)*b.GoodLoss
}

const (
	maxDelay     = time.Minute
	defaultQueue = 100 * time.Millisecond
)

// Validate reports the first field that is out of range.
func (p Params) Validate() error {
	for _, f := range []struct {
		name  string
		value float64
		max   float64
	}{
		{"delay", p.Delay.Seconds(), maxDelay.Seconds()},
		{"jitter", p.Jitter.Seconds(), maxDelay.Seconds()},
		{"rate", float64(p.Rate), 1e12},
		{"queue_bytes", float64(p.QueueBytes), 1 << 40},
		{"queue", p.QueueTime.Seconds(), 10 * maxDelay.Seconds()},
		{"loss", p.Loss, 1},
		{"burst.enter", p.Burst.Enter, 1},
		{"burst.leave", p.Burst.Leave, 1},
		{"burst.bad_loss", p.Burst.BadLoss, 1},
		{"burst.good_loss", p.Burst.GoodLoss, 1},
		{"trace_scale", p.TraceScale, 1e6},
	} {
		if math.IsNaN(f.value) || f.value < 0 || f.value > f.max {
			return fmt.Errorf("%s: %v is outside 0 to %v", f.name, f.value, f.max)
		}
	}
	switch {
	case p.Trace != "" && p.Rate != 0:
		return errors.New("trace and rate are both set: clear one")
	case p.QueueBytes != 0 && p.QueueTime != 0:
		return errors.New("queue_bytes and queue are both set: clear one")
	}
	return nil
}

// paramsJSON is the wire form of Params: durations are strings such as "20ms".
type paramsJSON struct {
	Delay      string  `json:"delay"`
	Jitter     string  `json:"jitter"`
	Reorder    bool    `json:"reorder"`
	Rate       int64   `json:"rate"`
	QueueBytes int     `json:"queue_bytes"`
	Queue      string  `json:"queue"`
	Loss       float64 `json:"loss"`
	Burst      Burst   `json:"burst"`
	Trace      string  `json:"trace"`
	TraceScale float64 `json:"trace_scale"`
	Blackhole  bool    `json:"blackhole"`
}

func (p Params) wire() paramsJSON {
	return paramsJSON{
		Delay: p.Delay.String(), Jitter: p.Jitter.String(), Reorder: p.Reorder, Rate: p.Rate,
		QueueBytes: p.QueueBytes, Queue: p.QueueTime.String(), Loss: p.Loss, Burst: p.Burst,
		Trace: p.Trace, TraceScale: p.TraceScale, Blackhole: p.Blackhole,
	}
}

// MarshalJSON writes every field; durations are strings such as "20ms".
func (p Params) MarshalJSON() ([]byte, error) { return json.Marshal(p.wire()) }

// UnmarshalJSON changes only the fields that the object holds, so that one object
// serves as a patch of the present values. An unknown field is an error.
func (p *Params) UnmarshalJSON(b []byte) error {
	w := p.wire()
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&w); err != nil {
		return err
	}
	next := Params{
		Reorder: w.Reorder, Rate: w.Rate, QueueBytes: w.QueueBytes, Loss: w.Loss, Burst: w.Burst,
		Trace: w.Trace, TraceScale: w.TraceScale, Blackhole: w.Blackhole,
	}
	for _, f := range []struct {
		name string
		text string
		to   *time.Duration
	}{{"delay", w.Delay, &next.Delay}, {"jitter", w.Jitter, &next.Jitter}, {"queue", w.Queue, &next.QueueTime}} {
		d, err := time.ParseDuration(f.text)
		if err != nil {
			return fmt.Errorf("%s: %q is not a duration such as 20ms", f.name, f.text)
		}
		*f.to = d
	}
	*p = next
	return nil
}
