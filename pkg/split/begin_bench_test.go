package split

import (
	"context"
	"encoding/binary"
	"net/netip"
	"runtime"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"hawser/pkg/guard"
	"hawser/pkg/party"
)

// deaf returns a packet socket to which nothing comes, and which sends nothing.
func deaf(t testing.TB) int {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Skip("needs root:", err)
	}
	return fd
}

// beginning measures what one costs on a stack that nobody answers.
func beginning(b *testing.B, o Options, one func(s *Stack, i uint32)) {
	o.FD, o.HubMAC, o.HostMAC, o.KeepAlive = deaf(b), []byte(lanClient), []byte(lanClient), -1
	s, err := New(o, func(*Conn) {})
	must(b, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	for s.net.Load() == nil {
		runtime.Gosched()
	}
	b.ReportAllocs()
	before := cpu(b)
	b.ResetTimer()
	b.SetParallelism(16)
	var next atomic.Uint32
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			one(s, next.Add(1))
		}
	})
	b.StopTimer()
	b.ReportMetric((cpu(b)-before).Seconds()*1e6/float64(b.N), "CPU-us/op")
	cancel()
	must(b, <-done)
}

// BenchmarkJoin is what a client's connection costs from when its server is there
// until netstack has it, and its end.
func BenchmarkJoin(b *testing.B) {
	tcp := make([]byte, 20)
	tcp[12] = 5 << 4
	binary.BigEndian.PutUint32(tcp[8:], 2)
	o := Options{Guard: &GuardOptions{SYN: deaf(b), Gate: NewGate(guard.ZeroWindow, guard.Limits{Pending: 1 << 16})}}
	beginning(b, o, func(s *Stack, i uint32) {
		e := guard.Ends{ClientPort: 1024, ServerPort: 80}
		put(&e.Client, []byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		put(&e.Server, []byte{198, 18, 200, 7})
		w, asked := s.keeper.enroll(&e, true, func() *ward {
			return &ward{ends: e, flow: guard.NewFlow(guard.Hello{ISN: 1, MSS: 1460}, 1, false, tcp)}
		})
		if !asked {
			b.Error("a client has to wait")
			return
		}
		s.keeper.begin(w, false)
		up := make(chan struct{}, 1)
		w.conn.Watch(func(party.Ready) {
			select {
			case up <- struct{}{}:
			default:
			}
		})
		w.conn.Open(-1)
		<-up
		w.conn.Abort()
	})
}

// BenchmarkDial is what a connection to a server costs until its SYN has left, and its
// end.
func BenchmarkDial(b *testing.B) {
	beginning(b, Options{Hub4: hub4}, func(s *Stack, i uint32) {
		c, err := s.Dial(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 2, byte(i >> 8), byte(i)}), 80), "")
		if err != nil {
			b.Error(err)
			return
		}
		c.Watch(nopReady)
		c.Abort()
	})
}
