package split

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hawser/pkg/guard"
	"hawser/pkg/shunt"
)

// server4 and server6 are the lab's server.
var (
	server4 = netip.MustParseAddr("198.18.2.2")
	server6 = netip.MustParseAddr("fd00:2::2")
)

func serverAt(v6 bool, port uint16) string {
	if v6 {
		return netip.AddrPortFrom(server6, port).String()
	}
	return netip.AddrPortFrom(server4, port).String()
}

// splicing starts a stack that splices every connection. All numbers that it
// chooses are slightly below 2^32, so that they wrap in every transfer.
func (l *lab) splicing() *Stack {
	l.t.Helper()
	o := l.options(0, 1)
	if l.shunt != nil {
		l.carrier = l.shunt.Worker(0)
		o.Shunt = l.carrier
	}
	o.Direct = func(_, _ netip.AddrPort) bool { return true }
	s, err := New(o, func(c *Conn) { l.t.Error("a connection reached netstack"); c.Abort() })
	must(l.t, err)
	s.splice.isn = nearWrap
	return l.runUntilEnd(s)
}

// shunted puts the program that translates in the kernel on the hub.
func (l *lab) shunted() {
	l.t.Helper()
	var err error
	in(l.t, l.host, func() {
		l.shunt, err = shunt.New(shunt.Options{Hub: l.index(l.host, "hub0"), Hub4: hub4, Hub6: hub6, Workers: 1})
	})
	if err != nil {
		l.t.Skipf("this kernel cannot run the program: %v", err)
	}
	l.t.Cleanup(func() { must(l.t, l.shunt.Close()) })
}

// bothWays runs a test with connections that the stack carries alone, and with
// the program in the kernel.
func bothWays(t *testing.T, test func(t *testing.T, l *lab)) {
	t.Run("agent", func(t *testing.T) { test(t, newLab(t, true)) })
	t.Run("kernel", func(t *testing.T) {
		l := newLab(t, true)
		l.shunted()
		test(t, l)
	})
}

// carried complains when the kernel was to carry connections and less than some
// bytes went its way in one direction. (Segments with a FIN do not.)
func (l *lab) carried(s *Stack, flows, bytes uint64) {
	l.t.Helper()
	if l.carrier == nil {
		return
	}
	n, p := s.Stats().Spliced.Shunted, l.carrier.Passed()
	l.t.Logf("the kernel carried %d connections, %d bytes up, %d down", n, p.Bytes[0], p.Bytes[1])
	if n < flows || min(p.Bytes[0], p.Bytes[1]) < bytes {
		l.t.Errorf("want %d connections and %d bytes", flows, bytes)
	}
}

func (l *lab) runUntilEnd(s *Stack) *Stack {
	l.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	for s.net.Load() == nil || !s.running() {
		time.Sleep(100 * time.Microsecond)
	}
	l.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			l.t.Errorf("Run: %v", err)
		}
	})
	return s
}

// nearWrap is a number that a transfer of some KB takes across 2^32.
func nearWrap() uint32 { return -(1 + rand.Uint32N(40000)) }

// dialNearWrap connects from the client with an initial sequence number of its
// own that is about to wrap, too: a socket in repair mode takes one.
func (l *lab) dialNearWrap(addr string, limit time.Duration) (c *net.TCPConn, err error) {
	control := func(_, _ string, raw syscall.RawConn) error {
		var err error
		e := raw.Control(func(fd uintptr) {
			for _, o := range [][2]int{{unix.TCP_REPAIR, 1}, {unix.TCP_REPAIR_QUEUE, 2}, {unix.TCP_QUEUE_SEQ, int(int32(nearWrap()))}, {unix.TCP_REPAIR, 0}} {
				if err == nil {
					err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, o[0], o[1])
				}
			}
		})
		return errors.Join(err, e)
	}
	in(l.t, l.client, func() {
		var nc net.Conn
		if nc, err = (&net.Dialer{Timeout: limit, Control: control}).Dial("tcp", addr); err == nil {
			c = nc.(*net.TCPConn)
			err = c.SetDeadline(time.Now().Add(limit))
		}
	})
	return c, err
}

// echoes serves an echo that closes after the client has.
func (l *lab) echoes(addr string) {
	l.serve(addr, func(c *net.TCPConn) {
		defer c.Close()
		_, _ = io.Copy(c, c)
	})
}

// TestSpliceMany: a thousand transfers at a time, both ways, with numbers that
// wrap on both sides; each comes back whole.
func TestSpliceMany(t *testing.T) { bothWays(t, spliceMany) }

