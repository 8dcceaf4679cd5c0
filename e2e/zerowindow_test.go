package e2e

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"hawser/e2e/lab"
	"hawser/e2e/pair"
	"hawser/pkg/guard"
)

// quickStart is how soon after the update a client's data must be on the wire,
// in one of quickTries attempts: what is beyond it in one is a busy machine.
const (
	quickStart = time.Millisecond
	quickTries = 5
)

// manner is what a client's TCP does.
type manner struct {
	name    string
	family  lab.Family
	mss     int
	sysctls map[string]string
	buffer  int // SO_RCVBUF of the server; 0: the kernel's choice
}

var manners = []manner{
	{name: "all options", family: lab.IPv4},
	{name: "IPv6, segments of 1300", family: lab.IPv6, mss: 1300},
	{name: "segments of 536, no timestamps", family: lab.IPv4, mss: 536, sysctls: map[string]string{"tcp_timestamps": "0"}},
	{name: "IPv6, no scale, no SACK", family: lab.IPv6, sysctls: map[string]string{"tcp_window_scaling": "0", "tcp_sack": "0"}},
	{name: "no options, a small server", family: lab.IPv4, buffer: 8 << 10,
		sysctls: map[string]string{"tcp_window_scaling": "0", "tcp_timestamps": "0", "tcp_sack": "0"}},
	{name: "segments of 1460, a small server", family: lab.IPv4, mss: 1460, buffer: 12 << 10},
}

// TestZeroWindow reads from captures at the client and at the server what
// zero-window promises, with the programs that are shipped, and has clients
// break its rules.
func TestZeroWindow(t *testing.T) {
	r := start(t, fast(), pair.Options{Handshake: "zero-window"})
	client, origin := r.capture("client"), r.capture("origin")
	r.serve(70, func(c *net.TCPConn) { c.Close() })
	for _, f := range []lab.Family{lab.IPv4, lab.IPv6} {
		r.mustDial(r.origin(f, 70), 20*time.Second).Close() // finds the neighbours, whose delay would look like a long round trip
	}
	for i, m := range manners {
		t.Run(m.name, func(t *testing.T) {
			for key, value := range m.sysctls {
				defer r.Sysctl("client", "net/ipv4/"+key, "1")
				if err := r.Sysctl("client", "net/ipv4/"+key, value); err != nil {
					t.Fatal(err)
				}
			}
			for attempt := range quickTries {
				port := 100 + 10*i + attempt
				local := r.heldBack(t, m, port)
				update := zeroUntilThere(t, client.of(local), m)
				answer, ok := first(origin.of(port), func(f frame) bool { return f.out && f.flags == header.TCPFlagSyn|header.TCPFlagAck })
				if !ok {
					t.Fatal("the server's SYN-ACK was not seen")
				}
				serverWindow(t, update, answer, m)
				t.Logf("%d probes, server's window %d, update opens %d, data after %v", update.probes, answer.window, update.bytes, update.data-update.at)
				if update.data-update.at <= quickStart || t.Failed() {
					return
				}
			}
			t.Errorf("in none of %d attempts the data came within %v", quickTries, quickStart)
		})
	}
	t.Run("refusal", func(t *testing.T) { r.refusedAfterAccept(t, client) })
	s, err := r.pair.Status("edge")
	if err != nil || s.Counters["guard_misjoined"]+s.Counters["guard_excess"]+s.Counters["guard_forged"] != 0 {
		t.Errorf("counters %v, %v", s.Counters, err)
	}
	t.Run("violators", r.violators)
	r.quiet()
}

// heldBack has 200 KB echoed by a server that is unreachable at first, and
// returns the client's port.
func (r *rig) heldBack(t *testing.T, m manner, port int) int {
	t.Helper()
	r.serveWith(port, m.buffer, func(c *net.TCPConn) {
		defer c.Close()
		_, _ = io.Copy(struct{ io.Writer }{c}, c)
	})
	release := r.hold(t, m.family, port)
	defer release()
	c := r.dialMSS(t, r.origin(m.family, port), m.mss)
	there := time.AfterFunc(600*ms, release) // the cloud's SYN is sent again after a second
	defer there.Stop()
	data := make([]byte, 200_000)
	_, _ = io.ReadFull(newNoise(5, int64(len(data))), data)
	go func() {
		_, _ = c.Write(data)
		_ = c.CloseWrite()
	}()
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d of %d bytes came back, %v", len(got), len(data), err)
	}
	return c.LocalAddr().(*net.TCPAddr).Port
}

// hold keeps SYNs from a port of the origin until release is called.
func (r *rig) hold(t *testing.T, f lab.Family, port int) (release func()) {
	t.Helper()
	tool := "iptables"
	if f == lab.IPv6 {
		tool = "ip6tables"
	}
	rule := []string{"INPUT", "-p", "tcp", "--dport", strconv.Itoa(port), "-j", "DROP"}
	r.mustExec("origin", append([]string{tool, "-w", "-I"}, rule...)...)
	return sync.OnceFunc(func() { _, _ = r.Exec("origin", append([]string{tool, "-w", "-D"}, rule...)...) })
}

// opened is what a capture at the client says of the update.
type opened struct {
	at, data time.Duration // of the update, and of the first data after it
	bytes    int           // that it opens
	unit     int           // of windows, in bytes
	probes   int
}

