package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// agents builds agents whose cards have faults, where those are wanted, and has
// the lab take them. remove takes them away again.
func (s *soak) agents() (remove func(), err error) {
	if !s.flaws {
		return func() {}, nil
	}
	dir, err := os.MkdirTemp("", "hawser-soak-")
	if err != nil {
		return nil, err
	}
	for _, role := range roles {
		build := exec.Command("go", "build", "-tags", "cardfaults", "-o", filepath.Join(dir, "hawser-"+role), "hawser/"+role)
		if out, err := build.CombinedOutput(); err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w: %s", build, err, out), os.RemoveAll(dir))
		}
	}
	return func() { _ = os.RemoveAll(dir) }, os.Setenv("HAWSER_BIN", dir)
}

// flawsAfter is how long a run must be for its cards to have met faults for sure.
const flawsAfter = 5 * time.Minute

// cards says what the agents' cards have gone through. Faults that did not happen
// show nothing.
func (s *soak) cards() (bad []error) {
	for _, role := range roles {
		status, err := s.pair.Status(role)
		if err != nil {
			bad = append(bad, err)
			continue
		}
		n := status.Counters
		fmt.Printf("%s: card given up %d times, %d jobs done again, %d results late, %d wrong\n",
			role, n["card_failures"], n["card_jobs_again"], n["card_jobs_late"], n["card_jobs_wrong"])
		if s.flaws && n["card_failures"] == 0 && time.Since(s.began) > flawsAfter {
			bad = append(bad, fmt.Errorf("%s: its card has met no fault", role))
		}
	}
	return bad
}
