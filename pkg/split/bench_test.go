package split

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"hawser/pkg/party"
	"hawser/pkg/sock"
)

// cpu returns the CPU time that this process has used.
func cpu(t testing.TB) time.Duration {
	t.Helper()
	var ru syscall.Rusage
	must(t, syscall.Getrusage(syscall.RUSAGE_SELF, &ru))
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// run starts a program inside ns.
func run(t testing.TB, ns netns.NsHandle, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	in(t, ns, func() { must(t, cmd.Start()) })
	return cmd
}

// iperf measures one TCP transfer from the client to the server, or back.
func iperf(t testing.TB, l *lab, down bool) (gbits float64) {
	t.Helper()
	args := []string{"iperf3", "-c", "198.18.2.2", "-t", "3", "-J", "-C", "cubic"}
	if down {
		args = append(args, "-R")
	}
	cmd := exec.Command(args[0], args[1:]...)
	var out strings.Builder
	cmd.Stdout = &out
	in(t, l.client, func() { must(t, cmd.Start()) })
	if err := cmd.Wait(); err != nil {
		t.Fatalf("iperf3: %v: %s", err, out.String())
	}
	var res struct {
		End struct {
			Received struct {
				Rate float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	must(t, json.Unmarshal([]byte(out.String()), &res))
	return res.End.Received.Rate / 1e9
}

// connects opens connections for two seconds, 32 at a time, each with one
// 64-byte echo, and returns how many per second.
func connects(t testing.TB, l *lab) float64 {
	t.Helper()
	var n atomic.Int64
	var wg sync.WaitGroup
	end := time.Now().Add(2 * time.Second)
	for range 32 {
		wg.Go(func() {
			in(t, l.client, func() {
				for time.Now().Before(end) {
					c, err := net.DialTimeout("tcp", "198.18.2.2:7", 5*time.Second)
					if err != nil {
						t.Error(err)
						return
					}
					_, err = c.Write(make([]byte, 64))
					if err == nil {
						_, err = c.Read(make([]byte, 64))
					}
					if err != nil {
						t.Error(err)
					}
					_ = c.(*net.TCPConn).SetLinger(0)
					c.Close()
					n.Add(1)
				}
			})
		})
	}
	wg.Wait()
	return float64(n.Load()) / 2
}

// TestBench prints the speed of the split beside plain forwarding. The numbers
// of one run compare with each other only.
func TestBench(t *testing.T) {
	if os.Getenv("HAWSER_BENCH") == "" {
		t.Skip("set HAWSER_BENCH=1: it takes a minute and wants a quiet machine")
	}
	if _, err := exec.LookPath("iperf3"); err != nil {
		t.Skip("needs iperf3")
	}
	for _, mode := range []string{"forwarding", "split, kernel sockets", "split, hub"} {
		t.Run(mode, func(t *testing.T) {
			l := newLab(t, mode != "forwarding")
			server := run(t, l.server, "iperf3", "-s", "-J")
			defer func() {
				_ = server.Process.Kill()
				_ = server.Wait()
			}()
			l.serve("198.18.2.2:7", echoServer)
			s := l.relay(mode)
			time.Sleep(300 * time.Millisecond)
			for _, down := range []bool{false, true} {
				c0, r0 := cpu(t), Stats{}
				if s != nil {
					r0 = s.Stats()
				}
				g := iperf(t, l, down)
				line := fmt.Sprintf("%-22s down %-5v %6.2f Gbit/s", mode, down, g)
				if s != nil {
					gb := g * 3 / 8
					r1 := s.Stats()
					line += fmt.Sprintf("  %.2f CPU-s/GB  in %d B/frame  out %d B/frame  retransmits %d", (cpu(t)-c0).Seconds()/gb,
						(r1.BytesIn-r0.BytesIn)/max(1, r1.FramesIn-r0.FramesIn), (r1.BytesOut-r0.BytesOut)/max(1, r1.FramesOut-r0.FramesOut),
						r1.Retransmits-r0.Retransmits)
				}
				fmt.Println(line)
				if s != nil && os.Getenv("HAWSER_BENCH") == "2" {
					fmt.Printf("%+v\n", s.Stats())
				}
			}
			fmt.Printf("%-22s %.0f conn/s\n", mode, connects(t, l))
		})
	}
}

// relay starts a stack and a pump that joins clients to servers; nil for plain
// forwarding.
func (l *lab) relay(mode string) *Stack {
	if mode == "forwarding" {
		return nil
	}
	poller, err := sock.NewPoller()
	must(l.t, err)
	l.t.Cleanup(func() { poller.Close() })
	size := 64 << 10
	if v := os.Getenv("HAWSER_READ"); v != "" {
		fmt.Sscan(v, &size)
	}
	p := newPumpOn(l.t, poller, size)
	var s *Stack
	dial := func(dst netip.AddrPort) (party.Conn, error) { return s.Dial(dst, "") }
	if mode == "split, kernel sockets" {
		dial = func(dst netip.AddrPort) (c party.Conn, err error) {
			in(l.t, l.host, func() { c, err = sock.Dial(poller, dst, 0, "") })
			return c, err
		}
	}
	o := l.options(0, 1)
	if v := os.Getenv("HAWSER_BUF"); v != "" {
		fmt.Sscan(v, &o.Buffer)
	}
	s, _ = l.start(o, func(c *Conn) {
		p.do(func() {
			d, err := dial(c.Local())
			if err != nil {
				l.t.Error(err)
				c.Abort()
				return
			}
			p.join(c, d)
		})
	})
	return s
}

// TestBenchIdle prints the memory of idle connections. The client's ends are
// bare kernel sockets, so all of the growth is the stack's.
func TestBenchIdle(t *testing.T) {
	if os.Getenv("HAWSER_BENCH") == "" {
		t.Skip("set HAWSER_BENCH=1: it opens 10,000 connections")
	}
	const n = 10000
	l := newLab(t, true)
	conns := make(chan *Conn, n)
	s, _ := l.start(l.options(0, 1), func(c *Conn) {
		c.Watch(nopReady)
		conns <- c
	})
	rss := func() int {
		runtime.GC()
		debug.FreeOSMemory()
		p, err := os.ReadFile("/proc/self/statm")
		must(t, err)
		var size, pages int
		_, err = fmt.Sscan(string(p), &size, &pages)
		must(t, err)
		return pages * os.Getpagesize()
	}
	before := rss()
	var keep []*Conn
	in(t, l.client, func() {
		for i := range n {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
			must(t, err)
			defer unix.Close(fd)
			must(t, unix.Connect(fd, &unix.SockaddrInet4{Port: 80 + i%4, Addr: [4]byte{198, 18, 200, byte(1 + i%8)}}))
			keep = append(keep, <-conns)
		}
		fmt.Printf("%d idle connections: %.1f KB RSS each; open %d\n", n, float64(rss()-before)/n/1024, s.Stats().Open)
	})
	buf := make([]byte, 100)
	for _, c := range keep {
		if _, err := c.Read(buf); !errors.Is(err, party.ErrAgain) && err != io.EOF {
			t.Errorf("read: %v", err)
		}
	}
}

// TestBenchBusy prints the round trip of an echo while other goroutines have
// work for every processor. The client is a thread that the runtime does not
// schedule.
func TestBenchBusy(t *testing.T) {
	if os.Getenv("HAWSER_BENCH") == "" {
		t.Skip("set HAWSER_BENCH=1: it loads the machine")
	}
	l := newLab(t, true)
	p := newPump(t)
	l.start(l.options(0, 1), func(c *Conn) { p.echo(c, nil) })
	fd, err := -1, error(nil)
	in(t, l.client, func() { fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0) })
	must(t, err)
	defer unix.Close(fd)
	must(t, unix.Connect(fd, &unix.SockaddrInet4{Port: 80, Addr: [4]byte{198, 18, 200, 7}}))
	for _, busy := range []int{0, 2 * runtime.GOMAXPROCS(0)} {
		var stop atomic.Bool
		var wg sync.WaitGroup
		for range busy {
			wg.Go(func() {
				for !stop.Load() {
					for end := time.Now().Add(20 * time.Microsecond); time.Now().Before(end); {
					}
					runtime.Gosched()
				}
			})
		}
		const n = 1000
		buf := make([]byte, 64)
		start := time.Now()
		for range n {
			if _, err := unix.Write(fd, buf); err != nil {
				t.Fatal(err)
			}
			if _, err := unix.Read(fd, buf); err != nil {
				t.Fatal(err)
			}
		}
		fmt.Printf("%d busy goroutines: %v per round trip\n", busy, time.Since(start)/n)
		stop.Store(true)
		wg.Wait()
	}
}
