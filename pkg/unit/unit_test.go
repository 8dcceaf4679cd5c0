package unit

import (
	"math"
	"strconv"
	"testing"
)

func TestBytesString(t *testing.T) {
	for _, c := range []struct {
		in   Bytes
		want string
	}{
		{0, "0 B"},
		{1023, "1023 B"},
		{1024, "1.00 KiB"},
		{1536, "1.50 KiB"},
		{10 * KiB, "10.0 KiB"},
		{256 * MiB, "256 MiB"},
		{1023 * MiB, "1023 MiB"},
		{GiB - 1, "1.00 GiB"},
		{3 * TiB, "3.00 TiB"},
		{math.MaxUint64, "16.0 EiB"},
	} {
		if got := c.in.String(); got != c.want {
			t.Errorf("Bytes(%d) = %q, want %q", uint64(c.in), got, c.want)
		}
	}
}

func TestBitRateString(t *testing.T) {
	for _, c := range []struct {
		in   BitRate
		want string
	}{
		{0, "0 bit/s"},
		{999, "999 bit/s"},
		{1500, "1.50 kbit/s"},
		{45_100_000, "45.1 Mbit/s"},
		{9_999_000, "10.0 Mbit/s"},
		{999_999, "1.00 Mbit/s"},
		{8 * Gbit, "8.00 Gbit/s"},
	} {
		if got := c.in.String(); got != c.want {
			t.Errorf("BitRate(%d) = %q, want %q", uint64(c.in), got, c.want)
		}
	}
}

func TestParseBytes(t *testing.T) {
	for _, c := range []struct {
		in   string
		want Bytes
		ok   bool
	}{
		{"4096", 4096, true},
		{"4096B", 4096, true},
		{"256MiB", 256 * MiB, true},
		{"1.5 GiB", 1536 * MiB, true},
		{"64 MB", 64e6, true},
		{"2kB", 2000, true},
		{"1TiB", TiB, true},
		{"1TB", 1e12, true},
		{"3KiB", 3 * KiB, true},
		{"3GB", 3e9, true},
		{"", 0, false},
		{"MiB", 0, false},
		{"-1MiB", 0, false},
		{"1.2.3MiB", 0, false},
		{"12 parsecs", 0, false},
		{"1e3", 0, false},
		{"0x10", 0, false},
		{"9999999999TiB", 0, false},
		{"9999999999.5TiB", 0, false},
		{"99999999999999999999", 0, false},
	} {
		got, err := ParseBytes(c.in)
		if (err == nil) != c.ok || got != c.want {
			t.Errorf("ParseBytes(%q) = %d, %v; want %d, ok %v", c.in, got, err, c.want, c.ok)
		}
	}
}

func TestParseBitRate(t *testing.T) {
	for _, c := range []struct {
		in   string
		want BitRate
		ok   bool
	}{
		{"20Mbit/s", 20 * Mbit, true},
		{"1.5 Gbit/s", 1500 * Mbit, true},
		{"500kbit", 500 * Kbit, true},
		{"9600 bit/s", 9600, true},
		{"0Mbit/s", 0, true},
		{"20", 0, false},
		{"20MB/s", 0, false},
		{"20mbit/s", 0, false},
		{"-1Mbit/s", 0, false},
		{"99999999999999Gbit/s", 0, false},
		{"", 0, false},
	} {
		got, err := ParseBitRate(c.in)
		if (err == nil) != c.ok || got != c.want {
			t.Errorf("ParseBitRate(%q) = %d, %v; want %d, ok %v", c.in, got, err, c.want, c.ok)
		}
	}
}

func FuzzParseBytes(f *testing.F) {
	for _, s := range []string{"256MiB", "1.5 GiB", "0", "..", "9e9"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		b, err := ParseBytes(s)
		if err != nil {
			return
		}
		if b > math.MaxInt64 {
			t.Fatalf("ParseBytes(%q) = %d, more than fits an int64", s, b)
		}
		exact := strconv.FormatUint(uint64(b), 10)
		if again, err := ParseBytes(exact); err != nil || again != b {
			t.Fatalf("ParseBytes(%q) = %d, %v; want %d", exact, again, err, b)
		}
	})
}
