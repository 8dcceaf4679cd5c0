package sock

import (
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hawser/pkg/nonblock"
	"hawser/pkg/party"
)

// TestHalfClosedIsProbed: what tracks connections on the way forgets one after a minute of
// silence as soon as one end has sent its FIN, and after days before.
func TestHalfClosedIsProbed(t *testing.T) {
	for _, ours := range []bool{true, false} {
		r := newRig(t)
		hold := make(chan struct{})
		c, err := Dial(r.p, kernelServer(t, "tcp", "127.0.0.1:0", func(s *net.TCPConn) {
			if !ours {
				_ = s.CloseWrite()
			}
			<-hold
		}), 0, "")
		must(t, err)
		e := r.watch(c)
		must(t, e.connected())
		if idle := probedAfter(t, c); idle < 300 || idle > 350 {
			t.Errorf("probed after %d s while both ends may speak: balancers forget after 350", idle)
		}
		if ours {
			must(t, c.CloseWrite())
		} else {
			e.wait(party.Readable)
			if _, err := e.Read(make([]byte, 1)); err != io.EOF {
				t.Error(err)
			}
		}
		if idle := probedAfter(t, c); idle > 30 {
			t.Errorf("probed after %d s of silence, ours %v", idle, ours)
		}
		c.Abort()
		close(hold)
	}
}

// probedAfter is the silence in seconds after which the kernel probes, and probes again.
func probedAfter(t *testing.T, c *Conn) int {
	t.Helper()
	idle, err := nonblock.GetInt(c.fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE)
	must(t, err)
	again, err := nonblock.GetInt(c.fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL)
	must(t, err)
	return max(idle, again)
}

// TestDialledIsProbed: by when is the poller's, and when a silent server is given up is not.
func TestDialledIsProbed(t *testing.T) {
	for _, idle := range []time.Duration{45 * time.Second, DialIdle, 20 * time.Minute} {
		r := newRig(t)
		r.p.Idle = idle
		hold := make(chan struct{})
		c, err := Dial(r.p, kernelServer(t, "tcp", "127.0.0.1:0", func(*net.TCPConn) { <-hold }), 0, "")
		must(t, err)
		must(t, r.watch(c).connected())
		if got := probedAfter(t, c); got != int(idle.Seconds()) {
			t.Errorf("probed after %d s, want %v", got, idle)
		}
		times, err := nonblock.GetInt(c.fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT)
		must(t, err)
		if most := idle + time.Duration(times)*keepInterval*time.Second; most < 19*time.Minute || most > max(20*time.Minute, idle+10*time.Minute) {
			t.Errorf("probed after %v, and given up after %v", idle, most)
		}
		c.Abort()
		close(hold)
	}
}
