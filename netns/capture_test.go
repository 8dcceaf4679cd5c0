package netns

import (
	"bytes"
	"context"
	"fmt"
	"math/bits"
	"net/netip"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// injector sends frames from hub0 to hub1.
type injector struct {
	t   *testing.T
	fd  int
	hub Hub
}

func newInjector(t *testing.T, hub Hub) *injector {
	t.Helper()
	l, err := netlink.LinkByName(hubHost)
	must(t, err)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	must(t, unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: l.Attrs().Index}))
	t.Cleanup(func() { unix.Close(fd) })
	return &injector{t: t, fd: fd, hub: hub}
}

func (i *injector) send(packet []byte) {
	if _, err := unix.Write(i.fd, ethernet(i.hub.HubMAC, i.hub.HostMAC, packet)); err != nil {
		i.t.Errorf("send on hub0: %v", err)
	}
}

// eventually waits until ok, which it asks every few milliseconds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patient); !ok(); time.Sleep(3 * time.Millisecond) {
		if time.Now().After(end) {
			t.Errorf("%s did not happen in %v", what, patient)
			return
		}
	}
}

// TestOutgoingIsDropped: the filter hears nothing that leaves, as kernels' own way of that may
// be without effect.
func TestOutgoingIsDropped(t *testing.T) {
	w := newWorld(t)
	in := newInjector(t, w.install(w.plan).Hub())
	hub, err := netlink.LinkByName(hubHost)
	must(t, err)
	listen := func(filter program) (hears func() bool) {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		must(t, err)
		t.Cleanup(func() { unix.Close(fd) })
		must(t, attach(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, filter))
		must(t, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: bits.ReverseBytes16(unix.ETH_P_ALL), Ifindex: hub.Attrs().Index}))
		return func() bool {
			_, err := unix.Read(fd, make([]byte, 2048))
			return err == nil
		}
	}
	ours := listen(incomingOnly(captureFilter(everySegment)))
	all := listen(captureFilter(everySegment))
	in.send(segmentOf(client4, remote4).packet())
	eventually(t, "the frame that leaves", all)
	if ours() {
		t.Error("a frame that leaves is heard")
	}
}

func TestCaptureTakesTCPOnly(t *testing.T) {
	for _, n := range []int{1, 3} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			w := newWorld(t)
			h := w.install(w.plan)
			stack := newEchoStack(t, h, n, FanoutSource, false)
			in := newInjector(t, h.Hub())
			want := 0
			for _, c := range filterCases() {
				in.send(c.packet)
				if c.pass {
					want++
				}
			}
			last := segmentOf(withPort(client4, 9), withPort(remote4, 9)).packet()
			in.send(last)
			eventually(t, "the last frame", func() bool { return len(stack.arrivals()) >= want+1 })
			got := stack.arrivals()
			if len(got) != want+1 {
				t.Errorf("%d frames arrived, want %d", len(got), want+1)
			}
			for _, a := range got {
				if !mayPass(a.frame) {
					t.Errorf("arrived: % x", a.frame)
				}
				if !bytes.Equal(a.frame[:6], h.Hub().HubMAC) || !bytes.Equal(a.frame[6:12], h.Hub().HostMAC) {
					t.Errorf("not between the hubs' addresses: % x", a.frame[:12])
				}
			}
		})
	}
}

// TestFanout sends while the group is being made, too: no frame may ever reach
// a worker that it is not for.
func TestFanout(t *testing.T) {
	const n, connections = 4, 600
	for _, mode := range []FanoutMode{FanoutSource, FanoutLocalPort} {
		t.Run(mode.String(), func(t *testing.T) {
			w := newWorld(t)
			h := w.install(w.plan)
			in := newInjector(t, h.Hub())
			stop, flooded := atomic.Bool{}, make(chan int)
			go flood(in, &stop, flooded)
			stack := newEchoStack(t, h, n, mode, false)
			stop.Store(true)
			early := <-flooded
			before := stack.calm()
			for i := range connections {
				for range 3 {
					in.send(segmentOf(withPort(client4, 20000+i), withPort(remote4, 1000+i)).packet())
					in.send(segmentOf(withPort(client6, 20000+i), withPort(remote6, 1000+i)).packet())
				}
			}
			eventually(t, "the last frame", func() bool { return len(stack.arrivals())-before >= 6*connections })
			got := stack.arrivals()
			t.Logf("%d frames sent while the group was made, %d of them received", early, before)
			m := vm(t, fanoutProgram(mode, n, hubAddrs{h.Hub().Hub4, h.Hub().Hub6}))
			count := [n]int{}
			for _, a := range got {
				s, _ := parseSegment(a.frame)
				want := int(s.dst.Port()) % n
				if mode == FanoutSource {
					want = worker(t, m, a.frame[etherLen:])
				}
				if a.worker != want {
					t.Fatalf("worker %d got %v -> %v, which is worker %d's", a.worker, s.src, s.dst, want)
				}
				count[a.worker]++
			}
			for _, c := range count {
				if c < len(got)/n/2 {
					t.Errorf("uneven: %v", count)
				}
			}
		})
	}
}

