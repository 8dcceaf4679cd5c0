package compress

import "time"

const (
	sampled = 1 << 10 // bytes that Worth looks at
	runs    = 8       // pieces they are taken in, spread over the block
)

// Least is the smallest block that is worth compressing, in bytes: below, the
// codecs' headers eat the gain.
const Least = 128

// Worth reports whether block looks compressible. It counts the byte values
// of at most 1 KB, taken in 8 runs: for n bytes of noise the sum of the
// squared counts is n + n(n-1)/256 with a deviation of about 2 % at 1 KB, and
// every repetition raises it. A quarter above noise counts as compressible.
func Worth(block []byte) bool {
	if len(block) < Least {
		return false
	}
	var counts [lanes][256]uint16
	n := len(block)
	if n <= sampled {
		count(&counts, block)
	} else {
		n = sampled
		step := (len(block) - sampled/runs) / (runs - 1)
		for i := range runs {
			count(&counts, block[i*step:i*step+sampled/runs])
		}
	}
	sum := 0
	for v := range counts[0] {
		c := int(counts[0][v]) + int(counts[1][v]) + int(counts[2][v]) + int(counts[3][v])
		sum += c * c
	}
	noise := n + n*(n-1)/256
	return sum > noise+noise/4
}

// lanes are the tables that bytes are counted in by turns: one counter that is raised
// again and again, as by zeros, waits each time for what was stored before.
const lanes = 4

func count(counts *[lanes][256]uint16, p []byte) {
	for ; len(p) >= lanes; p = p[lanes:] {
		counts[0][p[0]]++
		counts[1][p[1]]++
		counts[2][p[2]]++
		counts[3][p[3]]++
	}
	for _, b := range p {
		counts[0][b]++
	}
}

const (
	misses = 3  // incompressible blocks in a row before a flow is skipped
	retry  = 64 // of a skipped flow every so many blocks are tried
)

// Memory remembers how a flow's blocks compressed. The zero value is a new
// flow's.
type Memory struct {
	missed  uint8 // incompressible blocks in a row, at most misses
	skipped uint8 // blocks since the last one tried
}

// Try reports whether the next block should be compressed.
func (m *Memory) Try() bool {
	if m.missed < misses {
		return true
	}
	m.skipped++
	if m.skipped < retry {
		return false
	}
	m.skipped = 0
	return true
}

// Note tells how a block that was tried came out.
func (m *Memory) Note(saved bool) {
	switch {
	case saved:
		m.missed, m.skipped = 0, 0
	case m.missed < misses:
		m.missed++
	}
}

const (
	span = 100 * time.Millisecond // over which Chooser takes a rate
	fast = 16 << 20               // bytes/s: above, zstd would cost a tenth of a core and more
	slow = fast / 2               // bytes/s: below, zstd again
)

// Chooser picks the codec for a worker's blocks from the rate at which it
// compresses. At the rates of thin uplinks bytes are dear and zstd is used;
// when the worker is busy, s2. The zero value picks zstd.
type Chooser struct {
	since time.Time // start of the current span
	bytes int       // compressed in it
	busy  bool
}

// Note tells that n plain bytes were given to the compressor at now.
func (c *Chooser) Note(now time.Time, n int) {
	const most = int(fast * int64(span) / int64(time.Second))
	if d := now.Sub(c.since); d >= span {
		// A quiet time longer than the span counts as its bytes over all of it.
		if int64(c.bytes)*int64(time.Second) < slow*int64(d) {
			c.busy = false
		}
		c.since, c.bytes = now, 0
	}
	c.bytes += n
	if c.bytes > most {
		c.busy = true // no need to wait for the end of the span
	}
}

// Codec returns the codec to use now.
func (c *Chooser) Codec() Codec {
	if c.busy {
		return S2
	}
	return Zstd
}
