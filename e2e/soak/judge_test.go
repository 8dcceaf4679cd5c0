package main

import (
	"strings"
	"testing"
	"time"
)

// TestGoroutinesGrow: what an agent has more than it had as a rule is told, not what it has
// more than in a moment without links.
func TestGoroutinesGrow(t *testing.T) {
	for _, c := range []struct {
		name   string
		middle []uint64
		rest   uint64
		grown  bool
	}{
		{"steady", []uint64{80, 80, 80, 80, 80, 80, 80, 80}, 80, false},
		{"links were down once", []uint64{80, 80, 67, 80, 80, 80, 80, 80}, 80, false},
		{"races", []uint64{80, 80, 80, 199, 80, 158, 80, 80}, 80, false},
		{"one in five minutes more", []uint64{76, 77, 78, 79, 80, 81, 82, 83}, 91, true},
		{"leak beside races", []uint64{80, 80, 80, 199, 80, 158, 80, 80}, 93, true},
	} {
		s := &soak{}
		for _, third := range [][]uint64{{70, 70, 70, 70, 70, 70, 70, 70}, c.middle, {80, 80, 80, 80, 80, 80, 80, 80}} {
			for _, n := range third {
				s.seen = append(s.seen, figures{goroutines: [2]uint64{n, 58}})
			}
		}
		var told []string
		for _, err := range s.leftover(figures{at: time.Hour, goroutines: [2]uint64{c.rest, 58}}) {
			told = append(told, err.Error())
		}
		if grown := strings.Contains(strings.Join(told, "\n"), "edge: goroutines grow"); grown != c.grown {
			t.Errorf("%s: grown %v, want %v (%q)", c.name, grown, c.grown, told)
		}
	}
}
