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
		if took, err := untilReset(r, r.origin(f, 9)); err != nil || took > 2*time.Second {
			t.Errorf("refused port: %v after %v", err, took)
		}
	})
	for _, dst := range []string{"10.77.0.1:80", "169.254.1.1:80", "[fd99::1]:80"} {
		if took, err := untilReset(r, dst); dst != "169.254.1.1:80" && (err != nil || took > 2*time.Second) {
			t.Errorf("%s, which egress denies: %v after %v", dst, err, took)
		}
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
		if took, err := untilReset(r, dst); err != nil || took > 15*time.Second {
			t.Errorf("%s: %v after %v", dst, err, took)
		}
	}
	r.quiet()
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
