package link

import (
	"errors"
	"math"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSlow: what a connection is that should be paced anew, by figures of one with
// segments of 1448 bytes and a round trip of 20 ms.
func TestSlow(t *testing.T) {
	paced := func(window float64) uint64 { return uint64(startGain * window * 1448 / 0.020) }
	for name, c := range map[string]struct {
		window, inFlight, rtt uint32
		pacing                uint64
		want                  bool
	}{
		"at the start":              {10, 0, 20_000, paced(10), false},
		"after a few small objects": {28, 0, 20_000, paced(10), true},
		"the same under way":        {28, 3, 20_000, paced(10), false},
		"paced anew":                {28, 0, 20_000, paced(28), false},
		"of which little has come":  {35, 0, 20_000, paced(28), false},
		"before any round trip":     {28, 0, 0, paced(10), false},
	} {
		info := &unix.TCPInfo{Snd_cwnd: c.window, Snd_mss: 1448, Unacked: c.inFlight, Rtt: c.rtt, Pacing_rate: c.pacing}
		if got := slow(info); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// TestRenewed: BBR begins again, paced by its window, when its least round trip is
// about to be too old and there is no queue.
func TestRenewed(t *testing.T) {
	edge, _ := startCloud(t, loopback, nil).connect(TCP)
	p := edge.pipe.(*tcpPipe)
	if edge.Info().Congestion != congestionControl {
		t.Skip("no BBR here")
	}
	const slow = 1000
	p.pace(slow)
	p.pace(0) // the rate stays until something is acknowledged, or BBR begins again
	info := &unix.TCPInfo{Rtt: 20_000, Min_rtt: 20_000, Unacked: 50}
	look := func() (rate uint64) {
		_ = p.raw.Control(func(fd uintptr) {
			if p.renewal.look(int(fd), info) {
				t.Error("to drain what has no queue is no use")
			}
			if now, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
				rate = now.Pacing_rate
			}
		})
		return rate
	}
	if rate := look(); rate != slow {
		t.Skipf("paced at %d, want %d", rate, slow)
	}
	p.renewal.born = p.renewal.born.Add(-9 * time.Second)
	if rate := look(); rate < 2*slow || edge.pipeCongestion() != congestionControl {
		t.Errorf("paced at %d by %s: it has not begun again", rate, edge.pipeCongestion())
	}
}

// TestBurst: what the kernel paces by is the bound that was asked for, and none while the
// line delivers in bunches.
func TestBurst(t *testing.T) {
	edge, _ := startCloud(t, loopback, nil).connect(TCP)
	p := edge.pipe.(*tcpPipe)
	most := func() (rate int) {
		_ = p.raw.Control(func(fd uintptr) { rate, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MAX_PACING_RATE) })
		return rate
	}
	edge.Pace(200_000)
	if got := most(); got != 200_000 {
		t.Errorf("paced at %d at most, want 200000", got)
	}
	edge.Burst(true)
	edge.Pace(300_000)
	if got := most(); uint32(got) != math.MaxUint32 {
		t.Errorf("paced at %d at most on a line in bunches, want no bound", got)
	}
	edge.Burst(false)
	if got := most(); got != 300_000 {
		t.Errorf("paced at %d at most afterwards, want 300000", got)
	}
}

// TestCongestion: links ask for BBR, and where the kernel has not got what is asked for
// its default stays, which is told.
func TestCongestion(t *testing.T) {
	edge, _ := startCloud(t, loopback, nil).connect(TCP)
	name, wanted, err := Congestion()
	if err != nil || wanted != (name == congestionControl) || name != edge.Info().Congestion {
		t.Errorf("%q, %v, %v; a link has %q", name, wanted, err, edge.Info().Congestion)
	}
	stays, _, err := congestionFor("")
	if err != nil {
		t.Fatal(err)
	}
	if name, wanted, err := congestionFor("none-such"); err != nil || wanted || name != stays {
		t.Errorf("asked for what there is not: %q, %v, %v, want %q", name, wanted, err, stays)
	}
}

// TestWithoutBBR: a link whose kernel has no BBR carries both ways, paced and urged by
// the tunnel as any, and its figures are there.
func TestWithoutBBR(t *testing.T) {
	c := startCloud(t, loopback, nil)
	edge, cloud := c.connect(TCP)
	for _, end := range []*Conn{edge, cloud} {
		_ = end.pipe.(*tcpPipe).raw.Control(func(fd uintptr) { prefer(int(fd), "reno") })
		if got := end.pipeCongestion(); got != "reno" {
			t.Fatalf("congestion control is %q", got)
		}
	}
	edge.Pace(50e6)
	const records = 3000
	ended := make(chan error, 4)
	go traffic(&edge.Strand, records, ended)
	go traffic(&cloud.Strand, records, ended)
	go expect(&cloud.Strand, records, ended)
	go expect(&edge.Strand, records, ended)
	for range 4 {
		edge.Urge()
		_ = edge.Stats()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
	}
	if s := edge.Stats(); s.RTT <= 0 || s.Delivered == 0 || s.Window <= 0 {
		t.Errorf("%+v", s)
	}
}

// pipeCongestion is the congestion control that governs a TCP connection now.
func (c *Conn) pipeCongestion() string {
	var info Info
	c.pipe.describe(&info)
	return info.Congestion
}

// TestQuickened: a connection whose window has grown through many small requests
// is paced by that window, and not by the one that it began with.
func TestQuickened(t *testing.T) {
	edge, cloud := startCloud(t, loopback, nil).connect(TCP)
	p := edge.pipe.(*tcpPipe)
	if edge.Info().Congestion != congestionControl {
		t.Skip("no BBR here")
	}
	look := func() (info *unix.TCPInfo) {
		_ = p.raw.Control(func(fd uintptr) { info, _ = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
		return info
	}
	got, sent := make(chan error, 1), make(chan error, 1)
	for range 100 {
		go expect(&cloud.Strand, 1, got)
		traffic(&edge.Strand, 1, sent)
		if err := errors.Join(<-sent, <-got); err != nil {
			t.Fatal(err)
		}
		for look().Unacked > 0 {
			time.Sleep(time.Millisecond)
		}
		before := look()
		edge.Stats()
		if after := look(); slow(before) && !p.started.Load() {
			if after.Pacing_rate < 3*before.Pacing_rate/2 {
				t.Errorf("paced at %d bytes per second before, %d after", before.Pacing_rate, after.Pacing_rate)
			}
			return
		}
	}
	t.Skip("the window has not doubled before BBR's start was over")
}

// TestOthersFigures: what the kernel tells of a connection that BBR does not govern is not
// taken for BBR's: Vegas, Illinois and DCTCP have figures of their own in its place.
func TestOthersFigures(t *testing.T) {
	edge, _ := startCloud(t, loopback, nil).connect(TCP)
	p := edge.pipe.(*tcpPipe)
	for _, name := range []string{congestionControl, "reno"} {
		var lacks error
		var ok bool
		_ = p.raw.Control(func(fd uintptr) {
			lacks = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, name)
			_, ok = bbrInfo(int(fd))
		})
		if lacks != nil {
			t.Skipf("no %s here: %v", name, lacks)
		}
		if ok != (name == congestionControl) {
			t.Errorf("%s: figures of BBR's: %v", name, ok)
		}
	}
}
