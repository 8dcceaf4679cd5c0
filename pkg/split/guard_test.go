package split

import (
	"errors"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	"hawser/pkg/guard"
)

// TestZeroWindow reads from a capture at the client what zero-window promises,
// for each set of options that a client may have.
func TestZeroWindow(t *testing.T) {
	for _, tc := range []struct {
		name    string
		v6      bool
		sysctls map[string]string
		mss     string
	}{
		{name: "ipv4"},
		{name: "ipv6", v6: true},
		{name: "no timestamps", sysctls: map[string]string{"net/ipv4/tcp_timestamps": "0"}},
		{name: "no SACK", sysctls: map[string]string{"net/ipv4/tcp_sack": "0"}},
		{name: "no scale, ipv6", v6: true, sysctls: map[string]string{"net/ipv4/tcp_window_scaling": "0"}},
		{name: "nothing", sysctls: map[string]string{"net/ipv4/tcp_window_scaling": "0", "net/ipv4/tcp_timestamps": "0", "net/ipv4/tcp_sack": "0"}},
		{name: "segments of 536", mss: "536"},
		{name: "segments of 1300, ipv6", v6: true, mss: "1300"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, true)
			l.sysctl(l.client, tc.sysctls)
			zeroWindow(t, l, tc.v6, tc.mss)
		})
	}
}

func zeroWindow(t *testing.T, l *lab, v6 bool, mss string) {
	p := newPump(t)
	conns := make(chan *Conn, 2)
	s, _ := l.start(l.guarded(guard.ZeroWindow, guard.Limits{}), func(c *Conn) {
		p.echo(c, nil)
		conns <- c
	})
	l.dial(anywhere(v6, 81)).Close() // finds the neighbours, whose delay would look like a long round trip
	(<-conns).Open(-1)
	sniff := l.sniff()
	c := l.dialMSS(anywhere(v6, 80), mss)
	port := c.LocalAddr().(*net.TCPAddr).Port
	data := random(2 << 20)
	echoed := make(chan error, 1)
	go func() { echoed <- roundTrip(c, data) }()
	// The server is there when the client has probed twice: however late it, or we, may be.
	waitFor(t, "two probes and their answers", func() bool {
		probes, answers := probing(sniff.of(port))
		return len(probes) >= 2 && len(answers) == len(probes)
	})
	there := time.Duration(time.Now().UnixNano()) // by the clock of the capture
	(<-conns).Open(-1)
	must(t, <-echoed)
	frames := sniff.of(port)
	isn := frames[0].seq
	var update seen
	for i, f := range frames {
		switch {
		case i == 1 && (f.out || f.flags != header.TCPFlagSyn|header.TCPFlagAck || f.window != 0 || f.ack != isn+1):
			t.Fatalf("the SYN-ACK is %+v", f)
		case i == 1:
			sameOptions(t, frames[0], f)
		case !f.out && update.at == 0 && f.window > 0:
			update = f
		case !f.out && update.at == 0 && i > 1:
			if f.ack != isn+1 || f.payload != 0 || f.flags != header.TCPFlagAck {
				t.Errorf("before the update came %+v", f)
			}
		case f.out && update.at == 0 && f.payload > 0:
			t.Errorf("the client sent %d bytes before the update", f.payload)
		}
	}
	// Not counted from the SYN: where the capture has only begun, the kernel may
	// stamp it as late as it is read.
	if update.at < there {
		t.Errorf("the update came at %v, the server was there at %v", update.at, there)
	}
	var first seen
	for _, f := range frames {
		if f.out && f.payload > 0 {
			first = f
			break
		}
	}
	// The stack's own window, in the unit that the SYN-ACK has announced.
	scale := 0
	if h, _ := guard.ParseSYN(frames[1].tcp, v6); h.Scale > 0 {
		scale = int(h.Scale)
	}
	if w := int(update.window) << scale; w < 20<<10 {
		t.Errorf("the update opens %d bytes", w)
	}
	probes, _ := probing(frames)
	t.Logf("%d probes; data %v after the update", len(probes), first.at-update.at)
	// Else the client's persist timer would send it: twice as long after the last probe as
	// that came after the one before. What is between is a busy machine.
	last := probes[len(probes)-1]
	timer := last + 3*(last-probes[len(probes)-2])/2
	if late := first.at - update.at; late > 200*time.Millisecond && first.at > timer {
		t.Errorf("data came %v after the update", late)
	}
	st := s.Stats()
	if st.Guard.Admitted != 2 || st.Guard.Misjoined+st.Guard.Forged+st.Guard.Excess != 0 {
		t.Errorf("%+v", st.Guard)
	}
}

// probing is when a client has probed a window of 0, and when it was told that this is
// so still, before the update.
func probing(frames []seen) (probes, answers []time.Duration) {
	for i, f := range frames {
		switch {
		case i < 2:
		case !f.out && f.window > 0:
			return probes, answers
		case !f.out:
			answers = append(answers, f.at)
		case f.seq == frames[0].seq:
			probes = append(probes, f.at)
		}
	}
	return probes, answers
}

// sameOptions checks that a SYN-ACK offers what the SYN did.
func sameOptions(t *testing.T, syn, answer seen) {
	t.Helper()
	a, err1 := guard.ParseSYN(syn.tcp, false)
	b, err2 := guard.ParseSYN(answer.tcp, false)
	if err1 != nil || err2 != nil || a.SACK != b.SACK || a.Stamps != b.Stamps || (a.Scale < 0) != (b.Scale < 0) {
		t.Errorf("SYN has %+v, %v; SYN-ACK %+v, %v", a, err1, b, err2)
	}
}

