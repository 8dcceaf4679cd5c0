package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"hawser/pkg/link"
	"hawser/pkg/tunnel"
	"hawser/pkg/wire"
)

// TestTurnedAway: a cloud that ends connections before it has said a word, as it does while
// too many handshakes are under way, is asked less and less often, as one that refuses, and what is no cloud; a
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
		{fault(link.StepTLS, tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"}), true},
		{fault(link.StepTLS, &net.OpError{Op: "remote error", Err: errors.New("tls: no application protocol")}), true},
		{fault(link.StepTLS, &net.OpError{Op: "local error", Err: errors.New("tls: bad record MAC")}), false},
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

// TestPauses: attempts stay closest where a link was lost just now, and are seldom where
// nothing has answered for long; but one that is turned away is never closer for it.
func TestPauses(t *testing.T) {
	turnedAway := raceFirst * 5 / 4
	for _, c := range []struct {
		lost     bool
		interval time.Duration
		since    time.Duration
		want     time.Duration
	}{
		{true, raceFirst, 0, raceEager},
		{true, raceFirst, raceSoon - 1, raceEager},
		{true, raceFirst, raceSoon, raceFirst},
		{false, raceFirst, 0, raceFirst},
		{true, turnedAway, 0, turnedAway},
		{true, raceFirst, raceLong, raceFirst},
		{true, raceFirst, raceLong + 1, raceSlow},
		{false, raceMost, raceLong + 1, raceMost},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newAttempts(nil, t.Context(), c.lost)
			defer r.cancel()
			r.interval = c.interval
			time.Sleep(c.since)
			for range 100 {
				if d := r.pause(); d < c.want/2 || d >= c.want*3/2 {
					t.Fatalf("%+v: %v", c, d)
				}
			}
		})
	}
}

// TestPatientAttempt: of the attempts under way one may take as long as it likes, and the
// next one may when that has ended or what all were bound to has changed; there are at most
// raceWidth.
func TestPatientAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUplink(0, "lte", &tunnels{term: newTerm(), log: slog.New(slog.DiscardHandler)})
		dialled := make(chan bool, raceWidth+1)
		u.dial = func(ctx context.Context, _ wire.Hello) (*link.Conn, wire.Welcome, error) {
			_, hasty := ctx.Deadline()
			dialled <- hasty
			<-ctx.Done()
			return nil, wire.Welcome{}, ctx.Err()
		}
		r := newAttempts(u, t.Context(), false)
		defer r.end()
		start := func(hasty bool) {
			t.Helper()
			r.start()
			if got := <-dialled; got != hasty {
				t.Errorf("attempt %d: in haste %v, want %v", r.number, got, hasty)
			}
		}
		begin := time.Now()
		start(false)
		start(true)
		r.ended(<-r.results)
		if took := time.Since(begin); took != raceHasty || r.running != 1 {
			t.Errorf("the hasty one took %v, %d are left", took, r.running)
		}
		start(true)
		r.interval = raceMost
		if r.restart(); r.interval != raceFirst {
			t.Errorf("attempts are %v apart after a change", r.interval)
		}
		start(false)
		r.ended(<-r.results) // of before the change: the newest may still take its time
		r.ended(<-r.results)
		start(true)
		r.ended(attempt{number: r.patient})
		r.running++ // it was none of them
		start(false)
		for r.running < raceWidth {
			start(true)
		}
		r.start()
		synctest.Wait()
		if len(dialled) != 0 || r.running != raceWidth {
			t.Errorf("%d attempts at once", r.running)
		}
	})
}

// TestNoneBesideOneThatGoesOn: an attempt that hears from the cloud has the line for itself;
// others come when it hears nothing any more, and where the uplink was lost just now.
func TestNoneBesideOneThatGoesOn(t *testing.T) {
	for _, c := range []struct {
		name        string
		old         serving
		hears       bool
		after       time.Duration
		least, most int
	}{
		{"goes on", serving{}, true, 10 * time.Second, 1, 1},
		{"hears nothing", serving{}, false, 5 * time.Second, 8, 25},
		{"lost just now", serving{session: new(tunnel.Session)}, true, raceSoon - raceEager, 15, 70},
	} {
		synctest.Test(t, func(t *testing.T) {
			u := newUplink(0, "lte", &tunnels{term: newTerm(), log: slog.New(slog.DiscardHandler)})
			var dialled atomic.Int32
			u.dial = func(ctx context.Context, _ wire.Hello) (*link.Conn, wire.Welcome, error) {
				dialled.Add(1)
				<-ctx.Done()
				return nil, wire.Welcome{}, ctx.Err()
			}
			u.hears = func() bool { return c.hears }
			ctx, cancel := context.WithTimeout(t.Context(), c.after)
			defer cancel()
			if _, err := u.race(ctx, c.old, 0); err == nil {
				t.Error("the race has been won")
			}
			if attempts := int(dialled.Load()); attempts < c.least || attempts > c.most {
				t.Errorf("%s: %d attempts in %v, want %d to %d", c.name, attempts, c.after, c.least, c.most)
			}
		})
	}
}
