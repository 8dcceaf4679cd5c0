// Package unit holds the typed quantities that configuration, status and logs
// share, with one way to write each: bytes in binary multiples, bit rates in
// decimal ones, as network people read them.
//
// The package starts no goroutines.
package unit

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Bytes is an amount of data or memory, in bytes.
type Bytes uint64

// Binary multiples of a byte.
const (
	KiB Bytes = 1 << 10
	MiB Bytes = 1 << 20
	GiB Bytes = 1 << 30
	TiB Bytes = 1 << 40
)

// String returns the amount in the largest binary multiple that keeps at least
// one whole digit, with three significant digits: "1.50 GiB", "768 B".
func (b Bytes) String() string {
	return scaled(float64(b), 1024, []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"})
}

// ParseBytes reads an amount such as "4096", "256MiB", "1.5 GiB" or "64 MB".
// A number without a unit counts bytes; KiB, MiB, GiB and TiB are binary
// multiples, kB, MB, GB and TB decimal ones.
func ParseBytes(s string) (Bytes, error) {
	n, err := parse(s, "an amount of bytes", "256MiB or 2GiB", byteFactor)
	return Bytes(n), err
}

// ParseBitRate reads a rate such as "20Mbit/s", "1.5 Gbit/s" or "500kbit/s".
// The unit must be given, so that nobody mistakes bits for bytes.
func ParseBitRate(s string) (BitRate, error) {
	n, err := parse(s, "a rate", "20Mbit/s or 500kbit/s", rateFactor)
	return BitRate(n), err
}

// parse reads a number with a unit; what and example stand in its errors.
func parse(s, what, example string, factorOf func(string) (uint64, bool)) (uint64, error) {
	cut := strings.LastIndexAny(s, "0123456789.") + 1
	number, suffix := s[:cut], strings.TrimSpace(s[cut:])
	factor, ok := factorOf(suffix)
	if !ok || number == "" {
		return 0, fmt.Errorf("%q is not %s such as %s", s, what, example)
	}
	if whole, err := strconv.ParseUint(number, 10, 64); err == nil {
		if whole > math.MaxInt64/factor {
			return 0, fmt.Errorf("%q is too large %s", s, what)
		}
		return whole * factor, nil
	}
	value, err := strconv.ParseFloat(number, 64)
	if err != nil || value < 0 || strings.ContainsAny(number, "eEpPxX_+") {
		return 0, fmt.Errorf("%q is not %s such as %s", s, what, example)
	}
	if value*float64(factor) >= math.MaxInt64 {
		return 0, fmt.Errorf("%q is too large %s", s, what)
	}
	return uint64(value * float64(factor)), nil
}

func rateFactor(suffix string) (uint64, bool) {
	switch strings.TrimSuffix(suffix, "/s") {
	case "bit":
		return 1, true
	case "kbit":
		return uint64(Kbit), true
	case "Mbit":
		return uint64(Mbit), true
	case "Gbit":
		return uint64(Gbit), true
	}
	return 0, false
}

func byteFactor(suffix string) (uint64, bool) {
	switch suffix {
	case "", "B":
		return 1, true
	case "kB":
		return 1e3, true
	case "MB":
		return 1e6, true
	case "GB":
		return 1e9, true
	case "TB":
		return 1e12, true
	case "KiB":
		return uint64(KiB), true
	case "MiB":
		return uint64(MiB), true
	case "GiB":
		return uint64(GiB), true
	case "TiB":
		return uint64(TiB), true
	}
	return 0, false
}

// BitRate is a data rate, in bits per second.
type BitRate uint64

// Decimal multiples of a bit per second.
const (
	Kbit BitRate = 1e3
	Mbit BitRate = 1e6
	Gbit BitRate = 1e9
)

// String returns the rate with three significant digits: "45.1 Mbit/s".
func (r BitRate) String() string {
	return scaled(float64(r), 1000, []string{"bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s", "Pbit/s", "Ebit/s"})
}

// scaled writes value in the multiple of base that suits it. The bound is the
// value that three digits would round up to the next multiple.
func scaled(value, base float64, units []string) string {
	i := 0
	for value >= base-0.5 && i < len(units)-1 {
		value /= base
		i++
	}
	if i == 0 {
		return fmt.Sprintf("%.0f %s", value, units[0])
	}
	digits := 2
	switch {
	case value >= 99.95:
		digits = 0
	case value >= 9.995:
		digits = 1
	}
	return fmt.Sprintf("%.*f %s", digits, value, units[i])
}
