package split

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"hawser/pkg/party"
)

// lose makes the host drop percent of all forwarded packets.
func (l *lab) lose(percent int) {
	l.t.Helper()
	in(l.t, l.host, func() {
		for _, tool := range []string{"iptables", "ip6tables"} {
			path, err := exec.LookPath(tool)
			if err != nil {
				l.t.Skip("needs iptables: it makes the loss")
			}
			out, err := exec.Command(path, "-w", "-A", "FORWARD", "-m", "statistic", "--mode", "random",
				"--probability", fmt.Sprintf("%.3f", float64(percent)/100), "-j", "DROP").CombinedOutput()
			if err != nil {
				l.t.Skipf("needs iptables with the statistic match: %v: %s", err, out)
			}
		}
	})
}

// echoServer is a kernel server that sends back what it gets. It hides c's
// methods: splice would keep pipes, which the leak tests would count.
func echoServer(c *net.TCPConn) {
	_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
	c.Close()
}

func TestDial(t *testing.T) {
	l := newLab(t, false)
	l.serve("198.18.2.2:7", echoServer)
	l.serve("[fd00:2::2]:7", echoServer)
	s, _ := l.start(l.options(0, 1), nil)
	for _, dst := range []string{"198.18.2.2:7", "[fd00:2::2]:7", "[::ffff:198.18.2.2]:7"} {
		t.Run(dst, func(t *testing.T) {
			c, err := s.Dial(netip.MustParseAddrPort(dst), "")
			must(t, err)
			w := watch(t, c)
			must(t, w.connected())
			data := random(8 << 20)
			read := make(chan []byte, 1)
			// One goroutine only may use the Conn: write and read in turns.
			go func() {
				var got []byte
				left := data
				buf := make([]byte, 64<<10)
				for len(got) < len(data) {
					n, _ := c.Write(left[:min(len(left), 256<<10)])
					left = left[n:]
					m, err := c.Read(buf)
					got = append(got, buf[:m]...)
					if errors.Is(err, party.ErrAgain) && n == 0 {
						w.wait(party.Readable | party.Writable)
					}
				}
				read <- got
			}()
			if got := <-read; !bytes.Equal(got, data) {
				t.Fatal("the echo differs")
			}
			must(t, c.CloseWrite())
			if _, err := w.read(1); err != io.EOF {
				t.Errorf("read: %v, want EOF", err)
			}
			c.Close()
		})
	}
	if st := s.Stats(); st.Dialed != 3 || st.DialFails != 0 {
		t.Errorf("dialed %d, failed %d; want 3, 0", st.Dialed, st.DialFails)
	}
}

func TestDialFails(t *testing.T) {
	l := newLab(t, false)
	l.route(l.host, netlink.Route{Type: unix.RTN_BLACKHOLE}, "198.18.77.0/24", "", "")
	l.route(l.host, netlink.Route{Type: unix.RTN_UNREACHABLE}, "198.18.78.0/24", "", "")
	l.route(l.host, netlink.Route{Type: unix.RTN_UNREACHABLE}, "fd00:78::/64", "", "")
	l.route(l.host, netlink.Route{Type: unix.RTN_PROHIBIT}, "198.18.79.0/24", "", "")
	l.route(l.host, netlink.Route{Type: unix.RTN_PROHIBIT}, "fd00:79::/64", "", "")
	o := l.options(0, 1)
	o.DialTimeout = 3 * time.Second
	// A fresh veth may lose the first SYN; the second follows after a second.
	const soon = 2500 * time.Millisecond
	s, _ := l.start(o, nil)
	for _, tc := range []struct {
		name, dst string
		want      error
		from, to  time.Duration
	}{
		{"refused", "198.18.2.2:9", party.ErrRefused, 0, soon},
		{"refused ipv6", "[fd00:2::2]:9", party.ErrRefused, 0, soon},
		{"silent", "198.18.77.1:9", party.ErrUnreachable, 2900 * time.Millisecond, 6 * time.Second},
		{"icmp unreachable", "198.18.78.1:9", party.ErrUnreachable, 0, soon},
		{"icmp unreachable ipv6", "[fd00:78::1]:9", party.ErrUnreachable, 0, soon},
		{"icmp prohibited", "198.18.79.1:9", party.ErrUnreachable, 0, soon},
		{"icmp prohibited ipv6", "[fd00:79::1]:9", party.ErrUnreachable, 0, soon},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := failingDial(t, s, tc.dst, tc.want)
			for try := 1; try < 3 && d > tc.to; try++ { // the machine may have been busy
				d = failingDial(t, s, tc.dst, tc.want)
			}
			if d < tc.from || d > tc.to {
				t.Errorf("took %v, want %v to %v", d, tc.from, tc.to)
			}
		})
	}
}

// failingDial dials what fails and returns after how long it did.
func failingDial(t *testing.T, s *Stack, dst string, want error) time.Duration {
	t.Helper()
	start := time.Now()
	c, err := s.Dial(netip.MustParseAddrPort(dst), "")
	must(t, err)
	w := watch(t, c)
	if err := w.connected(); !errors.Is(err, want) {
		t.Errorf("connected: %v, want %v", err, want)
	}
	d := time.Since(start)
	if err := c.Connected(); !errors.Is(err, want) {
		t.Errorf("connected, asked again: %v, want %v", err, want)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, want) {
		t.Errorf("read: %v, want %v", err, want)
	}
	c.Abort()
	return d
}

