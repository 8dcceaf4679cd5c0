package emu

import "time"

// Fate is what became of a packet.
type Fate uint8

// The fates: Kept while the link holds the packet, Forwarded, or the cause of its drop.
const (
	Kept      Fate = iota
	Forwarded      // left the link
	Loss           // random loss
	BurstLoss      // Gilbert-Elliott loss
	QueueFull      // tail drop
	Blackhole      // silent cut
	Overflow       // the emulator's own memory bound; a measurement with any is invalid
	fates
)

// Tally counts packets and their IP bytes.
type Tally struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

func (t *Tally) add(size int) {
	t.Packets++
	t.Bytes += uint64(size)
}

// Drops counts dropped packets for each cause.
type Drops struct {
	Loss      Tally `json:"loss"`
	Burst     Tally `json:"burst"`
	Queue     Tally `json:"queue"`
	Blackhole Tally `json:"blackhole"`
	// The rest are failures of the emulator or of the set-up around it, never of
	// the emulated link; a measurement during which one of them grew is invalid.
	Overflow Tally  `json:"overflow"` // more packets in flight than the emulator holds
	Oversize Tally  `json:"oversize"` // longer than the MTU: an offload is still on
	Send     Tally  `json:"send"`     // refused by the interface
	Ring     uint64 `json:"ring"`     // packets that the pump was too late to read
}

// Counters is a reading of one direction.
type Counters struct {
	Arrived   Tally `json:"arrived"`
	Forwarded Tally `json:"forwarded"`
	Dropped   Drops `json:"dropped"`
	// Queue is what waits for the serialiser now, PeakQueueBytes the most that ever
	// did, Flying what is in the delay line.
	Queue          Tally `json:"queue"`
	PeakQueueBytes int   `json:"peak_queue_bytes"`
	Flying         int   `json:"flying"`
	// Late is how much after their due time the packets left: the emulator's own error.
	Late Lateness `json:"late"`
}

// Lateness sums up delays that are the emulator's and not the link's. The durations
// are nanoseconds in JSON. A measurement that fails while they are high says nothing.
type Lateness struct {
	Mean  time.Duration `json:"mean"`
	Worst time.Duration `json:"worst"`
	// Over1ms counts the packets that left more than a millisecond late.
	Over1ms uint64 `json:"over_1ms"`
}

// lateness is the sum behind a Lateness.
type lateness struct {
	total, worst time.Duration
	packets      uint64
	over1ms      uint64
}

func (l *lateness) add(d time.Duration) {
	l.total += d
	l.packets++
	l.worst = max(l.worst, d)
	if d > time.Millisecond {
		l.over1ms++
	}
}

func (l *lateness) reading() Lateness {
	return Lateness{Mean: l.total / time.Duration(max(1, l.packets)), Worst: l.worst, Over1ms: l.over1ms}
}

// Faults returns how many packets were dropped by the emulator itself and not by
// the emulated link. It is 0 in a valid measurement.
func (c Counters) Faults() uint64 {
	d := c.Dropped
	return d.Overflow.Packets + d.Oversize.Packets + d.Send.Packets + d.Ring
}

// tallies counts by fate.
type tallies [fates]Tally

func (t *tallies) drops() Drops {
	return Drops{Loss: t[Loss], Burst: t[BurstLoss], Queue: t[QueueFull], Blackhole: t[Blackhole], Overflow: t[Overflow]}
}