// zeroUntilThere checks one connection's segments, and returns its update.
func zeroUntilThere(t *testing.T, all []frame, m manner) (o opened) {
	t.Helper()
	if len(all) < 3 || !all[0].out || all[1].flags != header.TCPFlagSyn|header.TCPFlagAck || all[1].window != 0 {
		t.Fatalf("the handshake is %+v", all[:min(len(all), 3)])
	}
	syn, err1 := guard.ParseSYN(all[0].tcp, m.family == lab.IPv6)
	answer, err2 := guard.ParseSYN(all[1].tcp, m.family == lab.IPv6)
	if err1 != nil || err2 != nil || syn.SACK != answer.SACK || syn.Stamps != answer.Stamps || (syn.Scale < 0) != (answer.Scale < 0) || all[1].ack != syn.ISN+1 {
		t.Errorf("SYN %+v, %v; SYN-ACK %+v, %v", syn, err1, answer, err2)
	}
	o.unit = 1 << max(answer.Scale, 0)
	segmentsFit(t, all, int(syn.MSS), int(answer.MSS), m)
	answers, last := 0, 0
	for _, f := range all[2:] {
		switch {
		case f.out && f.payload > 0:
			if o.at == 0 {
				t.Fatalf("the client sent %d bytes before the update", f.payload)
			}
			o.data = f.at
			if o.probes == 0 || answers+last != o.probes {
				t.Errorf("%d probes, %d answers", o.probes, answers)
			}
			return o
		case f.out && f.seq == syn.ISN:
			o.probes++
		case !f.out && f.window == 0 && o.at == 0:
			answers++
			if f.ack != syn.ISN+1 || f.payload != 0 || f.flags != header.TCPFlagAck {
				t.Errorf("before the update came %+v", f)
			}
		case !f.out && o.at == 0:
			o.at, o.bytes = f.at, f.window*o.unit
			if answers < o.probes {
				last = 1 // the update is the last probe's answer
			}
		}
	}
	t.Fatal("no data was sent")
	return o
}

// segmentsFit checks that neither end gets longer segments than it takes, and that
// those to the client are as long as it takes them, but for options: its segment
// size has come back with the cookie.
func segmentsFit(t *testing.T, all []frame, client, edge int, m manner) {
	t.Helper()
	longest := 0
	for _, f := range all {
		switch {
		case f.out && f.segment > min(client, edge):
			t.Errorf("the client sends a segment of %d bytes", f.segment)
		case !f.out:
			longest = max(longest, f.segment)
		}
	}
	const options = 12 + 28 // timestamps, and SACK blocks
	if longest > client || longest < client-options || m.mss > 0 && client != m.mss {
		t.Errorf("the client takes segments of %d bytes, and gets up to %d", client, longest)
	}
}

// serverWindow checks what the update opens against the server's SYN-ACK: all
// that the server takes, where that is less than the edge does, but for the
// unit that the edge has announced.
func serverWindow(t *testing.T, o opened, server frame, m manner) {
	t.Helper()
	switch {
	case o.bytes > server.window:
		t.Errorf("the update opens %d bytes, the server takes %d", o.bytes, server.window)
	case m.buffer > 0 && o.bytes != server.window/o.unit*o.unit:
		t.Errorf("the update opens %d bytes, the server takes %d, the unit is %d", o.bytes, server.window, o.unit)
	case o.bytes < 1460:
		t.Errorf("the update opens %d bytes", o.bytes)
	}
}

// refusedAfterAccept: a server that refuses resets the client, which has been
// accepted with a window of 0.
func (r *rig) refusedAfterAccept(t *testing.T, c *capture) {
	before := r.counters(t)
	conn, err := r.dial(r.origin(lab.IPv4, 99), 20*time.Second)
	if err == nil { // else the reset was faster than dial
		_, err = conn.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client sees %v", err)
	}
	all := c.of(99)
	last, _ := first(all, func(f frame) bool { return f.flags&header.TCPFlagRst != 0 })
	if last.out || last.flags == 0 || len(all) < 3 || all[1].window != 0 {
		t.Errorf("reset %+v of %d segments", last, len(all))
	}
	r.counted(t, before, "resets_there_refused", 1)
}

// serveWith is serve with a receive buffer.
func (r *rig) serveWith(port, buffer int, handle func(*net.TCPConn)) {
	config := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error {
		return setSockopt(rc, unix.SOL_SOCKET, unix.SO_RCVBUF, buffer)
	}}
	var ln net.Listener
	err := r.Do("origin", func() (err error) {
		ln, err = config.Listen(context.Background(), "tcp", ":"+strconv.Itoa(port))
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { ln.Close() })
	go accepted(ln, handle)
}

// dialMSS is mustDial with a largest segment.
func (r *rig) dialMSS(t *testing.T, to string, mss int) *net.TCPConn {
	t.Helper()
	d := net.Dialer{Timeout: 10 * time.Second, Control: func(_, _ string, rc syscall.RawConn) error {
		return setSockopt(rc, unix.IPPROTO_TCP, unix.TCP_MAXSEG, mss)
	}}
	var c net.Conn
	err := r.Do("client", func() (err error) {
		c, err = d.Dial("tcp", to)
		return err
	})
	if err != nil {
		t.Fatalf("dial %s: %v", to, err)
	}
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// setSockopt sets a socket option unless its value is 0.
func setSockopt(rc syscall.RawConn, level, option, value int) error {
	if value == 0 {
		return nil
	}
	var err error
	cerr := rc.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, value) })
	return errors.Join(cerr, err)
}

// mustExec runs a program in a node.
func (r *rig) mustExec(node string, argv ...string) {
	r.t.Helper()
	if out, err := r.Exec(node, argv...); err != nil {
		r.t.Fatalf("%s: %v\n%s", joined(argv), err, out)
	}
}
