package emu

import (
	"errors"
	"io/fs"
	"math"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestBadTraces(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", "above zero"},
		{"0\n0\n", "above zero"},
		{"1\nx\n", "line 2"},
		{"5\n4\n", "line 2"},
		{"-1\n", "line 1"},
		{"99999999999\n", "line 1"},
	} {
		if _, err := ParseTrace(strings.NewReader(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: error %v, want one with %q", c.text, err, c.want)
		}
	}
}

// Every trace file of the repository loads and has the rate that its README names.
func TestRepositoryTraces(t *testing.T) {
	mbit := map[string]float64{"starlink-direct.down": 33, "starlink-direct.up": 7.7}
	files, _ := filepath.Glob("../testdata/traces/*.*")
	found := 0
	for _, name := range files {
		if ext := filepath.Ext(name); ext != ".down" && ext != ".up" {
			continue
		}
		found++
		trace, err := LoadTrace(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if want := mbit[filepath.Base(name)]; want > 0 && math.Abs(trace.Rate()/1e6-want) > 0.5 {
			t.Errorf("%s: %.1f Mbit/s, want %.1f", name, trace.Rate()/1e6, want)
		}
	}
	if found == 0 {
		t.Error("no trace files found")
	}
}

func TestLoadTraceNamesTheFile(t *testing.T) {
	if _, err := LoadTrace("no-such-file"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v, want a missing file", err)
	}
}

func FuzzParseTrace(f *testing.F) {
	f.Add("1\n2\n2\n10\n", uint32(25))
	f.Add("0\n\n7", uint32(7))
	f.Fuzz(func(t *testing.T, text string, at uint32) {
		trace, err := ParseTrace(strings.NewReader(text))
		if err != nil {
			return
		}
		d := time.Duration(at) * 100 * time.Microsecond
		k := trace.First(d)
		if trace.Time(k) < d {
			t.Fatalf("opportunity %d is at %v, before %v", k, trace.Time(k), d)
		}
		if k > 0 && trace.Time(k-1) >= d {
			t.Fatalf("opportunity %d at %v was skipped for %v", k-1, trace.Time(k-1), d)
		}
	})
}
