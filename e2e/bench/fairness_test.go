package main

import (
	"math"
	"testing"
)

func TestFairnessFigures(t *testing.T) {
	if got := jain([]float64{3, 3, 3}); math.Abs(got-1) > 1e-9 {
		t.Errorf("Jain's index of equals: %v", got)
	}
	if got := jain([]float64{4, 0, 0, 0}); math.Abs(got-0.25) > 1e-9 {
		t.Errorf("Jain's index of one of four: %v", got)
	}
	off := weightErrors([]float64{10, 20, 33}, []int{1, 2, 3})
	if math.Abs(off[2]-33/63.0*2+1) > 1e-9 || off[0] >= 0 || math.Abs(off[0]-off[1]) > 1e-9 {
		t.Errorf("errors of weights: %v", off)
	}
}