func TestDialAbortedWhileConnecting(t *testing.T) {
	l := newLab(t, false)
	l.route(l.host, netlink.Route{Type: unix.RTN_BLACKHOLE}, "198.18.77.0/24", "", "")
	s, _ := l.start(l.options(0, 1), nil)
	for range 100 {
		c, err := s.Dial(netip.MustParseAddrPort("198.18.77.1:9"), "")
		must(t, err)
		watch(t, c)
		c.Abort()
	}
	if n := len(s.net.Load().RegisteredEndpoints()); n != 0 {
		t.Errorf("%d endpoints are left", n)
	}
}

func TestDialWithoutRun(t *testing.T) {
	l := newLab(t, false)
	s, err := New(l.options(0, 1), nil)
	must(t, err)
	defer s.file.Close()
	if _, err := s.Dial(netip.MustParseAddrPort("198.18.2.2:7"), ""); !errors.Is(err, ErrNotRunning) || !errors.Is(err, party.ErrUnreachable) {
		t.Errorf("dial: %v, want ErrNotRunning and ErrUnreachable", err)
	}
}

func TestLocalPorts(t *testing.T) {
	for _, tc := range []struct{ worker, workers int }{{0, 1}, {0, 2}, {1, 2}, {2, 3}, {4, 7}, {1023, 1024}} {
		p := newPorts(tc.worker, tc.workers)
		seen := make(map[uint16]bool)
		for range 20000 {
			port := p.take(portSteps)
			if port < firstPort || int(port)%tc.workers != tc.worker {
				t.Fatalf("worker %d of %d got port %d", tc.worker, tc.workers, port)
			}
			seen[port] = true
		}
		if want := min(20000, 64512/tc.workers) / 3; len(seen) < want {
			t.Errorf("worker %d of %d: %d different ports, want at least %d", tc.worker, tc.workers, len(seen), want)
		}
	}
}

func TestManyDialsShareNoPort(t *testing.T) {
	l := newLab(t, false)
	l.serve("198.18.2.2:7", echoServer)
	l.serve("198.18.2.2:8", echoServer)
	s, _ := l.start(l.options(0, 1), nil)
	s.ports.count = 300 // few, so that dials collide
	seen := make(map[string]bool)
	for i := range 500 {
		dst := netip.MustParseAddrPort(fmt.Sprintf("198.18.2.2:%d", 7+i%2))
		c, err := s.Dial(dst, "")
		must(t, err)
		key := fmt.Sprint(c.Local(), dst)
		if seen[key] {
			t.Fatalf("%s is used twice", key)
		}
		seen[key] = true
		must(t, watch(t, c).connected())
		defer c.Abort()
	}
}

func TestTwoWorkers(t *testing.T) {
	l := newLab(t, true)
	l.serve("198.18.2.2:7", echoServer)
	var stacks [2]*Stack
	for i := range stacks {
		p := newPump(t)
		stacks[i], _ = l.start(l.options(i, 2), func(c *Conn) { p.echo(c, nil) })
	}
	for i := range 8 { // sources with odd and even last byte
		l.addr(l.client, "lan-c", fmt.Sprintf("198.18.1.%d/24", 10+i))
	}
	data := random(200 << 10)
	for i := range 8 {
		in(t, l.client, func() {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(198, 18, 1, byte(10+i))}, Timeout: ample}
			c, err := d.Dial("tcp", anywhere(false, 80))
			must(t, err)
			must(t, roundTrip(c.(*net.TCPConn), data))
			c.Close()
		})
	}
	for i, s := range stacks {
		if n := s.Stats().Accepted; n != 4 {
			t.Errorf("worker %d accepted %d connections, want 4", i, n)
		}
		for range 20 {
			c, err := s.Dial(netip.MustParseAddrPort("198.18.2.2:7"), "")
			must(t, err)
			w := watch(t, c)
			must(t, w.connected())
			must(t, w.write([]byte("hello")))
			if p, err := w.read(5); string(p) != "hello" {
				t.Errorf("worker %d: echo %q, %v", i, p, err)
			}
			c.Abort()
		}
	}
}

// TestOffered: a dialled connection knows what its server takes at first.
func TestOffered(t *testing.T) {
	l := newLab(t, false)
	l.serve("198.18.2.2:7", echoServer)
	l.serve("[fd00:2::2]:7", echoServer)
	l.sysctl(l.server, map[string]string{"net/ipv4/tcp_rmem": "4096 8192 8192"})
	l.serve("198.18.2.2:8", echoServer)
	s, _ := l.start(l.options(0, 1), nil)
	for dst, want := range map[string][2]int{
		"198.18.2.2:7": {20_000, 65_535}, "[fd00:2::2]:7": {20_000, 65_535}, "198.18.2.2:8": {1000, 8192},
	} {
		c, err := s.Dial(netip.MustParseAddrPort(dst), "")
		must(t, err)
		must(t, watch(t, c).connected())
		if n := c.Offered(); n < want[0] || n > want[1] {
			t.Errorf("%s offers %d bytes, want %v", dst, n, want)
		}
		c.Abort()
	}
	if n := s.in.offers.count.Load(); n != 0 {
		t.Errorf("%d dials are still looked for", n)
	}
}
