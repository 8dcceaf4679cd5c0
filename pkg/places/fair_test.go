package places

import "testing"

// TestFair: who takes all that each may have gets three quarters alone, and two get three
// sevenths each, where they take turns; a third still finds places.
func TestFair(t *testing.T) {
	for _, want := range [][]int{{21}, {12, 12}} {
		free, own := 28, make([]int, len(want))
		for range 28 {
			for i := range own {
				if Fair(own[i], free) {
					own[i]++
					free--
				}
			}
		}
		for i := range own {
			if own[i] != want[i] {
				t.Errorf("one of %d has %d of 28, want %d", len(want), own[i], want[i])
			}
		}
	}
}
