package split

import (
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	benchRounds = 5
	benchFlows  = 4
	benchTime   = time.Second
)

// BenchmarkSplice compares spliced connections with plain forwarding through
// the same host, in turns: Gbit/s and CPU seconds per GB of everything that
// takes part, medians.
func BenchmarkSplice(b *testing.B) {
	plain, user, kernel := newLab(b, false), newLab(b, true), newLab(b, true)
	kernel.shunted()
	racers := []*lab{plain, user, kernel}
	for _, l := range racers[1:] {
		l.splicing()
	}
	for _, l := range racers {
		l.serve(serverAt(false, 90), func(c *net.TCPConn) { defer c.Close(); _, _ = io.Copy(io.Discard, onlyReader{c}) })
		l.serve(serverAt(false, 91), func(c *net.TCPConn) { defer c.Close(); pour(c) })
	}
	for _, way := range []struct {
		name string
		port uint16
	}{{"upload", 90}, {"download", 91}} {
		var rates, costs [3][]float64
		for range benchRounds {
			for i, l := range racers {
				r, c := l.transfer(way.port)
				rates[i], costs[i] = append(rates[i], r), append(costs[i], c)
			}
		}
		for i, name := range []string{"forwarded", "spliced by the agent", "spliced in the kernel"} {
			b.Logf("%-8s  %-21s %5.2f Gbit/s %.3f CPU-s/GB   ratio %.2f (rounds %.2f)",
				way.name, name, median(rates[i]), median(costs[i]), median(rates[i])/median(rates[0]), ratios(rates[i], rates[0]))
		}
		b.ReportMetric(median(rates[2])/median(rates[0]), way.name+"-ratio")
	}
}

// onlyReader hides what would let io.Copy splice in the kernel.
type onlyReader struct{ io.Reader }

func pour(c *net.TCPConn) {
	buf := make([]byte, 256<<10)
	for {
		if _, err := c.Write(buf); err != nil {
			return
		}
	}
}

// transfer moves bytes for benchTime over parallel connections and returns
// Gbit/s and CPU seconds per GB.
func (l *lab) transfer(port uint16) (rate, cost float64) {
	l.t.Helper()
	var bytes atomic.Int64
	var conns []*net.TCPConn
	for range benchFlows {
		conns = append(conns, l.dial(serverAt(false, port)))
	}
	var wg sync.WaitGroup
	cpu, begin := cpuTime(), time.Now()
	for _, c := range conns {
		_ = c.SetDeadline(begin.Add(benchTime))
		wg.Go(func() {
			buf := make([]byte, 256<<10)
			for {
				move := c.Read
				if port == 90 {
					move = c.Write
				}
				n, err := move(buf)
				bytes.Add(int64(n))
				if err != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	took, n := time.Since(begin).Seconds(), float64(bytes.Load())
	cost = (cpuTime() - cpu).Seconds() / (n / 1e9)
	for _, c := range conns {
		_ = c.SetLinger(0)
		c.Close()
	}
	return n * 8 / 1e9 / took, cost
}

// cpuTime is what this process has used: both ends and the splicer; the
// kernel's forwarding runs in their system calls.
func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}

func ratios(a, b []float64) []float64 {
	var r []float64
	for i := range a {
		r = append(r, a[i]/b[i])
	}
	return r
}
