package e2e

import (
	"errors"
	"fmt"
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
	t.Parallel()
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
// when the cloud has waited as long as it is told to, and not before.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	for _, egress := range []string{"hub", "socket"} {
		t.Run(egress, func(t *testing.T) {
			t.Parallel()
			unreachable(t, pair.Options{Egress: egress})
		})
	}
}

func unreachable(t *testing.T, o pair.Options) {
	const answer = 4 * time.Second
	o.Connects = "{answer_seconds: 4}"
	r := start(t, fast(), o)
	// An address on the origin's LAN that nobody has: the cloud's host gets no
	// neighbour. One behind a rule that swallows SYNs: nothing comes at all.
	if _, err := r.Exec("origin", "iptables", "-A", "INPUT", "-p", "tcp", "--dport", "99", "-j", "DROP"); err != nil {
		t.Fatal(err)
	}
	defer r.Exec("origin", "iptables", "-D", "INPUT", "-p", "tcp", "--dport", "99", "-j", "DROP")
	r.resetWithin(t, "198.18.200.77:80", 5*time.Second)
	began := time.Now()
	r.resetWithin(t, r.origin(lab.IPv4, 99), answer+2*time.Second)
	if took := time.Since(began); took < answer {
		t.Errorf("a server that is silent was given up after %v", took)
	}
	r.quiet()
}

// TestNoIPv6: where the cloud does not get anywhere by IPv6 a client that has it is refused,
// so that it goes on by IPv4, and not accepted and then reset; where it does the second
// connection is accepted at once.
func TestNoIPv6(t *testing.T) {
	t.Parallel()
	for _, egress := range []string{"hub", "socket"} {
		t.Run(egress, func(t *testing.T) {
			t.Parallel()
			r := start(t, fast(), pair.Options{Egress: egress})
			if _, err := r.Exec("cloud", "ip", "-6", "route", "add", "unreachable", "2a01:77::/32"); err != nil {
				t.Fatal(err)
			}
			defer r.Exec("cloud", "ip", "-6", "route", "del", "unreachable", "2a01:77::/32")
			servers := 0
			gone := func(when string, refused bool) {
				t.Helper()
				servers++ // another one, as each is remembered for a moment
				c, err := r.dial(fmt.Sprintf("[2a01:77::%d]:80", servers), 5*time.Second)
				if err == nil {
					defer c.Close()
					_, err = c.Read(make([]byte, 1))
				}
				// Of one that is accepted and reset at once the dial itself may tell.
				if errors.Is(err, syscall.ECONNREFUSED) != refused || !refused && !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("%s: accepted %v, then %v", when, c != nil, err)
				}
			}
			for range 4 {
				gone("at first", true)
			}
			r.serve(80, func(c *net.TCPConn) { c.Close() })
			for range 2 {
				c, err := r.dial(r.origin(lab.IPv6, 80), 5*time.Second)
				if err != nil {
					t.Fatal(err)
				}
				_, _ = c.Read(make([]byte, 1))
				c.Close()
				s, err := r.pair.Status("edge")
				if err != nil || s.Handshakes.Now6 != "fast" {
					t.Errorf("by IPv6 %v, %v", s.Handshakes, err)
				}
			}
			for range 3 {
				gone("once a server was reached", false)
			}
			gone("after three in a row", true)
			r.quiet()
		})
	}
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
