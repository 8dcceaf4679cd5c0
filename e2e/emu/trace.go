package emu

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
	"strconv"
	"strings"
	"time"
)

// opportunityBytes is what one delivery opportunity of a trace carries, in IP bytes.
const opportunityBytes = 1500

// Trace is a Mahimahi link trace: the times at which the link could deliver 1500 bytes.
// It repeats for ever with the period of its last time stamp (Netravali et al.,
// "Mahimahi: Accurate Record-and-Replay for HTTP", USENIX ATC 2015).
type Trace struct {
	at     []uint32 // milliseconds, ascending
	period int64    // milliseconds
}

// ParseTrace reads one time stamp in milliseconds per line. Blank lines are skipped;
// the numbers must not go down and the last one must be above zero.
func ParseTrace(r io.Reader) (*Trace, error) {
	t := &Trace{}
	scan := bufio.NewScanner(r)
	for line := 1; scan.Scan(); line++ {
		text := strings.TrimSpace(scan.Text())
		if text == "" {
			continue
		}
		ms, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("trace line %d: %q is not a number of milliseconds", line, text)
		}
		if n := len(t.at); n > 0 && uint32(ms) < t.at[n-1] {
			return nil, fmt.Errorf("trace line %d: %d ms is before the line above it", line, ms)
		}
		t.at = append(t.at, uint32(ms))
	}
	if err := scan.Err(); err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	if len(t.at) == 0 || t.at[len(t.at)-1] == 0 {
		return nil, errors.New("trace: needs a time stamp above zero in its last line")
	}
	t.period = int64(t.at[len(t.at)-1])
	return t, nil
}

// LoadTrace reads a trace file.
func LoadTrace(name string) (*Trace, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	defer f.Close()
	return ParseTrace(f)
}

// Rate returns the mean rate in bit/s.
func (t *Trace) Rate() float64 {
	return float64(len(t.at)) * opportunityBytes * 8 * 1000 / float64(t.period)
}

// Bytes returns what the link could deliver from one time to another, that one
// not included.
func (t *Trace) Bytes(from, to time.Duration) float64 {
	return float64(t.First(to)-t.First(from)) * opportunityBytes
}

// Time returns when opportunity k (counted over all repetitions) occurs.
func (t *Trace) Time(k int64) time.Duration {
	n := int64(len(t.at))
	return time.Duration((k/n)*t.period+int64(t.at[k%n])) * time.Millisecond
}

// First returns the first opportunity at or after d.
func (t *Trace) First(d time.Duration) int64 {
	if d <= 0 {
		return 0
	}
	ms := int64((d + time.Millisecond - 1) / time.Millisecond)
	round := ms / t.period
	rest := uint32(ms - round*t.period)
	i := sort.Search(len(t.at), func(i int) bool { return t.at[i] >= rest })
	k := round*int64(len(t.at)) + int64(i)
	// The end of one repetition is the start of the next: a time on the seam is
	// also the time of the last opportunities before it.
	for k > 0 && t.Time(k-1) >= d {
		k--
	}
	return k
}