func spliceMany(t *testing.T, l *lab) {
	s := l.splicing()
	l.echoes(serverAt(false, 80))
	l.echoes(serverAt(true, 80))
	const flows = 1000
	data := random(48 << 10)
	turn := make(chan struct{}, 8) // each dial in a namespace takes a thread
	var failed atomic.Int32
	var wg, opened sync.WaitGroup
	opened.Add(flows)
	for i := range flows {
		wg.Go(func() {
			turn <- struct{}{}
			c, err := l.dialNearWrap(serverAt(i%2 == 1, 80), ample)
			<-turn
			opened.Done()
			if err == nil {
				defer c.Close()
				opened.Wait() // all are open at the same time
				_ = c.SetDeadline(time.Now().Add(ample))
				err = roundTrip(c, data)
			}
			if err != nil && failed.Add(1) < 5 {
				t.Errorf("flow %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	st := s.Stats()
	t.Logf("%d failed, %d frames lost, %+v", failed.Load(), st.Overruns+st.SendErrors, st.Spliced)
	if n := failed.Load(); n > 0 {
		t.Errorf("%d of %d transfers failed", n, flows)
	}
	if st.Spliced.Opened != flows || st.Spliced.BytesUp < uint64(flows*len(data)) || st.Spliced.BytesDown < uint64(flows*len(data)) || st.Accepted != 0 {
		t.Errorf("not all went around netstack: %+v", st.Spliced)
	}
	if st.SendErrors != 0 || st.Spliced.Malformed+st.Spliced.Oversize != 0 {
		t.Errorf("frames were lost: %+v", st)
	}
	waitFor(t, "all closes to be seen", func() bool { return s.Stats().Spliced.Closed == flows })
	l.carried(s, flows, uint64(flows*len(data)/4))
	if n := s.Stats().ShuntedNow; n != 0 {
		t.Errorf("the kernel still carries %d connections", n)
	}
}

// TestSpliceLoss: with 1 % of all packets lost and no offloads, recovery is the
// two ends' own: SACK and timestamps are agreed on and get through.
func TestSpliceLoss(t *testing.T) { bothWays(t, spliceLoss) }

func spliceLoss(t *testing.T, l *lab) {
	if _, err := exec.LookPath("iptables"); err != nil {
		t.Skip("needs iptables: apt-get install iptables")
	}
	s := l.splicing()
	l.offloads(l.client, "lan-c", false)
	l.offloads(l.server, "srv0", false)
	in(t, l.host, func() {
		out, err := exec.Command("iptables", "-A", "FORWARD", "-m", "statistic", "--mode", "random", "--probability", "0.01", "-j", "DROP").CombinedOutput()
		if err != nil {
			t.Skipf("the kernel has no statistic match: %s", out)
		}
	})
	l.echoes(serverAt(false, 80))
	atClient, atServer := l.sniff(), l.sniffAt(l.server, "srv0")
	const flows, size = 8, 4 << 20
	var wg sync.WaitGroup
	var sacked, again atomic.Int64
	for range flows {
		wg.Go(func() {
			c, err := l.dialNearWrap(serverAt(false, 80), ample)
			if err == nil {
				defer c.Close()
				err = roundTrip(c, random(size))
			}
			if err != nil {
				t.Error(err)
				return
			}
			info := tcpInfo(t, c)
			again.Add(int64(info.Total_retrans))
			if info.Options&3 == 3 { // TCPI_OPT_TIMESTAMPS 1, SACK 2
				sacked.Add(1)
			}
		})
	}
	wg.Wait()
	t.Logf("%d retransmissions, %+v", again.Load(), s.Stats().Spliced)
	if sacked.Load() != flows {
		t.Errorf("%d of %d clients have SACK and timestamps", sacked.Load(), flows)
	}
	if again.Load() == 0 {
		t.Error("nothing was lost")
	}
	for name, s := range map[string]*sniffer{"client": atClient, "server": atServer} {
		n := checkSACK(t, s, size)
		t.Logf("%d SACK blocks have come to the %s", n, name)
		if n == 0 {
			t.Errorf("no SACK blocks have come to the %s", name)
		}
	}
	l.carried(s, flows, flows*size*9/10)
}

func tcpInfo(t *testing.T, c *net.TCPConn) *unix.TCPInfo {
	raw, err := c.SyscallConn()
	must(t, err)
	var info *unix.TCPInfo
	_ = raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	must(t, err)
	return info
}

// TestSplicePlainEnds: servers and clients without timestamps, SACK or window
// scaling, and servers with a small MSS.
func TestSplicePlainEnds(t *testing.T) {
	plain := map[string]string{"net/ipv4/tcp_timestamps": "0", "net/ipv4/tcp_sack": "0", "net/ipv4/tcp_window_scaling": "0"}
	for name, c := range map[string]struct {
		prepare func(*lab)
		kernel  bool // carries the connection
	}{
		"server without options": {func(l *lab) { l.sysctl(l.server, plain) }, false},
		"server without timestamps": {func(l *lab) {
			l.sysctl(l.server, map[string]string{"net/ipv4/tcp_timestamps": "0"})
		}, false},
		"client without options": {func(l *lab) { l.sysctl(l.client, plain) }, true},
		"server with a small MSS": {func(l *lab) {
			// The packets would not fit, and no router says so.
			in(l.t, l.server, func() { must(l.t, exec.Command("ip", "link", "set", "srv0", "mtu", "900").Run()) })
		}, true},
		"host that sums and cuts": {func(l *lab) {
			// What the ends leave to the interfaces, the host has to do.
			for _, dev := range []string{"lan0", "wan0", "hub0"} {
				l.offloads(l.host, dev, false)
			}
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, l *lab) {
				c.prepare(l)
				s := l.splicing()
				l.echoes(serverAt(false, 80))
				conn, err := l.dialNearWrap(serverAt(false, 80), ample)
				must(t, err)
				defer conn.Close()
				must(t, roundTrip(conn, random(8<<20)))
				st := s.Stats()
				if st.SendErrors != 0 || st.Spliced.Opened != 1 || c.kernel && l.carrier != nil && st.Spliced.Shunted != 1 {
					t.Errorf("%+v", st)
				}
			})
		})
	}
}

// TestSpliceEnds: every way to end a connection looks to both kernels as it
// would without us.
func TestSpliceEnds(t *testing.T) { bothWays(t, spliceEnds) }

func spliceEnds(t *testing.T, l *lab) {
	s := l.splicing()
	got := make(chan *net.TCPConn, 1)
	l.serve(serverAt(false, 80), func(c *net.TCPConn) { got <- c })
	pair := func(t *testing.T) (client, server *net.TCPConn) {
		c, err := l.dialNearWrap(serverAt(false, 80), ample)
		must(t, err)
		srv := <-got
		must(t, srv.SetDeadline(time.Now().Add(ample)))
		t.Cleanup(func() { c.Close(); srv.Close() })
		return c, srv
	}
	t.Run("half close", func(t *testing.T) {
		c, srv := pair(t)
		must(t, c.CloseWrite())
		if n, err := srv.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Fatalf("the server reads %d, %v", n, err)
		}
		data := random(1 << 20)
		go func() { _, _ = srv.Write(data); srv.Close() }()
		if p, err := io.ReadAll(c); err != nil || len(p) != len(data) {
			t.Errorf("the client reads %d bytes, %v", len(p), err)
		}
		waitFor(t, "the close to be seen", func() bool { return s.Stats().Spliced.Closed == 1 })
	})
	// Before the resets: those count as closed only some seconds later.
	t.Run("simultaneous close", func(t *testing.T) {
		var wg sync.WaitGroup
		for range 50 {
			c, srv := pair(t)
			start := make(chan struct{})
			for _, e := range []*net.TCPConn{c, srv} {
				wg.Go(func() { <-start; _ = e.CloseWrite(); _, _ = io.Copy(io.Discard, e) })
			}
			close(start)
			wg.Wait()
		}
		waitFor(t, "all closes to be seen", func() bool { return s.Stats().Spliced.Closed == 51 })
	})
	for name, reset := range map[string]func(c, srv *net.TCPConn) *net.TCPConn{
		"reset by client": func(c, srv *net.TCPConn) *net.TCPConn { _ = c.SetLinger(0); c.Close(); return srv },
		"reset by server": func(c, srv *net.TCPConn) *net.TCPConn { _ = srv.SetLinger(0); srv.Close(); return c },
	} {
		t.Run(name, func(t *testing.T) {
			other := reset(pair(t))
			if _, err := other.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the other end reads %v, want a reset", err)
			}
		})
	}
	t.Run("refused", func(t *testing.T) {
		c, err := l.dialNearWrap(serverAt(false, 81), ample)
		if err == nil {
			_, err = c.Read(make([]byte, 1))
			c.Close()
		}
		if !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a refused connection ends with %v", err)
		}
		if s.Stats().Spliced.Refused == 0 {
			t.Error("no refusal counted")
		}
	})
	if st := s.Stats(); l.carrier != nil && (st.Spliced.Shunted < st.Spliced.Opened || st.ShuntedNow != 0) {
		t.Errorf("the kernel carried %d of %d connections, %d still", st.Spliced.Shunted, st.Spliced.Opened, st.ShuntedNow)
	}
}