func flood(in *injector, stop *atomic.Bool, done chan<- int) {
	n := 0
	for ; !stop.Load(); n++ {
		in.send(segmentOf(withPort(client4, 20000+n%600), withPort(remote4, 1000+n%600)).packet())
	}
	done <- n
}

func TestTwoCapturesAtOnce(t *testing.T) {
	w := newWorld(t)
	h := w.install(w.plan)
	a, b := newEchoStack(t, h, 2, FanoutSource, false), newEchoStack(t, h, 2, FanoutSource, false)
	in := newInjector(t, h.Hub())
	for i := range 50 {
		in.send(segmentOf(withPort(client4, 2000+i), remote4).packet())
	}
	eventually(t, "both copies", func() bool { return len(a.arrivals()) == 50 && len(b.arrivals()) == 50 })
}

func TestCaptureRefuses(t *testing.T) {
	w := newWorld(t)
	h := w.install(w.plan)
	for _, bad := range []struct {
		n    int
		mode FanoutMode
	}{{0, FanoutSource}, {257, FanoutSource}, {1, 7}} {
		if _, err := h.Capture(bad.n, bad.mode); err == nil {
			t.Errorf("Capture(%d, %v) succeeded", bad.n, bad.mode)
		}
	}
	must(t, h.Close())
	if _, err := h.Capture(1, FanoutSource); err == nil {
		t.Error("Capture after Close succeeded")
	}
}

// TestNothingLeaks: neither what succeeds nor what fails keeps a descriptor or
// a goroutine.
func TestNothingLeaks(t *testing.T) {
	w := newWorld(t)
	round := func() {
		h, err := Install(w.plan, quiet)
		must(t, err)
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error)
		go func() { ended <- h.Watch(ctx, nil) }()
		fds, err := h.Capture(3, FanoutLocalPort)
		must(t, err)
		for _, fd := range fds {
			unix.Close(fd)
		}
		cancel()
		must(t, <-ended)
		must(t, h.Close())
		bad := w.plan
		bad.Clients = []string{"nosuch"}
		if _, err := Install(bad, quiet); err == nil {
			t.Fatal("Install of a missing interface succeeded")
		}
		Check(w.plan)
	}
	round()
	before, routines := descriptors(t), runtime.NumGoroutine()
	round()
	// The netlink library's closer ends a moment after its reader.
	eventually(t, "the end of what was started", func() bool {
		return descriptors(t) <= before && runtime.NumGoroutine() <= routines
	})
}

func descriptors(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(entries)
}

func TestHub(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		plan Plan
		want [4]string
	}{
		{w.plan, [4]string{"198.19.255.1", "198.19.255.2", "fd68:6177:7365::1", "fd68:6177:7365::2"}},
		{w.cloudPlan(), [4]string{"198.19.255.5", "198.19.255.6", "fd68:6177:7365::5", "fd68:6177:7365::6"}},
	} {
		h, err := Install(c.plan, quiet)
		must(t, err)
		hub := h.Hub()
		for i, got := range []netip.Addr{hub.Host4, hub.Hub4, hub.Host6, hub.Hub6} {
			if got.String() != c.want[i] {
				t.Errorf("%s: address %d is %v, want %s", c.plan.Role, i, got, c.want[i])
			}
		}
		must(t, inside(h.space, func() error {
			l, err := netlink.LinkByName(hubInner)
			must(t, err)
			a := l.Attrs()
			if a.Index != hub.Index || a.HardwareAddr.String() != hub.HubMAC.String() || a.MTU != hub.MTU || a.GSOMaxSize > bigTCP || a.GROMaxSize > bigTCP {
				t.Errorf("hub1 is %+v, Hub says %+v", a, hub)
			}
			return nil
		}))
		must(t, h.Close())
	}
}
