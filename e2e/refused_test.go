package e2e

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"hawser/e2e/lab"
	"hawser/e2e/pair"
)

// TestRefused: a port where nobody listens, and destinations that the cloud
// forbids, reset the client's connection at once.
func TestRefused(t *testing.T) {
	for _, egress := range []string{"hub", "socket"} {
		t.Run(egress, func(t *testing.T) { refused(t, pair.Options{Egress: egress}) })
	}
}

func refused(t *testing.T, o pair.Options) {
	r := start(t, fast(), o)
	families(t, func(t *testing.T, f lab.Family) {
		r.resetWithin(t, r.origin(f, 9), 2*time.Second)
	})
	for _, dst := range []string{"10.77.0.1:80", "169.254.1.1:80", "[fd99::1]:80"} {
		if dst == "169.254.1.1:80" { // link-local: may not even leave the client
			_, _ = untilReset(r, dst)
			continue
		}
		r.resetWithin(t, dst, 2*time.Second)
	}
	s, err := r.pair.Status("edge")
	if err != nil || s.Sessions[0].Flows.Refused < 4 {
		t.Errorf("status counts %d refused: %v", s.Sessions[0].Flows.Refused, err)
	}
	r.quiet()
}

// TestUnreachable: a host that does not answer resets the client's connection
// when the cloud has waited long enough.
func TestUnreachable(t *testing.T) {
	r := start(t, fast(), pair.Options{})
	// An address on the origin's LAN that nobody has: the cloud's host gets no
	// neighbour. One behind a rule that swallows SYNs: nothing comes at all.
	if _, err := r.Exec("origin", "iptables", "-A", "INPUT", "-p", "tcp", "--dport", "99", "-j", "DROP"); err != nil {
		t.Fatal(err)
	}
	defer r.Exec("origin", "iptables", "-D", "INPUT", "-p", "tcp", "--dport", "99", "-j", "DROP")
	for _, dst := range []string{"198.18.200.77:80", r.origin(lab.IPv4, 99)} {
		r.resetWithin(t, dst, 15*time.Second)
	}
	r.quiet()
}

// resetWithin checks that a connection is reset, and how soon.
func (r *rig) resetWithin(t *testing.T, dst string, most time.Duration) {
	t.Helper()
	r.fairly(t, func() []string {
		took, err := untilReset(r, dst)
		if err != nil {
			t.Errorf("%s: %v after %v", dst, err, took)
		}
		var out bounds
		out.within("reset of a connection to "+dst, took, most)
		return out
	})
}

// untilReset connects and waits for the reset; the client may see it at
// connect or at its first read.
func untilReset(r *rig, dst string) (time.Duration, error) {
	begin := time.Now()
	c, err := r.dial(dst, 20*time.Second)
	if err == nil {
		defer c.Close()
		_, err = c.Read(make([]byte, 1))
	}
	took := time.Since(begin)
	switch {
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.ECONNREFUSED):
		return took, nil
	case err == nil, errors.Is(err, io.EOF):
		return took, errors.New("the connection was not reset")
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return took, errors.New("nothing came")
	}
	return took, err
}