// TestSpliceStop: when the stack ends, so do its connections, on both sides,
// whoever has carried what they have sent.
func TestSpliceStop(t *testing.T) {
	bothWays(t, func(t *testing.T, l *lab) {
		o := l.options(0, 1)
		o.Direct = func(_, _ netip.AddrPort) bool { return true }
		if l.shunt != nil {
			o.Shunt = l.shunt.Worker(0)
		}
		_, stop := l.start(o, nil)
		got := make(chan *net.TCPConn, 1)
		l.serve(serverAt(false, 80), func(c *net.TCPConn) { got <- c })
		c := l.dial(serverAt(false, 80))
		srv := <-got
		defer srv.Close()
		ends := map[string]*net.TCPConn{"client": c, "server": srv}
		for name, from := range ends {
			to := ends[map[string]string{"client": "server", "server": "client"}[name]]
			_, err := from.Write(make([]byte, 100000))
			must(t, err)
			_, err = io.ReadFull(to, make([]byte, 100000))
			must(t, err)
		}
		stop()
		for name, e := range ends {
			_ = e.SetReadDeadline(time.Now().Add(ample))
			if _, err := e.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the %s reads %v, want a reset", name, err)
			}
		}
	})
}

// TestSpliceAsks: behind the guard a client's SYN is passed on, and answered when the server
// has answered: a refusal is one.
func TestSpliceAsks(t *testing.T) {
	l := newLab(t, true)
	l.echoes(serverAt(false, 80))
	l.echoes(serverAt(true, 80))
	o := l.guarded(guard.Fast, guard.Limits{})
	o.Direct = func(_, _ netip.AddrPort) bool { return true }
	s, err := New(o, func(c *Conn) { t.Error("a connection reached netstack"); c.Abort() })
	must(t, err)
	l.runUntilEnd(s)
	for _, v6 := range []bool{false, true} {
		if _, err := l.dialErr(serverAt(v6, 81)); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("IPv6=%v: nobody listens, and the client is told %v", v6, err)
		}
		c := l.dial(serverAt(v6, 80))
		must(t, exchange(c))
		must(t, c.CloseWrite())
		if n, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("IPv6=%v: %d bytes, %v after the end", v6, n, err)
		}
	}
	if st := s.Stats(); st.Guard.Answers != 0 || st.Spliced.Refused != 2 || st.Spliced.Opened != 2 || st.Spliced.Discarded != 0 {
		t.Errorf("%+v, %+v", st.Guard, st.Spliced)
	}
	waitFor(t, "the door to be left", func() bool { return o.Guard.Gate.Status().Pending == 0 })
}

