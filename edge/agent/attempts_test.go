package agent

import (
	"context"
	"errors"
	"os"
	"syscall"
	"testing"

	"hawser/pkg/link"
)

// TestTurnedAway: a cloud that ends connections before it has said a word, as it does while
// too many handshakes are under way, is asked less and less often, as one that refuses; a
// path on which nothing is heard is not.
func TestTurnedAway(t *testing.T) {
	fault := func(step string, err error) error {
		return &link.StepError{Link: "lte", Transport: link.TCP, Step: step, Err: err}
	}
	for _, c := range []struct {
		err  error
		slow bool
	}{
		{fault(link.StepTLS, link.ErrPeerClosed), true},
		{errors.Join(fault(link.StepTLS, syscall.ECONNRESET), fault(link.StepTLS, link.ErrSilent)), true},
		{fault(link.StepConnect, syscall.ECONNREFUSED), true},
		{fault(link.StepConnect, syscall.ECONNRESET), false},
		{fault(link.StepTLS, link.ErrSilent), false},
		{fault(link.StepHello, link.ErrPeerClosed), false},
		{fault(link.StepConnect, os.ErrDeadlineExceeded), false},
	} {
		r := newAttempts(nil, context.Background(), true)
		for range 20 {
			r.failed(c.err)
		}
		want := raceFirst
		if c.slow {
			want = raceMost
		}
		if r.interval != want {
			t.Errorf("after %v attempts are %v apart, want %v", c.err, r.interval, want)
		}
		r.cancel()
	}
}