// dialMSS dials with a route that limits segments, if mss says so.
func (l *lab) dialMSS(addr, mss string) *net.TCPConn {
	if mss == "" {
		return l.dial(addr)
	}
	var c *net.TCPConn
	in(l.t, l.client, func() {
		n := 0
		for _, d := range mss {
			n = n*10 + int(d-'0')
		}
		d := net.Dialer{Timeout: ample, Control: func(_, _ string, rc syscall.RawConn) error {
			var err error
			cerr := rc.Control(func(fd uintptr) {
				err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, n)
			})
			return errors.Join(err, cerr)
		}}
		nc, err := d.Dial("tcp", addr)
		must(l.t, err)
		c = nc.(*net.TCPConn)
		l.t.Cleanup(func() { c.Close() })
		must(l.t, c.SetDeadline(time.Now().Add(ample)))
	})
	return c
}

// TestGuardRefuses: a refusal while the server is asked resets the client: in
// strict mode before it was ever connected.
func TestGuardRefuses(t *testing.T) {
	for mode, want := range map[guard.Mode]error{guard.ZeroWindow: syscall.ECONNRESET, guard.Fast: syscall.ECONNRESET, guard.Strict: syscall.ECONNREFUSED} {
		for _, v6 := range []bool{false, true} {
			l := newLab(t, true)
			s, stop := l.start(l.guarded(mode, guard.Limits{}), func(c *Conn) { time.AfterFunc(100*time.Millisecond, c.Abort) })
			c, err := l.dialErr(anywhere(v6, 80))
			if err == nil {
				_, err = c.Read(make([]byte, 1))
			}
			if !errors.Is(err, want) {
				t.Errorf("%v, ipv6 %v: %v, want %v", mode, v6, err, want)
			}
			waitFor(t, "the flow to be forgotten", func() bool { return s.keeper.opts.Gate.Status().Clients == 0 })
			stop()
		}
	}
}

// TestModesEcho: many connections at once, in every mode, with the server
// there at once and after a while; nothing stays behind.
func TestModesEcho(t *testing.T) {
	const flows = 200
	for _, mode := range []guard.Mode{guard.Fast, guard.ZeroWindow, guard.Strict, guard.Auto} {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel() // each waits for seconds until its flows are forgotten
			l := newLab(t, true)
			p := newPump(t)
			n := 0
			s, _ := l.start(l.guarded(mode, guard.Limits{}), func(c *Conn) {
				p.echo(c, nil)
				n++
				switch n % 3 {
				case 0:
					c.Open(-1)
				case 1:
					time.AfterFunc(30*time.Millisecond, func() { c.Open(-1) })
				case 2:
					time.AfterFunc(time.Duration(n)*100*time.Microsecond, func() { c.Open(-1) })
				}
			})
			data := random(100 << 10)
			var wg sync.WaitGroup
			for i := range flows {
				wg.Go(func() {
					c, err := l.dialErr(anywhere(i%2 == 0, 1+i))
					if err == nil {
						err = roundTrip(c, data)
					}
					if err != nil {
						t.Errorf("connection %d: %v", i, err)
					}
				})
			}
			wg.Wait()
			st := s.Stats()
			if st.Accepted != flows || st.Guard.Misjoined != 0 {
				t.Errorf("accepted %d: %+v", st.Accepted, st.Guard)
			}
			t.Logf("%+v", st)
			waitFor(t, "all flows to be forgotten", func() bool {
				s.keeper.mu.Lock()
				defer s.keeper.mu.Unlock()
				g := s.keeper.opts.Gate.Status()
				return len(s.keeper.flows) == 0 && g.Clients == 0 && g.Bytes == 0
			})
		})
	}
}

// TestGuardHandshakes: with a guard the stack takes as many handshakes as may
// be pending, whatever its own bound is; none is forgotten on the way, and the
// stack ends.
func TestGuardHandshakes(t *testing.T) {
	l := newLab(t, true)
	p := newPump(t)
	o := l.guarded(guard.Strict, guard.Limits{})
	o.MaxHandshakes = 1
	s, stop := l.start(o, func(c *Conn) {
		p.echo(c, nil)
		time.AfterFunc(50*time.Millisecond, func() { c.Open(-1) }) // most at the same time
	})
	var wg sync.WaitGroup
	for i := range 300 {
		wg.Go(func() {
			c, err := l.dialErr(anywhere(i%2 == 0, 1+i))
			if err == nil {
				err = roundTrip(c, []byte("hello"))
			}
			if err != nil {
				t.Errorf("connection %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	waitFor(t, "all handshakes to leave", s.door.empty)
	stop()
}

// TestGuardBulk: the translation of every segment leaves the speed and the
// bytes alone.
func TestGuardBulk(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		l := newLab(t, true)
		p := newPump(t)
		s, stop := l.start(l.guarded(guard.Auto, guard.Limits{}), func(c *Conn) {
			p.echo(c, nil)
			time.AfterFunc(50*time.Millisecond, func() { c.Open(-1) })
		})
		began := time.Now()
		must(t, roundTrip(l.dial(anywhere(v6, 80)), random(50<<20)))
		st := s.Stats()
		t.Logf("ipv6 %v: %v, %d sent again, %d timeouts", v6, time.Since(began), st.Retransmits, st.Timeouts)
		if st.GSOOut == 0 || st.BytesIn < 8<<10*st.FramesIn {
			t.Errorf("no offloading: %+v", st)
		}
		stop()
	}
}