// TestSpliceBounds: behind the guard spliced connections count among a client's,
// pending and open, as those of netstack do.
func TestSpliceBounds(t *testing.T) {
	l := newLab(t, true)
	l.echoes(serverAt(false, 80))
	o := l.guarded(guard.Auto, guard.Limits{Pending: 8, PendingClient: 3, OpenClient: 5})
	o.Direct = func(_, _ netip.AddrPort) bool { return true }
	s, err := New(o, func(c *Conn) { t.Error("a connection reached netstack"); c.Abort() })
	must(t, err)
	l.runUntilEnd(s)
	gate := o.Guard.Gate
	// 198.18.2.9 is on the server's network and answers nothing.
	var dials sync.WaitGroup
	for range 6 {
		dials.Go(func() { _, _ = l.dialErr("198.18.2.9:80") }) // those that find none waiting are not answered
	}
	t.Cleanup(dials.Wait)
	waitFor(t, "the client's bound", func() bool { return s.Stats().Guard.Greedy > 0 })
	if g := gate.Status(); g.Pending != 3 || s.Stats().SplicedNow != 3 {
		t.Errorf("%d connections pending, want 3: %+v", s.Stats().SplicedNow, g)
	}
	waitFor(t, "the dead to be given up", func() bool { return gate.Status().Clients == 0 && s.Stats().SplicedNow == 0 })
	for range 5 {
		must(t, exchange(l.dial(serverAt(false, 80)))) // and stays
	}
	before := s.Stats()
	c, err := l.dialErr(serverAt(false, 80))
	must(t, err) // its handshake costs nothing
	must(t, c.SetDeadline(time.Now().Add(700*time.Millisecond)))
	if exchange(c) == nil {
		t.Error("a connection beyond the client's bound works")
	}
	waitFor(t, "the refusal", func() bool { return s.Stats().Guard.Greedy > before.Guard.Greedy })
	if st := s.Stats(); st.Spliced.Opened != 5 {
		t.Errorf("%+v, %+v", st.Guard, st.Spliced)
	}
}

// exchange has some bytes echoed.
func exchange(c net.Conn) error {
	if _, err := c.Write(make([]byte, 1000)); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 1000))
	return err
}
